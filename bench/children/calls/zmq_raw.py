"""The bare sockets, REQ and REP, with bytes that nobody decodes: as many as JSON would have."""

import json

import zmq

from children.calls import base

__all__ = ["Caller", "Server"]


class Server(base.Server):
    """A socket that replies with what was requested."""

    def __init__(self):
        self._socket = zmq.Context.instance().socket(zmq.REP)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.start(self._reply)

    def _reply(self):
        receive, send, reply_to = self._socket.recv, self._socket.send, self.reply_to
        while True:
            send(reply_to(receive()))

    def reply_to(self, request):
        """Return the reply to a request."""
        return request


class Caller(base.Caller):
    """A socket for one call at a time, and one for many."""

    def __init__(self, address):
        super().__init__(address)
        self._one = self._connected(zmq.REQ)
        self._many = self._connected(zmq.DEALER)

    def _connected(self, kind):
        socket = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(self._address)
        return socket

    def prepared(self, argument):
        return json.dumps(argument, separators=(",", ":")).encode()

    def call(self, argument):
        self._one.send(argument)
        return self._one.recv()

    def begin(self, argument):
        self._many.send_multipart((b"", argument))
        return self._next

    def _next(self):
        return self._many.recv_multipart()[1]

    def close(self):
        self._one.close()
        self._many.close()
