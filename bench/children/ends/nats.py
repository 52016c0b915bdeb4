"""NATS, with nats-py."""

import asyncio
import threading

import nats

from children.ends import base

__all__ = ["Receiver", "Sender"]

_SUBJECT = "1b.viirs.npp"


class Sender(base.JSONSender):
    """A client that publishes."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._client = self._do(nats.connect(address))

    def _do(self, work):
        return self._loop.run_until_complete(work)

    def send(self, frame):
        self.send_many(frame, 1)
        self.flush()

    def send_many(self, frame, count):
        self._do(self._send_many(frame, count))

    async def _send_many(self, frame, count):
        publish = self._client.publish
        for _ in range(count):
            await publish(_SUBJECT, frame)

    def flush(self):
        self._do(self._client.flush())

    def close(self):
        self._do(self._client.close())


class Receiver(base.BlockingReceiver):
    """A client with a callback."""

    def __init__(self, addresses):
        super().__init__()
        self._address = addresses[0]
        self._ready = threading.Event()
        self.start()
        self._ready.wait(10)

    def run(self):
        asyncio.run(self._run())

    async def _run(self):
        client = await nats.connect(self._address)
        await client.subscribe(_SUBJECT, cb=self._take)
        await client.flush()
        self._ready.set()
        await asyncio.Event().wait()

    async def _take(self, message):
        self.take(message.data)
