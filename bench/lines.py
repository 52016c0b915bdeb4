"""A sender with its receivers, connected, and what can be sent along such a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.harness import Child, Contender, Failure, Plan

__all__ = ["Flood", "Line", "Transfer", "complete_rate", "connected", "highest_rate"]

_SILENCE = 0.4
_LONG_SILENCE = 2.0
_SILENCE_OF_WHO_KEEPS = 3.0
_PATIENCE = 5.0
_GREETING = 0.05
_GREETINGS = 100
_CALIBRATION = 3000
_SHORT_CALIBRATION = 500
_ENDLESS = 2**62
_TRIALS = 7
_CLOSE_ENOUGH = 1.08


@dataclass(frozen=True)
class Transfer:
    """What became of messages, for all receivers together, from when sending began to when the last one arrived."""

    sent: int
    received: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages received in a second."""
        return self.received / self.seconds

    @property
    def lost(self) -> int:
        """Messages that did not arrive."""
        return self.sent - self.received


@dataclass(frozen=True)
class Flood(Transfer):
    """A transfer during which the sender was told so many times that something was lost."""

    told: int


class Line:
    """A sender and its receivers, which are called by a name."""

    def __init__(self, name: str, sender: Child, receivers: Sequence[Child]) -> None:
        self.name = name
        self._sender = sender
        self._receivers = receivers

    def greet(self, kind: str) -> None:
        """Choose the kind of message, and send until all receive; `Failure`."""
        self._sender.call("prepare", kind=kind)
        waiting = list(self._receivers)
        for _ in range(_GREETINGS):
            self._expect(waiting, 1)
            self._sender.call("send", count=1)
            counts = self._receive_soon(waiting)
            waiting = [receiver for receiver, count in zip(waiting, counts, strict=True) if not count]
            if not waiting:
                break
        else:
            raise Failure("nothing arrives")
        while self._drained():
            pass

    def _drained(self) -> int:
        self._expect(self._receivers, _ENDLESS)
        return sum(self._receive_soon(self._receivers))

    def transfer(self, count: int, rate: float = 0.0, silence: float = _SILENCE) -> Transfer:
        """Send so many messages, as fast as possible or at a rate; what does not come before a silence is lost."""
        self._expect(self._receivers, count)
        self._ask_to_receive(self._receivers, silence)
        pace = {"method": "send_paced", "rate": rate} if rate else {"method": "send"}
        started = self._sender.call(**pace, count=count)
        received, ended = self._outcome()
        return Transfer(count * len(self._receivers), received, ended - started)

    def flood(self, seconds: float) -> Flood:
        """Send as fast as possible for a while."""
        self._expect(self._receivers, _ENDLESS)
        self._ask_to_receive(self._receivers)
        started, sent, told = self._sender.call("send_for", seconds=seconds)
        received, ended = self._outcome()
        return Flood(sent * len(self._receivers), received, ended - started, told)

    def delays(self, count: int, rate: float, composed: bool) -> list[float]:
        """Send messages at a rate; return the microseconds that each has taken, the shortest first."""
        for receiver in self._receivers:
            receiver.call("prepare_delays", count=count)
        self._ask_to_receive(self._receivers, _LONG_SILENCE)
        self._sender.call("send_moments", count=count, rate=rate, composed=composed)
        self._outcome()
        delays = sorted(delay for receiver in self._receivers for delay in receiver.call("delays"))
        if len(delays) < count * len(self._receivers):
            raise Failure(f"{count * len(self._receivers) - len(delays)} messages of a slow stream are lost")
        return delays

    def _expect(self, receivers: Sequence[Child], count: int) -> None:
        for receiver in receivers:
            receiver.call("prepare", count=count)

    def _ask_to_receive(
        self, receivers: Sequence[Child], silence: float = _SILENCE, patience: float = _PATIENCE
    ) -> None:
        for receiver in receivers:
            receiver.ask("receive", silence=silence, patience=patience)

    def _receive_soon(self, receivers: Sequence[Child]) -> list[int]:
        """Return how many messages each receives, or has received."""
        self._ask_to_receive(receivers, _GREETING, _GREETING)
        return [receiver.answer()[0] for receiver in receivers]

    def _outcome(self) -> tuple[int, float]:
        """Return how many messages arrived, and when the last one did."""
        outcomes = [receiver.answer() for receiver in self._receivers]
        return sum(count for count, _ in outcomes), max(ended for _, ended in outcomes)


@contextlib.contextmanager
def connected(contender: Contender, kind: str, senders: int = 1, receivers: int = 1) -> Iterator[Line]:
    """Give a line of a contender that is ready for messages of one kind; of several senders only one sends."""
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(Child(contender, "sender", contender.ends, dict(contender.options), senders))
        addresses = sender.call("addresses")
        other = contender.receiver or contender
        line = Line(
            f"{senders} {contender.name} to {receivers}, {kind}",
            sender,
            [stack.enter_context(Child(other, "receiver", other.ends, addresses)) for _ in range(receivers)],
        )
        line.greet(kind)
        yield line


def highest_rate(line: Line, plan: Plan) -> float:
    """Return the most messages a second that arrive without one being lost.

    Who waits for the receiver, or keeps all for it, is simply flooded. For others the rate is searched, beginning with
    the one that was found in the last round.
    """
    guess = plan.found.get(line.name)
    if guess is None:
        rate = line.transfer(_CALIBRATION).rate
        flood = line.transfer(max(_CALIBRATION, int(rate * plan.seconds)))
        if not flood.lost:
            return flood.rate
        guess = flood.rate * _CLOSE_ENOUGH
    plan.found[line.name] = found = _searched_rate(line, plan.seconds, guess)
    return found


def complete_rate(line: Line, plan: Plan) -> float:
    """Return the rate of messages of which none may be lost; `Failure`."""
    calibration = _complete(line, _SHORT_CALIBRATION)
    return _complete(line, max(int(calibration * plan.seconds), _SHORT_CALIBRATION))


def _complete(line: Line, count: int) -> float:
    transfer = line.transfer(count, silence=_SILENCE_OF_WHO_KEEPS)
    if transfer.lost:
        raise Failure(f"{transfer.lost} of {transfer.sent} messages are lost")
    return transfer.rate


def _searched_rate(line: Line, seconds: float, guess: float) -> float:
    highest, lowest_lossy, rate = 0.0, float("inf"), guess
    for _ in range(_TRIALS):
        trial = line.transfer(max(int(rate * seconds), 1), rate)
        if trial.lost:
            lowest_lossy = min(rate, lowest_lossy)
        else:
            highest = max(trial.rate, highest)
        is_at_its_limit = not trial.lost and trial.rate * _CLOSE_ENOUGH < rate
        if is_at_its_limit or lowest_lossy < highest * _CLOSE_ENOUGH:
            break
        rate = _between(highest, lowest_lossy)
    return highest


def _between(highest: float, lowest_lossy: float) -> float:
    if not highest:
        return lowest_lossy / 1.5
    return min((highest + lowest_lossy) / 2, highest * 1.3)
