"""Messages in a queue, put there by a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from posttroll.asyncio import listener as module
from posttroll.asyncio.listener import Listener, ListenerContainer
from posttroll.asyncio.publisher import Publisher
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from tests.fixtures.waiting import UNIT

ADDRESS = "tcp://127.0.0.1:9000"

pytestmark = pytest.mark.usefixtures("bus")


def message(number: int, topic: str = "/file") -> Message:
    return Message(topic, "info", {"number": number})


@asynccontextmanager
async def listening(publisher: Publisher, **options: Any) -> AsyncIterator[ListenerContainer]:
    async with ListenerContainer("/file", [ADDRESS], nameserver=False, **options) as container:
        if "durable" not in options:
            assert await publisher.wait_for_subscriber("/file", 5 * UNIT)
        yield container


async def numbers(container: ListenerContainer, count: int) -> list[int]:
    async with asyncio.timeout(5 * UNIT):
        return [(await anext(container)).data["number"] for _ in range(count)]


def test_it_is_iterated_over() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher:
            async with listening(publisher) as container:
                for number in range(3):
                    await publisher.send(message(number))
                assert await numbers(container, 3) == [0, 1, 2]
            assert [one async for one in container] == []

    asyncio.run(scenario())


def test_what_there_is_no_room_for_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_QUEUED", 2)

    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher, listening(publisher) as container:
            for number in range(10):
                await publisher.send(message(number))
            async with asyncio.timeout(5 * UNIT):
                while not container.output_queue.full():
                    await asyncio.sleep(0)
            assert await numbers(container, 10) == list(range(10))

    asyncio.run(scenario())


def test_other_topics_come_on_the_same_queue() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher, listening(publisher) as container:
            waiting = asyncio.create_task(numbers(container, 1))
            await asyncio.sleep(0)
            await container.restart_listener("/other")
            assert await publisher.wait_for_subscriber("/other", 5 * UNIT)
            await publisher.send(message(1))
            await publisher.send(message(2, "/other"))
            assert await waiting == [2]

    asyncio.run(scenario())


def test_who_restarts_it_twice_at_once_gets_messages_once() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher, listening(publisher) as container:
            await asyncio.gather(container.restart_listener("/other"), container.restart_listener("/other"))
            assert await publisher.wait_for_subscriber("/other", 5 * UNIT)
            await publisher.send(message(1, "/other"))
            await publisher.send(message(2, "/other"))
            assert await numbers(container, 2) == [1, 2]

    asyncio.run(scenario())


def test_a_loop_ends_with_the_container() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS) as publisher:
            async with listening(publisher) as container:
                ended = asyncio.create_task(numbers(container, 1))
                await asyncio.sleep(0)
            await container.stop()
            with pytest.raises(StopAsyncIteration):
                await ended

    asyncio.run(scenario())


def test_what_ends_the_task_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(settings: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(module, "create_subscriber_from_dict_config", fail)

    async def scenario() -> None:
        container = await ListenerContainer("/file", [ADDRESS]).start()
        with pytest.raises(OSError, match="no network"):
            await numbers(container, 1)

    asyncio.run(scenario())


def test_nothing_is_started_without_topics() -> None:
    async def scenario() -> None:
        async with ListenerContainer() as container:
            assert container.listener is None

    asyncio.run(scenario())


def test_a_durable_message_is_accepted_when_the_next_one_is_asked_for() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            for number in range(3):
                await publisher.send(message(number))
            assert publisher.journal is not None
            address = {"URI": ADDRESS, "link": publisher.link_address, "journal": publisher.journal.identity}
            for expected in ([0, 1], [1, 2]):
                container = ListenerContainer("/file", [address], nameserver=False, durable="a", start_at="first")
                async with container:
                    assert await numbers(container, 2) == expected

    asyncio.run(scenario())


def test_each_durable_message_may_be_asked_for_by_another_task() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            for number in range(500):  # more than may be unsettled
                await publisher.send(message(number))
            assert publisher.journal is not None
            address = {"URI": ADDRESS, "link": publisher.link_address, "journal": publisher.journal.identity}
            container = ListenerContainer("/file", [address], nameserver=False, durable="a", start_at="first")
            async with container:
                got = [await asyncio.create_task(numbers(container, 1)) for _ in range(500)]
            assert got == [[number] for number in range(500)]

    asyncio.run(scenario())


def test_a_listener_runs_in_any_task() -> None:
    async def scenario() -> None:
        queue: asyncio.Queue[Message] = asyncio.Queue()
        async with Publisher(ADDRESS) as publisher:
            listener = Listener("/file", queue, [ADDRESS], nameserver=False)
            running = asyncio.create_task(listener.run())
            assert await publisher.wait_for_subscriber("/file", 5 * UNIT)
            await publisher.send(message(1))
            async with asyncio.timeout(5 * UNIT):
                assert (await queue.get()).data == {"number": 1}
                await listener.stop()
                await running
            assert not listener.running

    asyncio.run(scenario())
