"""Receiving on an event loop; what it shares with the blocking twin is tested over both in tests/conformance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from posttroll.asyncio.publisher import Publisher
from posttroll.asyncio.subscriber import NSSubscriber, Subscribe, Subscriber, create_subscriber_from_dict_config
from posttroll.errors import ConfigurationError, LocalProtocolError, RequestTimeout
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from tests.fixtures.waiting import UNIT

ADDRESS = "tcp://127.0.0.1:9000"

pytestmark = pytest.mark.usefixtures("bus")


def message(number: int) -> Message:
    return Message("/file", "info", {"number": number})


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Publisher, Subscriber]]:
    async with Publisher(ADDRESS) as publisher, Subscriber(ADDRESS, "/file") as subscriber:
        yield publisher, subscriber


def test_silence_is_told_as_often_as_asked() -> None:
    async def scenario() -> None:
        async with both() as (publisher, subscriber):
            messages = subscriber.recv(0.01)
            assert await anext(messages) is None
            assert await anext(messages) is None
            await publisher.send(message(1))
            assert (await anext(messages)).data == {"number": 1}

    asyncio.run(scenario())


def test_a_wait_that_was_cancelled_can_be_begun_again() -> None:
    async def scenario() -> None:
        async with both() as (publisher, subscriber):
            messages = aiter(subscriber)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await anext(messages)
            await publisher.send(message(1))

            assert (await anext(messages)).data == {"number": 1}

    asyncio.run(scenario())


def test_the_stop_ends_all_loops() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS):
            subscriber = Subscriber(ADDRESS)

            async def listen() -> list[Message]:
                return [one async for one in subscriber]

            listening = [asyncio.create_task(listen()) for _ in range(3)]
            await asyncio.sleep(0)
            await subscriber.stop()
            await subscriber.close()

            async with asyncio.timeout(5 * UNIT):
                assert await asyncio.gather(*listening) == [[], [], []]
            assert [one async for one in subscriber.recv(0)] == []

    asyncio.run(scenario())


def test_endless_messages_let_others_have_their_turns() -> None:
    async def scenario() -> None:
        async with both() as (publisher, subscriber):
            text = message(0).encode()
            for _ in range(1000):
                await publisher.send(text)
            others = asyncio.create_task(asyncio.sleep(0))
            got = 0
            async for _ in subscriber:
                got += 1
                if got == 1000:
                    break
            assert others.done()

    asyncio.run(scenario())


@asynccontextmanager
async def durable(publisher: Publisher, acknowledge: str = "auto") -> AsyncIterator[Subscriber]:
    assert publisher.journal is not None
    address = {"URI": ADDRESS, "link": publisher.link_address, "journal": publisher.journal.identity}
    options = {"durable": "archive", "start_at": "first", "acknowledge": acknowledge}
    settings = {"addresses": [address], "nameserver": False, "topics": "/file", **options}
    async with await create_subscriber_from_dict_config(settings) as subscriber:
        yield subscriber


async def numbers(subscriber: Subscriber, count: int) -> list[int]:
    messages = subscriber.recv()
    async with asyncio.timeout(5 * UNIT):
        return [(await anext(messages)).data["number"] for _ in range(count)]


def test_a_durable_message_counts_as_accepted_when_the_next_one_is_asked_for() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            for number in range(5):
                await publisher.send(message(number))
            async with durable(publisher) as subscriber:
                assert await numbers(subscriber, 3) == [0, 1, 2]
            async with durable(publisher) as subscriber:
                assert await numbers(subscriber, 3) == [2, 3, 4]

    asyncio.run(scenario())


async def fail_at(subscriber: Subscriber) -> None:
    async for _ in subscriber:
        raise RuntimeError


def test_a_loop_that_is_left_releases_what_it_had() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            await publisher.send(message(1))
            async with durable(publisher) as subscriber:
                with pytest.raises(RuntimeError):
                    await fail_at(subscriber)

                async with asyncio.timeout(5 * UNIT):
                    async for one in subscriber:
                        assert one.data == {"number": 1}
                        assert one.delivery is not None
                        assert one.delivery.redelivered
                        break

    asyncio.run(scenario())


def test_a_durable_subscriber_may_be_made_before_the_loop() -> None:
    journal = MemoryJournal()
    address = {"URI": ADDRESS, "link": "tcp://127.0.0.1:9001", "journal": journal.identity}
    subscriber = Subscriber([address], "/file", durable="archive", start_at="first")

    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=journal, link_port=9001) as publisher, subscriber:
            await publisher.send(message(1))
            assert await numbers(subscriber, 1) == [1]

    asyncio.run(scenario())


def test_an_iterator_is_for_one_task_at_a_time() -> None:
    async def scenario() -> None:
        async with both() as (_, subscriber):
            messages = aiter(subscriber)
            first = asyncio.create_task(anext(messages))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(LocalProtocolError, match="an iterator of its own"):
                await anext(messages)
            first.cancel()

    asyncio.run(scenario())


def test_a_filter_that_would_have_to_be_awaited_is_refused() -> None:
    async def refuse(message: Message) -> bool:
        return False

    with pytest.raises(ConfigurationError, match="message_filter is the coroutine function"):
        Subscriber(ADDRESS, message_filter=refuse)


def test_it_is_used_in_one_loop() -> None:
    subscriber = Subscriber(ADDRESS)

    async def ask() -> None:
        await anext(subscriber.recv(0))

    asyncio.run(ask())
    with pytest.raises(LocalProtocolError, match=r"a subscriber for .* is used in another event loop already"):
        asyncio.run(ask())
    asyncio.run(subscriber.stop())


def test_messages_may_be_acknowledged_by_hand() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            for number in range(3):
                await publisher.send(message(number))
            async with durable(publisher, "manual") as subscriber:
                messages = subscriber.recv()
                async with asyncio.timeout(5 * UNIT):
                    first, second, third = [await anext(messages) for _ in range(3)]
                assert subscriber.accept(first)
                assert subscriber.reject(second, "no good")
                assert subscriber.release(third)
                async with asyncio.timeout(5 * UNIT):
                    assert (await anext(messages)).data == {"number": 2}

    asyncio.run(scenario())


def test_what_was_published_is_replayed() -> None:
    async def scenario() -> None:
        async with Publisher(ADDRESS, journal=MemoryJournal()) as publisher:
            for number in range(5):
                await publisher.send(message(number))
            async with durable(publisher) as subscriber:
                assert [one.data["number"] async for one in subscriber.replay()] == [0, 1, 2, 3, 4]

    asyncio.run(scenario())


def test_hooks_are_called_while_others_are_waited_for() -> None:
    async def scenario() -> None:
        async with both() as (publisher, subscriber):
            heard: list[Message] = []
            subscriber.add_hook_sub(ADDRESS, "/other", heard.append)
            await publisher.send(Message("/other", "info"))
            await publisher.send(message(1))

            assert await numbers(subscriber, 1) == [1]
            async with asyncio.timeout(5 * UNIT):
                while not heard:
                    await anext(subscriber.recv(0.01))

    asyncio.run(scenario())


def test_a_hook_that_would_have_to_be_awaited_is_refused() -> None:
    async def hook(message: Message) -> None: ...

    async def scenario() -> None:
        async with both() as (_, subscriber):
            with pytest.raises(ConfigurationError, match="coroutine function"):
                subscriber.add_hook_sub(ADDRESS, "/other", hook)
            with pytest.raises(ConfigurationError, match="coroutine function"):
                subscriber.add_hook_pull("inproc://orders", hook)

    asyncio.run(scenario())


def test_a_constructor_that_fails_leaves_nothing() -> None:
    async def scenario() -> None:
        with pytest.raises(NotImplementedError):
            Subscriber([ADDRESS, 7], durable="archive")  # type: ignore[list-item]
        async with asyncio.timeout(5 * UNIT):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_start_under_way_is_ended_by_the_stop() -> None:
    async def scenario() -> None:
        subscriber = NSSubscriber("nobody", timeout=60)
        starting = asyncio.create_task(subscriber.start())
        async with asyncio.timeout(5 * UNIT):
            while subscriber._look_up_under_way is None:
                await asyncio.sleep(0)
            await subscriber.close()
            with pytest.raises(RequestTimeout):
                await starting

    asyncio.run(scenario())


def test_a_nameserver_that_does_not_answer_ends_the_start() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with Subscribe("nobody", timeout=0.01):
                pass

    asyncio.run(scenario())
