"""A publisher and its workers over a bus that loses, doubles, reorders and cuts, with crashes of either end."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from posttroll.journal.base import Journal
from posttroll.journal.memory import MemoryJournal
from posttroll.protocol.frames import Attach, Loaded, Outcome, Transfer, decode, encode
from posttroll.protocol.link import Delivery, Patience, Receiver
from posttroll.protocol.node import Node
from posttroll.protocol.source import Entry, Position, Source

ACCEPTED, RELEASED, REJECTED = Outcome("accepted"), Outcome("released"), Outcome("rejected", "of no use")
NODE = "node"
MESSAGES = 25
_PATIENCE = Patience(resend=0.5, interval=1.0, silence=4.0, doubt=2.0)
_STEP = 0.25
_MOST_CALM_STEPS = 600


@dataclass
class _Notes:
    cursor: int = 0
    handed_out: int = 0
    settled: frozenset[int] = frozenset()
    counts: dict[int, int] = field(default_factory=dict)
    aside: frozenset[int] = frozenset()

    def copy(self) -> _Notes:
        return _Notes(self.cursor, self.handed_out, self.settled, dict(self.counts), self.aside)


class CrashingJournal:
    """Keeps what was committed through a crash, and forgets the rest."""

    identity = "journal"
    is_forgotten = False

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._notes = _Notes()
        self._committed = _Notes()
        self._source: Source | None = None

    @property
    def settled(self) -> set[int]:
        return {*range(1, self._committed.cursor + 1), *self._committed.settled}

    def append(self, expires: float | None) -> None:
        sequence = len(self.entries) + 1
        self.entries.append(Entry(sequence, b"%d" % sequence, expires))

    def crash(self) -> None:
        self._notes = self._committed.copy()
        self._source = None

    def commit(self) -> None:
        self._committed = self._notes.copy()

    def open_source(self, attach: Attach, identity: str) -> Source:
        if attach.distribution_mode == "copy":
            copy = CrashingJournal()
            copy.entries = list(self.entries)
            return Source(copy, Position(attach.after, attach.after))
        if self._source is None:
            notes = self._notes
            position = Position(notes.cursor, notes.handed_out, notes.settled, notes.counts)
            self._source = Source(self, position, max_deliveries=1000)
        return self._source

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        entries = self.entries[after : after + min(limit, 7)]
        return entries, after + len(entries)

    def save(self, cursor: int, handed_out: int) -> None:
        self._notes.cursor, self._notes.handed_out = cursor, handed_out

    def settle(self, sequence: int) -> None:
        self._notes.settled |= {sequence}

    def count(self, sequence: int, count: int) -> None:
        self._notes.counts[sequence] = count

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        self._notes.aside |= {sequence}


class LastingJournal:
    """The journal in memory, which has no life after a crash."""

    def __init__(self) -> None:
        self._journal: Journal = MemoryJournal()
        self.identity = self._journal.identity

    @property
    def settled(self) -> set[int]:
        return set(range(1, self._journal.consumers()[0].cursor + 1)) if self._journal.consumers() else set()

    def append(self, expires: float | None) -> None:
        self._journal.append("topic", b"%d" % (self._journal.last + 1), 0.0, expires)

    def commit(self) -> None:
        self._journal.commit()

    def open_source(self, attach: Attach, identity: str) -> Source:
        return self._journal.open_source(attach.consumer, [], "first", 0.0, max_deliveries=1000)


@dataclass
class Worker:
    """An application: its receiver, what it works on, and what it was given for the first time."""

    receiver: Receiver
    in_hand: list[Delivery] = field(default_factory=list)
    is_connected: bool = True


@dataclass
class Simulation:
    """One run, all of whose troubles follow from its seed. It checks what must hold at any time."""

    seed: int
    workers: int = 1
    is_manual: bool = False
    ttl: float | None = None
    lasts: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0.0
        self.journal = LastingJournal() if self.lasts else CrashingJournal()
        self.is_troubled = True
        self.flights: list[tuple[float, int, str, str, list[bytes]]] = []
        self.names = self.lives = self.published = 0
        self.node = self.new_node()
        self.team: dict[str, Worker] = {}
        self.accepted: list[int] = []
        self.rejected: set[int] = set()
        self.expiry: dict[int, float] = {}
        self.given: set[int] = set()
        self.handed_out = 0
        for _ in range(self.workers):
            self.hire()

    def run(self) -> None:
        """Publish in trouble, then calmly, until all is settled."""
        for number in range(3 * MESSAGES):
            if number % 3 == 0:
                self.publish()
            self.now += _STEP
            self.step()
        self.is_troubled = False
        for name, worker in self.team.items():
            self.reconnect(name, worker)
        for _ in range(_MOST_CALM_STEPS):
            if len(self.journal.settled) == self.published:
                return
            self.now += _STEP
            self.step()
        raise AssertionError(f"seed {self.seed}: {self.published - len(self.journal.settled)} are never settled")

    def publish(self) -> None:
        self.published += 1
        expires = None if self.ttl is None else self.now + self.ttl
        self.journal.append(expires)
        if expires is not None:
            self.expiry[self.published] = expires

    def new_node(self) -> Node:
        self.lives += 1
        return Node(f"life {self.lives}", self.journal.identity, self.journal.open_source, _PATIENCE)

    def hire(self) -> None:
        self.names += 1
        name = f"receiver {self.names}"
        credit = self.random.choice([1, 3, 10])
        self.team[name] = Worker(Receiver(name, "consumer", credit=credit, patience=_PATIENCE))
        self.team[name].receiver.attach(self.now)

    def step(self) -> None:
        self.land()
        for name, worker in self.team.items():
            self.work(worker)
            self.fly(name, NODE, worker.receiver.frames_to_send(self.now))
        self.serve()
        if self.is_troubled:
            self.make_trouble()

    def serve(self) -> None:
        frames = self.node.frames_to_send(self.now, self.now)
        if self.chance(0.02) and self.crash_publisher():
            return
        self.journal.commit()
        self.check_settled()
        bundles: dict[str, list[Loaded]] = {}
        for peer, loaded in frames:
            self.check_handed_out(loaded)
            bundles.setdefault(str(peer), []).append(loaded)
        for peer, bundle in bundles.items():
            self.fly(NODE, peer, bundle)

    def work(self, worker: Worker) -> None:
        for delivery in list(worker.in_hand):
            if self.random.random() < 0.8:
                worker.in_hand.remove(delivery)
                self.settle(worker, delivery)
        while len(worker.in_hand) < (3 if self.is_manual else 1):
            delivery = worker.receiver.take()
            if delivery is None:
                break
            self.check_given(delivery)
            worker.in_hand.append(delivery)

    def settle(self, worker: Worker, delivery: Delivery) -> None:
        outcome = self.random.choices([ACCEPTED, RELEASED, REJECTED], [7, 2, 1])[0] if self.is_manual else ACCEPTED
        if worker.receiver.settle(delivery, outcome):
            if outcome is ACCEPTED:
                self.accepted.append(delivery.sequence)
            elif outcome is REJECTED:
                self.rejected.add(delivery.sequence)

    def chance(self, probability: float) -> bool:
        return self.is_troubled and self.random.random() < probability

    def make_trouble(self) -> None:
        name = self.random.choice(list(self.team))
        if self.chance(0.02):
            self.crash_publisher()
        if self.chance(0.05):
            self.crash_worker(name)
        elif self.chance(0.05):
            self.disconnect(name, self.team[name])
        for name, worker in self.team.items():
            if not worker.is_connected and self.chance(0.3):
                self.reconnect(name, worker)

    def crash_worker(self, name: str) -> None:
        del self.team[name]
        self.node.disconnected(name, self.now)
        self.hire()

    def crash_publisher(self) -> bool:
        if isinstance(self.journal, LastingJournal):
            return False
        self.journal.crash()
        self.node = self.new_node()
        return True

    def disconnect(self, name: str, worker: Worker) -> None:
        worker.is_connected = False
        worker.receiver.disconnected(self.now)
        self.node.disconnected(name, self.now)

    def reconnect(self, name: str, worker: Worker) -> None:
        if not worker.is_connected:
            worker.is_connected = True
            worker.receiver.connected(self.now)

    def fly(self, sender: str, to: str, bundle: Sequence[Loaded]) -> None:
        copies = self.random.choices([0, 1, 2], [2, 7, 1])[0] if self.is_troubled else 1
        for _ in range(copies if bundle else 0):
            delay = self.random.random() * (3.0 if self.chance(0.2) else 0.05)
            self.names += 1
            heapq.heappush(self.flights, (self.now + delay, self.names, sender, to, encode(bundle)))

    def land(self) -> None:
        while self.flights and self.flights[0][0] <= self.now:
            _, _, sender, to, parts = heapq.heappop(self.flights)
            worker = self.team.get(sender if to == NODE else to)
            if worker is None or not worker.is_connected:
                continue
            for frame, payload in decode(parts):
                if to == NODE:
                    self.node.receive(frame, sender, self.now)
                else:
                    worker.receiver.receive(frame, payload, self.now)

    def check_given(self, delivery: Delivery) -> None:
        assert delivery.payload == b"%d" % delivery.sequence
        assert delivery.redelivered or delivery.sequence not in self.given, "given out again without saying so"
        # One that has long been on its way to a worker may come after the flagged one to another worker.
        if self.workers == 1 or not delivery.redelivered:
            self.given.add(delivery.sequence)

    def check_handed_out(self, loaded: Loaded) -> None:
        frame = loaded[0]
        if isinstance(frame, Transfer) and frame.sequence > self.handed_out:
            passed_over = set(range(self.handed_out + 1, frame.sequence))
            assert passed_over <= self.expired(), "handed out before an older one"
            self.handed_out = frame.sequence

    def check_settled(self) -> None:
        assert self.journal.settled <= {*self.accepted, *self.rejected} | self.expired(), "settled without acceptance"

    def expired(self) -> set[int]:
        return {sequence for sequence, expires in self.expiry.items() if expires <= self.now}


@dataclass
class ReplaySimulation(Simulation):
    """One run of a replay, whose reader lives to the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.order: list[int] = []

    def run(self) -> None:
        """Read all, in trouble first."""
        for _ in range(MESSAGES):
            self.publish()
        (reader,) = self.team.values()
        for number in range(_MOST_CALM_STEPS):
            self.is_troubled = number < MESSAGES
            self.now += _STEP
            self.step()
            if not self.is_troubled:
                self.reconnect("receiver 1", reader)
            if reader.receiver.is_finished:
                return
        raise AssertionError(f"seed {self.seed}: the replay does not end")

    def hire(self) -> None:
        self.names += 1
        receiver = Receiver("receiver 1", "replay", credit=3, distribution_mode="copy", start_at="", patience=_PATIENCE)
        self.team = {"receiver 1": Worker(receiver)}
        receiver.attach(self.now)

    def crash_worker(self, name: str) -> None:
        """Leave the reader alone."""

    def check_given(self, delivery: Delivery) -> None:
        super().check_given(delivery)
        self.order.append(delivery.sequence)
