from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

import pytest

from posttroll.asyncio.message_broadcaster import (
    AddressServiceBroadcaster,
    DesignatedReceiversSender,
    MessageBroadcaster,
)
from posttroll.backends.base import Peer
from posttroll.backends.registry import find_backend
from posttroll.bbmcast import MulticastReceiver
from posttroll.errors import ConfigurationError
from posttroll.message import Message
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

URI, OTHER_URI = "tcp://10.0.0.1:9000", "tcp://10.0.0.2:9000"
Hear = Callable[[], str]


@pytest.fixture
def hear(network: Network) -> Iterator[Hear]:
    """Give what returns the next announcement."""
    with closing(MulticastReceiver(network.announcements).settimeout(5 * UNIT)) as receiver:
        yield lambda: receiver()[0]


@contextmanager
def registry(network: Network, reply: bytes = b"ok") -> Iterator[list[Message]]:
    """Receive registrations as a nameserver without multicast does, until the end of the block."""
    peer = Peer(f"tcp://127.0.0.1:{network.announcements}", "unsecure_zmq")
    channel = find_backend("unsecure_zmq").open_reply([peer])
    registered: list[Message] = []

    def register(worker: Worker) -> None:
        while not channel.closed:
            if (question := channel.receive(None)) is not None and question.frame is not None:
                registered.append(Message.decode(question.frame))
                channel.reply(question, reply)

    worker = Worker("posttroll-registry", register, wake=channel.close).start()
    try:
        yield registered
    finally:
        worker.stop()


@asynccontextmanager
async def started(broadcaster: MessageBroadcaster) -> AsyncIterator[MessageBroadcaster]:
    try:
        yield broadcaster.start()
    finally:
        await broadcaster.stop()


async def eventually(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(5 * UNIT):
        while not predicate():
            await asyncio.sleep(0.005)


def test_a_message_is_repeated_until_the_goodbye(network: Network, hear: Hear) -> None:
    async def announce() -> list[str]:
        broadcaster = MessageBroadcaster("hello", network.announcements, 0.02, goodbye="bye")
        async with started(broadcaster):
            heard = [await asyncio.to_thread(hear) for _ in range(3)]
            assert broadcaster.is_running()
        assert not broadcaster.is_running()
        await broadcaster.stop()
        return heard

    assert asyncio.run(announce()) == ["hello"] * 3
    while (text := hear()) != "bye":
        assert text == "hello"


def test_an_announcement_is_the_one_of_the_blocking_twin_and_follows_the_address(hear: Hear) -> None:
    address = [URI]

    async def announce() -> list[Message]:
        async with started(
            AddressServiceBroadcaster(
                "viirs", lambda: address[0], ["viirs", "sdr"], 0.02, extra=lambda _: {"site": "x"}
            )
        ):
            first = await asyncio.to_thread(hear)
            address[0] = OTHER_URI
            while OTHER_URI not in (last := await asyncio.to_thread(hear)):
                pass
        return [Message.decode(text) for text in (first, last)]

    first, last = asyncio.run(announce())
    while (goodbye := Message.decode(hear())).type != "goodbye":
        pass

    assert (first.subject, first.type) == ("/address/viirs", "info")
    assert first.data == {
        "URI": URI,
        "service": ["viirs", "sdr"],
        "supported_message_version": "v1.2",
        "backend": "unsecure_zmq",
        "site": "x",
    }
    assert last.data["URI"] == goodbye.data["URI"] == OTHER_URI


@pytest.mark.parametrize("interval", [0, -1])
def test_without_an_interval_nothing_is_sent(interval: float, network: Network) -> None:
    async def announce() -> None:
        broadcaster = MessageBroadcaster("hello", network.announcements, interval, goodbye="bye").start()
        assert not broadcaster.is_running()
        await broadcaster.stop()

    asyncio.run(announce())


def test_stopping_before_the_start_and_twice_is_harmless(network: Network) -> None:
    async def stop() -> None:
        broadcaster = MessageBroadcaster("hello", network.announcements, 2)
        await broadcaster.stop()
        broadcaster.start().start()
        assert not broadcaster.is_running()

        broadcaster = MessageBroadcaster("hello", network.announcements, 2, goodbye="bye").start().start()
        await asyncio.gather(broadcaster.stop(), broadcaster.stop())
        assert await broadcaster.stop() is broadcaster

    asyncio.run(stop())


def test_what_cannot_get_better_is_told_at_once(network: Network) -> None:
    with config.set(mc_group="10.0.0.1"), pytest.raises(OSError, match="Invalid multicast address"):
        MessageBroadcaster("hello", network.announcements, 2).start()
    with pytest.raises(ConfigurationError, match="fewer aliases"):
        MessageBroadcaster("x" * 65_508, network.announcements, 2)


def test_a_network_that_takes_nothing_is_tried_again(
    network: Network, hear: Hear, caplog: pytest.LogCaptureFixture
) -> None:
    async def announce() -> None:
        with config.set(multicast_interface="192.0.2.77"):
            broadcaster = MessageBroadcaster("hello", network.announcements, 0.02).start()
            await eventually(lambda: "will try again" in caplog.text)
        async with started(broadcaster):
            assert await asyncio.to_thread(hear) == "hello"

    asyncio.run(announce())

    assert len(caplog.records) == 1


def test_a_designated_nameserver_gets_announcements_and_the_goodbye(network: Network) -> None:
    """However many others do not answer."""

    async def announce() -> None:
        broadcaster = AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, ["127.0.0.1", "127.0.0.1:9"])
        async with started(broadcaster):
            await eventually(lambda: len(registered) >= 2)
            start = time.monotonic()
        assert time.monotonic() - start < 0.2 * UNIT

    with registry(network) as registered:
        asyncio.run(announce())

    assert [message.type for message in registered[:2]] == ["info", "info"]
    assert registered[-1].type == "goodbye"
    assert {message.data["URI"] for message in registered} == {URI}


@pytest.mark.usefixtures("network")
def test_stopping_takes_no_time_when_no_nameserver_is_there() -> None:
    async def announce() -> float:
        async with started(AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, ["127.0.0.1:9", "127.0.0.1:10"])):
            await asyncio.sleep(0.05)
            start = time.monotonic()
        return time.monotonic() - start

    assert asyncio.run(announce()) < 0.2 * UNIT


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_stop_that_is_cancelled_ends_it_all_the_same(steps: int) -> None:
    """That no socket is left is checked for every test."""

    async def announce() -> None:
        broadcaster = AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, ["127.0.0.1:9"]).start()
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(broadcaster.stop())
        for _ in range(steps):
            await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(announce())


def test_who_does_not_answer_or_accept_is_told_of_once(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def send(timeout: float) -> None:
        with closing(DesignatedReceiversSender(network.announcements, "127.0.0.1", timeout)) as sender:
            for _ in range(2):
                await sender("pytroll://address/a info a@b 2026-03-01T00:00:00 v1.01")

    asyncio.run(send(0.01))
    with registry(network, reply=b"no"):
        asyncio.run(send(5 * UNIT))

    place = f"nameserver tcp://127.0.0.1:{network.announcements}"
    assert [record.getMessage() for record in caplog.records] == [
        f"{place} does not answer to the announcement ",
        f"{place} does not accept the announcement no",
    ]
