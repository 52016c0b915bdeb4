"""What users get for their own tests."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from posttroll.backends import memory
from posttroll.errors import BindFailed
from posttroll.message import Message
from posttroll.publisher import NoisyPublisher, Publish, Publisher, create_publisher_from_dict_config
from posttroll.settings import config
from posttroll.subscriber import Subscribe, Subscriber
from posttroll.testing import FakeClock, memory_bus, patched_publisher, patched_subscriber_recv
from tests.fixtures.waiting import UNIT

TEXT = "pytroll://a b c@d 2026-01-01T00:00:00 v1.01"


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_patched_publisher_sends_into_the_list() -> None:
    with patched_publisher() as sent:
        publisher = Publisher("tcp://*:9999", "test")
        publisher.start()
        publisher.send(TEXT)
        publisher.stop()

    assert sent == [TEXT]


def test_a_patched_publisher_also_sends_messages() -> None:
    message = Message("/a", "info", {"number": 1})

    with patched_publisher() as sent:
        Publisher("tcp://*:9999").start().send(message)

    assert sent == [str(message)]


def test_a_patched_publisher_binds_nothing() -> None:
    with patched_publisher():
        first, second = (Publisher("tcp://*:9999").start() for _ in range(2))

    assert first.port_number is second.port_number is None


def test_a_patched_publisher_has_to_be_started() -> None:
    with patched_publisher() as sent, pytest.raises(RuntimeError, match="before the publisher is started"):
        Publisher("tcp://*:9999").send(TEXT)

    assert sent == []


@pytest.mark.parametrize("thing", [b"bytes", None, 1])
def test_a_patched_publisher_refuses_what_is_no_text(thing: object) -> None:
    with patched_publisher() as sent, pytest.raises(TypeError, match="str"):
        Publisher("tcp://*:9999").start().send(thing)  # type: ignore[arg-type]

    assert sent == []


def test_a_patched_publisher_still_sends_after_its_stop() -> None:
    with patched_publisher() as sent:
        publisher = Publisher("tcp://*:9999").start()
        publisher.stop()
        publisher.close()
        publisher.send(TEXT)

    assert sent == [TEXT]


def test_a_patched_publisher_beats() -> None:
    with patched_publisher() as sent:
        publisher = Publisher("tcp://*:9999", "test").start()
        publisher.heartbeat(30)
        publisher.heartbeat(30)

    (beat,) = map(Message.decode, sent)
    assert (beat.subject, beat.type, beat.data) == ("/heartbeat/test", "beat", {"min_interval": 30})


def test_publishers_made_before_and_subclasses_are_patched_too() -> None:
    class Special(Publisher):
        pass

    publishers = Publisher("tcp://*:9999"), Special("tcp://*:9999")

    with patched_publisher() as sent:
        for publisher in publishers:
            publisher.start()
            publisher.send(TEXT)

    assert sent == [TEXT, TEXT]


def test_a_patched_noisy_publisher_announces_nothing() -> None:
    before = thread_names()

    with patched_publisher() as sent:
        publisher = NoisyPublisher("test")
        started = publisher.start()
        during = thread_names()
        publisher.send(TEXT)
        publisher.stop()

    assert started is publisher
    assert during == before
    assert sent == [TEXT]


@pytest.mark.parametrize("nameservers", [False, None, ["localhost"]])
def test_a_patched_publisher_is_what_its_with_block_gets(nameservers: object) -> None:
    with patched_publisher() as sent, Publish("test", 9999, nameservers=nameservers) as publisher:  # type: ignore[arg-type]
        publisher.send(TEXT)

    assert sent == [TEXT]


def test_publishers_from_dicts_are_patched() -> None:
    with patched_publisher() as sent:
        publisher = create_publisher_from_dict_config({"name": "test", "port": 9999, "nameservers": False})
        publisher.start()
        publisher.send(TEXT)

    assert sent == [TEXT]


def test_publishers_are_themselves_again_afterwards() -> None:
    methods = Publisher.start, Publisher.send, Publisher.stop

    with pytest.raises(ZeroDivisionError), patched_publisher():
        raise ZeroDivisionError

    assert (Publisher.start, Publisher.send, Publisher.stop) == methods


def test_a_patched_subscriber_receives_the_messages_as_they_are() -> None:
    messages = [Message("/a", "info"), None, "text"]

    with patched_subscriber_recv(messages), closing(Subscriber([])) as subscriber:
        assert list(subscriber.recv()) == messages
        assert list(subscriber()) == messages


def test_a_patched_subscriber_takes_timeouts_and_ignores_them() -> None:
    with patched_subscriber_recv([None, None]), closing(Subscriber([])) as subscriber:
        for received in (subscriber.recv(60), subscriber.recv(timeout=60), subscriber(timeout=60)):
            assert list(received) == [None, None]


def test_a_patched_subscriber_stops_when_it_is_closed() -> None:
    with patched_subscriber_recv([None, None, None]), closing(Subscriber([])) as subscriber:
        received = subscriber.recv()
        next(received)
        subscriber.close()

        assert list(received) == []


def test_subscribers_are_themselves_again_afterwards() -> None:
    recv = Subscriber.recv

    with pytest.raises(ZeroDivisionError), patched_subscriber_recv([]):
        raise ZeroDivisionError

    assert Subscriber.recv is recv


def test_on_a_memory_bus_a_subscriber_finds_a_publisher_and_hears_it() -> None:
    with memory_bus(), Publish("a") as publisher, Subscribe("a", "/topic", addr_listener=True) as subscriber:
        assert publisher.wait_for_subscriber("/topic", 5 * UNIT)
        publisher.send(Message("/topic", "info", "text"))

        message = next(subscriber.recv(5 * UNIT))

    assert message is not None
    assert message.data == "text"


def test_a_memory_bus_is_quick() -> None:
    start = time.monotonic()

    with memory_bus(), Publish("a") as publisher, Subscribe("a", "/topic", addr_listener=True):
        assert publisher.wait_for_subscriber("/topic", 5 * UNIT)

    assert time.monotonic() - start < 0.3 * UNIT


def test_a_memory_bus_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmq.Context.socket", None)

    with memory_bus(), Publish("a"), Subscribe("a", addr_listener=True):
        pass


def test_one_memory_bus_leaves_nothing_to_the_next() -> None:
    for _ in range(2):
        with memory_bus(), closing(Publisher("tcp://*:9999").start()), pytest.raises(BindFailed):
            Publisher("tcp://*:9999").start()


def test_after_a_memory_bus_all_is_as_before() -> None:
    bus, threads = memory.backend.bus, thread_names()

    with pytest.raises(ZeroDivisionError), memory_bus():
        raise ZeroDivisionError

    assert memory.backend.bus is bus
    assert config["backend"] == "unsecure_zmq"
    assert thread_names() == threads


def test_the_faults_of_a_memory_bus_can_be_chosen() -> None:
    clock = FakeClock()

    with (
        memory_bus(delay=10.0, clock=clock),
        closing(Publisher("tcp://*:9999").start()) as publisher,
        closing(Subscriber("tcp://localhost:9999")) as subscriber,
    ):
        publisher.send(Message("/a", "info", "text"))
        at_once = next(subscriber.recv(0))
        clock.advance(1000.0)
        later = next(subscriber.recv(0))

    assert at_once is None
    assert later is not None
    assert later.data == "text"


def test_a_fake_clock_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(now=5.0)

    times = [clock(), clock()]
    clock.advance(1.5)

    assert [*times, clock(), clock.now] == [5.0, 5.0, 6.5, 6.5]
