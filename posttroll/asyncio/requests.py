"""Requests on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from posttroll.asyncio.readiness import Readiness
from posttroll.backends.base import Peer, RequestChannel

__all__ = ["Requests"]


class Requests:
    """Asks over a channel, which it closes at the end, one request after the other."""

    def __init__(self, channel: RequestChannel) -> None:
        self._channel = channel
        self._readiness = Readiness(channel.fileno, "a client of nameservers")
        self._order = asyncio.Lock()

    async def request(self, frame: bytes, timeout: float, grace: float | None = None) -> Mapping[Peer, bytes]:
        """Ask all peers; see `RequestChannel.request`. Cancelled, it is given up."""
        deadline = time.monotonic() + timeout
        async with self._order:
            exchange = self._channel.begin(frame, max(0.0, deadline - time.monotonic()), grace)
            while not exchange.advance():
                await self._readiness.wait(exchange.next_timeout())
            return exchange.replies

    def close(self) -> None:
        """Disconnect; a request under way returns what it has. Harmless when closed."""
        self._readiness.close()
        self._channel.close()
