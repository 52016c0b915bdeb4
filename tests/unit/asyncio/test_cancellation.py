"""Each coroutine of the package is cancelled wherever it waits: nothing is lost, left over or broken by that.

A scenario is a small conversation. It is repeated with one of its coroutines cancelled at its first step, at its second
and so on; what was cancelled is called again, and the conversation has to go on as if nothing had been.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

import posttroll.asyncio
from posttroll.asyncio import (
    Listener,
    ListenerContainer,
    Messenger,
    NoisyPublisher,
    NSSubscriber,
    Publish,
    Publisher,
    RpcClient,
    RpcServer,
    Subscribe,
    Subscriber,
    create_subscriber_from_dict_config,
    current_call,
    get_own_ip,
    get_pub_address,
    get_pub_addresses,
)
from posttroll.asyncio.components import Component, Configuration, Runner, on
from posttroll.asyncio.lookup import NameserverClient
from posttroll.asyncio.rpc import CallCancelled
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from posttroll.settings import config
from tests.fixtures.cancelling import Canceller, each_cancellation
from tests.fixtures.hostile import Footprint
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

Scenario = Callable[[Canceller], Awaitable[None]]

PARTS = (
    "address_listener",
    "components.openings",
    "components.orders",
    "components.outlet",
    "components.pool",
    "components.threads",
    "components.work",
    "driving",
    "durable",
    "message_broadcaster",
    "messenger.events",
    "messenger.peer_finder",
    "news",
    "readiness",
    "requests",
    "rpc.errands",
    "side_thread",
    "stoppable",
    "tasks",
    "turns",
)
"""The modules that are no programs' business: what they have is awaited by what others offer."""

SPECIAL = ("__aenter__", "__aexit__", "__anext__", "__await__", "__call__")

SCENARIOS: dict[str, list[Scenario]] = {}
"""The scenarios in which a coroutine is called, by its name."""


def cancels(*names: str) -> Callable[[Scenario], Scenario]:
    """Tell which coroutines are called in a scenario."""

    def add(scenario: Scenario) -> Scenario:
        for name in names:
            SCENARIOS.setdefault(name, []).append(scenario)
        return scenario

    return add


def methods(kind: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{kind}.{name}" for name in names)


LIFE = ("start", "stop", "close", "__aenter__", "__aexit__")
ENDS = (("stop",), ("close",), ("__aexit__", None, None, None))


async def live(call: Canceller, kind: str, make: Callable[[], Any], *, names: tuple[str, ...] = LIFE) -> None:
    """Start and stop something in every way that it has; who was stopped is closed though that was cancelled."""
    thing = make()
    await call(f"{kind}.start", thing.start)
    await call(f"{kind}.stop", thing.stop)
    await call(f"{kind}.stop", thing.stop)
    await call(f"{kind}.__aenter__", thing.__aenter__)
    await call(f"{kind}.__aexit__", thing.__aexit__, ZeroDivisionError, ZeroDivisionError(), None)
    for end, *error in ENDS:
        if end in names:
            thing = make()
            await thing.start()
            await call.once(f"{kind}.{end}", getattr(thing, end), *error)


def note(number: int = 0, subject: str = "/note") -> Message:
    return Message(subject, "info", {"number": number})


async def numbers(call: Canceller, name: str, messages: AsyncIterator[Message], count: int) -> list[int]:
    """Return what is in the next messages, each of which is asked for by a call of that name."""
    return [(await call(name, messages.__anext__)).data["number"] for _ in range(count)]


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5 * UNIT):
        while not is_so():
            await asyncio.sleep(0.002)


def address_of(publisher: Any) -> dict[str, str]:
    address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}"}
    if publisher.link_address is not None:
        address["link"] = f"tcp://127.0.0.1:{publisher.link_address.rpartition(':')[2]}"
    return address


def silent(**options: Any) -> Publisher:
    return Publisher("tcp://127.0.0.1:0", "test", **options)


@cancels(*methods("Publisher", *LIFE))
async def a_publisher_lives(call: Canceller) -> None:
    await live(call, "Publisher", silent)


@cancels(*methods("Publisher", *LIFE))
async def a_durable_publisher_lives(call: Canceller) -> None:
    await live(call, "Publisher", lambda: silent(journal=MemoryJournal()))


@cancels(*methods("NoisyPublisher", *LIFE))
async def a_noisy_publisher_lives(call: Canceller) -> None:
    await live(call, "NoisyPublisher", lambda: NoisyPublisher("test", nameservers="localhost"))


@cancels("Publish.__aenter__", "Publish.__aexit__")
async def a_publisher_lives_for_a_block(call: Canceller) -> None:
    for arguments in ({}, {"nameservers": False, "address": "tcp://127.0.0.1:0", "journal": MemoryJournal()}):
        publish = Publish("test", **{"nameservers": "localhost", **arguments})
        await call("Publish.__aenter__", publish.__aenter__)
        await call("Publish.__aexit__", publish.__aexit__, None, None, None)


@cancels("get_own_ip")
async def the_address_of_this_host_is_guessed(call: Canceller) -> None:
    assert await call("get_own_ip", get_own_ip)


SENDING = ("send", "send_string", "wait_for_subscriber", "heartbeat")


async def speak(call: Canceller, kind: str, publisher: Any) -> None:
    """Send in every way; what was cancelled is sent again, and may be there twice, but never in part or out of turn."""
    async with Subscriber(address_of(publisher), ["/note", "/heartbeat"]) as subscriber:
        assert await call(f"{kind}.wait_for_subscriber", publisher.wait_for_subscriber, "/note", 5 * UNIT)
        for number in range(4):
            await call(f"{kind}.send", publisher.send, note(number))
        for number in range(4, 8):
            await call(f"{kind}.send_string", publisher.send_string, str(note(number)))
        await call(f"{kind}.heartbeat", publisher.heartbeat)
        await publisher.send(note(8))
        arrived = []
        async for message in subscriber:
            if message.type != "beat":
                arrived.append(message.data["number"])
            if arrived[-1:] == [8]:
                break
    assert arrived == sorted(arrived)
    assert set(arrived) == set(range(9))
    assert len(arrived) <= 10


@cancels(*methods("Publisher", *SENDING))
async def a_publisher_sends(call: Canceller) -> None:
    async with silent() as publisher:
        await speak(call, "Publisher", publisher)


@cancels(*methods("Publisher", *SENDING))
async def a_durable_publisher_sends(call: Canceller) -> None:
    async with silent(journal=MemoryJournal()) as publisher:
        await speak(call, "Publisher", publisher)


@cancels(*methods("NoisyPublisher", *SENDING))
async def a_noisy_publisher_sends(call: Canceller) -> None:
    async with NoisyPublisher("test", nameservers="localhost") as publisher:
        await speak(call, "NoisyPublisher", publisher)


@cancels("Publisher.send", "Messages.__anext__")
async def a_publisher_waits_for_a_slow_subscriber(call: Canceller) -> None:
    async def send_all() -> None:
        for number in range(60):
            message.data["number"] = number
            await call("Publisher.send", publisher.send, message)

    message = Message("/note", "info", {"number": 0, "weight": "x" * 100_000})
    async with AsyncExitStack() as ends:
        with config.set(send_high_water_mark=5, receive_high_water_mark=5):
            publisher = await ends.enter_async_context(silent(when_full="block"))
            subscriber = await ends.enter_async_context(Subscriber(address_of(publisher), "/note"))
        tasks = await ends.enter_async_context(asyncio.TaskGroup())
        assert await publisher.wait_for_subscriber("/note", 5 * UNIT)
        tasks.create_task(send_all())
        messages, arrived = subscriber.recv(), []
        while arrived[-1:] != [59]:
            arrived += await numbers(call, "Messages.__anext__", messages, 1)
    assert arrived == sorted(arrived)
    assert set(arrived) == set(range(60))


@cancels("Messages.__anext__", "Messages.aclose", *methods("Subscriber", "stop", "close", "__aenter__", "__aexit__"))
async def a_subscriber_receives(call: Canceller) -> None:
    async with silent() as publisher:
        for end, *error in ENDS:
            subscriber = Subscriber(address_of(publisher), "/note")
            await call("Subscriber.__aenter__", subscriber.__aenter__)
            assert await publisher.wait_for_subscriber("/note", 5 * UNIT)
            sending = asyncio.create_task(send_slowly(publisher, 6))
            messages = subscriber.recv(UNIT)
            assert await numbers(call, "Messages.__anext__", messages, 6) == list(range(6))
            await sending
            await call("Messages.aclose", messages.aclose)
            await call.once(f"Subscriber.{end}", getattr(subscriber, end), *error)
            assert [message async for message in subscriber] == []
            while await publisher.wait_for_subscriber("/note", 0):
                await asyncio.sleep(0.001)


async def send_slowly(publisher: Any, count: int) -> None:
    """Send some messages together, and others one by one."""
    for number in range(count):
        if number > count / 2:
            await asyncio.sleep(0.001)
        await publisher.send(note(number))


@cancels("Messages.__anext__", "Messages.aclose", *methods("Subscriber", "stop", "close", "__aexit__"))
async def a_durable_subscriber_receives(call: Canceller) -> None:
    async with silent(journal=MemoryJournal()) as publisher:
        for count, (end, *error) in enumerate(ENDS):
            subscriber = Subscriber(address_of(publisher), "/note", durable="archive", start_at="first")
            sending = asyncio.create_task(send_slowly(publisher, 6))
            messages = subscriber.recv(5 * UNIT)
            assert await numbers(call, "Messages.__anext__", messages, 6) == list(range(6))
            await sending
            await call("Messages.aclose", messages.aclose)
            messages = subscriber.recv(5 * UNIT)
            again = await anext(messages)  # as no further one was asked for
            assert (again.data["number"], again.delivery.count) == (5, 2)
            subscriber.accept(again)
            await call.once(f"Subscriber.{end}", getattr(subscriber, end), *error)
            await until(lambda: [consumer.pending for consumer in publisher.journal.consumers()] == [0])
            assert publisher.journal.last == 6 * (count + 1)


@cancels("Subscriber.replay")
async def a_subscriber_has_a_replay(call: Canceller) -> None:
    async def replay() -> list[int]:
        async with aclosing(subscriber.replay(timeout=5 * UNIT)) as messages:
            return [message.data["number"] async for message in messages]

    async with silent(journal=MemoryJournal()) as publisher, Subscriber(address_of(publisher)) as subscriber:
        for number in range(5):
            await publisher.send(note(number))

        assert await call("Subscriber.replay", replay) == list(range(5))


@cancels(
    *methods("NSSubscriber", *LIFE),
    "Subscribe.__aenter__",
    "Subscribe.__aexit__",
    "create_subscriber_from_dict_config",
    "get_pub_address",
    "get_pub_addresses",
    "NameserverClient.ask",
)
async def a_publisher_is_looked_for(call: Canceller) -> None:
    def is_it(entries: Collection[dict[str, Any]]) -> bool:
        return [entry["URI"] for entry in entries] == [f"tcp://127.0.0.1:{publisher.port_number}"]

    async with NoisyPublisher("test", nameservers="localhost", broadcast_interval=0.1) as publisher:
        assert is_it(await call("get_pub_addresses", get_pub_addresses, ["test"], 5 * UNIT))
        assert is_it(await call("get_pub_address", get_pub_address, "test", 5 * UNIT))
        with closing(NameserverClient()) as client:
            assert is_it(await call("NameserverClient.ask", client.ask, "test", 5 * UNIT))

        for has_listener in (False, True):
            options = {"addr_listener": has_listener, "timeout": 5 * UNIT}
            await live(call, "NSSubscriber", functools.partial(NSSubscriber, "test", **options))
            async with NSSubscriber("test", **options) as subscriber:
                assert is_it(subscriber.addresses)
            subscribe = Subscribe("test", **options)
            await call("Subscribe.__aenter__", subscribe.__aenter__)
            await call("Subscribe.__aexit__", subscribe.__aexit__, None, None, None)
            settings = {"services": "test", **options}
            name = "create_subscriber_from_dict_config"
            await (await call(name, create_subscriber_from_dict_config, settings)).stop()


@cancels(
    *methods("ListenerContainer", *LIFE, "restart_listener", "__anext__"),
)
async def a_container_listens(call: Canceller) -> None:
    async with silent(journal=MemoryJournal()) as publisher:
        options = {"nameserver": False, "durable": "archive", "start_at": "first"}
        make = functools.partial(ListenerContainer, "/note", [address_of(publisher)], **options)
        await live(call, "ListenerContainer", make)
        container = make()
        await container.start()
        await call("ListenerContainer.restart_listener", container.restart_listener, "/note")
        sending = asyncio.create_task(send_slowly(publisher, 10))
        arrived = await numbers(call, "ListenerContainer.__anext__", container, 10)
        await sending
        await container.stop()
        assert sorted(set(arrived)) == list(range(10))


@cancels(*methods("Listener", "create_subscriber", "run", "add_to_queue", "stop"))
async def a_listener_runs(call: Canceller) -> None:
    async def run() -> None:
        if not is_over:
            await listener.run()

    is_over = False
    async with silent(journal=MemoryJournal()) as publisher:
        options = {"nameserver": False, "durable": "archive", "start_at": "first"}
        queue: asyncio.Queue[Message] = asyncio.Queue(2)
        listener = Listener("/note", queue, [address_of(publisher)], **options)
        await call("Listener.create_subscriber", listener.create_subscriber)
        running = asyncio.create_task(call("Listener.run", run))
        sending = asyncio.create_task(send_slowly(publisher, 6))
        arrived: list[int] = []
        while set(arrived) != set(range(6)):
            arrived.append((await asyncio.wait_for(queue.get(), 5 * UNIT)).data["number"])
        await sending
        is_over = True
        await call("Listener.stop", listener.stop)
        await running
        await call("Listener.add_to_queue", listener.add_to_queue, note(7))


@cancels(*methods("Messenger", *LIFE))
async def a_messenger_lives(call: Canceller) -> None:
    await live(call, "Messenger", lambda: Messenger("alice", nameservers=False))


@cancels(*methods("Messenger", *LIFE))
async def a_messenger_with_a_journal_lives(call: Canceller, directory: Path) -> None:
    numbers = itertools.count()
    options = {"nameservers": False}
    await live(call, "Messenger", lambda: Messenger("alice", journal=directory / str(next(numbers)), **options))


@cancels(*methods("Messenger", *LIFE))
async def a_messenger_that_is_announced_lives(call: Canceller) -> None:
    await live(call, "Messenger", lambda: Messenger("alice", nameservers="localhost"))


@asynccontextmanager
async def messengers(directory: Path | None = None) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """Give two that are connected."""
    options = {} if directory is None else {"journal": directory}
    async with (
        Messenger("alice", nameservers=False, **options) as alice,
        Messenger("bob", nameservers=False, listen=False, **options) as bob,
    ):
        await bob.connect(alice.address)
        await until(lambda: "bob" in alice.peers and "alice" in bob.peers)
        yield alice, bob


async def talk(call: Canceller, alice: Messenger, bob: Messenger) -> None:
    """Send, get and settle in every way; what was cancelled is done again, and may be there twice."""
    trackers = [await call("Messenger.put", bob.put, "alice", note(number)) for number in range(4)]
    await bob.put("alice", note(4))
    arrived = [(await call("Messenger.get", alice.get, 5 * UNIT)).data["number"] for _ in range(2)]
    arrived += await numbers(call, "Messenger.__anext__", alice, 1)
    await call("Messenger.recv", alice.recv, -1, 5 * UNIT)
    while arrived[-1] != 4:
        message = await alice.get(5 * UNIT)
        arrived.append(message.data["number"])
        await call("Messenger.accept", alice.accept, message)
    assert sorted(set(arrived)) == list(range(5))
    await call("Messenger.send", bob.send, -1, 5 * UNIT)
    assert await call("Tracker.wait", trackers[0].wait, 5 * UNIT) == "accepted"
    assert await call("Tracker.__await__", itself, trackers[1]) == "accepted"

    waiting = await bob.put("alice", note(5))
    settled = asyncio.create_task(call("Tracker.wait", waiting.wait, 5 * UNIT))
    awaited = asyncio.create_task(call("Tracker.__await__", itself, waiting))
    message = await alice.get(5 * UNIT)
    await call("Messenger.release", alice.release, message)
    message = await alice.get(5 * UNIT)
    assert message.data["number"] == 5
    await call("Messenger.reply", alice.reply, message, note(6))
    assert (await bob.get(5 * UNIT)).data["number"] == 6
    await call("Messenger.reject", alice.reject, message)
    assert (await settled, await awaited) == ("rejected", "rejected")
    lonely = await bob.put("nobody", note())
    await call("Tracker.cancel", lonely.cancel)
    assert lonely.state == "released"


TALKING = (
    *methods("Messenger", "put", "get", "__anext__", "recv", "accept", "send", "release", "reply", "reject"),
    *methods("Tracker", "wait", "__await__", "cancel"),
)


@cancels(*TALKING)
async def messengers_talk(call: Canceller) -> None:
    async with messengers() as ends:
        await talk(call, *ends)


@cancels(*TALKING)
async def messengers_with_a_journal_talk(call: Canceller, directory: Path) -> None:
    async with messengers(directory) as ends:
        await talk(call, *ends)


@cancels(*methods("Messenger", "work", "run", "connect", "disconnect"))
async def a_messenger_calls_back(call: Canceller) -> None:
    called: list[int] = []
    async with messengers() as (alice, bob):
        alice.on_message(lambda message: called.append(message.data["number"]))
        for number in range(2):
            await bob.put("alice", note(number))
            await call("Messenger.work", alice.work, 5 * UNIT)
        await until(lambda: called == [0, 1])
        running = asyncio.create_task(call("Messenger.run", alice.run))
        for number in range(2, 5):
            await bob.put("alice", note(number))
        await until(lambda: set(called) == set(range(5)))
        await call("Messenger.disconnect", bob.disconnect, alice.address)
        await call("Messenger.connect", bob.connect, alice.address)
        await bob.put("alice", note(5))
        await until(lambda: called[-1] == 5)
        await alice.stop()
        await running


@cancels("Messenger.run")
async def a_callback_is_cancelled_with_its_message(call: Canceller) -> None:
    """A message whose callback was cancelled comes again."""
    done: list[int] = []

    async def handle(message: Message) -> None:
        await asyncio.sleep(0.001)
        done.append(message.data["number"])

    async with messengers() as (alice, bob):
        alice.on_message(handle)
        running = asyncio.create_task(call("Messenger.run", alice.run))
        for number in range(3):
            await bob.put("alice", note(number))
        assert await bob.send(timeout=5 * UNIT) == 3
        assert set(done) == set(range(3))
        await alice.stop()
        await running


@cancels(*methods("Target", "accept", "reject", "release"))
async def a_target_settles(call: Canceller) -> None:
    async with messengers() as (alice, bob):
        arrived = asyncio.Event()
        target = alice.open_target("orders", arrived.set)
        trackers = [await bob.put("alice", note(number), target="orders") for number in range(3)]
        await until(lambda: arrived.is_set() and bob.outgoing == 0)
        for settle, tracker in zip(("accept", "reject"), trackers, strict=False):
            message = await next_taken(target)
            await call(f"Target.{settle}", getattr(target, settle), message)
            assert await tracker.wait(5 * UNIT) == {"accept": "accepted", "reject": "rejected"}[settle]
        await call("Target.release", target.release, await next_taken(target))
        await target.accept(await next_taken(target))
        assert await trackers[2].wait(5 * UNIT) == "accepted"


async def next_taken(target: Any) -> Message:
    taken: list[Message] = []
    await until(lambda: (message := target.take()) is not None and taken.append(message) is None)
    return taken[0]


class Areas:
    """What is called; `call` is how it calls itself."""

    def __init__(self, call: Canceller) -> None:
        self._call = call
        self.seen: list[Any] = []
        self.may_end = asyncio.Event()

    async def echo(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    async def count(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            await asyncio.sleep(0)
            yield each

    async def wait(self) -> str:
        self.seen.append("wait")
        await self.may_end.wait()
        return "done"

    async def tell(self) -> str:
        context = current_call()
        for each in range(3):
            await self._call("CallContext.progress", context.progress, each)
        assert not await self._call("CallContext.wait", context.wait, 0.01)
        return "told"


@asynccontextmanager
async def calling(call: Canceller) -> AsyncIterator[tuple[Areas, RpcServer, Any]]:
    async with messengers() as (alice, bob), RpcServer(alice) as server:
        areas = Areas(call)
        for name in ("echo", "count", "wait", "tell"):
            server.register_function(getattr(areas, name), name)
        async with RpcClient(bob, timeout=5 * UNIT) as client:
            yield areas, server, client.proxy("alice")
        await until(lambda: server.active == 0)


@cancels(*methods("RemoteMethod", "__call__", "signal", "start", "stream"))
async def methods_are_called(call: Canceller) -> None:
    async def stream() -> list[int]:
        async with aclosing(remote.count.stream(5)) as values:
            return [value async for value in values]

    async with calling(call) as (areas, _, remote):
        for number in range(3):
            assert await call("RemoteMethod.__call__", remote.echo, number) == number
        assert await (await call("RemoteMethod.start", remote.echo.start, 3)) == 3
        await call("RemoteMethod.signal", remote.echo.signal, 4)
        await until(lambda: 4 in areas.seen)
        assert await call("RemoteMethod.stream", stream) == list(range(5))
        assert await remote.echo(5) == 5


def itself(thing: Awaitable[Any]) -> Awaitable[Any]:
    return thing


@cancels(*methods("Call", "__await__", "result", "progress"))
async def a_call_is_awaited(call: Canceller) -> None:
    async def follow() -> None:
        async with aclosing(counting.progress()) as values:
            async for value in values:
                got.append(value)  # noqa: PERF401

    async with calling(call) as (areas, server, remote):
        for name in ("Call.__await__", "Call.result"):
            pending = await remote.wait.start()
            await until(lambda: "wait" in areas.seen)
            ending = asyncio.get_running_loop().call_later(0.002, areas.may_end.set)
            had_cancelled = call.has_cancelled
            try:
                result = await call(name, *([itself, pending] if "await" in name else [pending.result]))
            except CallCancelled:
                result = "cancelled"
            if not call.is_late:  # else its result was there already
                assert result == ("cancelled" if call.has_cancelled > had_cancelled else "done")
            ending.cancel()
            await until(lambda: server.active == 0)
            areas.seen.clear()
            areas.may_end.clear()
        got: list[int] = []
        counting = await remote.count.start(6)
        await call("Call.progress", follow)
        assert got == list(range(6))
        await counting.result()


@cancels("CallContext.progress", "CallContext.wait")
async def a_handler_tells_of_its_progress(call: Canceller) -> None:
    async with calling(call) as (_, _, remote):
        assert await remote.tell() == "told"
        told = await remote.tell.start()
        assert [value async for value in told.progress()][-1:] == [2]
        assert await told == "told"


@cancels(
    *methods("RpcServer", "start", "stop", "__aenter__", "__aexit__"),
    *methods("RpcClient", "stop", "__aenter__", "__aexit__"),
)
async def both_ends_of_calls_live(call: Canceller) -> None:
    async with messengers() as (alice, bob):
        server, client = RpcServer(alice), RpcClient(bob, timeout=5 * UNIT)
        areas = Areas(call)
        server.register_function(areas.wait, "wait")
        await live(call, "RpcServer", lambda: server, names=("stop", "__aexit__"))
        await server.start()
        await call("RpcClient.__aenter__", client.__aenter__)
        pending = await client.proxy("alice").wait.start()
        await until(lambda: areas.seen)
        await call("RpcClient.__aexit__", client.__aexit__, None, None, None)
        await call("RpcClient.stop", client.stop)
        with pytest.raises(CallCancelled):
            await pending
        await call("RpcServer.stop", server.stop)
        assert server.active == 0


class Worker(Component):
    """Ends itself after three messages."""

    def __init__(self) -> None:
        self.done: list[int] = []

    @on("info", "/note")
    async def work(self, data: Any) -> None:
        await asyncio.sleep(0)
        self.done.append(data["number"])


@cancels("Runner.run")
async def a_component_runs(call: Canceller) -> None:
    """A component runs once, so each time it is a new one."""

    async def run() -> Any:
        runner = Runner(Worker, Configuration(name="worker", nameservers=False, link_port=0))
        return await runner.run(runner.stop)

    assert await call("Runner.run", run) == "quit"


NAMES = sorted(SCENARIOS)


@pytest.fixture(scope="module", autouse=True)
def nothing_of_before() -> None:
    gc.collect()


@pytest.fixture
def nameserver_for(network: Network) -> Iterator[None]:
    with running_nameserver(multicast_enabled=False):
        yield


async def conversation(scenario: Scenario, canceller: Canceller, *arguments: Any) -> None:
    """Run a scenario; no task may be left over, and the loop may have nothing to complain of."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(20 * UNIT):
        await scenario(canceller, *arguments)
    with suppress(TimeoutError):
        await until(lambda: len(asyncio.all_tasks()) == 1)
    assert len(asyncio.all_tasks()) == 1, f"{canceller}: tasks are left over: {asyncio.all_tasks()}"
    gc.collect(0)
    assert not complaints, f"{canceller}: the loop complains: {complaints}"


@pytest.mark.parametrize(
    ("name", "scenario"),
    [pytest.param(name, one, id=f"{name}-{one.__name__}") for name in NAMES for one in SCENARIOS[name]],
)
@pytest.mark.usefixtures("nameserver_for")
def test_a_coroutine_can_be_cancelled_wherever_it_waits(name: str, scenario: Scenario, tmp_path: Path) -> None:
    before: Footprint | None = None
    for number, canceller in enumerate(each_cancellation(name)):
        directory = [tmp_path / str(number)] if "directory" in inspect.signature(scenario).parameters else []
        try:
            asyncio.run(conversation(scenario, canceller, *directory))
        except BaseException as error:
            error.add_note(repr(canceller))
            raise
        assert name in canceller.seen
        before = before or Footprint.of()
    assert before is not None
    gc.collect()
    eventually(lambda: Footprint.of().descriptors <= before.descriptors)
    eventually(lambda: Footprint.of().threads <= before.threads)


def coroutines() -> Iterator[str]:
    """Yield the names of all coroutines that programs can call."""
    for info in pkgutil.walk_packages(posttroll.asyncio.__path__, "posttroll.asyncio."):
        if info.name.removeprefix("posttroll.asyncio.") in PARTS:
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if getattr(thing, "__module__", None) != info.name:
                continue
            if _is_awaited(thing):
                yield name
            elif inspect.isclass(thing):
                yield from (
                    f"{name}.{each}"
                    for each, function in inspect.getmembers(thing)
                    if (not each.startswith("_") or each in SPECIAL) and (_is_awaited(function) or each == "__await__")
                )


def _is_awaited(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def test_each_coroutine_is_cancelled_somewhere() -> None:
    assert set(coroutines()) - SCENARIOS.keys() == {"Feed.receive", "Feed.wait"}  # parts of looking for a publisher
    assert SCENARIOS.keys() - set(coroutines()) == set()
