"""The threads that plain functions run in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from posttroll.asyncio.side_thread import SideThread

__all__ = ["Threads"]

Result = TypeVar("Result")


class Threads:
    """Runs functions for one loop, each in a thread that has nothing else to do; these are started when needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._free: list[SideThread] = []
        self._deserted: list[SideThread] = []

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in a thread and return its result; cancelled, it runs on."""
        thread = self._free.pop() if self._free else SideThread(f"posttroll-{self._name}-{next(self._numbers)}")
        place = self._free
        try:
            return await thread.call(partial(copy_context().run, _raisable, function))
        except asyncio.CancelledError:
            place = self._deserted
            raise
        finally:
            place.append(thread)

    def close(self) -> None:
        """End all threads, those at work when they have done it."""
        for thread in (*self._free, *self._deserted):
            thread.end()


def _raisable(function: Callable[[], Result]) -> Result:
    """Call a function, but raise nothing that a future cannot."""
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError("a function raised StopIteration") from error
