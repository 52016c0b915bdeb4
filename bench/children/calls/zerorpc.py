"""zerorpc, which is gevent's: its threads are greenlets, and arguments are msgpack."""

import socket
import threading

import gevent
import zerorpc

from children.calls import base

__all__ = ["Caller", "Server"]


# A name that Python has taken for itself.
_ASYNCHRONOUS = {"async": True}


class _Echo:
    def echo(self, argument):
        return argument


class Server(base.Server):
    """A server whose greenlets all run in one thread."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self._is_bound = threading.Event()
        self.start(self._serve)
        if not self._is_bound.wait(10):
            raise TimeoutError("there is no server")

    def _serve(self):
        server = zerorpc.Server(_Echo())
        server.bind(self.address)
        self._is_bound.set()
        server.run()


class Caller(base.Caller):
    """A client, which greenlets share."""

    def __init__(self, address):
        super().__init__(address)
        self._client = zerorpc.Client(address)
        self.call = self._client.echo

    def begin(self, argument):
        return self._client.echo(argument, **_ASYNCHRONOUS).get

    def alike(self):
        return self

    def concurrently(self, functions):
        gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)

    def close(self):
        self._client.close()
