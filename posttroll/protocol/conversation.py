"""What two containers say of themselves over one connection: who they are, and that they are there."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from posttroll.protocol.frames import VERSION, Open
from posttroll.protocol.inbound import Inbound
from posttroll.protocol.link import Patience

__all__ = ["Conversation", "PeerInfo"]


class PeerInfo(NamedTuple):
    """A container that is connected: its name, where it is ("" if it came in), and its public key in Z85, if any."""

    name: str
    address: str = ""
    key: str = ""


class Conversation:
    """One connection, from the view of one end.

    It is "opening" until the other end has said who it is, then "open", and "closed" when no more is to be said.
    """

    def __init__(
        self, place: Hashable, address: str, container: str, life: str, now: float, patience: Patience
    ) -> None:
        self.place = place
        self.address = address
        self.state: Literal["opening", "open", "closed"] = "opening"
        self.peer = PeerInfo("")
        self.life = ""
        self.queues: Mapping[str, str] = {}
        """What the other end holds for this one: targets by queue."""
        self.attached: dict[str, Inbound] = {}
        """Which of that is received here."""
        self.due = math.inf
        self.is_gone = False
        self._container = container
        self._own_life = life
        self._patience = patience
        self._heard_at = now
        self._said_at = -math.inf
        self._number = 0
        self._offered: Mapping[str, str] = {}
        self._heard = self._acknowledged = 0
        self._owes_answer = False

    @property
    def names(self) -> Sequence[str]:
        """What the other end is called by those who send something there, its address if it was connected to."""
        return [self.peer.name, self.address] if self.address else [self.peer.name]

    def heard(self, now: float) -> None:
        """Note a sign of life."""
        self._heard_at = now

    def is_silent(self, now: float) -> bool:
        """Return whether there was no sign of life for too long."""
        return now >= self._heard_at + self._patience.silence

    def receive(self, frame: Open, key: str) -> None:
        """Take what the other end says of itself."""
        if self.state == "opening":
            self.state = "open"
            self.peer, self.life = PeerInfo(frame.container, self.address, key), frame.life
        if frame.number > self._heard:
            self._heard, self.queues = frame.number, frame.queues
        self._acknowledged = max(self._acknowledged, frame.heard)
        self._owes_answer |= frame.awaits

    def speak(self, offered: Mapping[str, str], numbers: Iterator[int], now: float) -> Iterator[Open]:
        """Give what is to be said; `offered` are the queues for the other end, `numbers` ones that grow."""
        if self.state == "closed":
            return
        has_changed = not self._number or offered != self._offered
        if has_changed:
            self._number, self._offered = next(numbers), offered
        if has_changed or self._owes_answer or now >= self.next_timeout():
            self._owes_answer, self._said_at = False, now
            yield Open(
                self._container,
                self._own_life,
                VERSION,
                self._number,
                self._heard,
                self._acknowledged < self._number,
                dict(offered),
            )

    def next_timeout(self) -> float:
        """Return when to speak again, if nothing happens before."""
        dies_at = self._heard_at + self._patience.silence
        if self.state == "closed":
            return dies_at
        is_answered = self._number and self._acknowledged >= self._number
        pause = self._patience.interval if is_answered else self._patience.resend
        return min(self._said_at + pause, dies_at)
