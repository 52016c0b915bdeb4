"""Calling back: for what happens, and when it is time."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Generic, ParamSpec

__all__ = ["Event", "Timers"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class Event(Generic[P]):
    """Something that happens now and then; to call it with a callable has that called each time, in this order.

    So it can be a decorator. A callable that raises is logged, and the others are called nevertheless.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._callbacks: list[Callable[P, object]] = []

    def __call__(self, callback: Callable[P, object]) -> Callable[P, object]:
        """Have a callable called from now on, and return it."""
        self._callbacks.append(callback)
        return callback

    def __len__(self) -> int:
        return len(self._callbacks)

    def remove(self, callback: Callable[P, object]) -> None:
        """Have a callable called no longer; `ValueError` if it is not."""
        self._callbacks.remove(callback)

    def happen(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Call all; return which exception the last one that failed has raised, "" if none did."""
        failure = ""
        for callback in tuple(self._callbacks):
            try:
                callback(*args, **kwargs)
            except Exception as error:
                failure = type(error).__name__
                logger.exception("%s failed", self._name)
        return failure


class Timers:
    """Callables to be called later, which any thread may add."""

    def __init__(self) -> None:
        self._numbers = itertools.count()  # so that callables are not compared
        self._due: list[tuple[float, int, Callable[[], object]]] = []

    def add(self, delay: float, callback: Callable[[], object]) -> None:
        """Have a callable called once, in `delay` seconds."""
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._numbers), callback))

    def next_timeout(self) -> float | None:
        """Return when to call the next one; None for never."""
        return self._due[0][0] if self._due else None

    def call_due(self) -> int:
        """Call all whose time has come; return how many that were."""
        now, calls = time.monotonic(), []
        while self._due and self._due[0][0] <= now:
            calls.append(heapq.heappop(self._due)[2])
        for callback in calls:
            try:
                callback()
            except Exception:
                logger.exception("what was to be called later failed")
        return len(calls)
