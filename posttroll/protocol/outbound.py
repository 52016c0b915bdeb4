"""What waits for one other container, and its way there."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol

from posttroll.protocol.allowance import Allowance
from posttroll.protocol.frames import Attach, Frame, Loaded
from posttroll.protocol.link import Patience
from posttroll.protocol.node import Node
from posttroll.protocol.queue import Shelf
from posttroll.protocol.source import Entry, Source

__all__ = ["Concluded", "Outbound", "Tag"]

_BETWEEN_HOUSEKEEPING = 10.0
_MOST_PAST_DEADLINES = 100


class Tag(Protocol):
    """What follows a message."""

    def sent(self) -> None:
        """Note that the message went out."""

    def concluded(self, state: str, reason: str) -> None:
        """Note what became of it: "accepted", "rejected" or "expired" for good, "released" until it is sent again."""


class Concluded(NamedTuple):
    """What became of a message for good; `tag` is None if it was put by a former life."""

    peer: str
    target: str
    payload: bytes
    tag: Tag | None
    state: str
    reason: str


class Outbound:
    """The messages for one target of one other container.

    `pending`: how many are on the shelf already. `tell` is called with what became of each message.
    """

    def __init__(
        self,
        peer: str,
        target: str,
        shelf: Shelf,
        pending: int,
        *,
        is_persistent: bool,
        name: str,
        wall: float,
        allowances: Mapping[Hashable, Allowance],
        tell: Callable[[Concluded], None],
        patience: Patience,
    ) -> None:
        self.peer = peer
        self.target = target
        self.shelf = shelf
        self.is_persistent = is_persistent
        self.due = math.inf
        self.is_gone = False
        self.was_wanted = False
        """Whether it was said that the peer is wanted, since it was there last."""
        self.pending = pending
        """How many messages were neither accepted nor rejected and have not expired."""
        self.name = name
        """The name of its node, which no other one has."""
        self._tell = tell
        self._source = shelf.open_source(f"{target} {peer}", [], "first", wall)
        self._source.on_change = self._note
        self._node = Node(name, shelf.identity, self._open_source, patience, allowances)
        self._tags: dict[int, Tag] = {}
        self._numbers: dict[int, int] = {}
        """The numbers of messages by the identity of their tag, which is a tag of one message."""
        self._deadlines: dict[int, float] = {}
        self._next_deadlines: list[tuple[float, int]] = []
        self._rests_until = -math.inf
        self._keeps_house_at = -math.inf if is_persistent else math.inf

    @property
    def route(self) -> tuple[str, str, bool]:
        """Whom the messages are for, which target, and whether they are kept for good."""
        return self.peer, self.target, self.is_persistent

    def put(self, payload: bytes, tag: Tag | None, now: float, wall: float, ttl: float | None) -> None:
        """Keep a message until it is settled, or `ttl` seconds have passed; `JournalError`."""
        topic = payload.partition(b" ")[0].decode() if self.is_persistent else ""
        expires = None if ttl is None else self._clock(now, wall) + ttl
        sequence = self.shelf.append(topic, payload, wall, expires)
        self.pending += 1
        if tag is not None:
            self._tags[sequence] = tag
            self._numbers[id(tag)] = sequence
        if ttl is not None:
            self._deadlines[sequence] = now + ttl
            heapq.heappush(self._next_deadlines, (now + ttl, sequence))
            self._forget_deadlines()

    def _clock(self, now: float, wall: float) -> float:
        """Return the time by which messages expire: for what may outlive the process, that is the wall clock's."""
        return wall if self.is_persistent else now

    def _forget_deadlines(self) -> None:
        """Keep those of settled messages no longer, if they are most."""
        if len(self._next_deadlines) > 2 * len(self._deadlines) + _MOST_PAST_DEADLINES:
            self._next_deadlines = [(deadline, sequence) for sequence, deadline in self._deadlines.items()]
            heapq.heapify(self._next_deadlines)

    def _open_source(self, attach: Attach, identity: str) -> Source:
        if attach.topics or attach.distribution_mode != "move":
            raise PermissionError("a queue is given out as a whole, and once")
        return self._source

    def withdraw(self, tag: Tag) -> bool:
        """Take a message back that nobody has; return whether it was there to be taken."""
        sequence = self._numbers.get(id(tag))
        return sequence is not None and self._source.withdraw(sequence)

    def _note(self, entry: Entry, state: str, reason: str) -> None:
        tag = self._tags.get(entry.sequence)
        if state == "transferred":
            if tag is not None:
                tag.sent()
            return
        if tag is not None:
            tag.concluded(state, reason)
        if state == "released":
            if entry.sequence in self._deadlines:
                heapq.heappush(self._next_deadlines, (self._deadlines[entry.sequence], entry.sequence))
        else:
            self._deadlines.pop(entry.sequence, None)
            self._tags.pop(entry.sequence, None)
            self._numbers.pop(id(tag), None)
            self.pending -= 1
            self._tell(Concluded(self.peer, self.target, entry.payload, tag, state, reason))

    def receive(self, frame: Frame, place: Hashable, now: float, key: str) -> None:
        """Take a frame of a receiver's."""
        self._node.receive(frame, place, now, key)

    def disconnected(self, place: Hashable, now: float) -> None:
        """Note that the connection to a place was cut."""
        self._node.disconnected(place, now)

    def speak(self, now: float, wall: float) -> Sequence[tuple[Hashable, Loaded]]:
        """Return what is to be sent, and where; what led to that is kept by then, or `JournalError`."""
        if now < self._rests_until:
            return ()
        self._expire(now)
        if now >= self._keeps_house_at:
            self._keep_house(now, wall)
        for allowance in self._node.allowances:
            allowance.refresh(now)
        frames = self._node.frames_to_send(now, self._clock(now, wall))
        self._node.take_aside()
        self.save()
        self.shelf.tidy()
        return frames

    def _expire(self, now: float) -> None:
        while self._next_deadlines and (first := self._next_deadlines[0])[0] <= now:
            if first[1] in self._deadlines:
                self._source.withdraw(first[1])  # if the peer has it, it is dropped when that gives it back
            heapq.heappop(self._next_deadlines)

    def _keep_house(self, now: float, wall: float) -> None:
        """Have nothing kept that is too old; what of it nobody has expires, whoever put it."""
        self._keeps_house_at = now + _BETWEEN_HOUSEKEEPING
        self._source.expire(wall)
        self.save()
        self.shelf.expire(wall, now)

    def save(self) -> None:
        """Keep what was settled; `JournalError`."""
        self._source.save()
        self.shelf.commit()

    def rest_until(self, moment: float) -> None:
        """Say nothing before a moment."""
        self._rests_until = moment

    def next_timeout(self) -> float:
        """Return when to speak again, if nothing happens before."""
        moments = [self._node.next_timeout(), self._keeps_house_at]
        if self.pending:
            moments.extend(one.next_timeout() for one in self._node.allowances)
        if self._next_deadlines:
            moments.append(self._next_deadlines[0][0])
        return max(self._rests_until, min((moment for moment in moments if moment is not None), default=math.inf))
