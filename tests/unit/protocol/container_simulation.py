"""Programs that send each other messages over a network that loses, doubles, delays and cuts, and that die and freeze.

Time moves from one event to the next: a container gets its turn when it has asked for that, so that one that forgets to
ask is stuck, and one that asks too often is seen.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from posttroll.protocol.container import Arrived, Container, Disconnected, Wanted
from posttroll.protocol.frames import Attach, Outcome, Spoken, decode_conversation, encode
from posttroll.protocol.link import Delivery, Patience
from posttroll.protocol.outbound import Concluded
from posttroll.protocol.queue import Queue, Shelf
from posttroll.protocol.source import Entry, Source
from tests.unit.protocol.simulation import ACCEPTED, REJECTED, RELEASED, CrashingJournal

TARGETS = ("messages", "requests")
PATIENCE = Patience(resend=0.5, interval=1.0, silence=4.0, doubt=1.0)
FINAL = ("accepted", "rejected", "expired")
_TICK = 0.25
_TROUBLED = 20.0
_CALM_WITHIN = 300.0
_MOST_TURNS_IN_VAIN = 30
_MOST_TURNS_PER_SECOND = 500
_LARGEST_QUEUE = 2**20

Route = tuple[str, str, bool]


class Disk:
    """A shelf that outlives its program, as far as that had it commit."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._journal = CrashingJournal()

    @property
    def pending(self) -> int:
        return len(self._journal.entries) - len(self._journal.settled)

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        self._journal.entries.append(Entry(len(self._journal.entries) + 1, frame, expires))
        return len(self._journal.entries)

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        return self._journal.open_source(Attach("receiver", 1, "", consumer, []), key)

    def commit(self) -> None:
        self._journal.commit()

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        return {}

    def tidy(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        self._journal.crash()


@dataclass(eq=False)
class Parcel:
    """A message, followed by its tag: itself."""

    simulation: Simulation
    route: Route
    payload: bytes
    deadline: float
    states: list[str] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        return bool(self.states) and self.states[-1] in FINAL

    def sent(self) -> None:
        assert not self.is_final, "sent after its end"
        self.states.append("sent")

    def concluded(self, state: str, reason: str) -> None:
        assert not self.is_final, f"concluded again: {self.states} {state}"
        self.states.append(state)
        self.simulation.check_conclusion(self.payload, self.deadline, state, reason)


@dataclass(eq=False)
class Program:
    """A container and its application."""

    name: str
    address: str
    container: Container | None = None
    disks: dict[tuple[str, str], Disk] = field(default_factory=dict)
    in_hand: list[Delivery] = field(default_factory=list)
    connected_to: dict[str, Connection] = field(default_factory=dict)
    wishes: dict[str, None] = field(default_factory=dict)
    thaws_at: float = -math.inf
    parcels: list[Parcel] = field(default_factory=list)
    turns: Counter[int] = field(default_factory=Counter)


@dataclass(eq=False)
class Connection:
    """A way between two programs, and what each end calls it."""

    client: Program
    server: Program
    guest: str
    is_up: bool = True

    def other_end(self, program: Program) -> tuple[Program, Hashable, str]:
        if program is self.client:
            return self.server, self.guest, ""
        return self.client, self.server.address, self.server.address


class Simulation:
    """One run, all of whose troubles follow from its seed. It checks what must hold at any time."""

    def __init__(
        self,
        seed: int,
        names: Sequence[str] = ("alice", "bob"),
        *,
        messages: int = 40,
        is_manual: bool = False,
        ttl: float | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.turns_in_vain = 0
        self.is_troubled = True
        self.is_manual = is_manual
        self.messages = messages
        self.ttl = ttl
        self.bandwidth = bandwidth
        self.numbers = itertools.count(1)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.guests: dict[str, Connection] = {}
        self.half_open: list[Connection] = []
        self.given: set[bytes] = set()
        self.accepted: defaultdict[tuple[str, str, str, bool], list[bytes]] = defaultdict(list)
        self.all_accepted: set[bytes] = set()
        self.rejected: set[bytes] = set()
        self.put: defaultdict[tuple[str, str, str, bool], list[Parcel]] = defaultdict(list)
        self.keys: dict[bytes, tuple[str, str, str, bool]] = {}
        self.lost: set[bytes] = set()
        self.outcomes: Counter[tuple[Container | None, bytes]] = Counter()
        self.programs = [Program(name, f"tcp://{name}{number}:1") for number, name in enumerate(names)]
        for program in self.programs:
            self.launch(program)

    @property
    def names(self) -> list[str]:
        return [program.name for program in self.programs]

    def run(self) -> None:
        """Send in trouble, then calmly, until all is settled."""
        for _ in range(self.messages):
            self.after(self.random.random() * _TROUBLED, self.send_something)
        self.after(_TICK, self.tick)
        self.pass_time(_TROUBLED)
        self.is_troubled = False
        deadline = self.now + _CALM_WITHIN
        while not self.is_settled():
            assert self.now < deadline, self.describe()
            self.pass_time(1.0)

    def is_settled(self) -> bool:
        return all(
            program.container is not None
            and program.container.pending() == 0
            and all(parcel.is_final for parcel in program.parcels)
            for program in self.programs
        )

    def describe(self) -> str:
        left = [(one.route, one.payload, one.states) for p in self.programs for one in p.parcels if not one.is_final]
        pending = [p.container.pending() if p.container else None for p in self.programs]
        return f"never settled: {left}, pending {pending}"

    def after(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.numbers), action))

    def pass_time(self, duration: float) -> None:
        """Have all happen that does within a time."""
        end = self.now + duration
        while (moment := min(self.next_turn(), self.events[0][0] if self.events else math.inf)) <= end:
            if moment > self.now:
                self.now, self.turns_in_vain = moment, 0
            if self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()
                self.turns_in_vain = 0
            for program in self.awake():
                if self.container(program).next_timeout() <= self.now:
                    self.count_turn(program)
                    self.turn(program)
        self.now = end

    def next_turn(self) -> float:
        return min((self.container(program).next_timeout() for program in self.awake()), default=math.inf)

    def awake(self) -> list[Program]:
        return [one for one in self.programs if one.container is not None and one.thaws_at <= self.now]

    @staticmethod
    def container(program: Program) -> Container:
        assert program.container is not None
        return program.container

    def count_turn(self, program: Program) -> None:
        program.turns[int(self.now)] += 1
        self.turns_in_vain += 1
        assert self.turns_in_vain <= _MOST_TURNS_IN_VAIN, f"{program.name} takes turns without end"

    def turn(self, program: Program) -> None:
        self.tell(program)
        if program.container is not None:
            self.say(program, program.container.frames_to_send(self.now, self.now))
            self.tell(program)

    def say(self, program: Program, spoken: Iterable[tuple[Hashable, Spoken]]) -> None:
        bundles: dict[Hashable, list[Spoken]] = {}
        for place, one in spoken:
            bundles.setdefault(place, []).append(one)
        for place, bundle in bundles.items():
            connection = program.connected_to.get(str(place)) or self.guests.get(str(place))
            if connection is not None and connection.is_up:
                self.fly(program, connection, encode(bundle))

    def fly(self, program: Program, connection: Connection, bundle: bytes) -> None:
        copies = self.random.choices([0, 1, 2], [2, 7, 1])[0] if self.is_troubled else 1
        for _ in range(copies):
            delay = self.random.random() * (3.0 if self.chance(0.1) else 0.05)
            self.after(delay, lambda: self.land(program, connection, bundle))

    def land(self, sender: Program, connection: Connection, bundle: bytes) -> None:
        program, place, address = connection.other_end(sender)
        if not connection.is_up or program.container is None:
            return
        if program.thaws_at > self.now:
            self.after(program.thaws_at - self.now, lambda: self.land(sender, connection, bundle))
            return
        program.container.receive(decode_conversation(bundle), place, address, self.now)
        self.tell(program)

    def tell(self, program: Program) -> None:
        if program.container is None:
            return
        for event in program.container.take_events():
            if isinstance(event, Wanted):
                self.find(program, event.peer)
            elif isinstance(event, Concluded):
                self.outcomes[program.container, event.payload] += 1
            elif isinstance(event, Arrived):
                self.work(program)
            elif isinstance(event, Disconnected):
                assert event.reason

    def find(self, program: Program, peer: str) -> None:
        for other in self.programs:
            if peer in (other.name, other.address):
                program.wishes[other.address] = None
                self.connect(program, other)

    def connect(self, program: Program, other: Program) -> None:
        if program is other or program.container is None or other.container is None:
            return
        if other.address not in program.connected_to:
            guest = f"guest {next(self.numbers)}"
            connection = program.connected_to[other.address] = self.guests[guest] = Connection(program, other, guest)
            program.container.connected(connection.server.address, connection.server.address, self.now)

    def cut(self, connection: Connection, *, both_know: bool = True) -> None:
        """End a connection; one end of it may not notice."""
        connection.is_up = False
        client, server = connection.client, connection.server
        del client.connected_to[server.address], self.guests[connection.guest]
        if client.container is not None:
            client.container.disconnected(server.address, self.now)
        if server.container is not None and both_know:
            server.container.disconnected(connection.guest, self.now)
        if not both_know:
            self.half_open.append(connection)

    def launch(self, program: Program) -> None:
        """Start a program, with what its former life has left."""

        def open_shelf(peer: str, target: str, is_persistent: bool, name: str) -> tuple[Shelf, int]:
            if not is_persistent:
                return Queue(name, _LARGEST_QUEUE), 0
            disk = program.disks.setdefault((peer, target), Disk(name))
            return disk, disk.pending

        self.cut_all(program)
        life = f"{program.address} {next(self.numbers)}"
        program.container = Container(program.name, life, open_shelf, PATIENCE, self.bandwidth)
        for target in TARGETS:
            credit = self.random.choice([1, 3, 10])
            program.container.open_target(target, self.now, credit, is_prompt=self.random.random() < 0.5)
        for (peer, target), disk in program.disks.items():
            if disk.pending:
                program.container.open_outbound(peer, target, self.now, is_persistent=True)
        for address in program.wishes:
            self.connect(program, next(one for one in self.programs if one.address == address))

    def end(self, program: Program, *, is_clean: bool = False) -> None:
        """Kill or stop a program."""
        container, program.container = self.container(program), None
        if is_clean:
            self.say(program, container.close(self.now))
        for disk in program.disks.values():
            disk.close()
        program.in_hand.clear()
        self.lost |= {parcel.payload for parcel in program.parcels if not parcel.is_final and not parcel.route[2]}
        program.parcels = [] if not is_clean else [one for one in program.parcels if one.is_final]
        if is_clean:  # the goodbye is on its way
            self.after(0.1, lambda: self.cut_all(program) if program.container is None else None)
        else:
            self.cut_all(program)

    def cut_all(self, program: Program) -> None:
        for connection in list(self.guests.values()):
            if program in (connection.client, connection.server):
                self.cut(connection)
        for connection in self.half_open:
            if program is connection.client and connection.server.container is not None:
                connection.server.container.disconnected(connection.guest, self.now)

    def tick(self) -> None:
        for program in self.programs:
            if program.container is None and not self.chance(0.9):
                self.launch(program)
            if program in self.awake():
                self.work(program)
            for address in program.wishes:
                if not self.chance(0.7):
                    self.connect(program, next(one for one in self.programs if one.address == address))
        if self.is_troubled:
            self.make_trouble(self.random.choice(self.programs))
        self.after(_TICK, self.tick)

    def make_trouble(self, program: Program) -> None:
        if program.container is None or program.thaws_at > self.now:
            return
        if self.chance(0.03):
            self.end(program, is_clean=self.chance(0.5))
        elif self.chance(0.05):
            program.thaws_at = self.now + self.random.choice([1.0, 3.0, 9.0])
            self.after(program.thaws_at - self.now, lambda: None)
        elif self.chance(0.1):
            self.find(program, self.random.choice(self.names))
        elif self.guests and self.chance(0.1):
            self.cut(self.random.choice(list(self.guests.values())), both_know=self.chance(0.7))

    def chance(self, probability: float) -> bool:
        return self.is_troubled and self.random.random() < probability

    def send_something(self) -> None:
        program = self.random.choice(self.programs)
        if program.container is None or program.thaws_at > self.now:
            return
        others = [one for one in self.programs if one.name != program.name]
        other = self.random.choice(others)
        peer = other.address if self.chance(0.1) and self.names.count(other.name) == 1 else other.name
        target, is_persistent = self.random.choice(TARGETS), self.random.random() < 0.4
        ttl = self.random.choice([None, self.ttl]) if self.ttl is not None else None
        self.post(program, (peer, target, is_persistent), ttl)

    def post(self, program: Program, route: Route, ttl: float | None = None) -> Parcel:
        """Put a message."""
        peer, target, is_persistent = route
        payload = f"{program.address}/{next(self.numbers)} {peer} {target}".encode()
        parcel = Parcel(self, route, payload, math.inf if ttl is None else self.now + ttl)
        program.parcels.append(parcel)
        self.keys[payload] = key = (program.address, *route)
        self.put[key].append(parcel)
        self.container(program).put(peer, target, payload, parcel, self.now, self.now, ttl, is_persistent=is_persistent)
        return parcel

    def work(self, program: Program) -> None:
        """Do what an application does."""
        container = self.container(program)
        for delivery in list(program.in_hand):
            if self.random.random() < 0.8:
                program.in_hand.remove(delivery)
                self.settle(container, delivery)
        for target in TARGETS:
            while len(program.in_hand) < (3 if self.is_manual else 1):
                taken = container.take(target)
                if taken is None:
                    break
                self.check_given(program, target, *taken)
                program.in_hand.append(taken[0])

    def settle(self, container: Container, delivery: Delivery) -> None:
        outcome = self.random.choices([ACCEPTED, RELEASED, REJECTED], [7, 2, 1])[0] if self.is_manual else ACCEPTED
        if container.settle(delivery, outcome, self.now):
            self.note(delivery.payload, outcome)

    def note(self, payload: bytes, outcome: Outcome) -> None:
        if outcome is ACCEPTED and payload not in self.all_accepted:
            self.all_accepted.add(payload)
            self.accepted[self.key_of(payload)].append(payload)
        elif outcome is REJECTED:
            self.rejected.add(payload)

    def key_of(self, payload: bytes) -> tuple[str, str, str, bool]:
        return self.keys[payload]

    def check_given(self, program: Program, target: str, delivery: Delivery, sender: str) -> None:
        address, peer, aim, _ = self.key_of(delivery.payload)
        assert sender in address
        assert (aim, peer in (program.name, program.address)) == (target, True), "came to somebody else"
        is_alone = self.names.count(program.name) == 1
        assert delivery.redelivered or delivery.payload not in self.given, "given out again without saying so"
        # One that has long been on its way to one may come after the flagged one to another of that name.
        if is_alone or not delivery.redelivered:
            self.given.add(delivery.payload)

    def check_conclusion(self, payload: bytes, deadline: float, state: str, reason: str) -> None:
        if state == "accepted":
            assert payload in self.all_accepted, "nobody has accepted it"
        elif state == "rejected":
            assert payload in self.rejected or reason.startswith("delivered 10 times"), "nobody has rejected it"
        elif state == "expired":
            assert self.now >= deadline, "before its time"

    def check_all_arrived(self) -> None:
        """Assert that what was put was given, unless it was lost with its program, expired or was rejected."""
        for parcels in self.put.values():
            for one in parcels:
                is_excused = one.payload in self.lost | self.rejected or one.deadline <= self.now
                assert is_excused or one.payload in self.all_accepted, f"{one.payload!r} {one.states}"
        assert max(self.outcomes.values(), default=1) == 1, "concluded twice"

    def check_order(self) -> None:
        """Assert that what was put on a route was accepted in this order."""
        for key, payloads in self.accepted.items():
            order = [one.payload for one in self.put[key] if one.payload in self.all_accepted]
            assert payloads == order, f"{key}: {payloads} for {order}"

    def check_pace(self) -> None:
        """Assert that nobody took turns in vain, again and again."""
        for program in self.programs:
            busiest = max(program.turns.values(), default=0)
            assert busiest <= _MOST_TURNS_PER_SECOND, f"{busiest} turns in a second"

    def leave(self) -> None:
        """Have everybody part from everybody, and some time pass."""
        self.events = []
        for program in self.programs:
            program.wishes.clear()
            program.thaws_at = -math.inf
            while program.in_hand:
                self.settle(self.container(program), program.in_hand.pop())
        for connection in list(self.guests.values()):
            self.cut(connection)
        self.pass_time(200.0)


def leftovers(container: Container) -> dict[str, object]:
    """Return what a container keeps, but for its targets."""
    kept = {name: value for name, value in vars(container).items() if isinstance(value, list | dict | set) and value}
    kept.update(
        {
            f"agenda {name}": value
            for name, value in vars(container._agenda).items()
            if value and name[1:] in ("touched", "timed")
        }
    )
    for target in kept.pop("_targets", {}).values():
        if target.ready or target.untold:
            kept[target.name] = (target.ready, target.untold)
    return kept
