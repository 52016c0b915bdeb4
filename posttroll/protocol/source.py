"""What one consumer has yet to get: read from a journal in order, leased to receivers, settled one by one."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from posttroll.protocol.frames import Outcome

__all__ = ["Entry", "Position", "Source", "Store"]

_READ_AHEAD = 100


class Entry(NamedTuple):
    """A message in a journal: its number, its bytes, and when it expires, in seconds since the epoch."""

    sequence: int
    payload: bytes
    expires: float | None = None


@dataclass(frozen=True)
class Position:
    """How far a consumer is: all up to `cursor` is settled, of the rest what is in `settled`.

    Nothing beyond `handed_out` was ever given out; `counts` has the deliveries of what was given out more than once.
    """

    cursor: int
    handed_out: int
    settled: frozenset[int] = frozenset()
    counts: Mapping[int, int] = field(default_factory=dict)


class Store(Protocol):
    """The journal, as one consumer sees it. What is noted is kept for good by the end of the transaction."""

    @property
    def is_forgotten(self) -> bool:
        """Whether the journal knows the consumer no longer."""

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        """Return the next messages for the consumer, and the number up to which all have been looked at."""

    def save(self, cursor: int, handed_out: int) -> None:
        """Note how far the consumer is; what it noted of messages up to `cursor` is needed no more."""

    def settle(self, sequence: int) -> None:
        """Note that a message beyond the cursor is settled."""

    def count(self, sequence: int, count: int) -> None:
        """Note how often a message was given out."""

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        """Keep a message that the consumer cannot use for a person to look at."""


@dataclass(slots=True)
class _Item:
    entry: Entry
    count: int
    is_counted: bool = False
    is_queued: bool = True
    is_leased: bool = False
    is_claimed: bool = False

    def is_too_old(self, wall: float) -> bool:
        return self.entry.expires is not None and self.entry.expires <= wall


class Source:
    """Decides what is given out next.

    A message goes to one receiver at a time, the oldest first. One that was rejected, or given out `max_deliveries`
    times in vain, is set aside.
    """

    def __init__(self, store: Store, position: Position, max_deliveries: int = 10) -> None:
        self.expired = 0
        """How many were not given out as they were too old."""
        self.aside: list[tuple[int, str]] = []
        """What was set aside, and why, for whoever tells of it, and clears this."""
        self.max_deliveries = max_deliveries
        self.on_change: Callable[[Entry, str, str], None] | None = None
        """Called, if set, with a message, what became of it, and why: "transferred", an outcome, or "expired"."""
        self._store = store
        self._settled = set(position.settled)
        self._counts = dict(position.counts)
        self._handed_out = self._handed_out_before = position.handed_out
        self._scanned_to = position.cursor
        self._saved = (position.cursor, position.handed_out)
        self._items: OrderedDict[int, _Item] = OrderedDict()
        self._offered: dict[int, _Item] = {}
        self._queue: list[int] = []

    @property
    def is_forgotten(self) -> bool:
        """Whether the journal knows the consumer no longer."""
        return self._store.is_forgotten

    @property
    def cursor(self) -> int:
        """The number up to which all is settled."""
        return next(iter(self._items)) - 1 if self._items else self._scanned_to

    def offer(self, entry: Entry, count: int = 1) -> None:
        """Give out once more what was set aside before; `count` is how often it was since."""
        if entry.sequence not in self._offered and entry.sequence not in self._items:
            self._offered[entry.sequence] = _Item(entry, min(count, self.max_deliveries - 1), is_counted=True)
            heapq.heappush(self._queue, entry.sequence)

    def take(self, wall: float) -> tuple[Entry, int] | None:
        """Lease the next message; return it and how often it was given out, this time included."""
        while (item := self._next()) is not None:
            if item.is_too_old(wall):
                self._expire(item)
            elif item.count >= self.max_deliveries:
                self._set_aside(item, f"delivered {item.count} times without being accepted")
            else:
                return self._lease(item)
        return None

    def _next(self) -> _Item | None:
        while True:
            while self._queue:
                item = self._item(heapq.heappop(self._queue))
                if item is not None:
                    item.is_queued = False
                    if not item.is_leased:
                        return item
            if not self._read_on():
                return None

    @property
    def is_next_from_former_life(self) -> bool:
        """Whether the next message was given out before this source was made, so that somebody may still have it."""
        item = self._next()
        if item is None:
            return False
        self._enqueue(item)
        return item.entry.sequence <= self._handed_out_before

    def expire(self, wall: float) -> None:
        """Give up what is next, as long as that is too old."""
        while (item := self._next()) is not None:
            if not item.is_too_old(wall):
                self._enqueue(item)
                return
            self._expire(item)

    def withdraw(self, sequence: int) -> bool:
        """Take a message back, as one that expired, if nobody has it; return whether it was there to be taken."""
        item = self._find(sequence)
        if item is None or item.is_leased:
            return False
        self._expire(item)
        return True

    def _expire(self, item: _Item) -> None:
        self.expired += 1
        self._forget(item.entry.sequence)
        self._tell(item, "expired")

    def _tell(self, item: _Item, state: str, reason: str = "") -> None:
        if self.on_change is not None:
            self.on_change(item.entry, state, reason)

    def _find(self, sequence: int) -> _Item | None:
        while self._scanned_to < sequence and self._read_on():
            pass
        return self._item(sequence)

    def _lease(self, item: _Item) -> tuple[Entry, int]:
        entry = item.entry
        self._tell(item, "transferred")
        item.is_leased, item.is_claimed = True, False
        item.count += 1
        if item.is_counted:
            self._store.count(entry.sequence, item.count)
        self._handed_out = max(self._handed_out, entry.sequence)
        return entry, item.count

    def claim(self, sequence: int) -> bool:
        """Lease a message to a receiver that says it has it already; return whether it may keep it."""
        if sequence > self._handed_out:
            return False
        item = self._find(sequence)
        if item is None or item.is_leased:
            return False
        item.is_leased = item.is_claimed = True
        item.count = max(item.count, 1)
        return True

    def keep_only(self, topics: Iterable[str]) -> None:
        """Settle what is neither leased nor of these topics; none means all."""
        wanted = tuple(topic.encode() for topic in topics) or b""
        for sequence, item in list(self._items.items()):
            if not item.is_leased and not item.entry.payload.startswith(wanted):
                self._forget(sequence)

    def settle(self, sequence: int, outcome: Outcome) -> None:
        """Note what became of a leased message."""
        item = self._item(sequence)
        if item is None:
            return
        item.is_leased = False
        if outcome.state == "accepted":
            self._forget(sequence)
            self._tell(item, "accepted")
        elif outcome.state == "rejected":
            self._set_aside(item, outcome.reason or "rejected")
        else:
            self._tell(item, "released", outcome.reason)
            # Between a claim and the delivery that it is about, somebody else may have begun it.
            item.count -= not (outcome.begun or item.is_claimed)
            item.is_counted = True
            self._store.count(sequence, item.count)
            self._enqueue(item)

    def _enqueue(self, item: _Item) -> None:
        if not item.is_queued:
            item.is_queued = True
            heapq.heappush(self._queue, item.entry.sequence)

    def save(self) -> None:
        """Note how far the consumer is."""
        if (now := (self.cursor, self._handed_out)) != self._saved:
            self._store.save(*now)
            self._saved = now

    def _read_on(self) -> bool:
        entries, self._scanned_to = self._store.read(self._scanned_to, _READ_AHEAD)
        for entry in entries:
            sequence = entry.sequence
            if sequence in self._settled:
                self._settled.discard(sequence)
                continue
            is_counted = sequence in self._counts
            count = self._counts.pop(sequence, int(sequence <= self._handed_out_before))
            self._items[sequence] = _Item(entry, count, is_counted)
            heapq.heappush(self._queue, sequence)
        return bool(entries)

    def _set_aside(self, item: _Item, reason: str) -> None:
        self._store.set_aside(item.entry.sequence, item.count, reason)
        self.aside.append((item.entry.sequence, reason))
        self._forget(item.entry.sequence)
        self._tell(item, "rejected", reason)

    def _item(self, sequence: int) -> _Item | None:
        return self._items.get(sequence) or self._offered.get(sequence)

    def _forget(self, sequence: int) -> None:
        if self._offered.pop(sequence, None) is not None:
            self._store.settle(sequence)
            return
        is_first = sequence == next(iter(self._items))
        del self._items[sequence]
        if not is_first:
            self._store.settle(sequence)
