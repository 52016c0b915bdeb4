"""What waits in memory for one other container; what is settled is kept no longer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from posttroll.errors import JournalFull
from posttroll.protocol.source import Entry, Position, Source

__all__ = ["Queue", "Shelf"]


class Shelf(Protocol):
    """Where messages for one other container wait: a `Queue`, or a journal with one consumer."""

    @property
    def identity(self) -> str:
        """A name that no other one has."""

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        """Keep a message and return its number; `JournalFull` and other `JournalError`."""

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        """Return what gives the messages out, always the same one."""

    def commit(self) -> None:
        """Keep for good what the source noted."""

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        """Keep nothing longer than is allowed, now and then; return how much of it each consumer had not settled."""

    def tidy(self) -> None:
        """Do what would delay others later."""

    def close(self) -> None:
        """Give it back."""


class Queue:
    """A shelf in memory, for `max_size` bytes of messages."""

    is_forgotten = False

    def __init__(self, identity: str, max_size: int) -> None:
        self.identity = identity
        self._max_size = max_size
        self._size = 0
        self._last = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()  # the first of a dict is long to find if many went
        self._source: Source | None = None

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        """Keep a message and return its number; `JournalFull`."""
        if self._size + len(frame) > self._max_size:
            raise JournalFull(
                f"the queue has no room for {len(frame)} bytes: {len(self._entries)} messages of {self._size} bytes "
                f"wait, {self._max_size} are allowed"
            )
        self._last += 1
        self._entries[self._last] = Entry(self._last, frame, expires)
        self._size += len(frame)
        return self._last

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        """Return what gives all the messages out, always the same one."""
        if self._source is None:
            self._source = Source(self, Position(0, 0), max_deliveries)
        return self._source

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        """Return the next messages, and the number up to which all have been looked at."""
        entries = []
        for number in range(after + 1, self._last + 1):
            if number in self._entries:
                entries.append(self._entries[number])
                if len(entries) == limit:
                    return entries, number
        return entries, self._last

    def save(self, cursor: int, handed_out: int) -> None:
        """Keep no longer what is settled."""
        while self._entries and (oldest := next(iter(self._entries))) <= cursor:
            self.settle(oldest)

    def settle(self, sequence: int) -> None:
        """Keep a message no longer."""
        entry = self._entries.pop(sequence, None)
        if entry is not None:
            self._size -= len(entry.payload)

    def count(self, sequence: int, count: int) -> None:
        """Do nothing: the source knows."""

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        """Do nothing: who sent it is told."""

    def commit(self) -> None:
        """Do nothing."""

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        """Do nothing: what is too old is settled."""
        return {}

    def tidy(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End it."""
        self._entries.clear()
        self._size = 0
