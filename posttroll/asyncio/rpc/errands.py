"""What is done in a loop while nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

__all__ = ["Errands"]

P = ParamSpec("P")

logger = logging.getLogger(__name__)


class Errands:
    """Runs coroutines in tasks of that name, each in its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[object]] = set()

    def run(self, errand: Callable[P, Coroutine[Any, Any, object]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run one in the running loop; it is logged if it fails."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(errand(*args, **kwargs), name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("task %s ended by an error", self._name, exc_info=error)

    def is_running_this(self) -> bool:
        """Return whether the current task is one of them."""
        return asyncio.current_task() in self._tasks

    async def finish(self, timeout: float | None = None) -> bool:
        """Wait until all are done but the one that asks; cancel those that are not in time, and return False."""
        ends = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while others := self._tasks - {asyncio.current_task()}:
            left = None if ends is None else ends - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                for task in others:
                    task.cancel()
                return False
            await asyncio.wait(others, timeout=left)
        return True
