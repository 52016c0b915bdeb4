"""What a plain subscriber missed, as the heartbeats of publishers with a journal tell.

A heartbeat says how many messages of each topic its publisher has sent. Heartbeats and messages come in order, over one
connection: what was sent between two heartbeats and has not come before the second one does not come any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from posttroll.protocol.codec import MAGIC

__all__ = ["Gaps", "Tally"]

_HEARTBEAT = f"{MAGIC}/heartbeat/".encode()
_EVERYTHING = f"{MAGIC}/".encode()
_OTHERS = ""
_MOST_TOPICS = 200
_LONGEST_TOPIC = 200
_MOST_JOURNALS = 1000
_MOST_PARTED = 100

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Topic = Annotated[str, Meta(max_length=_LONGEST_TOPIC)]


class Tally:
    """Counts what a publisher sends, for its heartbeats; `started` is another one in each life of the publisher.

    Whoever counts, sends and beats holds one lock meanwhile, so that a heartbeat counts exactly what is sent before it.
    """

    def __init__(self, journal: str, started: str) -> None:
        self._journal = journal
        self._started = started
        self._sent = {_OTHERS: 0}

    def count(self, topic: str) -> None:
        """Count a message by what it begins with, up to its first space."""
        if topic in self._sent:
            self._sent[topic] += 1
        elif len(self._sent) <= _MOST_TOPICS and len(topic) <= _LONGEST_TOPIC:
            self._sent[topic] = 1
        else:
            self._sent[_OTHERS] += 1

    def as_data(self, sequence: int) -> dict[str, Any]:
        """Return what a heartbeat says beside its `min_interval`; `sequence`: the newest message in the journal."""
        return {"journal": self._journal, "sequence": sequence, "started": self._started, "sent": dict(self._sent)}


class _Beat(Struct, frozen=True):
    journal: _Name
    sequence: _Count
    started: _Name
    sent: Annotated[dict[_Topic, _Count], Meta(max_length=_MOST_TOPICS + 1)]

    def __post_init__(self) -> None:
        if self.total > self.sequence:
            raise ValueError(f"{self.total} messages were sent, but {self.sequence} kept")

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def count(self, topics: tuple[bytes, ...]) -> int:
        """Return how many messages of the topics were sent, as far as that is certain."""
        return sum(count for topic, count in self.sent.items() if _is_of(topic, topics))

    def is_all(self, topics: tuple[bytes, ...]) -> bool:
        """Return whether all that was sent is of the topics, and all that will be."""
        return _EVERYTHING.startswith(topics) and self.count(topics) == self.total


def _is_of(topic: str, topics: tuple[bytes, ...]) -> bool:
    beginning = _EVERYTHING if topic == _OTHERS else f"{topic} ".encode(errors="replace")
    return beginning.startswith(topics)


@dataclass(eq=False)
class _Connection:
    topics: tuple[bytes, ...]
    received: int = 0
    beat: _Beat | None = None
    was_parted: bool = False

    @property
    def wants_heartbeats(self) -> bool:
        return _HEARTBEAT.startswith(self.topics)


class _Life(NamedTuple):
    """The one in which a publisher was last heard."""

    started: str
    connection: _Connection


class Gaps:
    """Counts what does not come over the connections of a subscriber. Rather too little than too much.

    `decode` returns the data of the message in a frame, None if there is none.
    """

    def __init__(self, decode: Callable[[bytes], object]) -> None:
        self.missed = 0
        """How many messages were sent to this subscriber and have not come."""
        self._decode = decode
        self._connections: dict[Hashable, _Connection] = {}
        self._parted: dict[Hashable, None] = {}
        self._lives: dict[str, _Life] = {}

    def connect(self, peer: Hashable, topics: Sequence[bytes]) -> list[bytes]:
        """Begin to count for a connection; return the topics to subscribe to, so that heartbeats come, too."""
        self._parted.pop(peer, None)
        connection = self._connections.get(peer)
        if connection is None or connection.topics != tuple(topics):
            connection = self._connections[peer] = _Connection(tuple(topics))
        return [*topics] if connection.wants_heartbeats else [*topics, _HEARTBEAT]

    def part(self, peer: Hashable) -> None:
        """Note that a publisher has gone; what it sends, there or elsewhere, before it is found again, is missed."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.was_parted = True
            self._parted[peer] = None
            if len(self._parted) > _MOST_PARTED:
                self.disconnect(next(iter(self._parted)))

    def disconnect(self, peer: Hashable) -> None:
        """End a connection whose messages are not wanted any more."""
        self._parted.pop(peer, None)
        connection = self._connections.pop(peer, None)
        for journal in [name for name, life in list(self._lives.items()) if life.connection is connection]:
            self._lives.pop(journal, None)

    def receive(self, peer: Hashable, frames: list[bytes]) -> list[bytes]:
        """Take the frames that came next; return them without the heartbeats that only the counting needs."""
        connection = self._connections.get(peer)
        if connection is None:
            return frames
        beats = [index for index, frame in enumerate(frames) if frame.startswith(_HEARTBEAT)]
        end = 0
        for index in beats:
            connection.received += index - end
            self._receive_heartbeat(connection, frames[index])
            end = index + 1
        connection.received += len(frames) - end
        if not beats or connection.wants_heartbeats:
            return frames
        return [frame for frame in frames if frame.startswith(connection.topics)]

    def _receive_heartbeat(self, connection: _Connection, frame: bytes) -> None:
        beat = _read(self._decode(frame))
        if beat is None:
            # Its publisher counts it as it does any other message.
            connection.received += frame.startswith(connection.topics)
            return
        self.missed += max(0, self._expected(connection, beat) - connection.received)
        connection.beat, connection.received, connection.was_parted = beat, 0, False
        self._lives.pop(beat.journal, None)
        self._lives[beat.journal] = _Life(beat.started, connection)
        if len(self._lives) > _MOST_JOURNALS:
            del self._lives[next(iter(self._lives))]

    def _expected(self, connection: _Connection, beat: _Beat) -> int:
        """Return how many messages were certainly sent to a connection since its last heartbeat."""
        topics = connection.topics
        last = connection.beat if connection.beat is not None and connection.beat.journal == beat.journal else None
        if last is not None and last.started == beat.started:
            return beat.count(topics) - last.count(topics)
        life = self._lives.get(beat.journal)
        if life is None or life.started == beat.started or life.connection.topics != topics:
            return 0
        # What a former life sent after its last heartbeat is only known from the journal, which does not tell topics.
        is_here = life.connection is connection and not connection.was_parted
        if is_here and last is not None and last.is_all(topics) and beat.is_all(topics):
            return beat.sequence - last.sequence
        return beat.count(topics)


def _read(data: object) -> _Beat | None:
    try:
        return msgspec.convert(data, _Beat) if isinstance(data, Mapping) else None
    except (msgspec.ValidationError, RecursionError):
        return None
