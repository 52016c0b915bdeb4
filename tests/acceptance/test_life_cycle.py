"""Everything that starts can be stopped, any number of times, at any moment, and leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from posttroll.address_receiver import AddressReceiver
from posttroll.errors import ConnectionLost
from posttroll.listener import ListenerContainer
from posttroll.logger import Logger, PytrollHandler
from posttroll.message import Message
from posttroll.message_broadcaster import MessageBroadcaster
from posttroll.ns import NameServer
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.settings import config
from posttroll.subscriber import NSSubscriber, Subscriber
from tests.fixtures.background import in_background
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

LOOPBACK = "tcp://127.0.0.1:0"
CYCLES = 200
WARM_UP = 20
MOST_GROWTH = 8 * 2**20
PROMPT = 0.2 * UNIT
IN_TIME = 1.5 * UNIT


class Life(NamedTuple):
    """How to make a thing, start it, and stop it."""

    make: Callable[[], Any]
    start: Callable[[Any], Any] = lambda thing: thing.start()
    stop: Callable[[Any], Any] = lambda thing: thing.stop()
    needs_nameserver: bool = False


class _RunningNameserver:
    """A nameserver whose `run` is in a thread, as programs have it that do more than that."""

    def __init__(self) -> None:
        self._nameserver = NameServer()
        self._resources = ExitStack()

    def start(self) -> None:
        ready = threading.Event()
        self._resources.enter_context(in_background(lambda: self._nameserver.run(on_ready=ready.set)))
        self._resources.callback(self._nameserver.stop)
        assert ready.wait(5 * UNIT)

    def stop(self) -> None:
        self._resources.close()


def _nothing(thing: object) -> None:
    pass


LIVES = {
    "Publisher": Life(lambda: Publisher(LOOPBACK, "cycled")),
    "NoisyPublisher": Life(lambda: NoisyPublisher("cycled", aliases=["alias"])),
    "designated NoisyPublisher": Life(
        lambda: NoisyPublisher("cycled", nameservers=["localhost"]), needs_nameserver=True
    ),
    "MessageBroadcaster": Life(
        lambda: MessageBroadcaster(Message("/address/cycled", "info"), config["broadcast_port"], 2)
    ),
    "Subscriber": Life(lambda: Subscriber("tcp://127.0.0.1:1"), _nothing),
    "NSSubscriber": Life(
        lambda: NSSubscriber("address_receiver", addr_listener=True, timeout=0.01), needs_nameserver=True
    ),
    "ListenerContainer": Life(
        lambda: ListenerContainer(topics=["/a"], addresses=["tcp://127.0.0.1:1"], nameserver=False), _nothing
    ),
    "AddressReceiver": Life(lambda: AddressReceiver(port=config["address_publish_port"])),
    "NameServer": Life(_RunningNameserver),
    "PytrollHandler": Life(lambda: PytrollHandler("cycled"), _nothing, lambda handler: handler.close()),
    "Logger": Life(Logger, needs_nameserver=True),
}


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def surroundings(request: pytest.FixtureRequest, network: Network) -> Iterator[None]:
    """Run a nameserver where one is needed."""
    with ExitStack() as resources:
        if request.getfixturevalue("life").needs_nameserver:
            resources.enter_context(running_nameserver(multicast_enabled=False))
        yield


@pytest.fixture(params=LIVES)
def life(request: pytest.FixtureRequest) -> Life:
    """Give one thing after the other."""
    return LIVES[request.param]


def _cycle(life: Life) -> float:
    """Start and stop; return how long the stop took."""
    thing = life.make()
    life.start(thing)
    start = time.monotonic()
    life.stop(thing)
    return time.monotonic() - start


def test_200_starts_and_stops_leave_nothing_behind(life: Life, surroundings: None) -> None:
    for _ in range(WARM_UP):
        _cycle(life)
    gc.collect()
    threads, descriptors, memory = threading.active_count(), _open_descriptors(), _resident_bytes()

    durations = [_cycle(life) for _ in range(CYCLES)]

    gc.collect()
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: _open_descriptors() <= descriptors + 2)
    assert _resident_bytes() - memory < MOST_GROWTH
    assert statistics.median(durations) < PROMPT
    assert max(durations) < IN_TIME


def test_stopping_twice_and_before_the_start_is_harmless(life: Life, surroundings: None) -> None:
    never_started = life.make()
    life.stop(never_started)
    life.stop(never_started)
    started = life.make()
    life.start(started)
    life.stop(started)

    life.stop(started)


def test_several_threads_may_stop_it_at_once(life: Life, surroundings: None) -> None:
    thing = life.make()
    life.start(thing)
    start = time.monotonic()

    with ExitStack() as stops:
        for _ in range(4):
            stops.enter_context(in_background(lambda: life.stop(thing)))

    assert time.monotonic() - start < IN_TIME


RESTARTABLE = ("Publisher", "NoisyPublisher", "NSSubscriber", "AddressReceiver", "NameServer")


@pytest.mark.parametrize("life", RESTARTABLE, indirect=True)
def test_it_can_be_started_again_after_a_stop(life: Life, surroundings: None) -> None:
    thing = life.make()

    for _ in range(3):
        life.start(thing)
        life.stop(thing)


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_subscriber_that_waits_ends_when_another_thread_stops_it(timeout: float | None) -> None:
    for _ in range(50):
        subscriber = Subscriber("tcp://127.0.0.1:1")
        with in_background(lambda subscriber=subscriber: list(subscriber.recv(timeout))) as received:
            eventually(lambda subscriber=subscriber: subscriber.running)

            subscriber.stop()

            assert received.result(IN_TIME) == []


def test_a_publisher_that_waits_for_a_subscriber_ends_when_another_thread_stops_it() -> None:
    publisher = Publisher(LOOPBACK)
    publisher.start()
    with in_background(lambda: publisher.wait_for_subscriber("", 60)) as waiting:
        assert waiting.is_pending()

        publisher.stop()

        with pytest.raises(ConnectionLost):
            waiting.result(IN_TIME)


def test_a_publisher_that_is_blocked_by_a_full_queue_ends_when_another_thread_stops_it() -> None:
    with config.set(send_high_water_mark=1, receive_high_water_mark=1):
        publisher = Publisher(LOOPBACK, when_full="block")
        publisher.start()
        subscriber = Subscriber(f"tcp://127.0.0.1:{publisher.port_number}")
    assert publisher.wait_for_subscriber("", 5 * UNIT)

    def send_for_ever() -> None:
        text = str(Message("/a", "info", "x" * 2**20))
        while True:
            publisher.send(text)

    with in_background(send_for_ever) as sending:
        eventually(lambda: publisher.overruns > 0)

        publisher.stop()

        with pytest.raises(ConnectionLost):
            sending.result(IN_TIME)
    subscriber.stop()


def test_a_look_up_that_waits_for_a_silent_nameserver_ends_when_another_thread_stops_it(network: Network) -> None:
    finder = NSSubscriber("nobody", addr_listener=True, timeout=5 * UNIT)
    with in_background(finder.start) as starting:
        assert starting.is_pending(0.3)

        finder.stop()

        starting.result(IN_TIME)


def test_what_8_threads_send_through_one_publisher_arrives_in_the_order_of_each() -> None:
    publisher = Publisher(LOOPBACK)
    publisher.start()
    subscriber = Subscriber(f"tcp://127.0.0.1:{publisher.port_number}", "/threads")
    assert publisher.wait_for_subscriber("/threads", 5 * UNIT)

    def send(thread: int) -> None:
        for number in range(1000):
            publisher.send(Message("/threads", "info", [thread, number]))

    with ExitStack() as threads:
        for thread in range(8):
            threads.enter_context(in_background(lambda thread=thread: send(thread)))
        received: dict[int, list[int]] = {thread: [] for thread in range(8)}
        for message in subscriber.recv(5 * UNIT):
            assert message is not None
            thread, number = message.data
            received[thread].append(number)
            if sum(map(len, received.values())) == 8000:
                break

    assert received == {thread: [*range(1000)] for thread in range(8)}
    subscriber.stop()
    publisher.stop()


def test_a_handler_that_was_closed_loses_its_records_quietly(network: Network) -> None:
    handler = PytrollHandler("handler")
    handler.close()
    record = logging.LogRecord("closed", logging.INFO, __file__, 1, "too late", None, None)

    handler.handle(record)
