from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
import zmq

from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.errors import BindFailed, ConfigurationError, ConnectionLost, NotStarted, TransportError
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"
LARGE = bytes(200_000)


@pytest.fixture
def publisher() -> Iterator[ZMQPublisher]:
    """Start a publisher."""
    with closing(ZMQPublisher(LOOPBACK).start()) as publisher:
        yield publisher


@pytest.fixture
def peer(publisher: ZMQPublisher) -> Iterator[zmq.Socket[bytes]]:
    """Connect a subscriber of another make, which can send whatever it likes."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.linger = 0
        socket.connect(publisher.address)
        yield socket


def subscribed(publisher: ZMQPublisher, topic: bytes = b"") -> ZMQSubscriber:
    """Return a subscriber that the publisher knows of."""
    subscriber = ZMQSubscriber(publisher.address, topics=[topic])
    assert publisher.wait_for_subscriber(topic, 5 * UNIT)
    return subscriber


def test_nothing_is_bound_before_the_start(free_port: int) -> None:
    one, other = (ZMQPublisher(f"tcp://127.0.0.1:{free_port}", "name") for _ in range(2))

    with closing(one.start()):
        assert (one.name, one.port_number) == ("name", free_port)
        with pytest.raises(BindFailed):
            other.start()


def test_before_the_start_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(NotStarted):
        ZMQPublisher("tcp://127.0.0.1:0").fileno()


def test_before_the_start_it_cannot_be_used_but_closed() -> None:
    publisher = ZMQPublisher(LOOPBACK)

    for use in (lambda: publisher.send(b"frame"), lambda: publisher.publish_socket):
        with pytest.raises(NotStarted):
            use()
    with pytest.raises(NotStarted):
        publisher.wait_for_subscriber(b"", 0)
    publisher.close()


def test_a_range_without_ports_is_refused_when_made() -> None:
    with pytest.raises(ConfigurationError, match="no port lies in"):
        ZMQPublisher(LOOPBACK, min_port=50_000, max_port=50_000)


def test_the_port_is_taken_from_the_range_given(free_port: int) -> None:
    with closing(ZMQPublisher(LOOPBACK, min_port=free_port, max_port=free_port + 1).start()) as publisher:
        assert publisher.port_number == free_port
        assert publisher.destination == publisher.address == f"tcp://127.0.0.1:{free_port}"


def test_an_address_without_a_port_has_none() -> None:
    with closing(ZMQPublisher("inproc://test-publisher").start()) as publisher:
        assert publisher.port_number is None


def test_the_socket_can_be_had_and_has_the_options_of_the_settings() -> None:
    with config.set(tcp_keepalive=1, tcp_keepalive_idle=7, send_high_water_mark=9):
        publisher = ZMQPublisher(LOOPBACK).start()

    with closing(publisher):
        socket = publisher.publish_socket
        options = [socket.get(option) for option in (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.SNDHWM)]

        assert socket.type == zmq.XPUB
        assert options == [1, 7, 9]


def test_a_frame_goes_to_whoever_subscribed(publisher: ZMQPublisher) -> None:
    with closing(subscribed(publisher, b"/a")) as subscriber:
        assert publisher.send(b"/b")
        assert publisher.send(b"/a")

        received = subscriber.receive(5 * UNIT)

    assert received is not None
    assert received.frame == b"/a"


def test_a_closed_publisher_refuses_to_be_used(publisher: ZMQPublisher) -> None:
    publisher.close()
    publisher.stop()

    with pytest.raises(ConnectionLost):
        publisher.send(b"frame")
    with pytest.raises(ConnectionLost):
        publisher.wait_for_subscriber(b"", 5)


def test_the_child_of_a_fork_cannot_use_it_and_closes_nothing(publisher: ZMQPublisher) -> None:
    with closing(subscribed(publisher)) as subscriber:
        assert in_child(lambda: publisher.send(b"from the child")) == "UsedAfterFork"
        assert in_child(lambda: publisher.wait_for_subscriber(b"", 0)) == "UsedAfterFork"
        assert in_child(publisher.close) == "None"

        assert publisher.send(b"frame")
        received = subscriber.receive(5 * UNIT)

    assert received is not None
    assert received.frame == b"frame"


def full(stack: ExitStack, when_full: str) -> tuple[ZMQPublisher, ZMQSubscriber]:
    """Return a publisher with short queues, and a subscriber that does not read."""
    stack.enter_context(config.set(send_high_water_mark=5, receive_high_water_mark=5))
    publisher = stack.enter_context(closing(ZMQPublisher(LOOPBACK, when_full=when_full).start()))
    return publisher, stack.enter_context(closing(subscribed(publisher, LARGE[:1])))


def test_a_queue_is_told_each_time_it_fills() -> None:
    with ExitStack() as stack:
        publisher, subscriber = full(stack, "drop")

        for _ in range(3):
            eventually(lambda: not publisher.send(LARGE))
            while subscriber.receive(0.3 * UNIT):
                pass
            assert publisher.send(LARGE)
            assert subscriber.receive(5 * UNIT) is not None


def test_a_queue_that_is_full_keeps_nothing_from_other_subscribers() -> None:
    with ExitStack() as stack:
        publisher, _ = full(stack, "drop")
        eventually(lambda: not publisher.send(LARGE))
        with config.set(receive_high_water_mark=1000):
            quick = stack.enter_context(closing(subscribed(publisher, b"q")))

        publisher.send(b"quick")

        received = quick.receive(5 * UNIT)
        assert received is not None
        assert received.frame == b"quick"


def test_a_blocking_publisher_waits_and_delivers_everything() -> None:
    with ExitStack() as stack:
        publisher, subscriber = full(stack, "block")

        with in_background(lambda: [publisher.send(LARGE) for _ in range(200)]) as sending:
            assert sending.is_pending(0.3)
            received = [subscriber.receive(5 * UNIT) for _ in range(200)]
            told = sending.result()

    assert None not in received
    assert {True, False} == set(told)


def test_a_blocked_publisher_lets_others_in() -> None:
    with ExitStack() as stack:
        publisher, _ = full(stack, "block")

        def send_until_refused() -> None:
            with suppress(ConnectionLost):
                while True:
                    publisher.send(LARGE)

        with in_background(send_until_refused) as sending:
            assert sending.is_pending(0.3)
            assert publisher.wait_for_subscriber(b"", UNIT)

            publisher.close()

            sending.result(UNIT)


def test_the_subscription_of_several_is_kept_until_the_last_one_leaves(publisher: ZMQPublisher) -> None:
    with closing(subscribed(publisher, b"/a")) as one, closing(subscribed(publisher, b"/a")) as other:
        one.close()
        assert not publisher.wait_for_subscriber(b"/b", 0.2)
        assert publisher.wait_for_subscriber(b"/a", 0)

        other.close()
        eventually(lambda: not publisher.wait_for_subscriber(b"/a", 0))


def test_a_subscriber_is_waited_for_for_ever_if_need_be(publisher: ZMQPublisher) -> None:
    with in_background(lambda: publisher.wait_for_subscriber(b"", None)) as waiting:
        assert waiting.is_pending(0.2)
        with closing(ZMQSubscriber(publisher.address)):
            assert waiting.result()


def test_subscriptions_are_seen_though_another_thread_sends(publisher: ZMQPublisher) -> None:
    with (
        in_background(lambda: publisher.wait_for_subscriber(b"/a", 10 * UNIT)) as waiting,
        closing(ZMQSubscriber(publisher.address, topics=[b"/a"])),
    ):
        eventually(lambda: publisher.send(b"/b") and not waiting.is_pending(0))


def test_subscriptions_are_read_while_publishing(publisher: ZMQPublisher, peer: zmq.Socket[bytes]) -> None:
    """libzmq keeps every change of subscriptions until it is read, so a publisher must not leave them there."""

    def reads_them() -> bool:
        for number in range(300):
            publisher.send(b"%d" % number)
        return b"/9" in publisher._subscriptions

    for number in range(10):
        peer.send(b"\x01/%d" % number)

    eventually(reads_them)


def test_what_a_subscriber_says_beside_its_subscriptions_is_ignored(
    publisher: ZMQPublisher, peer: zmq.Socket[bytes]
) -> None:
    for frame in (b"\x01/a", b"\x05/a", b"", b"\x02", b"/a"):
        peer.send(frame)
    peer.send_multipart([b"rubbish", b"more"])
    peer.send(b"\x01/end")
    assert publisher.wait_for_subscriber(b"/end", 5 * UNIT)

    assert publisher.wait_for_subscriber(b"/a", 0)
    assert publisher.send(b"/a")
    assert peer.recv() == b"/a"


def test_a_subscriber_that_sends_much_is_cut_off(publisher: ZMQPublisher, peer: zmq.Socket[bytes]) -> None:
    with peer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        peer.send(b"\x01/a")
        assert publisher.wait_for_subscriber(b"/a", 5 * UNIT)
        assert not monitor.poll(0)

        peer.send(b"\x05" + bytes(1_000_000))

        assert monitor.poll(int(5000 * UNIT))
        peer.disable_monitor()


def test_a_frame_that_was_sent_last_goes_out_though_the_publisher_is_closed(publisher: ZMQPublisher) -> None:
    with closing(subscribed(publisher)) as subscriber:
        for number in range(1000):
            publisher.send(b"%d" % number)
        publisher.close()

        received = [subscriber.receive(5 * UNIT) for _ in range(1000)]

    assert [each.frame for each in received if each] == [b"%d" % number for number in range(1000)]


def test_a_terminated_context_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    context = zmq.Context()
    monkeypatch.setattr("posttroll.backends.zmq.socket.get_context", lambda: context)
    publisher = ZMQPublisher(LOOPBACK).start()

    with in_background(context.term) as terminating:
        assert terminating.is_pending()
        with pytest.raises(TransportError):
            publisher.send(b"frame")
        publisher.close()

        terminating.result()
