"""What every journal does, and what one consumer noted in it."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from posttroll.protocol.source import Entry, Position, Source

__all__ = [
    "MOST_CONSUMERS",
    "Consumer",
    "Journal",
    "Notes",
    "Read",
    "SetAside",
    "SteadyClock",
    "open_replay",
    "refuse_more_consumers",
    "shortest",
    "starting_time",
]

Read = Callable[[Sequence[str], int, int], tuple[Sequence[Entry], int]]

MOST_CONSUMERS = 1000
"""How many consumers a journal has; anybody who reaches the publisher can make one."""


@dataclass(frozen=True)
class SetAside:
    """A message that a consumer could not use; `time` is when it was published, in seconds since the epoch."""

    consumer: str
    sequence: int
    topic: str
    count: int
    reason: str
    time: float


@dataclass(frozen=True)
class Consumer:
    """How far a consumer is.

    `pending`: how many messages it has yet to settle; `key`: whom it belongs to; `seen`: when its source was last
    opened, in seconds since the epoch.
    """

    name: str
    cursor: int
    pending: int
    key: str
    seen: float


class Journal(Protocol):
    """Keeps messages, numbered 1, 2, 3 …, and how far each consumer is with them.

    Times are seconds since the epoch. Topics are beginnings of messages ("pytroll://1b/hrit"); none means all. A
    message is kept until it is `max_age` seconds old; when `max_size` bytes are reached, or the disk is short,
    the oldest ones go that all consumers have settled.

    All may be called from any thread; `open_source`, `commit`, `tidy`, `expire` and the sources themselves from one at
    a time.
    `JournalError` is raised by all of it, `JournalFull` by what writes.
    """

    @property
    def identity(self) -> str:
        """A name that no other journal has, given to it when it was made, and anew when messages may have been lost."""

    @property
    def last(self) -> int:
        """The number of the newest message, 0 before the first. No number is given twice."""

    @property
    def link_port(self) -> int:
        """The port where the links were served last, to be taken again after a restart; 0 at first."""

    @link_port.setter
    def link_port(self, port: int) -> None: ...

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        """Keep a message and return its number; `topic` is what `frame` begins with, up to its first space.

        After the wall clock says `expires` it is given to nobody any more.
        """

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        """Return what gives out a consumer's messages; while the journal is open it is always the same one.

        The topics are the consumer's from now on. A new consumer starts with what is published from now on ("new"),
        with all that is kept ("first"), or with what was published since an ISO 8601 time (UTC, if it has no offset).
        `PermissionError` if it belongs to another key or there are too many, `ValueError` if that is not a start.
        """

    def open_replay(self, topics: Iterable[str] = (), since: str = "", until: str = "", after: int = 0) -> Source:
        """Return what gives out once more what is kept now, settled or not, and notes nothing.

        Given out is what was published from `since` until before `until`, ISO 8601 times (UTC, if they have no
        offset), "first" or "" for no limit; nothing up to number `after`. `ValueError` if one is no time.
        """

    def commit(self) -> None:
        """Keep for good what the sources noted, and hand them what was resent."""

    def replay(
        self,
        since: float | None = None,
        until: float | None = None,
        topics: Iterable[str] = (),
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Return a page of what is kept, settled or not, published from `since` until before `until`."""

    def set_aside(self) -> list[SetAside]:
        """Return what was set aside, which is kept until it is resent or discarded."""

    def resend(self, consumer: str, sequence: int) -> None:
        """Give its consumer a message again, at the latest after the next commit."""

    def discard(self, consumer: str, sequence: int) -> None:
        """Keep a message no longer that was set aside."""

    def consumers(self) -> list[Consumer]:
        """Return how far everyone is."""

    def forget(self, consumer: str) -> None:
        """Keep nothing more for a consumer; its source reads nothing more and says that it is forgotten."""

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        """Drop messages that are too old; return how many each consumer had not settled, if any.

        To be called every few seconds: if there are very many, they go in several calls, and what was kept before a
        call outlives the loss of power after it, if the disk has room.

        The wall clock is believed when this is called first; later it counts only as far as the monotonic `now` has
        moved on, too. So a clock that is put forward drops nothing before its time, and that is later then, at the
        latest after the next opening.
        """

    @property
    def is_untidy(self) -> bool:
        """Whether there is something to `tidy`; costs next to nothing."""

    def tidy(self) -> None:
        """Do what `append` would have to wait for sooner or later, if there is enough of it."""

    def close(self) -> None:
        """Give the journal back, without what was not committed; harmless when closed."""


class Notes:
    """What a consumer noted since the last commit, and what it reads: the `Store` of its source."""

    def __init__(self, read: Read, cursor: int) -> None:
        self.topics: Sequence[str] = ()
        self.cursor = cursor
        self.position: tuple[int, int] | None = None
        self.settled: set[int] = set()
        self.counts: dict[int, int] = {}
        self.aside: dict[int, tuple[int, str]] = {}
        self.resent: set[int] = set()
        """What was set aside and has yet to be settled again."""
        self.is_forgotten = False
        self._read = read

    def __bool__(self) -> bool:
        return bool(self.position or self.settled or self.counts or self.aside)

    def clear(self) -> None:
        """Forget what is now kept for good."""
        self.resent -= self.settled | self.aside.keys()
        self.position = None
        self.settled.clear()
        self.counts.clear()
        self.aside.clear()

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        """Return the next messages for the consumer, and the number up to which all have been looked at."""
        return ((), after) if self.is_forgotten else self._read(self.topics, after, limit)

    def save(self, cursor: int, handed_out: int) -> None:
        """Note how far the consumer is."""
        self.cursor = cursor
        self.position = (cursor, handed_out)

    def settle(self, sequence: int) -> None:
        """Note that a message is settled which is beyond the cursor or was resent."""
        self.settled.add(sequence)

    def count(self, sequence: int, count: int) -> None:
        """Note how often a message was given out."""
        self.counts[sequence] = count

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        """Note that a message is set aside."""
        self.aside[sequence] = (count, reason)


class Replay:
    """What is read once more: the `Store` of a source that keeps nothing."""

    is_forgotten = False

    def __init__(self, read: Callable[[int, int], Sequence[Entry]], last: int) -> None:
        self._read = read
        self._last = last

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        """Return the next messages, and the number up to which all have been looked at."""
        if after >= self._last:
            return (), after
        page = self._read(after, limit)
        entries = [entry for entry in page if entry.sequence <= self._last]
        return entries, entries[-1].sequence if len(entries) == limit else self._last

    def save(self, cursor: int, handed_out: int) -> None:
        """Note nothing."""

    def settle(self, sequence: int) -> None:
        """Note nothing."""

    def count(self, sequence: int, count: int) -> None:
        """Note nothing."""

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        """Note nothing."""


def open_replay(journal: Journal, topics: Iterable[str], since: str, until: str, after: int) -> Source:
    """Return what gives out once more what a journal keeps now; `ValueError`."""
    begin, end = (None if text in ("", "first") else _seconds(text) for text in (since, until))
    page = functools.partial(journal.replay, begin, end, shortest(topics))
    return Source(Replay(page, journal.last), Position(after, after))


class SteadyClock:
    """The wall clock as far as a monotonic one confirms it."""

    def __init__(self) -> None:
        self._former: tuple[float, float] | None = None

    def believed(self, wall: float, now: float) -> float:
        """Return the wall time that is certain to have come."""
        if self._former is not None:
            former_wall, former_now = self._former
            wall = min(wall, former_wall + now - former_now)
        self._former = wall, now
        return wall


def refuse_more_consumers(count: int) -> None:
    """Raise `PermissionError` if a journal that has so many consumers takes no further one."""
    if count >= MOST_CONSUMERS:
        raise PermissionError(f"the journal has {count} consumers already; forget those that do not come back")


def starting_time(start_at: str) -> float | None:
    """Return when to start, in seconds since the epoch, None for now; `ValueError`."""
    if start_at in ("new", "first"):
        return {"new": None, "first": float("-inf")}[start_at]
    try:
        return _seconds(start_at)
    except ValueError:
        raise ValueError(f"{start_at!r} is no start; known: new, first, or an ISO 8601 time") from None


def _seconds(text: str) -> float:
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def shortest(topics: Iterable[str]) -> list[str]:
    """Return the topics that are not within another one, [] for all."""
    kept: list[str] = []
    for topic in sorted(topics):
        if not kept or not topic.startswith(kept[-1]):
            kept.append(topic)
    return [] if kept == [""] else kept
