"""A task with one job, stopped from anywhere in its loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from posttroll.asyncio.home import Home

__all__ = ["Worker", "ends_this_task"]

logger = logging.getLogger(__name__)


class Worker:
    """A task of the running loop, which ends when it is cancelled; the twin of `posttroll.threads.Worker`.

    To be held by who has it work, as a loop does not.
    """

    def __init__(self, name: str, target: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._target = target
        self._home = Home(name)
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self.stopping = False
        """Whether it was told to stop."""

    def start(self) -> Worker:
        """Start the task; not if it was told to stop before."""
        if self._task is None and not self.stopping:
            self._task = self._home.check().create_task(self._run(), name=self._name)
        return self

    def is_alive(self) -> bool:
        """Return whether the task goes on."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Cancel the task and wait for its end, also while others do; raise what it died of, if it did, once.

        If this is cancelled, the task is nevertheless. `LocalProtocolError` in another loop.
        """
        task = self._task
        if task is not None and not task.done():
            self._home.check()
            if not self.stopping:
                task.cancel()
            self.stopping = True
            if task is not asyncio.current_task():
                await asyncio.wait([task])
        self.stopping = True
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _run(self) -> None:
        try:
            await self._target()
        except Exception as error:
            logger.exception("task %s ended by an error", self._name)
            self._error = error


def ends_this_task(error: BaseException) -> bool:
    """Return whether an error means that this task is to end, and not that something it waited for has."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, GeneratorExit)
