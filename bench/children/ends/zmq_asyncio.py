"""The bare sockets with JSON, received as pyzmq offers it on an event loop: what one would write without a package."""

import json

import zmq
import zmq.asyncio

from children import messages
from children.ends import base
from children.ends.zmq_orjson import Sender

__all__ = ["Receiver", "Sender"]

_PREFIX = messages.SUBJECT.encode() + b" "


class Receiver(base.AwaitingReceiver):
    """A subscribing socket, and the standard library's JSON."""

    loads = staticmethod(json.loads)

    def __init__(self, addresses):
        super().__init__()
        self.loop.run_until_complete(self._open(addresses))

    async def _open(self, addresses):
        self._socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, _PREFIX)
        self._socket.setsockopt(zmq.LINGER, 0)
        for address in addresses:
            self._socket.connect(address)

    async def take(self, count, see):
        receive, loads, length = self._socket.recv, self.loads, len(_PREFIX)
        while self.seen < count:
            message = loads((await receive())[length:])
            if see is not None:
                see(message)
            self.seen += 1

    def close(self):
        self._socket.close()
        self.loop.close()
