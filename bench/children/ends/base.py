"""What the ends of all systems have in common."""

import asyncio
import threading
import time

from children import messages

__all__ = ["AwaitingReceiver", "BlockingReceiver", "IteratingReceiver", "JSONSender", "PushedReceiver", "Sender"]


class Sender:
    """The sending end; `address` is where receivers connect to."""

    address = ""

    def frame(self, kind):
        """Return a message of that kind as `send` takes it, made beforehand."""
        return messages.as_message(kind).encode()

    def stamped(self, frame):
        """Return a function that gives the frame with the moment of the call in it."""
        head, tail = messages.split(frame)
        if isinstance(frame, str):
            return lambda: head + messages.stamp() + tail
        return lambda: head + messages.stamp().encode() + tail

    def composed(self, kind):
        """Return a function that makes a message with the moment of the call in it from its data, and encodes it."""
        return self.stamped(self.frame(kind))

    def send(self, frame):
        """Send one frame."""
        raise NotImplementedError

    def send_many(self, frame, count):
        """Send a frame again and again, as fast as possible."""
        send = self.send
        for _ in range(count):
            send(frame)

    def flush(self):
        """Return when all has left, where that is not certain."""

    def told(self):
        """Return how often the system has told that it lost something."""
        return 0

    def close(self):
        """Let go of everything."""


class JSONSender(Sender):
    """The sending end of a system whose users write JSON."""

    def __init__(self):
        import orjson

        self._dumps = orjson.dumps

    def frame(self, kind):
        return messages.as_json(kind).encode()

    def composed(self, kind):
        envelope = {"subject": messages.SUBJECT, "type": messages.TYPES[kind], "sender": "satuser@host1.example.org"}
        data, dumps = messages.DATA[kind], self._dumps

        def compose():
            moment = messages.stamp()
            stamped = data[: -len(moment)] + moment if isinstance(data, str) else {**data, "sent": moment}
            return dumps({**envelope, "time": time.time(), "data": stamped})

        return compose


class Receiver:
    """A receiving end; where messages are acknowledged, it does not while it `keeps` them."""

    keeps = False

    def moment(self, message):
        """Return the moment that is in a message."""
        return messages.moment_in(message["data"])

    def close(self):
        """Let go of everything."""


class IteratingReceiver(Receiver):
    """A receiving end that is a loop over messages."""

    def messages(self, silence):
        """Give decoded messages, and None when `silence` seconds have passed without one."""
        raise NotImplementedError

    def prepare(self, count, see=None):
        """Expect so many messages."""
        self._count, self._see = count, see

    def receive(self, silence, patience):
        """Return how many messages came until all did or there was silence, and when the last one came.

        For the first one it waits `patience` seconds.
        """
        count, see = self._count, self._see
        seen, deadline = 0, time.monotonic() + patience
        for message in self.messages(silence):
            if message is None:
                if seen or time.monotonic() > deadline:
                    return seen, time.monotonic() - silence
                continue
            if see is not None:
                see(message)
            seen += 1
            if seen == count:
                break
        return seen, time.monotonic()


class AwaitingReceiver(Receiver):
    """A receiving end on an event loop of its own, which runs while it receives."""

    seen = 0

    def __init__(self):
        self.loop = asyncio.new_event_loop()

    async def take(self, count, see):
        """Receive and decode so many messages, counted in `seen`; call `see` with each, unless it is None."""
        raise NotImplementedError

    def prepare(self, count, see=None):
        """Expect so many messages."""
        self._count, self._see = count, see

    def receive(self, silence, patience):
        """Return how many messages came until all did or there was silence, and when the last one came.

        For the first one it waits `patience` seconds.
        """
        return self.loop.run_until_complete(self._receive(silence, patience))

    async def _receive(self, silence, patience):
        self.seen, seen, deadline = 0, 0, time.monotonic() + patience
        task = asyncio.ensure_future(self.take(self._count, self._see))
        while not (await asyncio.wait([task], timeout=silence))[0]:
            if self.seen == seen and (seen or time.monotonic() > deadline):
                task.cancel()
                await asyncio.wait([task])
                return self.seen, time.monotonic() - silence
            seen = self.seen
        task.result()
        return self.seen, time.monotonic()


class PushedReceiver(Receiver):
    """A receiving end that a library calls, in a thread of its own, with each message."""

    def __init__(self):
        import orjson

        self._loads = orjson.loads
        self._complete = threading.Event()
        self.prepare(1)

    def prepare(self, count, see=None):
        """Expect so many messages."""
        self._complete.clear()
        self._count, self._see, self._seen = count, see, 0

    def take(self, frame):
        """Decode and count one message."""
        message = self._loads(frame)
        if self._see is not None:
            self._see(message)
        self._seen += 1
        if self._seen == self._count:
            self._last = time.monotonic()
            self._complete.set()

    def receive(self, silence, patience):
        """Return how many messages came until all did or there was silence, and when the last one came.

        For the first one it waits `patience` seconds.
        """
        seen, deadline = 0, time.monotonic() + patience
        while not self._complete.wait(silence):
            if self._seen == seen and (seen or time.monotonic() > deadline):
                return seen, time.monotonic() - silence
            seen = self._seen
        return self._seen, self._last


class BlockingReceiver(PushedReceiver):
    """A receiving end whose library only offers to run, which it therefore does in a thread."""

    def start(self):
        """Begin to run."""
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Call `take` with each frame, for ever."""
        raise NotImplementedError
