"""Following what was sent until it is settled."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

__all__ = ["BaseTracker", "Outgoing", "Tracker"]

logger = logging.getLogger(__name__)

_FINAL = ("accepted", "rejected", "expired")

Waited = TypeVar("Waited")


class BaseTracker(Generic[Waited]):
    """Follows one message; those who derive from it wait."""

    __slots__ = (
        "_callbacks",
        "_keeper",
        "buffered",
        "id",
        "is_cancelled",
        "peer",
        "reason",
        "settled",
        "state",
        "target",
        "to",
    )

    def __init__(self, id: str, to: str, peer: str, keeper: Outgoing[Waited]) -> None:
        self.id = id
        self.to = to
        self.peer = peer
        """In whose queue it is: a name, or where that one is."""
        self.state = "pending"
        self.reason = ""
        self.buffered = True
        self.settled = False
        """Whether the state is final."""
        self.is_cancelled = False
        self._keeper = keeper
        self._callbacks: list[Callable[[Any], object]] = []

    def __repr__(self) -> str:
        return f"<Tracker {self.id} to {self.to}: {self.state}>"

    def _wait(self, timeout: float | None) -> Waited:
        return self._keeper.wait(lambda: self.settled, timeout, f"message {self.id} to {self.to} to be settled")

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Have a callable called with this tracker once the message is settled, at once if it is.

        That is where the peers are talked with, in a thread or in the loop, which nothing should delay.
        """
        self._callbacks.append(callback)
        if self.settled:
            self.call_done()

    def sent(self) -> None:
        """Note that the message was handed to the transport."""
        self.buffered = False

    def concluded(self, state: str, reason: str) -> None:
        """Note what became of the message; one that was taken back is given as expired."""
        is_taken_back = self.is_cancelled and state == "expired"
        self.reason = "cancelled" if is_taken_back else reason
        self.state = "released" if is_taken_back else state
        self.settled = state in _FINAL

    def call_done(self) -> None:
        """Call those who wanted to know when the message is settled, each once."""
        while self._callbacks:
            with contextlib.suppress(IndexError):  # as another thread may do the same
                callback = self._callbacks.pop(0)
                try:
                    callback(self)
                except Exception:
                    logger.exception("a callback for message %s failed", self.id)


class Tracker(BaseTracker[None]):
    """Follows one message.

    Its `state` is "pending", "accepted", "rejected" (why is in `reason`), "expired", or "released", which is to be sent
    again, unless it was cancelled. `buffered` tells that it was not handed to the transport yet.
    """

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the message is settled and return its state; `TimedOut`, `Interrupted`.

        If the messenger is stopped meanwhile, the state may not be the final one.
        """
        self._wait(timeout)
        return self.state

    def cancel(self) -> bool:
        """Take the message back; return False if it is on its way already, or settled."""
        return self._keeper.cancel(self)


class Outgoing(Generic[Waited]):
    """What was put and is not settled yet, and the trackers of the last `window` messages that were put.

    `wait` waits so many seconds until something is so, or returns what to await; what that is, is for the error if it
    does not become so. `withdraw` takes a message back.

    Without a lock, as the thread that talks with the peers must not wait for one that a signal handler interrupted:
    each number is written by that thread alone, or by others alone.
    """

    def __init__(
        self,
        window: int,
        wait: Callable[[Callable[[], bool], float | None, str], Waited],
        withdraw: Callable[[BaseTracker[Waited]], bool],
    ) -> None:
        self.wait = wait
        self._withdraw = withdraw
        self._window = window
        self._unsettled: set[BaseTracker[Waited]] = set()
        self._kept: OrderedDict[str, BaseTracker[Waited]] = OrderedDict()
        self._settled = self._reckoned = 0
        self._left_over = self._left_over_settled = 0

    def __len__(self) -> int:
        return len(self._unsettled) + self._left_over - self._left_over_settled

    @property
    def settled(self) -> int:
        """How many were settled since `reckon`."""
        return self._settled - self._reckoned

    def reckon(self) -> int:
        """Return how many were settled since this was asked for the last time."""
        settled = self._settled
        count, self._reckoned = settled - self._reckoned, settled
        return count

    def begin(self) -> None:
        """Begin anew: what is not settled never will be."""
        self._unsettled.clear()
        self._kept.clear()
        self._reckoned, self._left_over = self._settled, self._left_over_settled

    def expect(self, count: int) -> None:
        """Follow so many messages, too, that a former life has left over."""
        self._left_over += count

    def add(self, tracker: BaseTracker[Waited]) -> None:
        """Follow one more message, and keep the eldest of too many trackers no longer."""
        self._unsettled.add(tracker)
        self._kept[tracker.id] = tracker
        with contextlib.suppress(KeyError):  # as another thread may do the same
            while len(self._kept) > self._window:
                self._kept.popitem(last=False)

    def drop(self, tracker: BaseTracker[Waited]) -> None:
        """Follow a message no longer, as it could not be sent."""
        self._unsettled.discard(tracker)
        self._kept.pop(tracker.id, None)

    def settle(self, tracker: BaseTracker[Waited], *, was_left_over: bool = False) -> None:
        """Note that a message is settled, which a former life may have left over; tell those who wanted to know."""
        if was_left_over:
            self._left_over_settled += 1
            self._settled += 1
        elif tracker in self._unsettled:
            self._unsettled.discard(tracker)
            self._settled += 1
        tracker.call_done()

    def cancel(self, tracker: BaseTracker[Waited]) -> bool:
        """Take a message back if it is not on its way; return whether that was done."""
        if tracker.settled:
            return False
        tracker.is_cancelled = True
        tracker.is_cancelled = self._withdraw(tracker)
        return tracker.is_cancelled

    def find(self, id: str) -> BaseTracker[Waited] | None:
        """Return the tracker of a message, None if it is not kept."""
        return self._kept.get(id)

    def forget(self, tracker: BaseTracker[Waited] | None, cumulative: bool) -> None:
        """Keep a tracker no longer; if `cumulative` nor those of what was put before; all of them without one."""
        if tracker is None:
            self._kept.clear()
        elif not cumulative:
            self._kept.pop(tracker.id, None)
        elif tracker.id in self._kept:
            for id in list(self._kept):
                self._kept.pop(id, None)
                if id == tracker.id:
                    return
