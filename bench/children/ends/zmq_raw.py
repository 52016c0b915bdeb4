"""The bare sockets, with frames that nobody decodes."""

import zmq

from children import messages
from children.ends import base

__all__ = ["Receiver", "Sender"]


class Sender(base.Sender):
    """A publishing socket that waits for subscribers which cannot keep up."""

    def __init__(self, when_full="block"):
        self._socket = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_NODROP, int(when_full == "block"))
        self._socket.setsockopt(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.send = self._socket.send

    def close(self):
        self._socket.close()


class Receiver(base.IteratingReceiver):
    """A subscribing socket, read without polling."""

    prefix = f"pytroll:/{messages.SUBJECT}"

    def __init__(self, addresses):
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, self.prefix.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        for address in addresses:
            self._socket.connect(address)

    def messages(self, silence):
        self._socket.setsockopt(zmq.RCVTIMEO, int(silence * 1000))
        receive = self._socket.recv
        while True:
            try:
                yield receive()
            except zmq.Again:
                yield None

    def moment(self, message):
        return messages.moment_in(message.rstrip(b'"}').decode())

    def close(self):
        self._socket.close()
