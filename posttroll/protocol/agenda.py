"""What has to be looked at now, and when what else, without asking everything each time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["Agenda", "Item"]


class Item(Protocol):
    """Something on an agenda."""

    due: float
    """When the agenda gives it back at the latest; infinite at first. Belongs to the agenda."""


AnyItem = TypeVar("AnyItem", bound=Item)


class Agenda(Generic[AnyItem]):
    """Gives back each item when it was touched, or its time has come: early now and then, but never late."""

    def __init__(self) -> None:
        self._touched: dict[AnyItem, None] = {}
        self._timed: list[tuple[float, int, AnyItem]] = []
        self._order = itertools.count()
        self._outdated = 0

    def touch(self, item: AnyItem) -> None:
        """Have an item given back by the next `take`."""
        self._touched[item] = None

    def schedule(self, item: AnyItem, moment: float) -> None:
        """Have it given back at a moment; if it is due before, its next moment is to be told then."""
        if moment < item.due:
            self._outdated += item.due < math.inf
            item.due = moment
            heapq.heappush(self._timed, (moment, next(self._order), item))

    def forget(self, item: AnyItem) -> None:
        """Give an item back no more."""
        self._touched.pop(item, None)
        if item.due < math.inf:
            item.due = math.inf
            self._outdated += 1
        if 2 * self._outdated > len(self._timed):
            self._timed = [timed for timed in self._timed if timed[2].due == timed[0]]
            heapq.heapify(self._timed)
            self._outdated = 0

    def take(self, now: float) -> Iterator[AnyItem]:
        """Give what is to be looked at, each item once; when to look again has to be told anew.

        What is touched meanwhile comes next time, as does what is left if the caller takes no more.
        """
        while self._timed and self._timed[0][0] <= now:
            moment, _, item = heapq.heappop(self._timed)
            if item.due == moment:
                item.due = math.inf
                self._touched[item] = None
            else:
                self._outdated -= 1
        for item in list(self._touched):
            del self._touched[item]
            yield item

    def next_timeout(self) -> float:
        """Return when there is something to take; infinite if never."""
        if self._touched:
            return -math.inf
        return self._timed[0][0] if self._timed else math.inf
