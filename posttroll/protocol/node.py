"""Where the links of one journal end: a sender for each receiver, and who of those that share a source gets what."""

from __future__ import annotations

import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from posttroll.protocol.allowance import Allowance
from posttroll.protocol.frames import UNKNOWN_SESSION, Attach, Detach, Frame, Loaded
from posttroll.protocol.link import Patience
from posttroll.protocol.sender import Sender
from posttroll.protocol.source import Source

__all__ = ["Node"]

_MOST_RECEIVERS = 1000
_MOST_ENDED = 1000
_MOST_REFUSALS = 1000


@dataclass(eq=False)
class _Group:
    """Those who share a source; a replay is nobody else's."""

    consumer: str
    source: Source
    topics: frozenset[str]
    is_replay: bool
    senders: dict[str, Sender] = field(default_factory=dict)
    is_hungry: bool = False
    is_waiting: bool = False
    expired: int = 0

    def __post_init__(self) -> None:
        self.expired = self.source.expired

    def hand_out(self, now: float, wall: float) -> Iterator[tuple[Hashable, Loaded]]:
        """Give what there is to those who have room, first to who has least."""
        takers = [(one.unsettled, place, one) for place, one in enumerate(self.senders.values()) if one.has_room]
        heapq.heapify(takers)
        while takers and (taken := self.source.take(wall)) is not None:
            _, place, sender = takers[0]
            yield sender.peer, sender.transfer(*taken, now)
            if sender.has_room:
                heapq.heapreplace(takers, (sender.unsettled, place, sender))
            else:
                heapq.heappop(takers)
        self.is_hungry = bool(takers)
        if takers and not takers[0][2].unsettled:
            yield from self._share(now)

    def _share(self, now: float) -> Iterator[tuple[Hashable, Loaded]]:
        """Ask for what has not been begun, for one who has nothing to do."""
        for sender in self.senders.values():
            if sender.unsettled > 1:
                for frame in sender.ask_back(now):
                    yield sender.peer, frame

    def take_expired(self) -> int:
        """Return how many expired since this was called last."""
        before, self.expired = self.expired, self.source.expired
        return self.expired - before


class Node:
    """Serves the receivers of one journal.

    `name` has to be new in all the world. `open_source` is called with each attach and the identity of who asks; it
    returns the source that all receivers of the consumer share or, for the distribution mode "copy", one of its own.
    `PermissionError` and `ValueError` refuse; the receiver is told why. `allowances`: how much may be sent where.
    """

    def __init__(
        self,
        name: str,
        journal: str,
        open_source: Callable[[Attach, str], Source],
        patience: Patience | None = None,
        allowances: Mapping[Hashable, Allowance] = MappingProxyType({}),
    ) -> None:
        self._name = name
        self._journal = journal
        self._open_source = open_source
        self._patience = patience or Patience()
        self._allowances = allowances
        self._senders: dict[str, Sender] = {}
        self._groups: dict[Source, _Group] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._refusals: dict[tuple[Hashable, str], Loaded] = {}
        self._expired: Counter[str] = Counter()
        self._settles_at = math.inf

    @property
    def allowances(self) -> list[Allowance]:
        """How much may be sent to the receivers there are, where that is limited."""
        return [sender.allowance for sender in self._senders.values() if sender.allowance is not None]

    @property
    def is_hungry(self) -> bool:
        """Whether a receiver would have been given more in the last turn, so what is appended next is waited for."""
        return any(group.is_hungry and not group.is_replay for group in self._groups.values())

    def take_expired(self) -> Mapping[str, int]:
        """Return how many messages each consumer did not get as they were too old, since this was called last."""
        expired, self._expired = self._expired, Counter()
        return expired

    def take_aside(self) -> list[tuple[str, int, str]]:
        """Return consumer, number and reason of each message set aside since this was called last."""
        aside = [(group.consumer, *what) for group in self._groups.values() for what in group.source.aside]
        for group in self._groups.values():
            group.source.aside.clear()
        return aside

    def receive(self, frame: Frame, peer: Hashable, now: float, identity: str = "") -> None:
        """Take a frame that came from `peer`; `identity` is what the transport knows of who sent it."""
        sender = self._senders.get(frame.receiver)
        if sender is not None and sender.identity != identity:
            self._refuse(frame, peer, "the receiver belongs to another key")
            return
        if isinstance(frame, Attach):
            newest = sender.session if sender is not None else self._ended.get(frame.receiver, 0)
            if frame.session > newest:
                sender = self._open(frame, peer, identity)
            elif sender is None:
                self._refuse(frame, peer, UNKNOWN_SESSION)
        elif not isinstance(frame, Detach) and not self._knows(frame, sender):
            self._refuse(frame, peer, UNKNOWN_SESSION)
            return
        if sender is None or frame.session != sender.session:
            return
        sender.heard(peer, now)
        sender.allowance = self._allowances.get(peer)
        if isinstance(frame, Detach):
            # One that knows that it is attached says with its end what it had.
            self._end(sender, () if frame.sender == self._name else None)
        else:
            sender.receive(frame, now)

    def _knows(self, frame: Frame, sender: Sender | None) -> bool:
        return sender is not None and frame.session <= sender.session and frame.sender == self._name

    def disconnected(self, peer: Hashable, now: float) -> None:
        """Note that the connection to a peer was cut: if its receivers live, they are soon heard again."""
        for sender in self._senders.values():
            if sender.peer == peer:
                sender.doubt(now)

    def _open(self, attach: Attach, peer: Hashable, identity: str) -> Sender | None:
        former = self._senders.get(attach.receiver)
        if former is not None:
            self._end(former, {sequence for sequence, _ in attach.unsettled})
        elif len(self._senders) >= _MOST_RECEIVERS:
            self._refuse(attach, peer, f"there are {_MOST_RECEIVERS} receivers already")
            return None
        if self._is_at_odds(attach):
            self._refuse(attach, peer, "others of this consumer are attached with other topics")
            return None
        if attach.journal not in ("", self._journal):
            attach = msgspec.structs.replace(attach, after=0)
        try:
            source = self._open_source(attach, identity)
        except (PermissionError, ValueError) as error:
            self._refuse(attach, peer, str(error) or "refused")
            return None
        group = self._groups.get(source)
        if group is None:
            topics, is_replay = frozenset(attach.topics), attach.distribution_mode == "copy"
            group = self._groups[source] = _Group(attach.consumer, source, topics, is_replay)
            source.keep_only(topics)
        sender = Sender(attach, source, self._name, self._journal, identity, self._patience)
        self._senders[attach.receiver] = group.senders[attach.receiver] = sender
        return sender

    def _is_at_odds(self, attach: Attach) -> bool:
        """Return whether the consumer's messages are chosen otherwise by those who have a part in them."""
        return attach.distribution_mode == "move" and any(
            group.consumer == attach.consumer
            and not group.is_replay
            and bool(group.senders)
            and group.topics != frozenset(attach.topics)
            for group in self._groups.values()
        )

    def _refuse(self, frame: Frame, peer: Hashable, reason: str) -> None:
        if len(self._refusals) < _MOST_REFUSALS:
            refusal = Detach(frame.receiver, frame.session, frame.sender, reason[:2000])
            self._refusals[peer, frame.receiver] = refusal, None

    def _end(self, sender: Sender, arrived: Collection[int] | None = None) -> None:
        """Release what a receiver held; `arrived`: what of it has reached the receiver at all, if that has said so."""
        sender.end(arrived)
        del self._senders[sender.receiver]
        del self._groups[sender.source].senders[sender.receiver]
        self._ended[sender.receiver] = sender.session
        self._ended.move_to_end(sender.receiver)
        while len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def frames_to_send(self, now: float, wall: float) -> list[tuple[Hashable, Loaded]]:
        """Return what is to be sent, and where; the journal has to keep what it was told first."""
        self._settles_at = min(self._settles_at, now + self._patience.resend)
        frames = [(peer, refusal) for (peer, _), refusal in self._refusals.items()]
        self._refusals.clear()
        for group in list(self._groups.values()):
            frames.extend(self._turn(group, now, wall))
            group.source.save()
            if not group.is_replay and (expired := group.take_expired()):
                self._expired[group.consumer] += expired
            if not group.senders:
                del self._groups[group.source]
        return frames

    def save(self) -> None:
        """Have the journal told all that was settled, without giving anything more."""
        for group in self._groups.values():
            group.source.save()

    def _turn(self, group: _Group, now: float, wall: float) -> Iterator[tuple[Hashable, Loaded]]:
        group.is_hungry = group.is_waiting = False
        for sender in list(group.senders.values()):
            if group.source.is_forgotten:
                yield sender.peer, sender.detach("the consumer was forgotten")
                self._end(sender)
            elif sender.is_dead(now):
                self._end(sender)
            else:
                for frame in sender.frames_to_send(now):
                    yield sender.peer, frame
        # What a dead receiver held comes before anything new, so nobody gets that before it is known to be dead.
        if any(sender.is_doubtful for sender in group.senders.values()):
            return
        # The same for what a former life of this end gave out, to receivers that may be about to attach again.
        group.is_waiting = now < self._settles_at and group.source.is_next_from_former_life
        if group.is_waiting:
            return
        yield from group.hand_out(now, wall)
        if group.is_replay and group.is_hungry:
            yield from self._finish(group)

    def _finish(self, group: _Group) -> Iterator[tuple[Hashable, Loaded]]:
        for sender in [one for one in group.senders.values() if not one.unsettled]:
            yield sender.peer, sender.detach("")
            self._end(sender)

    def next_timeout(self) -> float | None:
        """Return when to ask for frames again, if nothing happens before; None: not at all."""
        moments = [sender.next_timeout() for sender in self._senders.values()]
        if any(group.is_waiting for group in self._groups.values()):
            moments.append(self._settles_at)
        return min(moments, default=None)
