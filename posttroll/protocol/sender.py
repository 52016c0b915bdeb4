"""The sending end of a link."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Hashable

from posttroll.protocol.allowance import Allowance
from posttroll.protocol.frames import (
    MOST,
    RELEASED,
    Attach,
    Attached,
    Detach,
    Disposition,
    Flow,
    Frame,
    Loaded,
    Outcome,
    Settled,
    Transfer,
)
from posttroll.protocol.link import Patience
from posttroll.protocol.source import Entry, Source

__all__ = ["Sender"]

_MOST_IN_FLIGHT = 1000
_MOST_BYTES_IN_FLIGHT = 16 * 1024 * 1024
_NEVER_ARRIVED = Outcome("released", begun=False)


class Sender:
    """The sending end of one session: transfers what it is given for a receiver, and settles what that says.

    `identity`: what the transport knows of who the receiver belongs to.
    """

    def __init__(
        self, attach: Attach, source: Source, name: str, journal: str, identity: str, patience: Patience
    ) -> None:
        self.receiver = attach.receiver
        self.session = attach.session
        self.source = source
        self.identity = identity
        self.allowance: Allowance | None = None
        """What of its connection's bandwidth is left to use, if that is limited."""
        self.peer: Hashable = None
        """Where the receiver was last heard, in the transport's words."""
        self.is_doubtful = False
        """Whether the connection was cut since the receiver was heard."""
        self._name = name
        self._patience = patience
        self._dies_at = self._said_at = 0.0
        self._asked_at = -math.inf
        self._leases: dict[int, int] = {}
        self._next = len(attach.unsettled)
        self._limit = 0
        self._flow_number = self._own_flow_number = 0
        self._in_flight: deque[tuple[Transfer, bytes]] = deque()
        self._bytes_in_flight = 0
        self._suspect = -1
        self._resend_at = 0.0
        self._resends = 0
        self._owes_answer = False
        self._confirmed: list[int] = []
        self._answer = Attached(self.receiver, self.session, name, journal, self._claim(attach, journal))

    def _claim(self, attach: Attach, journal: str) -> list[int]:
        """Take over what the receiver holds; return the numbers of what it may not keep."""
        lost = []
        is_same = attach.journal in ("", journal)
        for number, (sequence, outcome) in enumerate(attach.unsettled):
            if not is_same or not self.source.claim(sequence):
                lost.append(number)
                continue
            self._leases[number] = sequence
            if outcome is not None:
                self._settle(number, outcome)
        return lost

    @property
    def has_room(self) -> bool:
        """Whether the receiver may be transferred more now."""
        return (
            self._next < self._limit
            and self._suspect not in self._leases
            and len(self._leases) < MOST
            and len(self._in_flight) < _MOST_IN_FLIGHT
            and self._bytes_in_flight <= _MOST_BYTES_IN_FLIGHT
            and (self.allowance is None or self.allowance.level > 0)
        )

    @property
    def unsettled(self) -> int:
        """How many messages the receiver has, or will have when they arrive."""
        return len(self._leases)

    def heard(self, peer: Hashable, now: float) -> None:
        """Note that the receiver lives."""
        self.peer, self.is_doubtful, self._dies_at = peer, False, now + self._patience.silence

    def doubt(self, now: float) -> None:
        """Note that the connection was cut."""
        self.is_doubtful, self._dies_at = True, min(self._dies_at, now + self._patience.doubt)

    def is_dead(self, now: float) -> bool:
        """Return whether the receiver was silent for too long."""
        return now >= self._dies_at

    def receive(self, frame: Frame, now: float) -> None:
        """Take a frame of the receiver's."""
        if isinstance(frame, Flow):
            if frame.number > self._flow_number:
                self._flow_number, self._limit = frame.number, frame.limit
                self._confirm(frame.expected, now)
        elif isinstance(frame, Disposition):
            for number, outcome in frame.outcomes.items():
                self._settle(number, outcome)
        elif isinstance(frame, Attach):
            self._owes_answer = True

    def _confirm(self, expected: int, now: float) -> None:
        while self._in_flight and self._in_flight[0][0].delivery < expected:
            _, payload = self._in_flight.popleft()
            self._bytes_in_flight -= len(payload)
            self._resends, self._resend_at = 0, now + self._patience.resend

    def _settle(self, number: int, outcome: Outcome) -> None:
        if number >= self._next or len(self._confirmed) >= MOST:
            return
        sequence = self._leases.pop(number, None)
        if sequence is not None:
            self.source.settle(sequence, outcome)
        self._confirmed.append(number)

    def transfer(self, entry: Entry, count: int, now: float) -> Loaded:
        """Return the frame that brings the receiver a message, leased from the source for the `count`th time."""
        frame = Transfer(self.receiver, self.session, self._name, self._next, entry.sequence, count)
        if not self._in_flight:
            self._resends, self._resend_at = 0, now + self._patience.resend
        self._in_flight.append((frame, entry.payload))
        self._bytes_in_flight += len(entry.payload)
        self._leases[self._next] = entry.sequence
        if 2 * count > self.source.max_deliveries:
            # It may be what its receivers die of: nothing after it is given out in vain together with it.
            self._suspect = self._next
        self._next += 1
        self._said_at = now
        self._spend(entry.payload)
        return frame, entry.payload

    def _spend(self, payload: bytes) -> None:
        if self.allowance is not None:
            self.allowance.spend(len(payload))

    def ask_back(self, now: float) -> list[Loaded]:
        """Return what asks the receiver for what its application has not begun, if it was not asked just now."""
        if now < self._asked_at + self._patience.resend:
            return []
        self._asked_at = self._said_at = now
        return [self._flow(drain=True)]

    def _flow(self, drain: bool = False) -> Loaded:
        self._own_flow_number += 1
        return Flow(self.receiver, self.session, self._name, self._own_flow_number, drain=drain), None

    def end(self, arrived: Collection[int] | None = None) -> None:
        """Release all that the receiver held; `arrived`: what of it has reached the receiver at all, if known."""
        for sequence in self._leases.values():
            has_arrived = arrived is None or sequence in arrived
            self.source.settle(sequence, RELEASED if has_arrived else _NEVER_ARRIVED)
        self._leases.clear()

    def detach(self, reason: str) -> Loaded:
        """Return the frame that tells the receiver of the end."""
        return Detach(self.receiver, self.session, self._name, reason), None

    def frames_to_send(self, now: float) -> list[Loaded]:
        """Return what the receiver is to be told now; its outcomes have to be kept before that is sent."""
        frames: list[Loaded] = []
        if self._owes_answer:
            self._owes_answer = False
            frames.append((self._answer, None))
        if self._confirmed:
            frames.append((Settled(self.receiver, self.session, self._name, self._confirmed), None))
            self._confirmed = []
        if self._in_flight and now >= self._resend_at:
            self._resends += 1
            self._resend_at = now + min(self._patience.resend * 2**self._resends, self._patience.silence / 2)
            for transfer, payload in self._in_flight:
                frames.append((transfer, payload))
                self._spend(payload)
        if not frames and now >= self._said_at + self._patience.interval:
            frames.append(self._flow())
        if frames:
            self._said_at = now
        return frames

    def next_timeout(self) -> float:
        """Return when to ask for frames again, if nothing happens before."""
        moment = min(self._said_at + self._patience.interval, self._dies_at)
        return min(moment, self._resend_at) if self._in_flight else moment
