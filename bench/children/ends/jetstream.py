"""NATS JetStream, with nats-py: a stream in files, and a durable consumer that acknowledges each message."""

import asyncio
import threading
import uuid

import nats
from nats.js.api import ConsumerConfig, StorageType

from children.ends import base

__all__ = ["Receiver", "Sender"]

_CONSUMER = "bench"
_DEFAULT_ACK_WAIT = 30.0


class Sender(base.JSONSender):
    """A client that publishes to a stream of its own; `pipelined`: it does not wait for each acknowledgement."""

    def __init__(self, address, pipelined=False, ack_wait=_DEFAULT_ACK_WAIT):
        super().__init__()
        self._stream = f"bench-{uuid.uuid4().hex}"
        self.address = {"server": address, "subject": f"{self._stream}.1b.viirs.npp", "ack_wait": ack_wait}
        self._publish_many = self._pipeline if pipelined else self._publish_each
        self._loop = asyncio.new_event_loop()
        self._client = self._do(nats.connect(address))
        self._jetstream = self._client.jetstream()
        self._do(
            self._jetstream.add_stream(name=self._stream, subjects=[f"{self._stream}.>"], storage=StorageType.FILE)
        )

    def _do(self, work):
        return self._loop.run_until_complete(work)

    def send(self, frame):
        self.send_many(frame, 1)

    def send_many(self, frame, count):
        self._do(self._publish_many(frame, count))

    async def _publish_each(self, frame, count):
        publish, subject = self._jetstream.publish, self.address["subject"]
        for _ in range(count):
            await publish(subject, frame)

    async def _pipeline(self, frame, count):
        """Publish with as many acknowledgements outstanding as the client allows by default."""
        publish, subject = self._jetstream.publish_async, self.address["subject"]
        for _ in range(count):
            await publish(subject, frame)
        await self._jetstream.publish_async_completed()

    def close(self):
        self._do(self._jetstream.delete_stream(self._stream))
        self._do(self._client.close())


class Receiver(base.BlockingReceiver):
    """A member of the group that the consumer's messages are pushed to."""

    def __init__(self, addresses):
        super().__init__()
        self._address = addresses[0]
        self._ready = threading.Event()
        self.start()
        if not self._ready.wait(10):
            raise TimeoutError("there is no subscription")

    def run(self):
        asyncio.run(self._run())

    async def _run(self):
        client = await nats.connect(self._address["server"])
        await client.jetstream().subscribe(
            self._address["subject"],
            queue=_CONSUMER,
            cb=self._take,
            manual_ack=True,
            config=ConsumerConfig(ack_wait=self._address["ack_wait"]),
        )
        await client.flush()
        self._ready.set()
        await asyncio.Event().wait()

    async def _take(self, message):
        self.take(message.data)
        if not self.keeps:
            await message.ack()
