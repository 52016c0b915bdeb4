"""The same as `zmq_asyncio` with the quicker JSON that this package uses, too."""

import orjson

from children.ends import zmq_asyncio
from children.ends.zmq_orjson import Sender

__all__ = ["Receiver", "Sender"]


class Receiver(zmq_asyncio.Receiver):
    """A subscribing socket, and orjson."""

    loads = staticmethod(orjson.loads)
