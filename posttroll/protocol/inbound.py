"""What another container holds for this one, and its way here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator

from posttroll.protocol.frames import Frame, Loaded, Outcome, Settled, Transfer
from posttroll.protocol.link import Delivery, Patience, Receiver

__all__ = ["Inbound", "Target"]

# What happens in quick succession is told together: after so many seconds, or so many times.
_LONGEST_SILENCE = 0.02
_MOST_UNTOLD = 50
# How long what came from a sender that is gone may be settled yet.
_MEMORY = 60.0


class Target:
    """Where deliveries of one kind go, from all who send some, each in its turn.

    A `prompt` one is for those who wait for what becomes of a message: they are told as soon as all is taken.
    """

    def __init__(self, name: str, credit: int, *, is_prompt: bool) -> None:
        self.name = name
        self.credit = credit
        self.is_prompt = is_prompt
        self.ready: dict[str, dict[Inbound, None]] = {}
        """Those who may have something to be taken, by sender, as one may have many queues; in the order of turns."""
        self.untold: set[Inbound] = set()
        """Those who have yet to tell their senders something, which may wait a little."""

    def take(self) -> tuple[Delivery, str] | None:
        """Return the next delivery and the name of who sent it; None if there is none."""
        while self.ready:
            sender = next(iter(self.ready))
            inbounds = self.ready.pop(sender)
            inbound = next(iter(inbounds))
            del inbounds[inbound]
            delivery = inbound.receiver.take()
            if delivery is not None:
                inbounds[inbound] = None  # as the last one from here on
            if inbounds:
                self.ready[sender] = inbounds
            if delivery is not None:
                return delivery, sender
        return None

    def note(self, inbound: Inbound) -> None:
        """Note that there may be something to be taken."""
        self.ready.setdefault(inbound.sender, {})[inbound] = None

    def forget(self, inbound: Inbound) -> None:
        """Take nothing more from one, and tell it nothing."""
        inbounds = self.ready.get(inbound.sender, {})
        inbounds.pop(inbound, None)
        if not inbounds:
            self.ready.pop(inbound.sender, None)
        self.untold.discard(inbound)


class Inbound:
    """A receiver of what a container, of this name and key, holds in a queue for a target of this one."""

    def __init__(
        self, receiver: str, consumer: str, sender: str, key: str, queue: str, target: Target, patience: Patience
    ) -> None:
        self.name = receiver
        self.sender = sender
        self.key = key
        self.queue = queue
        self.target = target
        self.receiver = Receiver(
            receiver, consumer, start_at="first", journal=queue, credit=target.credit, patience=patience
        )
        self.receiver.key = key
        self.due = math.inf
        self.is_gone = False
        self._patience = patience
        self._places: dict[Hashable, str] = {}
        self._speaks_to: Hashable = None
        self._lost_at = math.inf
        self._untold = 0
        self._most_untold = max(1, min(_MOST_UNTOLD, target.credit // 4))
        self._tell_by = math.inf

    def connected(self, place: Hashable, address: str, now: float) -> None:
        """Note that the sender is at a place, of this address, perhaps again."""
        self._places[place] = address
        self._lost_at = math.inf
        self.receiver.attach(now)
        self.receiver.connected(now)

    def disconnected(self, place: Hashable, now: float) -> None:
        """Note that it is there no longer."""
        if self._places.pop(place, None) is None:
            return
        if self._speaks_to == place:
            self._speaks_to = None
            self.receiver.disconnected(now)
        if not self._places:
            self._lost_at = now

    @property
    def is_lost(self) -> bool:
        """Whether the sender is nowhere now."""
        return not self._places

    def is_over(self, now: float) -> bool:
        """Return whether there is nothing more to be expected, nor to be told."""
        return now >= self._forgotten_at or self.receiver.state == "detached"

    @property
    def _forgotten_at(self) -> float:
        """When a sender that is gone is no longer expected; by then it has noticed, too, and gives all to others."""
        return self._lost_at + (_MEMORY if self.receiver.unsettled else self._patience.silence)

    def forget(self) -> None:
        """Leave nothing to be taken or told."""
        self.target.forget(self)

    def receive(self, frame: Frame, payload: bytes | None, place: Hashable, now: float) -> bool:
        """Take a frame of the sender's; return whether it wants an answer at once."""
        if place not in self._places:
            return False
        was_attached = self.receiver.state == "attached"
        self.receiver.receive(frame, payload, now)
        if self.receiver.state == "attached" and not was_attached:
            self._speaks_to, self.receiver.address = place, self._places[place]
        if isinstance(frame, Transfer):
            self.target.note(self)
            return self._has_to_tell(now)
        return not isinstance(frame, Settled)

    def settle(self, delivery: Delivery, outcome: Outcome, now: float) -> tuple[bool, bool]:
        """Note what became of a delivery; return whether that was this receiver's to say, and is to be told at once."""
        return self.receiver.settle(delivery, outcome), self._has_to_tell(now)

    def _has_to_tell(self, now: float) -> bool:
        """Note that there is something to tell; return whether that is enough of it."""
        self._untold += 1
        if self._untold == 1:
            self._tell_by = now + _LONGEST_SILENCE
        self.target.untold.add(self)
        return self._untold >= self._most_untold

    def speak(self, now: float) -> Iterator[tuple[Hashable, Loaded]]:
        """Give what is to be sent, and where."""
        self._untold, self._tell_by = 0, math.inf
        self.target.untold.discard(self)
        places = [self._speaks_to] if self.receiver.state == "attached" else list(self._places)
        if places:
            for loaded in self.receiver.frames_to_send(now):
                for place in places:
                    yield place, loaded

    def next_timeout(self) -> float:
        """Return when to speak again, if nothing happens before."""
        if not self._places:
            return self._forgotten_at
        return min(self.receiver.next_timeout(), self._tell_by)
