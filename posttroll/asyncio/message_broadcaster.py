"""Repeating a message to everybody around, or to named receivers: how publishers announce themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from posttroll.asyncio.requests import Requests
from posttroll.asyncio.tasks import Worker
from posttroll.backends.base import Backend, DatagramSender
from posttroll.errors import PosttrollError
from posttroll.message_broadcaster import REPLY_TIMEOUT, Broadcaster, Receivers, ServiceBroadcaster

__all__ = ["AddressServiceBroadcaster", "DesignatedReceiversSender", "MessageBroadcaster"]

logger = logging.getLogger(__name__)


class DesignatedReceiversSender:
    """Sends to named receivers, all at once, over connections that are kept."""

    def __init__(
        self,
        default_port: int,
        receivers: str | Iterable[str],
        timeout: float = REPLY_TIMEOUT,
        backend: Backend | None = None,
    ) -> None:
        self._receivers = Receivers(default_port, receivers, timeout, backend)
        self._requests = Requests(self._receivers.channel)

    async def __call__(self, data: str | bytes) -> None:
        """Send, and wait a short while for the replies."""
        frame = data.encode() if isinstance(data, str) else data
        receivers = self._receivers
        receivers.judge(await self._requests.request(frame, receivers.timeout, receivers.grace))

    def close(self) -> None:
        """Close; harmless when closed."""
        self._requests.close()


class MessageBroadcaster(Broadcaster[DatagramSender | DesignatedReceiversSender, Worker]):
    """Repeats a message from a task of the loop; else like `posttroll.message_broadcaster.MessageBroadcaster`."""

    async def stop(self) -> MessageBroadcaster:
        """End sending; harmless before the start and when stopped. Cancelled, it leaves the goodbye out."""
        if self._worker.stopping:
            await self._worker.stop()
            return self
        was_running = self.is_running()
        try:
            await self._worker.stop()
            goodbye = self._announcer.stopped()
            if was_running and goodbye is not None:
                await self._say(goodbye)
        finally:
            self._close_sender()
        return self

    def _make_worker(self, name: str) -> Worker:
        return Worker(name, self._run)

    async def _run(self) -> None:
        while (deadline := self._announcer.next_timeout()) is not None:
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            self._update()
            if text := self._announcer.due(time.monotonic()):
                try:
                    await _send(self._ready_sender(), text)
                except (OSError, PosttrollError) as error:
                    self._tell(error)
                    # A sender may be tied to an interface that is gone.
                    self._close_sender()

    async def _say(self, goodbye: str) -> None:
        try:
            await _send(self._ready_goodbye_sender(), goodbye)
        except (OSError, PosttrollError) as error:
            logger.debug("no goodbye: %s", error)

    def _open_sender(self, timeout: float = REPLY_TIMEOUT) -> DatagramSender | DesignatedReceiversSender:
        if self._receivers:
            return DesignatedReceiversSender(self._port, self._receivers, timeout, self._backend)
        return self._open_multicast()


async def _send(sender: DatagramSender | DesignatedReceiversSender, text: str) -> None:
    if isinstance(sender, DesignatedReceiversSender):
        await sender(text)
    else:
        sender(text)


class AddressServiceBroadcaster(
    ServiceBroadcaster[DatagramSender | DesignatedReceiversSender, Worker], MessageBroadcaster
):
    """A `ServiceBroadcaster` with a task of the loop."""
