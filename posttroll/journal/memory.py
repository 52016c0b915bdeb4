"""A journal in memory, which ends with its process."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from posttroll.errors import JournalError, JournalFull
from posttroll.journal.base import (
    Consumer,
    Notes,
    SetAside,
    SteadyClock,
    open_replay,
    refuse_more_consumers,
    shortest,
    starting_time,
)
from posttroll.protocol.source import Entry, Position, Source

__all__ = ["MemoryJournal"]


@dataclass(frozen=True)
class _Message:
    entry: Entry
    topic: str
    time: float

    def is_of(self, topics: Sequence[str]) -> bool:
        return not topics or self.topic.startswith(tuple(topics))


@dataclass
class _Aside:
    message: _Message
    count: int
    reason: str
    is_resent: bool = False


@dataclass
class _Consumer:
    key: str
    source: Source
    notes: Notes
    seen: float
    cursor: int
    settled: set[int] = field(default_factory=set)
    aside: dict[int, _Aside] = field(default_factory=dict)


class MemoryJournal:
    """A `Journal` that ends with its process."""

    def __init__(self, *, max_age: float | None = None, max_size: int | None = None) -> None:
        self.identity = uuid.uuid4().hex
        """A name that no other journal has."""
        self.link_port = 0
        """The port where the links were served last."""
        self._clock = SteadyClock()
        self._max_age = max_age
        self._max_size = max_size
        self._is_closed = False
        self._lock = threading.Lock()
        self._last = 0
        self._size = 0
        self._messages: dict[int, _Message] = {}
        self._consumers: dict[str, _Consumer] = {}

    @property
    def last(self) -> int:
        """The number of the newest message, 0 before the first."""
        return self._last

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise JournalError("the journal is closed")
            yield

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        """Keep a message and return its number; `topic` is what `frame` begins with, up to its first space."""
        with self._open():
            self._make_room(len(frame))
            self._last += 1
            self._messages[self._last] = _Message(Entry(self._last, frame, expires), topic, wall)
            self._size += len(frame)
            return self._last

    def _make_room(self, size: int) -> None:
        while self._max_size is not None and self._size + self._aside_size() + size > self._max_size:
            settled_to = min((consumer.cursor for consumer in self._consumers.values()), default=self._last)
            oldest = next(iter(self._messages), None)
            if oldest is not None and oldest <= settled_to:
                self._drop(oldest)
            elif not self._pass_over(settled_to):
                raise JournalFull(f"the journal in memory is full: {self._max_size} bytes")

    def _pass_over(self, settled_to: int) -> bool:
        """Move those who are farthest behind on to what they have yet to settle; return whether that is farther."""
        has_moved = False
        for consumer in self._consumers.values():
            if consumer.cursor == settled_to:
                consumer.cursor = next(self._pending(consumer), self._last + 1) - 1
                has_moved = has_moved or consumer.cursor > settled_to
        return has_moved

    def _aside_size(self) -> int:
        asides = (aside for consumer in self._consumers.values() for aside in consumer.aside.values())
        return sum(len(aside.message.entry.payload) for aside in asides)

    def _drop(self, sequence: int) -> None:
        self._size -= len(self._messages.pop(sequence).entry.payload)

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        """Return what gives out a consumer's messages, always the same one.

        `PermissionError` if it belongs to another key or there are too many, `ValueError` if `start_at` is no start.
        """
        with self._open():
            known = self._consumers.get(consumer)
            if known is None:
                refuse_more_consumers(len(self._consumers))
                cursor = self._cursor_at(start_at)
                notes = Notes(self._read_on, cursor)
                source = Source(notes, Position(cursor, cursor), max_deliveries)
                known = self._consumers[consumer] = _Consumer(key, source, notes, wall, cursor)
            elif known.key != key:
                raise PermissionError(f"the consumer {consumer!r} belongs to another key")
            known.seen = wall
            known.notes.topics = shortest(topics)
            known.source.max_deliveries = max_deliveries
            return known.source

    def open_replay(self, topics: Iterable[str] = (), since: str = "", until: str = "", after: int = 0) -> Source:
        """Return what gives out once more what is kept now; `ValueError` if `since` or `until` is no time."""
        return open_replay(self, topics, since, until, after)

    def _cursor_at(self, start_at: str) -> int:
        since = starting_time(start_at)
        if since is None:
            return self._last
        return next((number - 1 for number, one in self._messages.items() if one.time >= since), self._last)

    def _after(self, after: int) -> Iterator[_Message]:
        oldest = next(iter(self._messages), self._last + 1)
        return (self._messages[number] for number in range(max(after + 1, oldest), self._last + 1))

    def _read_on(self, topics: Sequence[str], after: int, limit: int) -> tuple[list[Entry], int]:
        with self._open():
            matching = (message.entry for message in self._after(after) if message.is_of(topics))
            entries = list(itertools.islice(matching, limit))
            return entries, entries[-1].sequence if len(entries) == limit else max(after, self._last)

    def commit(self) -> None:
        """Take what the sources noted, and hand them what was resent."""
        with self._open():
            for consumer in self._consumers.values():
                self._take_notes(consumer)
                consumer.notes.clear()
                for aside in consumer.aside.values():
                    if aside.is_resent:
                        consumer.source.offer(aside.message.entry)

    def _take_notes(self, consumer: _Consumer) -> None:
        notes = consumer.notes
        for sequence, (count, reason) in notes.aside.items():
            known = consumer.aside.get(sequence)
            message = known.message if known else self._messages.get(sequence)
            if message is not None:
                consumer.aside[sequence] = _Aside(message, count, reason)
        for sequence in notes.settled:
            if sequence in consumer.aside and consumer.aside[sequence].is_resent:
                del consumer.aside[sequence]
        if notes.position:
            consumer.cursor = notes.cursor
        consumer.settled = {one for one in consumer.settled | notes.settled if one > notes.cursor}

    def replay(
        self,
        since: float | None = None,
        until: float | None = None,
        topics: Iterable[str] = (),
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Return a page of what is kept, settled or not, published from `since` until before `until`."""
        kept = shortest(topics)
        begin = float("-inf") if since is None else since
        end = float("inf") if until is None else until
        with self._open():
            matching = (
                message.entry for message in self._after(after) if begin <= message.time < end and message.is_of(kept)
            )
            return list(itertools.islice(matching, limit))

    def set_aside(self) -> list[SetAside]:
        """Return what was set aside, which is kept until it is resent or discarded."""
        with self._open():
            return [
                SetAside(name, sequence, aside.message.topic, aside.count, aside.reason, aside.message.time)
                for name, consumer in sorted(self._consumers.items())
                for sequence, aside in sorted(consumer.aside.items())
                if not aside.is_resent
            ]

    def resend(self, consumer: str, sequence: int) -> None:
        """Give its consumer a message again, at the latest after the next commit."""
        with self._open():
            self._aside(consumer, sequence).is_resent = True

    def discard(self, consumer: str, sequence: int) -> None:
        """Keep a message no longer that was set aside."""
        with self._open():
            self._aside(consumer, sequence)
            del self._consumers[consumer].aside[sequence]

    def _aside(self, consumer: str, sequence: int) -> _Aside:
        known = self._consumers.get(consumer)
        aside = known.aside.get(sequence) if known else None
        if aside is None or aside.is_resent:
            raise JournalError(f"the journal has no message {sequence} set aside for {consumer!r}")
        return aside

    def consumers(self) -> list[Consumer]:
        """Return how far everyone is."""
        with self._open():
            return [
                Consumer(name, one.cursor, sum(1 for _ in self._pending(one)), one.key, one.seen)
                for name, one in sorted(self._consumers.items())
            ]

    def _pending(self, consumer: _Consumer) -> Iterator[int]:
        return (
            message.entry.sequence
            for message in self._after(consumer.cursor)
            if message.is_of(consumer.notes.topics) and message.entry.sequence not in consumer.settled
        )

    def forget(self, consumer: str) -> None:
        """Keep nothing more for a consumer; its source reads nothing more."""
        with self._open():
            if consumer not in self._consumers:
                raise JournalError(f"the journal knows no consumer {consumer!r}")
            self._consumers.pop(consumer).notes.is_forgotten = True

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        """Drop messages that are too old; return how many each consumer had not settled, if any."""
        self.commit()
        if self._max_age is None:
            return {}
        with self._open():
            limit = self._clock.believed(wall, now) - self._max_age
            old = list(itertools.takewhile(lambda number: self._messages[number].time < limit, self._messages))
            up_to = old[-1] if old else 0
            lost = Counter(
                name for name, one in self._consumers.items() for number in self._pending(one) if number <= up_to
            )
            for number in old:
                self._drop(number)
            return +lost

    @property
    def is_untidy(self) -> bool:
        """Never."""
        return False

    def tidy(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End it; harmless when ended."""
        with self._lock:
            self._is_closed = True
            self._messages.clear()
