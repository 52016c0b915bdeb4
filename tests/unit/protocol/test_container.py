"""Containers keep their promises over a network that loses, doubles, delays and cuts, and beside hostile peers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttroll.errors import JournalError
from posttroll.journal.memory import MemoryJournal
from posttroll.protocol import container as container_module
from posttroll.protocol.container import Connected, Container, Disconnected, Event, Refused, Troubled, Unwanted, Wanted
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import (
    MOST_QUEUES,
    VERSION,
    Attach,
    Attached,
    Close,
    Detach,
    Disposition,
    Flow,
    Frame,
    Open,
    Outcome,
    Settled,
    Spoken,
    Transfer,
    decode_conversation,
    encode,
)
from posttroll.protocol.outbound import Concluded
from posttroll.protocol.queue import Queue, Shelf
from tests.unit.protocol.container_simulation import PATIENCE, Program, Simulation, leftovers
from tests.unit.protocol.simulation import ACCEPTED, RELEASED

RUNS_OF_A_CHUNK = 10
LIFE = "the life of bob"
ALICE, EVE = "place of alice", "place of eve"


@pytest.mark.parametrize("chunk", range(8))
def test_everything_is_accepted_at_least_once_and_in_order(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed)

        simulation.run()

        simulation.check_all_arrived()
        simulation.check_order()
        simulation.check_pace()
        simulation.leave()
        assert [leftovers(simulation.container(one)) for one in simulation.programs] == [{}, {}], f"seed {seed}"


@pytest.mark.parametrize(
    "options",
    [
        {"names": ("alice", "bob", "carol")},
        {"names": ("alice", "bob", "bob")},
        {"names": ("alice", "bob", "bob"), "is_manual": True},
        {"ttl": 4.0, "is_manual": True},
        {"bandwidth": 300.0},
    ],
    ids=["everybody to everybody", "two share", "two share and reject", "too late", "through a thin line"],
)
@pytest.mark.parametrize("chunk", range(2))
def test_nothing_is_lost_nor_left(options: dict[str, Any], chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed, **options)

        simulation.run()

        simulation.check_all_arrived()
        simulation.check_pace()
        simulation.leave()
        left = [leftovers(simulation.container(one)) for one in simulation.programs]
        assert left == [{}] * len(left), f"seed {seed}"


def calm(*names: str, **options: Any) -> Simulation:
    """Return one in which nothing goes wrong by itself, and the applications work."""
    simulation = Simulation(0, names, **options)
    simulation.is_troubled = False
    simulation.after(0.0, simulation.tick)
    return simulation


def disconnections(simulation: Simulation, program: Program) -> list[str]:
    """Return the reasons of those that are told from here on."""
    reasons: list[str] = []
    container = simulation.container(program)
    take_events = container.take_events

    def listen() -> list[Event]:
        events = take_events()
        reasons.extend(event.reason for event in events if isinstance(event, Disconnected))
        return events

    container.take_events = listen  # type: ignore[method-assign]
    return reasons


def test_who_has_nothing_to_say_takes_few_turns() -> None:
    simulation = calm("alice", "bob")
    alice, bob = simulation.programs
    simulation.post(alice, ("bob", "messages", False))
    simulation.post(bob, ("alice", "messages", False))
    simulation.pass_time(10.0)
    alice.turns.clear()

    simulation.pass_time(100.0)

    # Two links and the conversation, each of whose ends gives a sign of life each second.
    assert alice.turns.total() <= 8 * 100


def test_two_of_one_name_share_what_is_put_for_it() -> None:
    simulation = calm("alice", "bob", "bob")
    alice, *team = simulation.programs
    for bob in team:
        simulation.connect(bob, alice)
    simulation.pass_time(1.0)
    taken: Counter[str] = Counter()
    check_given = simulation.check_given

    def note(program: Program, *rest: Any) -> None:
        taken[program.address] += 1
        check_given(program, *rest)

    simulation.check_given = note  # type: ignore[method-assign]
    for _ in range(40):
        simulation.post(alice, ("bob", "messages", False))
        simulation.pass_time(0.25)
    simulation.pass_time(5.0)

    assert simulation.is_settled()
    assert min(taken[bob.address] for bob in team) > 5


def test_the_silence_of_a_frozen_peer_is_noticed_and_its_return_too() -> None:
    simulation = calm("alice", "bob")
    alice, bob = simulation.programs
    simulation.post(alice, ("bob", "messages", False))
    simulation.pass_time(2.0)
    reasons = disconnections(simulation, alice)

    bob.thaws_at = simulation.now + 20.0
    simulation.after(20.0, lambda: None)
    simulation.pass_time(PATIENCE.silence - PATIENCE.interval)
    before = list(reasons)
    simulation.pass_time(2 * PATIENCE.interval)
    later = simulation.post(alice, ("bob", "messages", False))
    simulation.pass_time(20.0)

    assert before == []
    assert reasons == ["it was silent for 4 s"]
    assert later.states[-1] == "accepted"


def test_the_bandwidth_is_kept() -> None:
    rate, size, count = 10_000.0, 1000, 100
    simulation = calm("alice", "bob", bandwidth=rate)
    alice, bob = simulation.programs
    simulation.connect(alice, bob)
    simulation.pass_time(1.0)
    begin, container = simulation.now, simulation.container(bob)
    container.open_target("bulk", simulation.now, credit=1000)

    for _ in range(count):
        simulation.container(alice).put("bob", "bulk", bytes(size), None, begin, begin)
    arrived = 0
    while arrived < count:
        simulation.pass_time(0.05)
        while (taken := container.take("bulk")) is not None:
            arrived += 1
            container.settle(taken[0], ACCEPTED, simulation.now)

    assert count * size / (simulation.now - begin) == pytest.approx(rate, rel=0.2)


class Hall:
    """A container called bob, and what it says to those who speak to it by hand."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.shelves: dict[str, Shelf] = {}
        self.container = Container("bob", LIFE, self._open_shelf, PATIENCE, **options)
        self.container.open_target("messages", self.now)

    def _open_shelf(self, peer: str, target: str, is_persistent: bool, name: str) -> tuple[Shelf, int]:
        if not is_persistent:
            return Queue(name, 2**20), 0
        journal = self.shelves[peer]
        return journal, sum(one.pending for one in journal.consumers()) if isinstance(journal, MemoryJournal) else 0

    def hear(self, place: Hashable, *frames: Frame | Open | Close, key: str = "", payload: bytes = b"x") -> None:
        """Have the container hear frames, and what it has to say before taken away."""
        address = str(place) if str(place).startswith("tcp://") else ""
        spoken = [(frame, payload if isinstance(frame, Transfer) else None) for frame in frames]
        self.container.receive(decode_conversation(encode(spoken)), place, address, self.now, key)

    def say(self) -> list[tuple[Hashable, Spoken]]:
        """Return what the container says now."""
        return self.container.frames_to_send(self.now, self.now)

    def said(self, kind: type, place: Hashable | None = None) -> list[Any]:
        """Return the frames of a kind of that."""
        return [frame for to, (frame, _) in self.say() if isinstance(frame, kind) and place in (None, to)]

    def put(self, peer: str, payload: bytes = b"pytroll://x", **options: Any) -> Tag:
        tag = Tag()
        self.container.put(peer, "messages", payload, tag, self.now, self.now, **options)
        return tag

    def events(self, *kinds: type) -> list[Any]:
        return [event for event in self.container.take_events() if isinstance(event, kinds)]

    def attach(self, place: Hashable, queue: str, receiver: str = "receiver", **options: Any) -> None:
        """Have somebody attach to a queue, with credit for ten."""
        self.hear(place, Attach(receiver, 1, "", "somebody", [], journal=queue), **options)
        (answer,) = self.said(Attached)
        self.hear(place, Flow(receiver, 1, answer.sender, 1, 0, 10), **options)


class Tag:
    def __init__(self) -> None:
        self.states: list[str] = []

    def sent(self) -> None:
        self.states.append("sent")

    def concluded(self, state: str, reason: str) -> None:
        self.states.append(state)


def opening(name: str = "alice", life: str = "the life of alice", number: int = 1, **more: Any) -> Open:
    return Open(name, life, more.pop("version", VERSION), number, **more)


def offering(*queues: str, target: str = "messages", number: int = 1, **more: Any) -> Open:
    return opening(number=number, queues=dict.fromkeys(queues, target), **more)


@pytest.fixture
def hall() -> Hall:
    """Make a container."""
    return Hall()


def queue_for(hall: Hall, place: Hashable) -> str:
    """Return the identity of the only queue that is offered at a place."""
    return next(queue for frame in hall.said(Open, place) for queue in frame.queues)


def test_who_speaks_another_version_is_told_so_once(hall: Hall) -> None:
    hall.hear(EVE, opening(version=VERSION + 1))
    first, refused = hall.said(Close), hall.events(Refused)
    hall.hear(EVE, opening(version=VERSION + 1), opening(version=VERSION))

    assert first == [Close("version 1 of the protocol is spoken here, not 2")]
    assert [one.reason for one in refused] == [first[0].reason]
    assert hall.say() == []
    assert hall.events(Refused) == hall.events(Connected) == []


def test_a_name_belongs_to_the_key_that_used_it_first(hall: Hall) -> None:
    hall.hear(ALICE, opening(), key="key of alice")
    tag = hall.put("alice")

    hall.hear(EVE, opening(life="the life of eve"), key="key of eve")

    assert hall.said(Close, EVE) == [Close("the name alice belongs to another key")]
    assert hall.container.peers == [PeerInfo("alice", "", "key of alice")]
    assert tag.states == []


def test_a_connection_keeps_its_name(hall: Hall) -> None:
    hall.hear(EVE, opening("eve", "the life of eve"))
    hall.say()

    hall.hear(EVE, opening("alice", "the life of eve", number=2))

    assert hall.said(Close) == [Close("the connection is that of eve already")]
    assert hall.container.peers == []


def test_nobody_can_be_called_by_an_address(hall: Hall) -> None:
    hall.hear(EVE, opening("tcp://here:1"))

    assert hall.said(Close) == [Close("tcp://here:1 is an address, which is not a name")]


def test_what_comes_under_another_key_than_the_first_is_not_heard(hall: Hall) -> None:
    hall.hear(ALICE, opening(), key="key of alice")
    hall.put("alice")
    queue = queue_for(hall, ALICE)

    hall.hear(ALICE, Attach("receiver", 1, "", "alice", [], journal=queue), key="key of eve")

    assert hall.said(Attached) == []


def test_nothing_is_heard_before_an_open(hall: Hall) -> None:
    hall.put("alice")
    hall.say()

    hall.hear(EVE, Attach("receiver", 1, "", "alice", [], journal=f"{LIFE}/1"), Detach("x", 1, "y"))

    assert hall.said(Attached) == hall.said(Detach) == []


def test_nobody_gets_what_is_for_another_one(hall: Hall) -> None:
    hall.hear(ALICE, opening())
    tag = hall.put("alice")
    queue = queue_for(hall, ALICE)
    hall.hear(EVE, opening("eve", "the life of eve"))
    hall.say()

    hall.hear(EVE, Attach("receiver", 1, "", "alice", [], journal=queue))

    assert [type(frame) for place, (frame, _) in hall.say() if place == EVE] == [Detach]
    assert tag.states == []


def test_who_lists_the_queue_of_another_one_is_not_attached_to(hall: Hall) -> None:
    hall.hear(ALICE, offering("queue"))
    (attach,) = hall.said(Attach, ALICE)

    hall.hear(EVE, offering("queue", name="eve", life="the life of eve"))
    hall.hear(EVE, Attached(attach.receiver, 1, "eve", "queue"), Transfer(attach.receiver, 1, "eve", 0, 1))

    assert hall.said(Attach, EVE) == []
    assert hall.container.take("messages") is None


@pytest.mark.parametrize(("target", "attached_to"), [("messages", MOST_QUEUES), ("nonsense", 0)])
def test_of_many_queues_those_are_attached_to_that_are_for_something_and_nothing_is_left_of_them(
    hall: Hall, target: str, attached_to: int
) -> None:
    hall.hear(EVE, offering(*map(str, range(MOST_QUEUES)), target=target))
    attached = hall.said(Attach)

    hall.hear(EVE, opening(number=2))
    hall.now += PATIENCE.silence
    hall.say()

    assert len(attached) == attached_to
    assert not {"_inbound", "_receivers", "messages"} & leftovers(hall.container).keys()


def test_the_queues_of_everybody_together_are_bounded(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_module, "_MOST_INBOUND", 150)

    for number in range(3):
        queues = [f"{number}/{one}" for one in range(MOST_QUEUES)]
        hall.hear(number, offering(*queues, name=f"eve {number}", life=f"life {number}"))

    assert len(hall.said(Attach)) == 150


def test_each_sender_has_its_turn_however_many_queues_it_has(hall: Hall) -> None:
    for place, count in ((EVE, 20), (ALICE, 1)):
        hall.hear(place, offering(*(f"{place}/{number}" for number in range(count)), name=place, life=place))
        for attach in hall.said(Attach, place):
            session = (attach.receiver, attach.session, place)
            hall.hear(
                place, Attached(*session, attach.journal), *(Transfer(*session, one, one + 1) for one in range(5))
            )

    senders = [taken[1] for _ in range(10) if (taken := hall.container.take("messages"))]

    assert senders == [EVE, ALICE] * 5


def test_of_those_who_are_gone_the_first_makes_room_for_somebody_else(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_module, "_MOST_INBOUND", 3)
    for name in ("ada", "eve", "ida"):
        hall.hear(name, offering(f"of {name}", name=name, life=name))
    hall.said(Attach)

    for name in ("eve", "ada"):
        hall.container.disconnected(name, hall.now)
    hall.hear("eve", offering("of eve", name="eve", life="eve"))
    hall.hear("zoe", offering("one", "two", name="zoe", life="zoe"))

    assert sorted(attach.journal for attach in hall.said(Attach) if attach.journal != "of eve") in (["one"], ["two"])
    assert "of ada" not in hall.container._inbound


def test_of_too_many_who_come_in_the_rest_is_told_so(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_module, "_MOST_CONVERSATIONS", 1)
    hall.hear(ALICE, opening())
    hall.say()

    hall.hear(EVE, opening("eve", "the life of eve"))

    assert hall.say() == [(EVE, (Close("bob talks to 1 already"), None))]
    assert [event.reason for event in hall.events(Refused)] == ["bob talks to 1 already"]


def test_a_flood_of_opens_is_answered_once(hall: Hall) -> None:
    for number in range(1, 1000):
        hall.hear(EVE, opening(number=number, awaits=True))

    assert len(hall.say()) == 1
    assert len(hall.events(Connected)) == 1


def test_a_storm_of_closes_is_answered_once(hall: Hall) -> None:
    hall.hear(EVE, opening())
    hall.say()

    for _ in range(1000):
        hall.hear(EVE, Close("never"), opening(number=2))

    assert hall.say() == [(EVE, (Close(), None))]
    assert [event.reason for event in hall.events(Disconnected)] == ["never"]


def test_one_that_is_refused_is_told_of_once(hall: Hall) -> None:
    hall.container.connected("tcp://there:1", "tcp://there:1", hall.now)

    for _ in range(10):
        hall.hear("tcp://there:1", Close("I talk to nobody"))

    assert hall.events(Refused) == [Refused("tcp://there:1", "I talk to nobody")]


def test_a_container_does_not_talk_to_itself(hall: Hall) -> None:
    hall.container.connected("tcp://bob:1", "tcp://bob:1", hall.now)

    for _ in range(10):
        for place, (frame, _) in hall.say():
            assert isinstance(frame, Open)
            hall.hear("guest" if place == "tcp://bob:1" else "tcp://bob:1", frame)

    assert hall.say() == hall.container.peers == hall.container.take_events() == []
    assert hall.container.next_timeout() > hall.now


@pytest.mark.parametrize(
    "frame",
    [
        Flow("receiver", 1, "", 99, 2**62, 2**62),
        Flow("other", 1, f"{LIFE}/1", 99, 2**62, 2**62),
        Flow("receiver", 7, f"{LIFE}/1", 99, 2**62, 2**62),
        Disposition("receiver", 1, f"{LIFE}/1", {7: ACCEPTED, 2**62: ACCEPTED}),
        Disposition("other", 1, f"{LIFE}/1", {0: ACCEPTED}),
        Disposition("receiver", 1, "other", {0: ACCEPTED}),
        Detach("receiver", 7, f"{LIFE}/1"),
        Detach("receiver", 1, "other"),
        Detach("other", 1, f"{LIFE}/1"),
        Settled("receiver", 1, f"{LIFE}/1", [0]),
        Transfer("receiver", 1, f"{LIFE}/1", 0, 1),
    ],
    ids=lambda frame: f"{type(frame).__name__} {frame.receiver} {frame.session} {frame.sender}",
)
def test_frames_with_foreign_numbers_change_nothing(hall: Hall, frame: Frame) -> None:
    hall.hear(ALICE, opening())
    tag = hall.put("alice")
    hall.attach(ALICE, queue_for(hall, ALICE))
    sent = hall.said(Transfer)

    hall.hear(ALICE, frame)
    hall.say()
    before = list(tag.states)
    hall.hear(ALICE, Disposition("receiver", 1, sent[0].sender, {0: ACCEPTED}))

    assert before == ["sent"]
    assert tag.states == ["sent", "accepted"]
    assert hall.container.pending() == 0


@pytest.mark.parametrize("more", [{"topics": ["pytroll://y"]}, {"topics": [], "distribution_mode": "copy"}])
def test_a_queue_is_given_out_as_a_whole_and_once(hall: Hall, more: dict[str, Any]) -> None:
    hall.hear(ALICE, opening())
    tag = hall.put("alice")
    queue = queue_for(hall, ALICE)

    hall.hear(ALICE, Attach("receiver", 1, "", "alice", journal=queue, **more))

    assert [frame.reason for frame in hall.said(Detach)] == ["a queue is given out as a whole, and once"]
    assert tag.states == []
    assert hall.container.pending() == 1


def test_a_sender_whose_receiver_is_unknown_is_not_told_that_nothing_has_arrived(hall: Hall) -> None:
    hall.hear(ALICE, opening())
    hall.say()

    for kind in (Flow, Transfer):
        numbers = (1, 1) if kind is Transfer else (1,)
        hall.hear(ALICE, kind("the former life of bob/1", 1, "the life of alice/1", *numbers))

    assert hall.said(Detach) == []


def test_a_receiver_whose_sender_is_gone_is_told_so(hall: Hall) -> None:
    hall.hear(ALICE, opening())
    hall.say()

    hall.hear(ALICE, Flow("the life of alice/1", 1, f"{LIFE}/99", 1))

    assert hall.said(Detach) == [Detach("the life of alice/1", 1, f"{LIFE}/99", "unknown session")]


NAMES = st.sampled_from(["alice", "eve", "bob"])
LIVES = st.sampled_from(["the life of alice", "the life of eve", LIFE])
LINKS = st.sampled_from(["receiver", *(f"{LIFE}/{number}" for number in range(1, 8)), ""])
QUEUES = st.sampled_from(["queue", "other queue", *(f"{LIFE}/{number}" for number in range(1, 4))])
NUMBERS = st.integers(0, 3) | st.just(2**62)
OUTCOMES = st.builds(Outcome, st.sampled_from(["accepted", "rejected", "released"]), st.just(""), st.booleans())
LINK = (LINKS.filter(bool), NUMBERS, LINKS)
UNSETTLED = st.lists(st.tuples(NUMBERS, st.none() | OUTCOMES), max_size=3)
MODES = st.sampled_from(["move", "move", "copy"])
TOPICS = st.lists(st.just("topic"), max_size=1)
OFFERS = st.dictionaries(QUEUES, st.sampled_from(["messages", "requests"]))
FRAMES = (
    st.builds(Open, NAMES, LIVES, st.sampled_from([1, 1, 1, 2]), NUMBERS, NUMBERS, st.booleans(), OFFERS)
    | st.builds(Close, st.sampled_from(["", "reason"]))
    | st.builds(Attach, *LINK, NAMES, TOPICS, st.just(""), QUEUES, UNSETTLED, MODES, st.just(""), NUMBERS)
    | st.builds(Attached, *LINK, QUEUES, st.lists(NUMBERS, max_size=3))
    | st.builds(Flow, *LINK, NUMBERS, NUMBERS, NUMBERS, st.booleans())
    | st.builds(Transfer, *LINK, NUMBERS, NUMBERS, NUMBERS)
    | st.builds(Disposition, *LINK, st.dictionaries(NUMBERS, OUTCOMES, max_size=3))
    | st.builds(Settled, *LINK, st.lists(NUMBERS, max_size=3))
    | st.builds(Detach, *LINK, st.just(""))
)
PLACES = st.sampled_from([ALICE, EVE, "tcp://there:1"])
STEPS = st.lists(st.tuples(PLACES, st.lists(FRAMES, max_size=4), st.sampled_from(["", "key"])), max_size=25)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_no_frames_whatsoever_are_trouble(steps: list[tuple[str, list[Any], str]]) -> None:
    hall = Hall()
    tags = [hall.put(peer, ttl=ttl) for peer in ("alice", "eve", "tcp://there:1") for ttl in (None, 5.0)]

    for place, frames, key in steps:
        hall.hear(place, *frames, key=key)
        hall.now += 0.3
        for _, spoken in hall.say():
            decode_conversation(encode([spoken]))
        if (taken := hall.container.take("messages")) is not None:
            hall.container.settle(taken[0], RELEASED, hall.now)

    assert all(sum(state in ("accepted", "rejected", "expired") for state in tag.states) <= 1 for tag in tags)
    for place in (ALICE, EVE, "tcp://there:1"):
        hall.container.disconnected(place, hall.now)
    for _ in range(100):
        hall.now = max(hall.now, hall.container.next_timeout())
        if hall.now == math.inf:
            break
        hall.say()
    assert hall.now == math.inf
    kept = leftovers(hall.container)
    assert not kept.keys() & {"_inbound", "_receivers", "_conversations", "_by_name", "_lives", "_allowances"}
    assert len(kept.get("_routes", {})) == bool(hall.container.pending("alice")) + bool(
        hall.container.pending("eve")
    ) + bool(hall.container.pending("tcp://there:1"))


class Line:
    """Two containers that hear each other at once."""

    def __init__(self, client: Container, server: Container, guest: str) -> None:
        self.client, self.server, self.guest = client, server, guest

    def settle(self, now: float) -> None:
        for _ in range(100):
            said = [spoken for _, spoken in self.client.frames_to_send(now, now)]
            if said:
                self.server.receive(said, self.guest, "", now)
            answered = [spoken for place, spoken in self.server.frames_to_send(now, now) if place == self.guest]
            if answered:
                self.client.receive(answered, "tcp://server:1", "tcp://server:1", now)
            if not said and not answered:
                return
        raise AssertionError("they talk without end")


def test_a_thousand_callers_of_unique_names_leave_nothing() -> None:
    server = Hall().container
    taken = 0

    for number in range(1000):
        now, guest = number * 0.1, f"guest {number}"
        caller = Container(f"caller {number}", f"life {number}", lambda *route: (Queue(route[3], 2**20), 0), PATIENCE)
        caller.open_target("replies", now)
        caller.put("bob", "messages", b"question", None, now, now)
        caller.connected("tcp://server:1", "tcp://server:1", now)
        line = Line(caller, server, guest)
        line.settle(now)
        delivery, name = server.take("messages")  # type: ignore[misc]
        server.settle(delivery, ACCEPTED, now)
        server.put(name, "replies", b"answer", None, now, now, ttl=1000.0)
        line.settle(now)
        answer, _ = caller.take("replies")  # type: ignore[misc]
        caller.settle(answer, ACCEPTED, now)
        taken += 1
        line.settle(now + 0.05)
        if number % 2:
            server.receive([spoken for _, spoken in caller.close(now)], guest, "", now)
        server.disconnected(guest, now)
    server.take_events()
    for later in itertools.count(int(now)):
        server.frames_to_send(float(later), float(later))
        if server.next_timeout() == math.inf:
            break

    assert taken == 1000
    assert leftovers(server) == {}
    assert later < now + 100


def test_what_nobody_takes_within_its_time_is_told_when_that_is_over_and_not_before(hall: Hall) -> None:
    tag = hall.put("alice", ttl=10.0)
    hall.say()

    due = hall.container.next_timeout()
    hall.now = math.nextafter(10.0, 0.0)
    hall.say()
    before = list(tag.states)
    hall.now = 10.0
    hall.say()

    assert due == 10.0
    assert before == []
    assert tag.states == ["expired"]
    assert [event.state for event in hall.events(Concluded)] == ["expired"]
    assert leftovers(hall.container) == {}


def test_a_wall_clock_that_is_put_forward_ends_nothing_before_its_time(hall: Hall) -> None:
    tag = hall.put("alice", ttl=10.0)
    hall.hear(ALICE, opening())
    queue = queue_for(hall, ALICE)
    hall.attach(ALICE, queue)

    hall.container.frames_to_send(hall.now, wall=hall.now + 3600.0)

    assert tag.states == ["sent"]


def test_what_comes_back_when_its_time_is_over_is_not_given_out_again(hall: Hall) -> None:
    hall.hear(ALICE, opening())
    tag = hall.put("alice", ttl=2.0)
    hall.attach(ALICE, queue_for(hall, ALICE))
    (transfer,) = hall.said(Transfer)
    hall.now = 3.0
    hall.say()

    hall.hear(ALICE, Disposition("receiver", 1, transfer.sender, {0: RELEASED}))
    again = hall.said(Transfer)

    assert again == []
    assert tag.states == ["sent", "released", "expired"]
    assert hall.container.pending() == 0


def test_the_times_of_what_is_settled_are_not_kept(hall: Hall) -> None:
    for _ in range(1000):
        hall.container.withdraw("alice", hall.put("alice", ttl=1e6))
    hall.put("alice")

    kept = next(iter(hall.container._routes.values()))
    assert len(kept._next_deadlines) < 200
    assert kept._deadlines == {}


def test_of_what_is_taken_back_nothing_is_left(hall: Hall) -> None:
    tag = hall.put("alice")
    hall.say()

    was_there, again = hall.container.withdraw("alice", tag), hall.container.withdraw("alice", tag)
    hall.say()
    hall.container.take_events()

    assert (was_there, again) == (True, False)
    assert leftovers(hall.container) == {}


def test_somebody_is_wanted_again_after_each_time_it_went(hall: Hall) -> None:
    hall.put("alice")
    hall.put("alice")
    hall.say()
    first = hall.events(Wanted)
    hall.hear(ALICE, opening())
    hall.say()

    hall.container.disconnected(ALICE, hall.now)
    hall.say()

    assert first == [Wanted("alice")]
    assert hall.events(Wanted) == [Wanted("alice")]


def test_who_did_not_come_for_what_has_expired_is_wanted_no_longer(hall: Hall) -> None:
    hall.put("alice", ttl=5.0)
    hall.say()

    hall.now += 5.0
    hall.say()

    assert hall.events(Wanted, Unwanted) == [Wanted("alice"), Unwanted("alice")]
    assert leftovers(hall.container) == {}


def test_another_one_at_a_place_is_met_anew(hall: Hall) -> None:
    place = "tcp://there:1"
    hall.hear(place, opening())
    hall.say()
    hall.container.take_events()

    hall.hear(place, opening(life="the next life of alice"))

    assert [type(event) for event in hall.container.take_events()] == [Disconnected, Connected]
    assert hall.said(Close) == []
    assert hall.container.peers == [PeerInfo("alice", place)]


def test_more_queues_than_can_be_offered_are_no_trouble(hall: Hall) -> None:
    hall.hear(ALICE, opening())

    for number in range(MOST_QUEUES + 1):
        hall.container.put("alice", f"target {number}", b"x", None, hall.now, hall.now)

    (offer,) = hall.said(Open)
    assert len(offer.queues) == MOST_QUEUES
    assert decode_conversation(encode([(offer, None)])) == [(offer, None)]


class BurningJournal(MemoryJournal):
    """Cannot keep anything for a while."""

    is_burning = True

    def commit(self) -> None:
        if self.is_burning:
            raise JournalError("the disk is on fire")
        super().commit()


def test_the_trouble_with_what_waits_for_one_does_not_hold_up_another(hall: Hall) -> None:
    hall.shelves["alice"] = burning = BurningJournal()
    for place, name in ((ALICE, "alice"), (EVE, "eve")):
        hall.hear(place, opening(name, f"the life of {name}"))
        hall.put(name, is_persistent=name == "alice")
    queue = queue_for(hall, EVE)
    attach = Attach("receiver 2", 1, "", "alice", [], journal=burning.identity)

    hall.attach(EVE, queue)
    hall.hear(ALICE, attach)
    in_trouble = hall.say()
    troubled, due = hall.events(Troubled), hall.container.next_timeout()
    burning.is_burning = False
    hall.now += 1.0
    hall.hear(ALICE, attach)
    answers = hall.said(Attached, ALICE)

    assert [(place, type(frame)) for place, (frame, _) in in_trouble] == [(EVE, Transfer)]
    assert set(troubled) == {Troubled("alice", "the disk is on fire")}
    assert due > hall.now - 1.0
    assert len(answers) == 1


def test_a_mistake_about_one_does_not_hold_up_the_others(hall: Hall) -> None:
    class Broken(Tag):
        def concluded(self, state: str, reason: str) -> None:
            raise ZeroDivisionError

    hall.container.put("alice", "messages", b"x", Broken(), 0.0, 0.0, ttl=1.0)
    tag = hall.put("eve", ttl=1.0)
    hall.now = 2.0

    for _ in range(2):
        try:
            hall.say()
        except ZeroDivisionError:
            continue

    assert tag.states == ["expired"]


def test_what_a_former_life_left_expires_though_its_peer_is_away_and_the_journal_is_looked_after(hall: Hall) -> None:
    housekeeping: list[tuple[float, float]] = []

    class Watched(MemoryJournal):
        def expire(self, wall: float, now: float) -> dict[str, int]:
            housekeeping.append((wall, now))
            return dict(super().expire(wall, now))

    journal = hall.shelves["alice"] = Watched()
    journal.open_source("messages alice", [], "first", 0.0)
    journal.append("x", b"x of a former life", 0.0, expires=25.0)

    hall.container.open_outbound("alice", "messages", 0.0, is_persistent=True)
    hall.say()
    while hall.container.pending():
        hall.now = hall.container.next_timeout()
        hall.say()

    (concluded,) = hall.events(Concluded)
    assert (concluded.payload, concluded.tag, concluded.state) == (b"x of a former life", None, "expired")
    assert housekeeping == [(0.0, 0.0), (10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


def test_a_new_queue_is_offered_at_once(hall: Hall) -> None:
    hall.hear(ALICE, opening())
    hall.say()

    hall.put("alice")

    assert [len(offer.queues) for offer in hall.said(Open)] == [1]


def received(hall: Hall, count: int) -> str:
    """Have alice transfer so many messages, and the container say what it has to; return the name of its receiver."""
    hall.hear(ALICE, offering("queue"))
    (attach,) = hall.said(Attach)
    transfers = [Transfer(attach.receiver, 1, "sender", number, number + 1) for number in range(count)]
    hall.hear(ALICE, Attached(attach.receiver, 1, "sender", "queue"), *transfers)
    hall.say()
    return str(attach.receiver)


def settle_next(hall: Hall) -> None:
    taken = hall.container.take("messages")
    assert taken is not None
    hall.container.settle(taken[0], ACCEPTED, hall.now)


def test_what_is_settled_is_told_with_others_soon(hall: Hall) -> None:
    received(hall, count=3)

    settle_next(hall)
    settle_next(hall)
    due = hall.container.next_timeout()
    before = hall.said(Disposition)
    hall.now = due
    (told,) = hall.said(Disposition)

    assert 0.0 < due < 0.1
    assert before == []
    assert told.outcomes.keys() == {0, 1}


def test_what_is_settled_is_told_at_once_when_there_is_nothing_more_to_take(hall: Hall) -> None:
    received(hall, count=1)

    settle_next(hall)
    hall.container.take("messages")

    assert [one.outcomes.keys() for one in hall.said(Disposition)] == [{0}]
