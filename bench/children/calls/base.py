"""What the ends of calls have in common, whoever carries them."""

import threading

__all__ = ["Caller", "Server"]


class Server:
    """The end that is called, by several at a time; `address` is where."""

    address = ""

    def start(self, function):
        """Call a function, which does not return, in a thread."""
        threading.Thread(target=function, daemon=True).start()

    def close(self):
        """Let go of everything."""


class Caller:
    """The end that calls, from one thread."""

    def __init__(self, address):
        self._address = address

    def prepared(self, argument):
        """Return an argument as `call` takes it, made beforehand."""
        return argument

    def call(self, argument):
        """Return what the server makes of the argument, which is the same."""
        raise NotImplementedError

    def begin(self, argument):
        """Begin a call; return a function that waits for its result. They are called in the same order."""
        raise NotImplementedError

    def alike(self):
        """Return a caller for another thread, which is this one where threads may share it."""
        return type(self)(self._address)

    def concurrently(self, functions):
        """Call all functions, each in a thread, and return when they have returned."""
        threads = [threading.Thread(target=function) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self):
        """Let go of everything."""
