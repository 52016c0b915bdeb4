"""Containers, in the words of AMQP 1.0: programs that send each other messages by name, whoever connected to whom.

On each connection both ends say in an **open** who they are and which queues they hold for the other one, and attach a
receiver to each queue that the other one holds for them. What goes over such a link is the same as between a durable
publisher and its subscribers: credit, transfers, outcomes, and all of it again after an outage.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from posttroll.errors import JournalError
from posttroll.protocol.agenda import Agenda
from posttroll.protocol.allowance import Allowance
from posttroll.protocol.conversation import Conversation, PeerInfo
from posttroll.protocol.frames import (
    MOST_QUEUES,
    UNKNOWN_SESSION,
    VERSION,
    Attach,
    Close,
    Detach,
    Frame,
    Open,
    Outcome,
    Spoken,
)
from posttroll.protocol.inbound import Inbound, Target
from posttroll.protocol.link import Delivery, Patience
from posttroll.protocol.outbound import Concluded, Outbound, Tag
from posttroll.protocol.queue import Shelf

__all__ = ["Arrived", "Connected", "Container", "Disconnected", "Event", "Refused", "Troubled", "Unwanted", "Wanted"]

_MOST_CONVERSATIONS = 2000
_MOST_INBOUND = 20_000
_MOST_KEYS = 10_000
_BETWEEN_TRANSACTIONS = 0.002
_PAUSE_AFTER_TROUBLE = 1.0


class Arrived(NamedTuple):
    """There is something to take for a target."""

    target: str


class Wanted(NamedTuple):
    """There is something for a peer that is not connected."""

    peer: str


class Unwanted(NamedTuple):
    """There is nothing more for a peer that was wanted and did not come."""

    peer: str


class Connected(NamedTuple):
    """A peer has said who it is."""

    peer: PeerInfo


class Disconnected(NamedTuple):
    """A peer is gone."""

    peer: PeerInfo
    reason: str


class Refused(NamedTuple):
    """Somebody at a place was not talked to, or would not talk."""

    address: str
    reason: str


class Troubled(NamedTuple):
    """What waits for a peer cannot be kept or read; it is tried again."""

    peer: str
    reason: str


Event = Arrived | Concluded | Connected | Disconnected | Refused | Troubled | Unwanted | Wanted
_Key = TypeVar("_Key", str, tuple[str, str])


class Container:
    """One program among others; moves nothing by itself.

    `name`: what it is known by; `life`: a name that nobody has, nor will have after a restart. `open_shelf` is called
    with the peer, the target, whether messages are to be kept for good, and a name for it that no other one has; it
    returns where they wait, and how many do already. `bandwidth`: the most bytes/s of messages to each place.
    """

    def __init__(
        self,
        name: str,
        life: str,
        open_shelf: Callable[[str, str, bool, str], tuple[Shelf, int]],
        patience: Patience | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self._name = name
        self._life = life
        self._open_shelf = open_shelf
        self._patience = patience or Patience()
        self._bandwidth = bandwidth
        self._numbers = itertools.count(1)
        self._agenda: Agenda[Conversation | Inbound | Outbound] = Agenda()
        self._events: list[Event] = []
        self._conversations: dict[Hashable, Conversation] = {}
        self._lives: dict[tuple[str, str], list[Conversation]] = {}
        self._keys: OrderedDict[tuple[str, bool], str] = OrderedDict()
        self._allowances: dict[Hashable, Allowance] = {}
        self._unsaid: list[tuple[Hashable, Spoken]] = []
        self._targets: dict[str, Target] = {}
        self._inbound: dict[str, Inbound] = {}
        self._receivers: dict[str, Inbound] = {}
        self._lost: OrderedDict[Inbound, None] = OrderedDict()
        self._routes: dict[tuple[str, str, bool], Outbound] = {}
        self._nodes: dict[str, Outbound] = {}
        self._by_shelf: dict[str, Outbound] = {}
        self._by_peer: defaultdict[str, list[Outbound]] = defaultdict(list)
        self._by_name: defaultdict[str, list[Conversation]] = defaultdict(list)
        self._arrived: dict[str, None] = {}

    @property
    def peers(self) -> list[PeerInfo]:
        """Who is connected."""
        return [conversations[0].peer for conversations in self._lives.values()]

    def pending(self, peer: str | None = None) -> int:
        """Return how many messages, for all or for one peer, were not settled and have not expired."""
        outbound = self._routes.values() if peer is None else self._by_peer.get(peer, ())
        return sum(one.pending for one in outbound)

    @property
    def has_events(self) -> bool:
        """Whether something happened since they were taken last."""
        return bool(self._events or self._arrived)

    def take_events(self) -> list[Event]:
        """Return what happened since this was called last."""
        events: list[Event] = [*map(Arrived, self._arrived), *self._events]
        self._arrived.clear()
        self._events.clear()  # the same list, as others add to it
        return events

    def open_target(self, name: str, now: float, credit: int = 200, *, is_prompt: bool = True) -> None:
        """Take in what others hold for a target, so many deliveries at a time from each of them.

        A prompt target tells what became of its deliveries as soon as there is nothing more to take.
        """
        self._targets[name] = Target(name, credit, is_prompt=is_prompt)
        for conversation in self._conversations.values():
            self._attach(conversation, now)

    def take(self, target: str) -> tuple[Delivery, str] | None:
        """Return the next delivery for a target, which has to be settled, and the name of who sent it, if any."""
        open_target = self._targets[target]
        taken = open_target.take()
        if taken is None and open_target.is_prompt:
            for inbound in open_target.untold:
                self._agenda.touch(inbound)
        return taken

    def settle(self, delivery: Delivery, outcome: Outcome, now: float) -> bool:
        """Note what became of a delivery; return False if it is no longer this container's."""
        inbound = self._inbound.get(delivery.publisher)
        if inbound is None:
            return False
        is_ours, is_urgent = inbound.settle(delivery, outcome, now)
        self._look_at(inbound, is_urgent)
        return is_ours

    def put(
        self,
        peer: str,
        target: str,
        payload: bytes,
        tag: Tag | None,
        now: float,
        wall: float,
        ttl: float | None = None,
        *,
        is_persistent: bool = False,
    ) -> None:
        """Have a message given to a target of a peer, `ttl` seconds from now at the latest; `JournalError`."""
        outbound = self.open_outbound(peer, target, wall, is_persistent=is_persistent)
        outbound.put(payload, tag, now, wall, ttl)
        self._serve(outbound, now)

    def _serve(self, outbound: Outbound, now: float) -> None:
        if outbound.is_persistent:  # what comes in quick succession shares a transaction
            self._agenda.schedule(outbound, now + _BETWEEN_TRANSACTIONS)
        else:
            self._agenda.touch(outbound)

    def open_outbound(self, peer: str, target: str, wall: float, *, is_persistent: bool) -> Outbound:
        """Return what waits for a target of a peer; `JournalError`."""
        route = peer, target, is_persistent
        if (known := self._routes.get(route)) is not None:
            return known
        name = self._new_name()
        shelf, pending = self._open_shelf(*route, name)
        outbound = Outbound(
            peer,
            target,
            shelf,
            pending,
            is_persistent=is_persistent,
            name=name,
            wall=wall,
            allowances=self._allowances,
            tell=self._events.append,
            patience=self._patience,
        )
        self._routes[route] = self._nodes[name] = self._by_shelf[shelf.identity] = outbound
        self._by_peer[peer].append(outbound)
        self._agenda.touch(outbound)
        for conversation in self._by_name.get(peer, ()):
            self._agenda.touch(conversation)
        return outbound

    def _new_name(self) -> str:
        return f"{self._life}/{next(self._numbers)}"

    def withdraw(self, peer: str, tag: Tag) -> bool:
        """Take a message for a peer back that nobody has; return whether it was there to be taken."""
        for outbound in self._by_peer.get(peer, ()):
            if outbound.withdraw(tag):
                self._agenda.touch(outbound)
                return True
        return False

    def connected(self, place: Hashable, address: str, now: float) -> None:
        """Note that the connection to a place is there."""
        if place not in self._conversations:
            self._begin(place, address, now)

    def disconnected(self, place: Hashable, now: float, reason: str = "the connection was cut") -> None:
        """Note that the connection to a place was cut."""
        conversation = self._conversations.pop(place, None)
        self._allowances.pop(place, None)
        if conversation is not None:
            conversation.is_gone = True
            self._leave(conversation, reason, now)

    def receive(self, spoken: Iterable[Spoken], place: Hashable, address: str, now: float, key: str = "") -> None:
        """Take what came from a place, of this address if it was connected to, and the key of who sent it."""
        conversation = self._conversations.get(place) or self._begin(place, address, now)
        if conversation is None:
            return
        conversation.heard(now)
        for frame, payload in spoken:
            conversation = self._conversations[place]
            if isinstance(frame, Open):
                self._receive_open(frame, conversation, key, now)
            elif isinstance(frame, Close):
                self._receive_close(frame, conversation, now)
            elif conversation.state == "open" and key == conversation.peer.key:
                self._receive_link(frame, payload, conversation, now)

    def _begin(self, place: Hashable, address: str, now: float) -> Conversation | None:
        if len(self._conversations) >= _MOST_CONVERSATIONS and not address:
            reason = f"{self._name} talks to {_MOST_CONVERSATIONS} already"
            self._events.append(Refused(address, reason))
            self._unsaid.append((place, (Close(reason), None)))
            return None
        return self._open_conversation(place, address, now)

    def _open_conversation(self, place: Hashable, address: str, now: float) -> Conversation:
        conversation = Conversation(place, address, self._name, self._life, now, self._patience)
        self._conversations[place] = conversation
        if self._bandwidth is not None:
            self._allowances[place] = Allowance(self._bandwidth, now)
        self._agenda.touch(conversation)
        return conversation

    def _begin_anew(self, conversation: Conversation, reason: str, now: float) -> Conversation:
        """End the conversation with a place that was connected to, and begin another one there."""
        self.disconnected(conversation.place, now, reason)
        return self._open_conversation(conversation.place, conversation.address, now)

    def _receive_open(self, frame: Open, conversation: Conversation, key: str, now: float) -> None:
        if conversation.state == "closed":
            return
        if conversation.state == "open" and conversation.address and frame.life != conversation.life:
            conversation = self._begin_anew(conversation, "another one is there now", now)
        if frame.life == self._life:
            self._end(conversation, "a container does not talk to itself", now)
        elif complaint := self._complaint(frame, conversation, key):
            self._events.append(Refused(conversation.address, complaint))
            self._end(conversation, complaint, now)
            self._unsaid.append((conversation.place, (Close(complaint), None)))
        else:
            is_first = conversation.state == "opening"
            conversation.receive(frame, key)
            if is_first:
                self._meet(conversation)
            self._attach(conversation, now)
            self._agenda.touch(conversation)

    def _complaint(self, frame: Open, conversation: Conversation, key: str) -> str:
        if frame.version != VERSION:
            return f"version {VERSION} of the protocol is spoken here, not {frame.version}"
        if "://" in frame.container:
            return f"{frame.container} is an address, which is not a name"
        if conversation.state == "open" and (frame.container, frame.life) != (
            conversation.peer.name,
            conversation.life,
        ):
            return f"the connection is that of {conversation.peer.name} already"
        # Who was connected to shows the key that it serves with, who came in the one that it connects with.
        role = frame.container, bool(conversation.address)
        if key and self._keys.setdefault(role, key) != key:
            return f"the name {frame.container} belongs to another key"
        if len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)
        return ""

    def _meet(self, conversation: Conversation) -> None:
        life = conversation.peer.name, conversation.life
        if life not in self._lives:
            self._events.append(Connected(conversation.peer))
        for places in (self._lives.setdefault(life, []), *(self._by_name[name] for name in conversation.names)):
            places.append(conversation)
        for outbound in self._waiting_for(conversation):
            outbound.was_wanted = False
            self._agenda.touch(outbound)

    def _receive_close(self, frame: Close, conversation: Conversation, now: float) -> None:
        if conversation.state == "opening" and frame.reason:
            self._events.append(Refused(conversation.address, frame.reason))
        elif conversation.state == "open":
            self._unsaid.append((conversation.place, (Close(), None)))
        self._end(conversation, frame.reason or "it has ended", now)

    def _end(self, conversation: Conversation, reason: str, now: float) -> None:
        """Say no more to a place, until it is connected anew or, if it came in, was silent for long."""
        self._leave(conversation, reason, now)
        conversation.state = "closed"
        self._agenda.touch(conversation)

    def _leave(self, conversation: Conversation, reason: str, now: float) -> None:
        if conversation.state != "open":
            return
        for inbound in conversation.attached.values():
            self._detach(inbound, conversation, now)
        conversation.attached.clear()
        for outbound in self._waiting_for(conversation):
            outbound.disconnected(conversation.place, now)
            self._agenda.touch(outbound)
        for name in conversation.names:
            self._remove(conversation, name, self._by_name)
        life = conversation.peer.name, conversation.life
        self._remove(conversation, life, self._lives)
        if life not in self._lives:
            self._events.append(Disconnected(conversation.peer, reason))

    def _remove(self, conversation: Conversation, key: _Key, places: dict[_Key, list[Conversation]]) -> None:
        places[key].remove(conversation)
        if not places[key]:
            del places[key]

    def _waiting_for(self, conversation: Conversation) -> list[Outbound]:
        return [one for name in conversation.names for one in self._by_peer.get(name, ())]

    def _attach(self, conversation: Conversation, now: float) -> None:
        """Attach to what the other end holds for this one, and leave what it holds no longer."""
        for queue in conversation.attached.keys() - conversation.queues.keys():
            self._detach(conversation.attached.pop(queue), conversation, now)
        for queue in conversation.queues.keys() - conversation.attached.keys():
            inbound = self._find_inbound(queue, conversation)
            if inbound is not None:
                conversation.attached[queue] = inbound
                inbound.connected(conversation.place, conversation.address, now)
                self._lost.pop(inbound, None)
                self._agenda.touch(inbound)

    def _find_inbound(self, queue: str, conversation: Conversation) -> Inbound | None:
        peer, target = conversation.peer, self._targets.get(conversation.queues[queue])
        if target is None:
            return None
        known = self._inbound.get(queue)
        if known is not None:
            return known if (known.sender, known.key) == (peer.name, peer.key) else None
        if len(self._inbound) >= _MOST_INBOUND and not self._make_room():
            return None
        name = self._new_name()
        inbound = Inbound(name, self._name, peer.name, peer.key, queue, target, self._patience)
        self._inbound[queue] = self._receivers[name] = inbound
        return inbound

    def _make_room(self) -> bool:
        """Forget the one whose sender is gone for the longest time; return whether there was one."""
        inbound = next(iter(self._lost), None)
        if inbound is None:
            return False
        self._forget(inbound)
        self._agenda.forget(inbound)
        return True

    def _detach(self, inbound: Inbound, conversation: Conversation, now: float) -> None:
        inbound.disconnected(conversation.place, now)
        if inbound.is_lost:
            self._lost[inbound] = None
        self._agenda.touch(inbound)

    def _receive_link(self, frame: Frame, payload: bytes | None, conversation: Conversation, now: float) -> None:
        is_attach = isinstance(frame, Attach)
        inbound = None if is_attach else self._receivers.get(frame.receiver)
        outbound = self._by_shelf.get(frame.journal) if isinstance(frame, Attach) else self._nodes.get(frame.sender)
        if inbound is not None:
            self._look_at(inbound, inbound.receive(frame, payload, conversation.place, now))
            if payload is not None:
                self._arrived[inbound.target.name] = None
        elif outbound is not None and outbound.peer in conversation.names:
            outbound.receive(frame, conversation.place, now, conversation.peer.key)
            self._serve(outbound, now)
        elif is_attach or (frame.sender.startswith(f"{self._life}/") and not isinstance(frame, Detach)):
            refusal = Detach(frame.receiver, frame.session, frame.sender, UNKNOWN_SESSION)
            self._unsaid.append((conversation.place, (refusal, None)))

    def _look_at(self, inbound: Inbound, is_urgent: bool) -> None:
        if is_urgent:
            self._agenda.touch(inbound)
        else:
            self._agenda.schedule(inbound, inbound.next_timeout())

    def frames_to_send(self, now: float, wall: float) -> list[tuple[Hashable, Spoken]]:
        """Return what is to be sent, and where."""
        for item in self._agenda.take(now):
            if not item.is_gone:
                self._turn(item, now, wall)
        frames, self._unsaid = self._unsaid, []
        return frames

    def _turn(self, item: Conversation | Inbound | Outbound, now: float, wall: float) -> None:
        try:
            if isinstance(item, Inbound):
                self._unsaid.extend(self._turn_inbound(item, now))
            elif isinstance(item, Outbound):
                self._unsaid.extend(self._turn_outbound(item, now, wall))
            else:
                self._unsaid.extend(self._turn_conversation(item, now))
        except BaseException:
            self._agenda.touch(item)  # the others come first, then this is tried again
            raise
        if item.is_gone:
            self._agenda.forget(item)
        else:
            self._agenda.schedule(item, item.next_timeout())

    def _turn_inbound(self, inbound: Inbound, now: float) -> Iterator[tuple[Hashable, Spoken]]:
        yield from inbound.speak(now)
        if inbound.is_over(now):
            self._forget(inbound)

    def _forget(self, inbound: Inbound) -> None:
        inbound.is_gone = True
        inbound.forget()
        self._lost.pop(inbound, None)
        del self._inbound[inbound.queue], self._receivers[inbound.name]

    def _turn_outbound(self, outbound: Outbound, now: float, wall: float) -> Sequence[tuple[Hashable, Spoken]]:
        try:
            frames = outbound.speak(now, wall)
        except JournalError as error:
            outbound.rest_until(now + _PAUSE_AFTER_TROUBLE)
            self._events.append(Troubled(outbound.peer, str(error)))
            return ()
        if not self._by_name.get(outbound.peer):
            if outbound.pending and not outbound.was_wanted:
                outbound.was_wanted = True
                self._events.append(Wanted(outbound.peer))
            elif not outbound.pending:
                self._drop(outbound)
        return frames

    def _drop(self, outbound: Outbound) -> None:
        outbound.is_gone = True
        self._by_peer[outbound.peer].remove(outbound)
        if not self._by_peer[outbound.peer]:
            del self._by_peer[outbound.peer]
            if outbound.was_wanted:
                self._events.append(Unwanted(outbound.peer))
        del self._routes[outbound.route], self._nodes[outbound.name], self._by_shelf[outbound.shelf.identity]
        outbound.shelf.close()

    def _turn_conversation(self, conversation: Conversation, now: float) -> Iterator[tuple[Hashable, Spoken]]:
        if conversation.is_silent(now):
            self._give_up(conversation, now)
        if not conversation.is_gone:
            waiting = itertools.islice(self._waiting_for(conversation), MOST_QUEUES)
            offered = {one.shelf.identity: one.target for one in waiting}
            for frame in conversation.speak(offered, self._numbers, now):
                yield conversation.place, (frame, None)

    def _give_up(self, conversation: Conversation, now: float) -> None:
        """End the conversation with somebody silent; whoever is where this end connected to may still begin another."""
        if conversation.address and conversation.state != "open":
            conversation.heard(now)
            return
        reason = f"it was silent for {self._patience.silence:g} s"
        if conversation.address:
            self._begin_anew(conversation, reason, now)
        else:
            self.disconnected(conversation.place, now, reason)

    def next_timeout(self) -> float:
        """Return when to ask for frames again, if nothing happens before; infinite if never."""
        return -math.inf if self._unsaid else self._agenda.next_timeout()

    def close(self, now: float) -> list[tuple[Hashable, Spoken]]:
        """End all; return what is to be said last. What others have not settled is theirs no longer."""
        frames: list[tuple[Hashable, Spoken]] = []
        for inbound in self._inbound.values():
            inbound.receiver.detach()
            frames.extend(inbound.speak(now))
        frames.extend((one.place, (Close(), None)) for one in self._conversations.values() if one.state == "open")
        for outbound in self._routes.values():
            with contextlib.suppress(JournalError):
                outbound.save()
            outbound.shelf.close()
        return frames
