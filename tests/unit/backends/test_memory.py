"""What is peculiar to the backend ``memory``; all else is told by the conformance suite."""

from __future__ import annotations

import os
import time
from contextlib import closing

import pytest

from posttroll.backends.base import LinkChannel, Peer, PublishChannel, SubscribeChannel
from posttroll.backends.memory import Bus, MemoryBackend
from posttroll.errors import BindFailed, ConnectionLost, TransportError, UsedAfterFork
from posttroll.settings import Ports, config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT
from tests.unit.backends.zmq.forking import in_child

PORTS = Ports(5000, 5003)
COUNT = 1000
FRAMES = [b"%d" % number for number in range(COUNT)]


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def connected(bus: Bus) -> tuple[PublishChannel, SubscribeChannel]:
    backend = MemoryBackend(bus)
    publisher, subscriber = backend.open_publish("tcp://*:0", PORTS), backend.open_subscribe()
    subscriber.connect(Peer(publisher.address, "memory"), [b""])
    return publisher, subscriber


def received(subscriber: SubscribeChannel) -> list[bytes]:
    return [each.frame for each in iter(lambda: subscriber.receive(0), None)]


def arrivals(bus: Bus) -> list[bytes]:
    """Send all the frames, then return those that arrive."""
    publisher, subscriber = connected(bus)
    for frame in FRAMES:
        assert publisher.send(frame)
    return received(subscriber)


def test_a_sound_bus_delivers_everything_in_order() -> None:
    assert arrivals(Bus()) == FRAMES


def test_a_lossy_bus_loses_its_share() -> None:
    arrived = arrivals(Bus(loss=0.3))

    assert 600 < len(arrived) < 800
    assert arrived == sorted(set(arrived), key=int)


def test_a_doubling_bus_delivers_its_share_twice() -> None:
    arrived = arrivals(Bus(doubling=0.3))

    assert 1200 < len(arrived) < 1400
    assert set(arrived) == set(FRAMES)


def test_a_disorderly_bus_delivers_everything_in_another_order() -> None:
    arrived = arrivals(Bus(reordering=0.3))

    assert arrived != FRAMES
    assert sorted(arrived, key=int) == FRAMES


@pytest.mark.parametrize("faults", [{"loss": 0.5}, {"doubling": 0.5}, {"reordering": 0.5}, {"delay": 1.0}])
def test_faults_are_the_same_for_the_same_seed(faults: dict[str, float]) -> None:
    def history(seed: int) -> list[bytes]:
        clock = Clock()
        publisher, subscriber = connected(Bus(seed, clock=clock, **faults))
        arrived = []
        for frame in FRAMES:
            publisher.send(frame)
            clock.now += 0.1
            arrived += [b"|", *received(subscriber)] if "delay" in faults else []
        return arrived + received(subscriber)

    assert history(seed=1) == history(seed=1)
    assert history(seed=1) != history(seed=2)


def test_a_slow_bus_delivers_in_order_when_its_clock_says_so() -> None:
    clock = Clock()
    publisher, subscriber = connected(Bus(delay=10.0, clock=clock))
    for frame in FRAMES:
        publisher.send(frame)

    at_once = received(subscriber)
    clock.now = 1000.0
    later = received(subscriber)

    assert at_once == []
    assert later == FRAMES


def test_a_receiver_waits_for_what_is_under_way() -> None:
    publisher, subscriber = connected(Bus(delay=0.05))
    publisher.send(b"frame")

    arrived = subscriber.receive(60)

    assert arrived is not None
    assert arrived.frame == b"frame"


def test_a_receiver_does_not_wait_longer_than_its_timeout_for_what_is_under_way() -> None:
    publisher, subscriber = connected(Bus(delay=1000.0))
    publisher.send(b"frame")

    assert subscriber.receive(0.05) is None


def test_requests_and_replies_survive_all_faults() -> None:
    backend = MemoryBackend(Bus(loss=1.0, delay=1000.0))
    replies = backend.open_reply([Peer("tcp://*:5557", "memory")])
    requests = backend.open_request([Peer("tcp://localhost:5557", "memory")])

    with in_background(lambda: requests.request(b"question", 5 * UNIT)) as asking:
        question = replies.receive(5 * UNIT)
        assert question is not None
        replies.reply(question, b"reply")

        assert list(asking.result().values()) == [b"reply"]


def test_hosts_do_not_matter_but_ports_do() -> None:
    backend = MemoryBackend(Bus())
    publisher = backend.open_publish("tcp://*:7000", PORTS)
    subscriber = backend.open_subscribe()
    subscriber.connect(Peer("tcp://data.example.org:7000", "memory"), [b""])
    subscriber.connect(Peer("tcp://data.example.org:7001", "memory"), [b""])

    publisher.send(b"frame")

    assert received(subscriber) == [b"frame"]


def test_free_ports_are_taken_in_turn_until_none_is_left() -> None:
    backend = MemoryBackend(Bus())

    addresses = [backend.open_publish("tcp://*:0", PORTS).address for _ in range(3)]

    assert addresses == ["tcp://*:5000", "tcp://*:5001", "tcp://*:5002"]
    with pytest.raises(BindFailed, match="5000 <= port < 5003"):
        backend.open_publish("tcp://*:0", PORTS)


def test_publishers_and_repliers_share_the_ports() -> None:
    backend = MemoryBackend(Bus())
    backend.open_publish("tcp://*:7000", PORTS)

    with pytest.raises(BindFailed, match="7000"):
        backend.open_reply([Peer("tcp://127.0.0.1:7000", "memory")])


def test_a_puller_gets_every_frame() -> None:
    backend = MemoryBackend(Bus())
    publisher, subscriber = backend.open_publish("inproc://queue", PORTS), backend.open_subscribe()
    subscriber.connect(Peer("inproc://queue", "memory"), None)

    publisher.send(b"frame")

    assert received(subscriber) == [b"frame"]


def test_two_buses_do_not_hear_each_other() -> None:
    publisher, _ = connected(Bus())
    _, subscriber = connected(Bus())

    publisher.send(b"frame")

    assert received(subscriber) == []


def test_what_is_open_stays_on_the_bus_it_was_opened_on() -> None:
    backend = MemoryBackend()
    publisher = backend.open_publish("tcp://*:7000", PORTS)
    subscriber = backend.open_subscribe()

    backend.leave_bus()
    subscriber.connect(Peer("tcp://*:7000", "memory"), [b""])
    backend.open_publish("tcp://*:7000", PORTS).send(b"elsewhere")
    publisher.send(b"here")

    assert received(subscriber) == [b"here"]


def test_a_full_queue_is_told_at_the_high_water_mark() -> None:
    with config.set(send_high_water_mark=3):
        publisher, subscriber = connected(Bus())

    told = [publisher.send(b"frame") for _ in range(5)]

    assert told == [True, True, True, False, False]
    assert len(received(subscriber)) == 3


def test_a_blocked_publisher_goes_on_when_its_slow_subscriber_leaves() -> None:
    backend = MemoryBackend(Bus())
    with config.set(send_high_water_mark=1):
        publisher = backend.open_publish("tcp://*:7000", PORTS, when_full="block")
    subscriber = backend.open_subscribe()
    subscriber.connect(Peer("tcp://*:7000", "memory"), [b""])
    publisher.send(b"first")

    with in_background(lambda: publisher.send(b"second")) as sending:
        assert sending.is_pending()
        subscriber.close()

        assert sending.result() is False


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_cannot_use_its_parents_bus_but_has_one_of_its_own() -> None:
    backend = MemoryBackend(Bus())
    publisher = backend.open_publish("tcp://*:7000", PORTS)
    requests = backend.open_request([])

    child = os.fork()
    if child == 0:
        refused = 0
        for use in (lambda: publisher.send(b"frame"), lambda: requests.request(b"question", 1)):
            try:
                use()
            except UsedAfterFork:
                refused += 1
        os._exit(refused)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend(Bus())


def test_datagrams_reach_all_who_listen_on_the_port(backend: MemoryBackend) -> None:
    one, other, elsewhere = backend.listen_with(1)(), backend.listen_with(1)(), backend.listen_with(2)()

    backend.announce_with(1)()("announcement")

    for receiver in (one, other):
        assert receiver.settimeout(0)() == (b"announcement", ("127.0.0.1", 1))
    with pytest.raises(TimeoutError):
        elsewhere.settimeout(0)()


def test_datagrams_may_be_bytes(backend: MemoryBackend) -> None:
    receiver = backend.listen_with(1)()

    backend.announce_with(1)()(b"\xff")

    assert receiver()[0] == b"\xff"


def test_datagrams_are_lost_too() -> None:
    backend = MemoryBackend(Bus(loss=1.0))
    receiver = backend.listen_with(1)().settimeout(0)

    backend.announce_with(1)()("announcement")

    with pytest.raises(TimeoutError):
        receiver()


def test_datagrams_that_nobody_takes_are_dropped_at_a_limit(backend: MemoryBackend) -> None:
    receiver, sender = backend.listen_with(1)().settimeout(0), backend.announce_with(1)()

    for _ in range(10_001):
        sender("announcement")

    for _ in range(10_000):
        receiver()
    with pytest.raises(TimeoutError):
        receiver()


def test_a_waiting_receiver_of_datagrams_can_be_woken(backend: MemoryBackend) -> None:
    receiver = backend.listen_with(1)()

    def wait() -> None:
        with pytest.raises(TimeoutError):
            receiver()

    with in_background(wait) as waiting:
        assert waiting.is_pending()
        receiver.wake()
        waiting.result()


def test_the_next_wait_ends_when_nobody_waited_at_the_wake(backend: MemoryBackend) -> None:
    receiver = backend.listen_with(1)()
    receiver.wake()

    with pytest.raises(TimeoutError):
        receiver()


def test_closed_ends_of_datagrams_refuse(backend: MemoryBackend) -> None:
    receiver, sender = backend.listen_with(1)(), backend.announce_with(1)()

    for end in (receiver, sender, receiver, sender):
        end.close()

    with pytest.raises(ConnectionLost):
        receiver()
    with pytest.raises(ConnectionLost):
        sender("announcement")


def test_a_closed_request_channel_refuses(backend: MemoryBackend) -> None:
    requests = backend.open_request([Peer("tcp://localhost:1", "memory")])
    requests.close()

    with pytest.raises(ConnectionLost):
        requests.request(b"question", 1)


def test_what_is_under_way_is_due_when_it_arrives() -> None:
    publisher, subscriber = connected(Bus(delay=0.05))
    publisher.send(b"frame")

    with closing(publisher), closing(subscriber):
        while (received := subscriber.receive(0)) is None:
            due = subscriber.next_timeout()
            assert due < time.monotonic() + UNIT
            time.sleep(max(0.0, due - time.monotonic()))

    assert received.frame == b"frame"


def test_who_does_not_ask_for_a_descriptor_has_none() -> None:
    publisher, subscriber = connected(Bus())
    before = len(os.listdir("/proc/self/fd"))
    publisher.send(b"frame")
    subscriber.receive(0)
    assert len(os.listdir("/proc/self/fd")) == before

    assert subscriber.fileno() >= 0
    subscriber.close()
    publisher.close()

    assert (subscriber.fileno(), publisher.fileno()) == (-1, -1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("address", ["", "tcp://", "tcp://host", "tcp://host:0x10", "tcp://host:65536", "udp://h:1"])
def test_malformed_addresses_are_refused_with_the_forms_that_would_do(backend: MemoryBackend, address: str) -> None:
    with closing(backend.open_subscribe()) as subscriber, pytest.raises(TransportError, match="tcp://host:port"):
        subscriber.connect(Peer(address, "memory"), [b""])


def test_its_nameserver_has_the_plain_port() -> None:
    with config.set(nameserver_port=7000):
        assert MemoryBackend().nameserver_ports() == [("memory", 7000)]


def linked(bus: Bus) -> tuple[LinkChannel, LinkChannel, Peer]:
    """Return two ends of a link, and how the second one calls the first."""
    backend = MemoryBackend(bus)
    server, client = backend.open_links("tcp://*:0", PORTS), backend.open_links(None, PORTS)
    peer = Peer(server.address, "memory")
    client.connect(peer)
    assert client.receive(0) == (peer, b"", "", True)
    return server, client, peer


@pytest.mark.parametrize(
    ("faults", "fewest", "most"),
    [({}, 500, 500), ({"loss": 0.3}, 300, 400), ({"doubling": 0.3}, 600, 700), ({"reordering": 0.3}, 500, 500)],
)
def test_bundles_are_lost_and_doubled_and_overtaken_like_frames(
    faults: dict[str, float], fewest: int, most: int
) -> None:
    server, client, peer = linked(Bus(**faults))  # type: ignore[arg-type]
    sent = FRAMES[:500]

    for bundle in sent:
        assert client.send(peer, bundle)
    arrived = [arrival.bundle for arrival in iter(lambda: server.receive(0), None)]

    assert fewest <= len(arrived) <= most
    assert set(arrived) <= set(sent)
    assert (arrived == sent) == (faults == {})


def test_the_news_of_a_cut_comes_after_what_is_under_way() -> None:
    clock = Clock()
    server, client, peer = linked(Bus(delay=10.0, clock=clock))
    client.send(peer, b"last words")
    client.close()
    assert server.receive(0) is None

    clock.now = 1000.0
    arrived = [arrival.bundle for arrival in iter(lambda: server.receive(0), None)]

    assert arrived == [b"last words", b""]


def test_links_do_not_reach_into_a_child_of_a_fork() -> None:
    server, client, peer = linked(Bus())

    assert in_child(lambda: client.send(peer, b"bundle")) == "UsedAfterFork"
    assert in_child(lambda: server.receive(0)) == "UsedAfterFork"
