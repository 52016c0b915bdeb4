"""Waiting for a descriptor on an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from posttroll.asyncio.home import Home

__all__ = ["Readiness"]


class Readiness:
    """Lets tasks of one loop wait until a descriptor is readable, which `fileno` returns; `name`: for errors.

    The loop looks at the descriptor only while somebody waits: what is readable and not read yet costs nothing.
    """

    def __init__(self, fileno: Callable[[], int], name: str) -> None:
        self._fileno = fileno
        self._descriptor = -1
        self._home = Home(name)
        self.check_loop = self._home.check
        self._waiting: set[asyncio.Future[None]] = set()
        self.closed = False
        """Whether there is nothing to wait for any more."""

    async def wait(self, until: float = math.inf) -> None:
        """Return when it is readable, at the monotonic time `until`, or when closed.

        `LocalProtocolError` in another loop than the first one.
        """
        loop = self.check_loop()
        if self.closed:
            await asyncio.sleep(0)  # so that who only waits keeps nobody from ending it
            return
        waiter = loop.create_future()
        timer = None if until == math.inf else loop.call_later(max(0.0, until - time.monotonic()), _wake, waiter)
        if not self._waiting:
            self._descriptor = self._fileno()
            loop.add_reader(self._descriptor, self._wake_all)
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._forget(waiter)

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        self._waiting.discard(waiter)
        if not self._waiting and self._descriptor >= 0 and self._home.loop is not None:
            self._home.loop.remove_reader(self._descriptor)
            self._descriptor = -1

    def _wake_all(self) -> None:
        for waiter in tuple(self._waiting):
            _wake(waiter)
            self._forget(waiter)

    def close(self) -> None:
        """Wake all, and wait no more; before the descriptor is closed. Harmless when closed."""
        self.closed = True
        self._wake_all()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
