"""Other loops than the standard one, and groups of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from posttroll.asyncio import (
    ListenerContainer,
    Messenger,
    Publish,
    Publisher,
    RpcClient,
    RpcServer,
    Subscribe,
    Subscriber,
    get_pub_addresses,
)
from posttroll.asyncio.components import Component, Configuration, Runner, on
from posttroll.errors import TimedOut
from posttroll.message import Message
from tests.fixtures.waiting import UNIT


def note(number: int = 0) -> Message:
    return Message("/note", "info", {"number": number})


def address_of(publisher: Any) -> dict[str, str]:
    address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}"}
    if publisher.link_address is not None:
        address["link"] = f"tcp://127.0.0.1:{publisher.link_address.rpartition(':')[2]}"
    return address


async def count(number: int) -> AsyncIterator[int]:
    for each in range(number):
        yield each


class Worker(Component):
    @on("question")
    async def answer(self, message: Message) -> None:
        await self.messenger.reply(message, Message("/answer", "answer", 42))


async def publish_and_subscribe(_: Path) -> None:
    async with (
        Publish("viirs") as publisher,
        Subscribe("viirs", "/note", addr_listener=True, timeout=5 * UNIT) as subscriber,
        ListenerContainer("/note", services="viirs") as container,
    ):
        assert [entry["service"] for entry in await get_pub_addresses(["viirs"], 5 * UNIT)] == [["viirs"]]
        async with asyncio.timeout(5 * UNIT):
            while True:  # until both have come
                await publisher.send(note(1))
                if container.output_queue.qsize():
                    break
                await asyncio.sleep(0.01)
            assert (await anext(container)).data == (await anext(aiter(subscriber))).data == {"number": 1}


async def subscribe_durably(directory: Path) -> None:
    async with (
        Publisher("tcp://127.0.0.1:0", journal=directory) as publisher,
        Subscriber(address_of(publisher), durable="archive", start_at="first") as subscriber,
    ):
        for number in range(50):
            await publisher.send(note(number))
        messages = subscriber.recv(5 * UNIT)
        assert [(await anext(messages)).data["number"] for _ in range(50)] == list(range(50))
        async with aclosing(subscriber.replay()) as replayed:
            assert [message.data["number"] async for message in replayed] == list(range(50))


async def talk_and_call(directory: Path) -> None:
    async with (
        Messenger("alice", journal=directory) as alice,
        Messenger(nameservers=["localhost"], listen=False) as bob,
        RpcServer(alice) as server,
        RpcClient(bob, timeout=5 * UNIT) as client,
    ):
        tracker = await bob.put("alice", note(1))
        assert (await alice.get(5 * UNIT)).data == {"number": 1}
        await alice.accept()
        assert await tracker.wait(5 * UNIT) == "accepted"
        server.register_function(count, "count")
        server.register_function(str.upper, "upper")
        remote = client.proxy("alice")
        assert await remote.upper("text") == "TEXT"
        async with aclosing(remote.count.stream(10)) as values:
            assert [value async for value in values] == list(range(10))


async def run_a_component(_: Path) -> None:
    runner = Runner(Worker, Configuration(name="worker", nameservers=False, link_port=0))
    is_ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, Messenger(nameservers=False, listen=False) as asker:
        running = tasks.create_task(runner.run(is_ready.set))
        await is_ready.wait()
        await asker.put(runner.component.messenger.address, Message("/question", "question", "why"))
        assert (await asker.get(5 * UNIT)).data == 42
        await asker.accept()
        runner.stop()
    assert running.result() == "quit"


@pytest.mark.parametrize("talk", [publish_and_subscribe, subscribe_durably, talk_and_call, run_a_component])
@pytest.mark.usefixtures("nameserver")
def test_all_works_under_uvloop(talk: Callable[[Path], Any], tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(talk(tmp_path / "journal"), 20 * UNIT))


class SiblingError(Exception):
    """What another task of the group fails with."""


@pytest.mark.parametrize("durable", [None, "archive"])
def test_a_failing_sibling_ends_a_loop_over_messages(durable: str | None, tmp_path: Path) -> None:
    got: list[int] = []

    async def receive(subscriber: Subscriber) -> None:
        async for message in subscriber:
            got.append(message.data["number"])  # noqa: PERF401

    async def fail() -> None:
        while len(got) < 3:
            await asyncio.sleep(0.001)
        raise SiblingError

    async def receive_until_one_fails(subscriber: Subscriber) -> None:
        async with subscriber, asyncio.TaskGroup() as tasks:
            tasks.create_task(receive(subscriber))
            tasks.create_task(fail())

    async def main() -> None:
        async with Publisher("tcp://127.0.0.1:0", journal=tmp_path / "journal") as publisher:
            subscriber = Subscriber(address_of(publisher), durable=durable, start_at="first")
            assert durable or await publisher.wait_for_subscriber("", 5 * UNIT)
            for number in range(3):
                await publisher.send(note(number))
            with pytest.raises(ExceptionGroup) as raised:
                await receive_until_one_fails(subscriber)
            assert [type(error) for error in raised.value.exceptions] == [SiblingError]
            assert subscriber.running is False
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())

    assert got == [0, 1, 2]


def test_a_failing_sibling_ends_calls_and_messengers() -> None:
    is_cancelled: list[bool] = []

    async def wait_long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            is_cancelled.append(True)
            raise

    async def fail(server: RpcServer) -> None:
        while not server.active:
            await asyncio.sleep(0.001)
        raise SiblingError

    async def wait_until_one_fails(bob: Messenger, server: RpcServer, call: Coroutine[Any, Any, Any]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for waiting in (call, bob.get(60), bob.run(), fail(server)):
                tasks.create_task(waiting)

    async def main() -> None:
        async with (
            Messenger("alice", nameservers=False) as alice,
            Messenger("bob", nameservers=False, listen=False) as bob,
            RpcServer(alice) as server,
            RpcClient(bob, timeout=60) as client,
        ):
            server.register_function(wait_long, "wait_long")
            with pytest.raises(ExceptionGroup) as raised:
                await wait_until_one_fails(bob, server, client.proxy(alice.address).wait_long())
            assert [type(error) for error in raised.value.exceptions] == [SiblingError]
            async with asyncio.timeout(5 * UNIT):
                while server.active:
                    await asyncio.sleep(0.001)
            await alice.put("bob", note(1))
            assert (await bob.get(5 * UNIT)).data == {"number": 1}
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())

    assert is_cancelled == [True]


def test_a_timeout_of_the_loop_ends_a_wait_and_nothing_else() -> None:
    async def main() -> None:
        async with (
            Messenger("alice", nameservers=False) as alice,
            Publisher("tcp://127.0.0.1:0") as publisher,
            Subscriber(address_of(publisher)) as subscriber,
        ):
            messages = aiter(subscriber)
            for wait in (lambda: anext(messages), lambda: alice.get(60), lambda: alice.recv()):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await wait()
            with pytest.raises(TimedOut):
                await alice.recv(timeout=0.01)
            assert await publisher.wait_for_subscriber("", 5 * UNIT)
            await publisher.send(note(1))
            assert (await asyncio.wait_for(anext(messages), 5 * UNIT)).data == {"number": 1}

    asyncio.run(main())
