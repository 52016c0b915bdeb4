"""Publishing from an event loop; what it shares with the blocking twin is tested over both in tests/conformance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress

import pytest

from posttroll.asyncio.publisher import (
    NoisyPublisher,
    Publish,
    Publisher,
    create_publisher_from_dict_config,
    get_own_ip,
)
from posttroll.asyncio.subscriber import Subscriber
from posttroll.backends.memory import Bus
from posttroll.errors import ConfigurationError, ConnectionLost, LocalProtocolError, NotStarted
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from posttroll.publisher import Publisher as BlockingPublisher
from posttroll.settings import config
from posttroll.subscriber import Subscriber as BlockingSubscriber
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

ADDRESS = "tcp://127.0.0.1:9000"


def message(number: int) -> Message:
    return Message("/file", "info", {"number": number})


def test_a_blocking_subscriber_gets_what_a_loop_publishes(network: Network) -> None:
    async def publish(publisher: Publisher) -> None:
        await publisher.start()
        subscriber = BlockingSubscriber(f"tcp://127.0.0.1:{publisher.port_number}", "/file")
        with closing(subscriber):
            assert await publisher.wait_for_subscriber("/file", 5 * UNIT)
            await publisher.send(message(1))
            await publisher.send_string(message(2).encode())
            messages = subscriber.recv(5 * UNIT)
            got = [await asyncio.to_thread(next, messages) for _ in range(2)]
        await publisher.close()
        assert [one and one.data["number"] for one in got] == [1, 2]

    asyncio.run(publish(Publisher("tcp://127.0.0.1:0", "test")))


@pytest.mark.usefixtures("bus")
def test_who_may_not_lose_anything_awaits_room_in_turn() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, when_full="block") as publisher, Subscriber(ADDRESS) as subscriber:
            sending = [asyncio.create_task(publisher.send(message(number))) for number in range(20)]
            await asyncio.sleep(0)
            assert not all(task.done() for task in sending)

            async with asyncio.timeout(10 * UNIT):
                messages = subscriber.recv()
                numbers = [(await anext(messages)).data["number"] for _ in range(20)]
                await asyncio.gather(*sending)

            assert numbers == list(range(20))
            assert publisher.overruns

    with config.set(send_high_water_mark=2):
        asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
def test_who_gives_up_to_await_room_has_sent_nothing() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, when_full="block") as publisher, Subscriber(ADDRESS) as subscriber:
            await publisher.send(message(1))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await publisher.send(message(2))
            messages = subscriber.recv(0)
            assert (await anext(messages)).data["number"] == 1

            await publisher.send(message(3))

            assert (await anext(messages)).data["number"] == 3

    with config.set(send_high_water_mark=1):
        asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize("journal", [None, MemoryJournal])
def test_the_stop_ends_a_send_that_awaits_room(journal: type[MemoryJournal] | None) -> None:
    async def scenario() -> None:
        async with Subscriber(ADDRESS):
            publisher = await Publisher(ADDRESS, when_full="block", journal=journal and journal()).start()
            await publisher.send(message(1))
            sending = asyncio.create_task(publisher.send(message(2)))
            while publisher.journal is not None and publisher.journal.last < 2:
                await asyncio.sleep(0)
            await asyncio.sleep(0)

            await publisher.stop()
            await publisher.stop()

            with pytest.raises(ConnectionLost):
                await sending

    with config.set(send_high_water_mark=1):
        asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
def test_a_heartbeat_waits_for_no_room() -> None:
    async def scenario() -> None:
        async with (
            Publisher(ADDRESS, when_full="block", journal=MemoryJournal()) as publisher,
            Subscriber(ADDRESS),
            asyncio.timeout(5 * UNIT),
        ):
            await publisher.send(message(1))
            await publisher.heartbeat()

    with config.set(send_high_water_mark=1):
        asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize("make", [lambda: Publisher(ADDRESS, journal=MemoryJournal()), lambda: NoisyPublisher("noisy")])
def test_who_is_stopped_while_being_started_leaves_nothing(make: Callable[[], Publisher | NoisyPublisher]) -> None:
    async def scenario() -> None:
        publisher = make()
        starting = asyncio.create_task(publisher.start())
        await asyncio.sleep(0)
        await publisher.stop()
        with suppress(NotStarted):
            await starting
            await publisher.stop()
        assert publisher.journal is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_it_is_used_in_the_loop_that_it_was_started_in(bus: Bus) -> None:
    publisher = Publisher(ADDRESS, "test")
    asyncio.run(publisher.start())

    with pytest.raises(LocalProtocolError, match="publisher test is used in another event loop already"):
        asyncio.run(publisher.send(message(1)))


def test_a_callback_that_would_have_to_be_awaited_is_refused() -> None:
    async def tell(publisher: Publisher) -> None: ...

    with pytest.raises(ConfigurationError, match="on_overrun is the coroutine function"):
        Publisher(ADDRESS, on_overrun=tell)


@pytest.mark.usefixtures("bus")
def test_a_journal_keeps_what_is_sent() -> None:
    async def scenario() -> None:
        journal = MemoryJournal()
        async with Publisher(ADDRESS, journal=journal) as publisher:
            assert publisher.journal is journal
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(publisher.send(message(number)))
            assert journal.last == 100
            await publisher.heartbeat()

    asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
def test_the_start_that_fails_leaves_nothing() -> None:
    async def scenario() -> None:
        def refuse() -> None:
            raise OSError("no disk")

        publisher = Publisher(ADDRESS, journal=MemoryJournal())
        publisher._open_journal = refuse  # type: ignore[assignment]
        with pytest.raises(OSError, match="no disk"):
            await publisher.start()

        async with Publisher(ADDRESS):
            pass

    asyncio.run(scenario())


@pytest.mark.usefixtures("bus")
def test_endless_sending_lets_others_have_their_turns() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while turns < 3:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            async with asyncio.timeout(10 * UNIT):
                while not counting.done():
                    await publisher.send("pytroll://file info")

    asyncio.run(scenario())


def test_nobody_publishes_before_the_start(bus: Bus) -> None:
    with pytest.raises(NotStarted):
        asyncio.run(Publisher(ADDRESS).send(message(1)))


@pytest.mark.usefixtures("bus")
def test_nobody_waits_for_a_subscriber_longer_than_told() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher:
            assert not await publisher.wait_for_subscriber("/file", 0.01)

    asyncio.run(scenario())


def test_the_class_is_the_one_that_the_settings_ask_for() -> None:
    silent = create_publisher_from_dict_config({"port": 9000, "nameservers": False})
    noisy = create_publisher_from_dict_config({"name": "noisy"})

    assert isinstance(silent, Publisher)
    assert isinstance(noisy, NoisyPublisher)
    assert isinstance(Publish("noisy").publisher, NoisyPublisher)
    assert not isinstance(silent, BlockingPublisher)


def test_the_own_address_is_one() -> None:
    assert len(asyncio.run(get_own_ip()).split(".")) == 4
