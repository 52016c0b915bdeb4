"""The bare sockets with JSON, in the loop of ZeroMQ's guide: a poller, which could watch several sockets."""

import zmq

from children.ends import zmq_orjson
from children.ends.zmq_orjson import Sender, decoded

__all__ = ["Receiver", "Sender"]


class Receiver(zmq_orjson.Receiver):
    """A subscribing socket with a poller."""

    def messages(self, silence):
        poller, receive, timeout = zmq.Poller(), self._socket.recv, int(silence * 1000)
        poller.register(self._socket, zmq.POLLIN)
        while True:
            yield decoded(receive()) if poller.poll(timeout) else None
