"""The tasks that handlers run in."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Pool"]

logger = logging.getLogger(__name__)

_END_TIMEOUT = 1.0

Job = Callable[[], Coroutine[Any, Any, None]]


class Pool:
    """Does jobs in the order in which they are given, so many at a time, each in a task."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._numbers = itertools.count(1)
        self._jobs: deque[Job] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_idle = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """How many jobs are being done or wait for it."""
        return len(self._running) + len(self._jobs)

    def submit(self, job: Job) -> None:
        """Have a job done, unless it is closed; never waits."""
        if not self._closed:
            self._jobs.append(job)
            self._go_on()

    async def wait_for_room(self) -> bool:
        """Wait until a job would be begun at once; return False if it is closed."""
        await self._has_room.wait()
        return not self._closed

    def close(self) -> None:
        """Forget the jobs that were not begun, and let the others come to their end."""
        self._closed = True
        self._jobs.clear()
        self._go_on()

    async def wait_until_idle(self) -> None:
        """Wait until nothing is being done any more after `close`."""
        await self._is_idle.wait()

    async def stop(self) -> None:
        """Cancel what is being done, and wait for its end for a moment; harmless when stopped."""
        self.close()
        for task in self._running:
            task.cancel()
        if self._running:
            _, pending = await asyncio.wait(self._running, timeout=_END_TIMEOUT)
            for task in pending:
                logger.error("%s does not end although it was cancelled", task.get_name())

    def _go_on(self) -> None:
        while self._jobs and len(self._running) < self._size:
            name = f"posttroll-{self._name}-{next(self._numbers)}"
            task = asyncio.get_running_loop().create_task(self._jobs.popleft()(), name=name)
            self._running.add(task)
            task.add_done_callback(self._finish)
        _put(self._has_room, self._closed or self.in_hand < self._size)
        _put(self._is_idle, self._closed and not self._running)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._go_on()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job failed", exc_info=error)


def _put(event: asyncio.Event, is_set: bool) -> None:
    if is_set:
        event.set()
    else:
        event.clear()
