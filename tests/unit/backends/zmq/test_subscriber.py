from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq

from posttroll.backends.base import Peer, Received
from posttroll.backends.zmq import connections, keeper
from posttroll.backends.zmq import socket as sockets
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.errors import ConnectionLost, TransportError
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"
PROMPTLY = 0.2 * UNIT


@pytest.fixture
def publisher() -> Iterator[ZMQPublisher]:
    """Start a publisher."""
    with closing(ZMQPublisher(LOOPBACK).start()) as publisher:
        yield publisher


@pytest.fixture
def subscriber() -> Iterator[ZMQSubscriber]:
    """Open a subscriber."""
    with closing(ZMQSubscriber()) as subscriber:
        yield subscriber


def peer(publisher: ZMQPublisher, tag: str = "") -> Peer:
    return Peer(publisher.address, "unsecure_zmq", tag)


def connect(subscriber: ZMQSubscriber, publisher: ZMQPublisher, topic: bytes = b"") -> None:
    """Connect, and wait until the publisher knows."""
    subscriber.connect(peer(publisher), [topic])
    assert publisher.wait_for_subscriber(topic, 5 * UNIT)


def frames(subscriber: ZMQSubscriber, timeout: float = 0.2) -> list[bytes]:
    """Return all that comes until nothing does for a while."""
    return [received.frame for received in iter(lambda: subscriber.receive(timeout), None)]


def test_a_subscriber_may_be_made_with_its_addresses(publisher: ZMQPublisher) -> None:
    with closing(ZMQSubscriber(publisher.address, topics=[b"/a"])) as subscriber:
        assert publisher.wait_for_subscriber(b"/a", 5 * UNIT)
        publisher.send(b"/b")
        publisher.send(b"/a")

        assert subscriber.receive(5 * UNIT) == Received(b"/a", peer(publisher))


def test_the_sockets_can_be_had_by_address(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    connect(subscriber, publisher)

    ((address, socket),) = subscriber.addr_sub.items()

    assert address == publisher.address
    assert socket.type == zmq.SUB


def test_the_sockets_have_the_options_of_the_settings(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    settings = {
        "tcp_keepalive": 1,
        "tcp_keepalive_cnt": 4,
        "receive_high_water_mark": 9,
        "connection_heartbeat_interval": 1.5,
        "connection_heartbeat_timeout": 4,
        "max_message_size": 2048,
    }

    with config.set(**settings):
        connect(subscriber, publisher)

    socket = subscriber.addr_sub[publisher.address]
    options = (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_CNT, zmq.RCVHWM, zmq.MAXMSGSIZE, zmq.TCP_MAXRT)
    assert [socket.get(option) for option in options] == [1, 4, 9, 4096, 0]


@pytest.mark.parametrize(
    ("interval", "timeout", "expected"),
    [
        (2.0, 6.0, [1, 2, 2, 3, 8000]),
        (0.3, 1.0, [1, 1, 1, 1, 2000]),
        (10.0, 1.0, [1, 10, 10, 1, 11000]),
        (0.0, 6.0, [-1, -1, -1, -1, 0]),
    ],
)
def test_connections_are_probed_by_tcp_and_not_by_zeromq(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber, interval: float, timeout: float, expected: list[int]
) -> None:
    """ZeroMQ's own pings end the process if the queue is full and the publisher is gone."""
    with config.set(connection_heartbeat_interval=interval, connection_heartbeat_timeout=timeout):
        connect(subscriber, publisher)

    socket = subscriber.addr_sub[publisher.address]
    probes = (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT, zmq.TCP_MAXRT)
    assert [socket.get(option) for option in probes] == expected
    assert socket.get(zmq.HEARTBEAT_IVL) == 0


def test_a_frame_far_too_long_is_not_received(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    with config.set(max_message_size=1024):
        connect(subscriber, publisher)

    publisher.send(bytes(2048))
    assert subscriber.receive(5 * UNIT) is not None
    publisher.send(bytes(2049))

    assert frames(subscriber) == []


def test_frames_are_pulled_where_there_are_no_topics(subscriber: ZMQSubscriber) -> None:
    with sockets.get_context().socket(zmq.PUSH) as pushing:
        pushing.bind("inproc://test-subscriber")
        subscriber.connect(Peer("inproc://test-subscriber", "unsecure_zmq"), None)
        pushing.send(b"frame")

        assert frames(subscriber) == [b"frame"]


def test_more_frames_than_a_batch_arrive_in_order(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    connect(subscriber, publisher)
    sent = [b"%d" % number for number in range(1000)]

    for frame in sent:
        publisher.send(frame)

    assert frames(subscriber) == sent


def test_a_peer_that_sends_without_end_does_not_keep_another_one_from_being_heard(subscriber: ZMQSubscriber) -> None:
    with ExitStack() as stack:
        loud, quiet = (stack.enter_context(closing(ZMQPublisher(LOOPBACK).start())) for _ in range(2))
        connect(subscriber, loud)
        connect(subscriber, quiet)
        for _ in range(5000):
            loud.send(b"loud")
        quiet.send(b"quiet")
        stack.callback(frames, subscriber)
        eventually(lambda: len(subscriber.addr_sub) == 2)

        heard = [received.frame for received in (subscriber.receive(5 * UNIT) for _ in range(3000)) if received]

    assert b"quiet" in heard


def test_the_parts_of_a_frame_are_frames(subscriber: ZMQSubscriber) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as other_make:
        other_make.linger = 0
        port = other_make.bind_to_random_port("tcp://127.0.0.1")
        subscriber.connect(Peer(f"tcp://127.0.0.1:{port}", "unsecure_zmq"), [b"a"])
        assert other_make.poll(int(5000 * UNIT))
        other_make.send_multipart([b"a", b"", b"b"])

        assert frames(subscriber) == [b"a", b"", b"b"]


def test_connecting_reaches_a_receiver_that_waits_for_ever(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        start = time.monotonic()
        subscriber.connect(peer(publisher), [b""])
        took = time.monotonic() - start
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
        publisher.send(b"frame")

        assert waiting.result() == Received(b"frame", peer(publisher))
    assert took < PROMPTLY


def test_disconnecting_and_closing_reach_a_receiver_that_waits_for_ever(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        start = time.monotonic()
        subscriber.disconnect(peer(publisher))
        subscriber.close()
        assert time.monotonic() - start < PROMPTLY

        assert waiting.result(PROMPTLY) is None


def test_a_malformed_address_is_told_to_who_connects_though_another_thread_receives(subscriber: ZMQSubscriber) -> None:
    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        with pytest.raises(TransportError):
            subscriber.connect(Peer("nonsense", "unsecure_zmq"), [b""])
        subscriber.close()


@pytest.mark.parametrize("tell_connected", [False, True])
def test_a_malformed_address_leaves_nothing_behind(subscriber: ZMQSubscriber, tell_connected: bool) -> None:
    with pytest.raises(TransportError):
        subscriber.connect(Peer("nonsense", "unsecure_zmq"), [b""], tell_connected)

    assert subscriber.addr_sub == {}
    assert subscriber.receive(0) is None


def test_news_that_somebody_else_took_are_noticed_after_a_while(
    publisher: ZMQPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LONGEST_SLEEP", 0.05)
    with closing(ZMQSubscriber()) as subscriber:
        connect(subscriber, publisher)
        assert subscriber.receive(0.1) is None
        publisher.send(b"frame")
        socket = subscriber.addr_sub[publisher.address]
        assert eventually(lambda: bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN), 5 * UNIT)

        received = subscriber.receive(5 * UNIT)

    assert received is not None
    assert received.frame == b"frame"


def test_a_signal_handler_may_close_the_subscriber_it_interrupts(subscriber: ZMQSubscriber) -> None:
    former = signal.signal(signal.SIGUSR1, lambda *_: subscriber.close())
    alarm = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    alarm.start()
    try:
        start = time.monotonic()

        assert subscriber.receive(None) is None

        assert time.monotonic() - start < 2 * UNIT
    finally:
        alarm.join()
        signal.signal(signal.SIGUSR1, former)
    assert subscriber.closed


def test_what_is_under_way_when_a_peer_leaves_arrives(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    connect(subscriber, publisher)
    for number in range(500):
        publisher.send(b"%d" % number)

    subscriber.disconnect(peer(publisher), linger=0.3)

    assert len(frames(subscriber, 0.1)) == 500
    assert frames(subscriber, 0.5) == []
    assert subscriber.addr_sub == {}


def test_a_peer_that_leaves_stays_as_long_as_it_talks(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    connect(subscriber, publisher)
    subscriber.disconnect(peer(publisher), linger=0.3)

    for _ in range(5):
        publisher.send(b"still here")
        assert subscriber.receive(5 * UNIT) is not None
        assert subscriber.receive(0.1) is None

    eventually(lambda: subscriber.receive(0.01) is None and not subscriber.addr_sub)


def test_a_peer_that_was_about_to_leave_stays_when_it_is_connected_again(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)
    socket = subscriber.addr_sub[publisher.address]
    subscriber.disconnect(peer(publisher), linger=0.1)

    subscriber.connect(peer(publisher), [b""])

    assert subscriber.receive(0.3) is None
    assert subscriber.addr_sub == {publisher.address: socket}


def test_a_peer_that_was_about_to_leave_is_connected_anew_for_other_topics(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher, b"/a")
    subscriber.disconnect(peer(publisher), linger=5.0)

    connect(subscriber, publisher, b"/b")
    eventually(lambda: not publisher.wait_for_subscriber(b"/a", 0))
    publisher.send(b"/a")
    publisher.send(b"/b")

    assert frames(subscriber) == [b"/b"]


def test_an_unknown_peer_may_be_disconnected(publisher: ZMQPublisher, subscriber: ZMQSubscriber) -> None:
    for linger in (0.0, 1.0):
        subscriber.disconnect(peer(publisher), linger)

    assert subscriber.receive(0) is None


def test_the_news_of_a_connection_is_never_missed(publisher: ZMQPublisher) -> None:
    for _ in range(50):
        with closing(ZMQSubscriber()) as subscriber:
            subscriber.connect(peer(publisher), [b""], tell_connected=True)

            assert subscriber.receive(5 * UNIT) == Received(b"", peer(publisher), connected=True)


def test_a_closed_subscriber_gives_nothing_and_refuses_to_connect(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)
    publisher.send(b"frame")
    subscriber.close()
    subscriber.close()

    assert subscriber.closed
    assert subscriber.receive(None) is None
    with pytest.raises(ConnectionLost):
        subscriber.connect(peer(publisher), [b""])
    subscriber.disconnect(peer(publisher))


def test_the_child_of_a_fork_cannot_use_it_and_closes_nothing(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)

    assert in_child(lambda: subscriber.receive(0)) == "UsedAfterFork"
    assert in_child(lambda: subscriber.connect(peer(publisher, "other"), [b""])) == "UsedAfterFork"
    assert in_child(subscriber.close) == "None"

    publisher.send(b"frame")
    assert frames(subscriber) == [b"frame"]


@pytest.mark.parametrize("tell_connected", [False, True])
def test_a_terminated_context_ends_a_receiver_and_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, tell_connected: bool
) -> None:
    context = zmq.Context()
    monkeypatch.setattr(sockets, "get_context", lambda: context)
    subscriber = ZMQSubscriber()
    subscriber.connect(Peer("tcp://127.0.0.1:9", "unsecure_zmq"), [b""], tell_connected)

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        with in_background(context.term):
            assert waiting.result() is None

    assert subscriber.closed
    subscriber.close()


@pytest.mark.parametrize("tell_connected", [False, True])
def test_a_terminated_context_does_not_hang_though_nobody_receives(
    monkeypatch: pytest.MonkeyPatch, tell_connected: bool
) -> None:
    context = zmq.Context()
    monkeypatch.setattr(sockets, "get_context", lambda: context)
    subscriber = ZMQSubscriber()
    subscriber.connect(Peer("tcp://127.0.0.1:9", "unsecure_zmq"), [b""], tell_connected)

    with in_background(context.term) as terminating:
        assert terminating.is_pending()
        subscriber.look_after()

    assert subscriber.closed
    subscriber.close()


def test_what_is_published_while_nobody_receives_is_kept_even_after_the_publisher_was_restarted(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)
    publisher.close()

    with closing(ZMQPublisher(publisher.address).start()) as again:

        def is_subscribed() -> bool:
            subscriber.look_after()
            return again.wait_for_subscriber(b"", 0.01)

        eventually(is_subscribed)
        again.send(b"frame")

        assert frames(subscriber) == [b"frame"]


def test_what_comes_while_a_subscriber_is_looked_after_is_received(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)
    assert subscriber.receive(0) is None
    publisher.send(b"frame")
    descriptor = int(subscriber.addr_sub[publisher.address].get(zmq.FD))
    assert select.select([descriptor], [], [], 5 * UNIT)[0]

    subscriber.look_after()

    assert subscriber.receive(5 * UNIT) == Received(b"frame", peer(publisher))


def test_who_waits_for_the_descriptor_is_told_what_came_while_a_subscriber_was_looked_after(
    publisher: ZMQPublisher, subscriber: ZMQSubscriber
) -> None:
    connect(subscriber, publisher)
    assert subscriber.receive(0) is None
    publisher.send(b"frame")
    descriptor = int(subscriber.addr_sub[publisher.address].get(zmq.FD))
    assert select.select([descriptor], [], [], 5 * UNIT)[0]

    subscriber.look_after()

    while (received := subscriber.receive(0)) is None:
        assert select.select([subscriber], [], [], 5 * UNIT)[0]
    assert received == Received(b"frame", peer(publisher))


def test_looking_after_a_subscriber_that_receives_leaves_it_alone(subscriber: ZMQSubscriber) -> None:
    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        start = time.monotonic()
        subscriber.look_after()
        assert time.monotonic() - start < PROMPTLY

        subscriber.close()


def test_a_subscriber_that_stops_receiving_calls_its_keeper(
    monkeypatch: pytest.MonkeyPatch, subscriber: ZMQSubscriber
) -> None:
    called = threading.Event()
    monkeypatch.setattr(keeper, "call", called.set)

    with in_background(lambda: subscriber.receive(1 * UNIT)) as waiting:
        eventually(subscriber.look_after)
        assert not called.is_set()
        waiting.result()

    assert called.is_set()
    assert not subscriber.look_after()


def test_a_subscriber_is_looked_after_until_it_is_closed() -> None:
    subscriber = ZMQSubscriber()
    assert subscriber in keeper._keeper._kept

    subscriber.close()

    assert subscriber not in keeper._keeper._kept
