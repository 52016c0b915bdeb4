"""Links: acknowledged transfer between two ends, in the words of AMQP 1.0. Here: the receiving end.

A receiver **attaches** under its consumer's name and grants **credit** by its flow; the sender **transfers**; the
receiver says in a **disposition** what became of each delivery (accepted, rejected, released), and forgets it when the
sender has **settled** it. Either end may **detach**.

Frames may be lost, doubled, late or out of order, and either end may be started anew at any time. The deliveries of a
session are numbered and taken in order; what is missing is sent again, and what an end has to say is repeated until
the other one confirms it. A receiver that is silent for too long loses what it held to the next one; a receiver that
misses its sender attaches again, with all that it holds. It is the same to both which of them has connected to the
other one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from posttroll.protocol.frames import (
    MOST,
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

__all__ = ["TRANSITIONS", "Delivery", "Patience", "Receiver"]

TRANSITIONS = {
    ("detached", "attach"): "attaching",
    ("attaching", "attached"): "attached",
    ("attaching", "refused"): "attaching",
    ("attaching", "ended"): "detached",
    ("attaching", "detach"): "detached",
    ("attached", "cut"): "attaching",
    ("attached", "silence"): "attaching",
    ("attached", "detached"): "attaching",
    ("attached", "ended"): "detached",
    ("attached", "detach"): "detached",
}
"""The states of a receiver, and what leads from one to the next.

Its own wish: attach, detach. The sender's: attached, refused, detached, ended (a replay). The way to it: cut, silence.
"""


@dataclass(frozen=True)
class Patience:
    """Seconds: before what is unconfirmed is sent again, between signs of life, and until silence means death.

    `doubt`: until silence means death where the connection was cut.
    """

    resend: float = 1.0
    interval: float = 2.0
    silence: float = 10.0
    doubt: float = 0.5


@dataclass(frozen=True)
class Delivery:
    """A message that was transferred and is not settled yet.

    `publisher`: the identity of the journal that it comes from; `address`: where that was served; `key`: the public key
    of who sent it, if known.
    """

    publisher: str
    sequence: int
    count: int
    payload: bytes
    key: str = ""
    address: str = ""

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""
        return self.count > 1


@dataclass(eq=False, slots=True)
class _Held:
    delivery: Delivery
    number: int
    has_begun: bool = False
    outcome: Outcome | None = None


class Receiver:
    """The receiving end: hands deliveries to an application and tells the sender what became of them.

    `name` has to be new in all the world. `journal`: whose messages to ask for, if the sender has those of several.
    `credit`: how many deliveries may be unsettled at a time. With the
    `distribution_mode` "copy" it gets a replay, of what was published from `start_at` until before `until`, ISO 8601
    times or "", and is finished after that.
    """

    def __init__(
        self,
        name: str,
        consumer: str,
        topics: Iterable[str] = (),
        *,
        start_at: str = "new",
        until: str = "",
        distribution_mode: Literal["move", "copy"] = "move",
        journal: str = "",
        credit: int = 100,
        patience: Patience | None = None,
    ) -> None:
        self.state = "detached"
        self.is_finished = False
        """Whether a replay has come to its end."""
        self.is_leaving = False
        """Whether to detach was wished for and has yet to be told."""
        self.refusal = ""
        """What the sender said when it refused."""
        self.key = ""
        """The public key of the sender, for the deliveries."""
        self.address = ""
        """Where the sender is, for the same."""
        self._name = name
        self._consumer = consumer
        self._topics = list(topics)
        self._start_at = start_at
        self._until = until
        self._distribution_mode: Literal["move", "copy"] = distribution_mode
        self._credit = min(credit, MOST)
        self._patience = patience or Patience()
        self._journal = journal
        self._session = 0
        self._sender = ""
        self._attach = Attach(name, 0, "", consumer, self._topics)
        self._attach_at = self._heard_at = self._flow_at = 0.0
        self._flow = Flow(name, 0, "", 0)
        self._is_flow_due = False
        self._is_awaited = False
        self._is_drained = False
        self._expected = 0
        self._last_begun = 0
        self._open = 0
        self._held: dict[int, _Held] = {}
        self._by_number: dict[int, _Held] = {}
        self._waiting: deque[_Held] = deque()
        self._untold: list[_Held] = []
        self._told: deque[tuple[float, _Held]] = deque()

    @property
    def unsettled(self) -> int:
        """How many deliveries the sender has not settled, or not said so."""
        return len(self._held)

    def attach(self, now: float) -> None:
        """Begin; harmless when begun. Stay, if to detach was wished for and has not been told yet."""
        self.is_leaving = False
        if self.state == "detached":
            self.is_finished = False
            self._enter("attach", now)

    def detach(self) -> None:
        """End: what the application has not settled is released."""
        self._waiting.clear()
        for held in self._held.values():
            self._conclude(held, Outcome("released", begun=held.has_begun))
        self.is_leaving = True

    def connected(self, now: float) -> None:
        """Note that the way to the sender is open, again perhaps: it is told at once where this end is."""
        self._attach_at = -math.inf
        self._is_flow_due = True

    def disconnected(self, now: float) -> None:
        """Note that the way to the sender is cut: whoever is there next is attached to anew."""
        if self.state == "attached":
            self._enter("cut", now)

    def take(self) -> Delivery | None:
        """Return the next delivery for the application, which has to settle it."""
        self._is_drained = False
        self._is_awaited = not self._waiting
        if self._is_awaited:
            return None
        held = self._waiting.popleft()
        held.has_begun = True
        self._last_begun = held.delivery.sequence
        return held.delivery

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Note what became of a delivery; return False if it is no longer this receiver's to settle."""
        held = self._held.get(delivery.sequence)
        return held is not None and held.delivery is delivery and self._conclude(held, outcome)

    def _conclude(self, held: _Held, outcome: Outcome) -> bool:
        if held.outcome is not None:
            return False
        held.outcome = outcome
        self._open -= 1
        self._untold.append(held)
        return True

    def receive(self, frame: Frame, payload: bytes | None, now: float) -> None:
        """Take a frame of the sender's; those of other sessions are ignored."""
        if (frame.receiver, frame.session) != (self._name, self._session) or self.state == "detached":
            return
        if self._sender not in ("", frame.sender):
            return
        self._heard_at = now
        if isinstance(frame, Detach):
            self._receive_detach(frame, now)
        elif isinstance(frame, Attached) and self.state == "attaching":
            self._enter("attached", now)
            self.refusal = ""
            if frame.journal != self._journal:
                self._last_begun = 0
            self._journal, self._sender = frame.journal, frame.sender
            self._forget(frame.lost)
        elif self.state == "attached":
            self._receive_attached(frame, payload)

    def _receive_detach(self, frame: Detach, now: float) -> None:
        if self._distribution_mode == "copy" and not frame.reason:
            self.is_finished = True
            self._enter("ended", now)
        elif self.state == "attaching":
            self.refusal = frame.reason
            self._enter("refused", now)
        else:
            self._enter("detached", now)

    def _receive_attached(self, frame: Frame, payload: bytes | None) -> None:
        if isinstance(frame, Transfer) and payload is not None:
            self._receive_transfer(frame, payload)
        elif isinstance(frame, Settled):
            self._forget(frame.deliveries)
        elif isinstance(frame, Flow) and frame.drain:
            self._give_back()

    def _receive_transfer(self, frame: Transfer, payload: bytes) -> None:
        if frame.delivery != self._expected or self._open >= self._credit or len(self._by_number) >= MOST:
            self._is_flow_due = True  # one is missing, or the sender missed ours: say where we are
            return
        self._expected += 1
        self._open += 1
        delivery = Delivery(self._journal, frame.sequence, frame.count, payload, self.key, self.address)
        held = _Held(delivery, frame.delivery)
        self._held[frame.sequence] = self._by_number[frame.delivery] = held
        self._waiting.append(held)

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            held = self._by_number.pop(number, None)
            if held is None:
                continue
            if self._held.get(held.delivery.sequence) is held:
                del self._held[held.delivery.sequence]
            if held.outcome is None:
                self._open -= 1
                if not held.has_begun:
                    self._waiting.remove(held)

    def _give_back(self) -> None:
        """Release what the application has not begun; there is no credit before it asks for more."""
        self._is_drained = not self._is_awaited
        while self._waiting:
            self._conclude(self._waiting.pop(), Outcome("released", begun=False))

    def _enter(self, event: str, now: float) -> None:
        self.state = TRANSITIONS[self.state, event]
        self._heard_at = now
        if self.state == "attaching":
            self._begin_session()
            self._attach_at = now if event == "refused" else -math.inf
        elif self.state == "attached":
            self._is_flow_due = True
        else:
            self._drop_all()

    def _begin_session(self) -> None:
        self._session += 1
        self._sender = ""
        if self._distribution_mode == "copy":
            self._drop_all()
        self._untold.clear()
        self._told.clear()
        self._by_number = dict(enumerate(self._held.values()))
        for number, held in self._by_number.items():
            held.number = number
        self._expected = len(self._by_number)
        self._flow = Flow(self._name, self._session, "", 0)
        self._attach = Attach(
            self._name,
            self._session,
            "",
            self._consumer,
            self._topics,
            self._start_at,
            self._journal,
            [(sequence, held.outcome) for sequence, held in self._held.items()],
            self._distribution_mode,
            self._until,
            self._last_begun if self._distribution_mode == "copy" else 0,
        )

    def _drop_all(self) -> None:
        self._open = 0
        for everything in (self._held, self._by_number, self._waiting, self._untold, self._told):
            everything.clear()

    def frames_to_send(self, now: float) -> list[Loaded]:
        """Return what the sender is to be told now."""
        if self.state == "attached" and now >= self._heard_at + self._patience.silence:
            self._enter("silence", now)
        if self.state == "detached":
            return []
        if self.is_leaving:
            # All outcomes, told or not, in one bundle with the end: what is not among them has not arrived.
            self._untold = list(self._by_number.values())
            frames = self._disposition(now) if self.state == "attached" else []
            frames.append((Detach(self._name, self._session, self._sender), None))
            self._enter("detach", now)
            return frames
        if self.state == "attached":
            return [*self._disposition(now), *self._next_flow(now)]
        if now < self._attach_at + self._patience.resend:
            return []
        self._attach_at = now
        return [(self._attach, None)]

    def _disposition(self, now: float) -> list[Loaded]:
        due, self._untold = self._untold, []
        while self._told and now >= self._told[0][0] + self._patience.resend:
            due.append(self._told.popleft()[1])
        outcomes = {}
        for held in due:
            if held.outcome is not None and self._by_number.get(held.number) is held:
                outcomes[held.number] = held.outcome
                self._told.append((now, held))
        return [(Disposition(self._name, self._session, self._sender, outcomes), None)] if outcomes else []

    def _next_flow(self, now: float) -> list[Loaded]:
        limit = self._expected + max(0, (0 if self._is_drained else self._credit) - self._open)
        has_news = self._is_flow_due or (self._expected, limit) != (self._flow.expected, self._flow.limit)
        if not has_news and now < self._flow_at + self._patience.interval:
            return []
        number = self._flow.number + 1
        self._flow = Flow(self._name, self._session, self._sender, number, self._expected, limit)
        self._flow_at, self._is_flow_due = now, False
        return [(self._flow, None)]

    def next_timeout(self) -> float:
        """Return when to ask for frames again, if nothing happens before; infinite when detached."""
        if self.state == "detached":
            return math.inf
        if self.state == "attaching":
            return self._attach_at + self._patience.resend
        moments = [self._flow_at + self._patience.interval, self._heard_at + self._patience.silence]
        if self._told:
            moments.append(self._told[0][0] + self._patience.resend)
        return min(moments)
