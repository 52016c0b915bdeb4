from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import pytest
import zmq

from posttroll.asyncio import address_listener as module
from posttroll.asyncio.address_listener import AddressListener
from posttroll.asyncio.lookup import get_pub_address
from posttroll.backends import memory
from posttroll.backends.zmq import socket as sockets
from posttroll.message import Message
from posttroll.ns import NameServer
from posttroll.protocol import lookout
from posttroll.publisher import Publisher
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

URI, OTHER_URI = "tcp://10.0.0.1:1", "tcp://10.0.0.1:2"


class Subscriber:
    """Notes whom it is told to meet and to part from."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.parted: list[str] = []
        self.has_room = True

    def meet(self, entry: Mapping[str, Any]) -> bool:
        self.met.append(entry["URI"])
        return self.has_room

    def part(self, entry: Mapping[str, Any]) -> None:
        self.parted.append(entry["URI"])


@pytest.fixture(autouse=True, params=["memory", "unsecure_zmq"])
def backend(request: pytest.FixtureRequest, network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    monkeypatch.setattr(module, "LOOK_UP_TIMEOUT", 0.1)
    monkeypatch.setattr(lookout, "_RETRY_AFTER", 0.1)
    with config.set(backend=request.param):
        yield


@pytest.fixture
def subscriber() -> Subscriber:
    return Subscriber()


@pytest.fixture
def feed(network: Network) -> Iterator[Publisher]:
    """Publish addresses as a nameserver does."""
    with closing(Publisher(f"tcp://*:{network.addresses}")) as feed:
        yield feed.start()


def notice(status: bool = True, uri: str = URI, service: str = "viirs") -> Message:
    return Message("/address/viirs", "info", {"URI": uri, "service": [service], "status": status})


class Answers:
    """What a nameserver knows, and how often it was asked for it."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    def get(self, name: str) -> list[dict[str, Any]]:
        self.asked.append(name)
        return [{"URI": uri, "service": [name]} for uri in self.known.get(name, [])]


@contextmanager
def nameserver_that(answers: Answers) -> Iterator[None]:
    """Run a nameserver that gives these answers."""
    nameserver = NameServer()
    worker = Worker("posttroll-nameserver", lambda _: nameserver.run(answers), wake=nameserver.stop).start()
    try:
        yield
    finally:
        worker.stop()


@asynccontextmanager
async def listening(subscriber: Subscriber, services: str | list[str] = "viirs") -> AsyncIterator[AddressListener]:
    """Listen until the end of the block."""
    listener = AddressListener(subscriber, services).start()
    try:
        yield listener
    finally:
        await listener.stop()


async def eventually(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(5 * UNIT):
        while not predicate():
            await asyncio.sleep(0.005)


def test_what_is_known_already_and_what_the_feed_tells_is_met(feed: Publisher, subscriber: Subscriber) -> None:
    async def listen() -> None:
        async with listening(subscriber):
            await eventually(lambda: URI in subscriber.met)
            await eventually(lambda: feed.wait_for_subscriber("/address", 0))
            feed.send(notice(uri=OTHER_URI, service="modis"))
            feed.send("pytroll://address rubbish")
            feed.send(notice(uri=OTHER_URI))
            feed.send(notice(status=False))
            await eventually(lambda: subscriber.parted)

    with nameserver_that(Answers(viirs=[URI])):
        asyncio.run(listen())

    assert (set(subscriber.met), subscriber.met[-1], subscriber.parted) == ({URI, OTHER_URI}, OTHER_URI, [URI])


def test_a_nameserver_that_comes_later_is_asked(subscriber: Subscriber) -> None:
    async def listen() -> None:
        async with listening(subscriber) as listener:
            await eventually(lambda: listener._lookout.next_timeout() > time.monotonic())
            with nameserver_that(Answers(viirs=[URI])):
                await eventually(lambda: subscriber.met)

    asyncio.run(listen())


def test_the_nameserver_is_asked_again_while_the_subscriber_has_no_room(
    feed: Publisher, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LOOK_AGAIN_AFTER", 0.05)
    subscriber.has_room = False

    async def listen() -> None:
        async with listening(subscriber) as listener:
            await eventually(lambda: len(subscriber.met) > 4)
            subscriber.has_room = True
            await eventually(lambda: listener._lookout.next_timeout() == math.inf)

    with nameserver_that(Answers(viirs=[URI])):
        asyncio.run(listen())


def test_a_service_looked_for_later_is_asked_for_at_once_from_any_thread(
    feed: Publisher, subscriber: Subscriber
) -> None:
    answers = Answers(early=[URI], late=[OTHER_URI])

    async def listen() -> None:
        listener = AddressListener(subscriber, [])
        listener.look_for("early")
        listener.start()
        try:
            await eventually(lambda: listener._lookout.next_timeout() == math.inf and URI in subscriber.met)
            await asyncio.to_thread(listener.look_for, "late")
            await eventually(lambda: OTHER_URI in subscriber.met)
            listener.look_no_longer_for("early")
            listener.look_for("late")
            await eventually(lambda: listener._lookout.services == {"late"})
        finally:
            await listener.stop()

    with nameserver_that(answers):
        asyncio.run(listen())

    assert set(answers.asked) == {"early", "late"}


def test_it_may_be_stopped_before_its_start_and_twice(subscriber: Subscriber) -> None:
    async def stop() -> None:
        listener = AddressListener(subscriber, "viirs")
        await listener.stop()

        started = AddressListener(subscriber, "viirs").start()
        await asyncio.sleep(0.01)
        start = time.monotonic()
        await asyncio.gather(started.stop(), started.stop())
        await started.stop()
        assert time.monotonic() - start < 0.2 * UNIT

    asyncio.run(stop())


def test_a_stop_that_is_cancelled_ends_it_all_the_same(subscriber: Subscriber) -> None:
    async def stop() -> None:
        listener = AddressListener(subscriber, "viirs").start()
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(listener.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(stop())


def test_a_loop_that_ends_ends_it_too(subscriber: Subscriber) -> None:
    async def start() -> AddressListener:
        return AddressListener(subscriber, "viirs").start()

    asyncio.run(asyncio.run(start()).stop())


def test_a_nameserver_that_is_no_address_leaves_nothing_behind(subscriber: Subscriber) -> None:
    with config.set(backend="unsecure_zmq"), pytest.raises(zmq.ZMQError):
        AddressListener(subscriber, "viirs", ["localhost", "no such host"])


def test_a_lookout_that_fails_is_told_at_the_stop(subscriber: Subscriber, caplog: pytest.LogCaptureFixture) -> None:
    def fail(entry: Mapping[str, Any]) -> bool:
        raise ValueError("broken")

    subscriber.meet = fail  # type: ignore[method-assign]

    async def listen() -> None:
        listener = AddressListener(subscriber, "viirs").start()
        await eventually(lambda: not listener._worker.is_alive())
        with pytest.raises(ValueError, match="broken"):
            await listener.stop()
        await listener.stop()

    with nameserver_that(Answers(viirs=[URI])):
        asyncio.run(asyncio.wait_for(get_pub_address("nothing", 5 * UNIT), 10 * UNIT))
        asyncio.run(listen())

    assert "posttroll-address-listener" in caplog.text


def test_a_context_that_is_terminated_ends_it(subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    context = zmq.Context()
    monkeypatch.setattr(sockets, "get_context", lambda: context)

    async def listen() -> None:
        async with listening(subscriber) as listener:
            await asyncio.sleep(0.01)
            ending = asyncio.create_task(asyncio.to_thread(context.term))
            await eventually(lambda: not listener._worker.is_alive())
        await ending

    with config.set(backend="unsecure_zmq"):
        asyncio.run(listen())
