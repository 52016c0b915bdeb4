"""Calling back: for what happens, and when it is time."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["BaseEvent", "Event", "Timers"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Later = TypeVar("Later")


class BaseEvent(Generic[P]):
    """What is called when something happens; those who derive from it call."""

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

    def happen(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call all; return which exception the last one that failed has raised, or what to await for that."""
        raise NotImplementedError

    def _log(self, error: BaseException) -> str:
        """Tell of a callable that raised; return what."""
        logger.error("%s failed", self._name, exc_info=error)
        return type(error).__name__


class Event(BaseEvent[P]):
    """Something that happens now and then; to call it with a callable has that called each time, in this order.

    So it can be a decorator. A callable that raises is logged, and the others are called nevertheless.
    """

    def happen(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Call all; return which exception the last one that failed has raised, "" if none did."""
        failure = ""
        for callback in tuple(self._callbacks):
            try:
                callback(*args, **kwargs)
            except Exception as error:
                failure = self._log(error)
        return failure


class Timers(Generic[Later]):
    """What is to be called later, which any thread may add."""

    def __init__(self) -> None:
        self._numbers = itertools.count()  # so that callables are not compared
        self._due: list[tuple[float, int, Later]] = []

    def add(self, delay: float, callback: Later) -> None:
        """Have something called once, in `delay` seconds."""
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._numbers), callback))

    def next_timeout(self) -> float:
        """Return when to call the next one; `math.inf` for never."""
        return self._due[0][0] if self._due else math.inf

    def due(self) -> Iterator[Later]:
        """Give all whose time has come; what is added meanwhile is for the next time."""
        now, end = time.monotonic(), next(self._numbers)
        while self._due and self._due[0] < (now, end):
            yield heapq.heappop(self._due)[2]
