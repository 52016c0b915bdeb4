"""Waiting for news, in any number of tasks of one loop."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress

from posttroll.asyncio.home import Home

__all__ = ["News"]


class News:
    """Wakes all who wait when there is news; the twin of `posttroll.news.News`, for the loop that it is first used in.

    Who waits notes the `count`, looks, and then waits for other news than it has looked at.
    """

    def __init__(self, name: str) -> None:
        self.count = 0
        """Another number whenever there is news."""
        self._home = Home(name)
        self.check_loop = self._home.check
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Wake all who wait; in the loop."""
        self.count += 1
        for waiter in self._waiting:
            _wake(waiter)

    def tell_from_outside(self) -> None:
        """Do so from any thread or signal handler."""
        self.count += 1
        if self._home.loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._home.loop.call_soon_threadsafe(self.tell)

    async def wait(self, since: int, deadline: float = math.inf) -> bool:
        """Wait for news since a count, until the deadline; return whether there is some. `LocalProtocolError`."""
        loop = self.check_loop()
        while self.count == since and (left := deadline - time.monotonic()) > 0:
            waiter = loop.create_future()
            timer = None if left == math.inf else loop.call_later(left, _wake, waiter)
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
                if timer is not None:
                    timer.cancel()
        return self.count != since


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
