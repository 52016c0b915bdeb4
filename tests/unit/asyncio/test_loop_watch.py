"""Nothing keeps the loop for itself, or has it wait, for longer than 20 ms, however much there is to do.

What is measured is each step of the loop, that is, each callback that it calls and each piece of a task between two
awaits: the time that it took, but for that in which it waited for a core, which is what other programs took. So both
counts, what is calculated and what is waited for, a disk, a lock or a socket, but not how busy the machine is. A single
long step could still be the system's doing, such as a page that has to be read first, so that a load of which there is
one is tried again: what blocks by itself does so each time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from posttroll.asyncio import Messenger, Publisher, RpcClient, RpcServer, Subscriber
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from tests.fixtures.waiting import UNIT

LONGEST = 0.02
COUNT = 5000
ATTEMPTS = 3

Load = Callable[[Path], Awaitable[None]]


class Watch:
    """Notes the steps of a thread's loop that take too long."""

    def __init__(self) -> None:
        self.long_steps: list[str] = []
        self.count = 0
        self._thread = threading.get_ident()
        self._run = asyncio.Handle._run
        self._statistics = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def run(self, handle: asyncio.Handle) -> None:
        """Do what `asyncio.Handle._run` does."""
        if threading.get_ident() != self._thread:
            self._run(handle)
            return
        what = repr(handle)[:300]
        began, waited = time.monotonic(), self._waited_for_a_core()
        self._run(handle)
        took = time.monotonic() - began
        self.count += 1
        if took > LONGEST and (own := took - (self._waited_for_a_core() - waited)) > LONGEST:
            self.long_steps.append(f"{own * 1000:.0f} ms: {what}")

    def _waited_for_a_core(self) -> float:
        return int(os.pread(self._statistics, 100, 0).split()[1]) / 1e9

    def close(self) -> None:
        os.close(self._statistics)


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch the loops of this thread; what was there before is no work for the collector of garbage."""
    gc.collect()
    gc.freeze()
    watch = Watch()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", lambda handle: watch.run(handle))
        yield watch
    watch.close()
    gc.unfreeze()


def note(number: int) -> Message:
    return Message("/note", "info", {"number": number})


def address_of(publisher: Publisher) -> dict[str, str]:
    address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}"}
    if publisher.link_address is not None:
        address["link"] = f"tcp://127.0.0.1:{publisher.link_address.rpartition(':')[2]}"
    return address


async def through_publisher_and_subscriber(_: Path) -> None:
    async with (
        Publisher("tcp://127.0.0.1:0", "test", when_full="block") as publisher,
        Subscriber(address_of(publisher), "/note") as subscriber,
    ):
        assert await publisher.wait_for_subscriber("/note", 5 * UNIT)
        await in_one_loop(publisher.send, subscriber)


async def through_a_journal(_: Path) -> None:
    await durably(MemoryJournal(), COUNT)


async def through_a_journal_on_disk(directory: Path) -> None:
    await durably(directory / "journal", COUNT // 5)


class SlowJournal(MemoryJournal):
    """A journal on a disk that takes its time."""

    def append(self, *arguments: Any, **named: Any) -> int:
        return _slowly(super().append, *arguments, **named)

    def open_source(self, *arguments: Any, **named: Any) -> Any:
        return _slowly(super().open_source, *arguments, **named)

    def commit(self) -> None:
        _slowly(super().commit)

    def expire(self, *arguments: Any) -> Any:
        return _slowly(super().expire, *arguments)

    def close(self) -> None:
        _slowly(super().close)


def _slowly(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    threading.Event().wait(2 * LONGEST)
    return function(*arguments, **named)


async def through_a_journal_on_a_slow_disk(_: Path) -> None:
    await durably(SlowJournal(), 10)


async def durably(journal: Any, count: int) -> None:
    async with (
        Publisher("tcp://127.0.0.1:0", "test", journal=journal) as publisher,
        Subscriber(address_of(publisher), "/note", durable="archive", start_at="first") as subscriber,
    ):
        await in_one_loop(publisher.send, subscriber, count)
        await publisher.heartbeat()
        async with aclosing(subscriber.replay()) as messages:
            assert (await anext(messages)).data == {"number": 0}


async def through_messengers(_: Path) -> None:
    async with Messenger("alice", nameservers=False) as alice, Messenger(nameservers=False, listen=False) as bob:
        await bob.connect(alice.address)
        await in_one_loop(lambda message: bob.put("alice", message), alice)
        await alice.accept()
        assert await bob.send(timeout=20 * UNIT) == COUNT


async def through_messengers_with_a_journal(directory: Path) -> None:
    options = {"nameservers": False, "journal": directory}
    async with Messenger("alice", **options) as alice, Messenger("bob", listen=False, **options) as bob:
        await bob.connect(alice.address)
        await in_one_loop(lambda message: bob.put("alice", message, persistent=True), alice, COUNT // 5)


async def through_calls(_: Path) -> None:
    async def increase(number: int) -> int:
        return number + 1

    async def call_many(first: int) -> None:
        for number in range(first, COUNT // 5, 10):
            assert await remote.increase(number) == number + 1

    async with (
        Messenger("alice", nameservers=False) as alice,
        Messenger(nameservers=False, listen=False) as bob,
        RpcServer(alice) as server,
        RpcClient(bob, timeout=20 * UNIT) as client,
    ):
        server.register_function(increase, "increase")
        remote = client.proxy(alice.address)
        async with asyncio.TaskGroup() as tasks:
            for first in range(10):
                tasks.create_task(call_many(first))


async def in_one_loop(send: Callable[[Message], Awaitable[Any]], messages: Any, count: int = COUNT) -> None:
    """Send so many and receive them, each in a task."""

    async def send_all() -> None:
        for number in range(count):
            await send(note(number))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_all())
        async for message in messages:
            if message.data["number"] == count - 1:
                break


@pytest.mark.parametrize(
    "load",
    [
        through_publisher_and_subscriber,
        through_a_journal,
        through_a_journal_on_disk,
        through_a_journal_on_a_slow_disk,
        through_messengers,
        through_messengers_with_a_journal,
        through_calls,
    ],
)
def test_nothing_keeps_the_loop_from_the_others(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for attempt in range(ATTEMPTS):
        with watching(monkeypatch) as watch:
            asyncio.run(asyncio.wait_for(load(tmp_path / str(attempt)), 30 * UNIT))
        assert watch.count > 10
        if not watch.long_steps:
            return
    pytest.fail(f"steps of {watch.count} that took too long: {watch.long_steps}")


def test_a_step_that_waits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        threading.Event().wait(2 * LONGEST)

    with watching(monkeypatch) as watch:
        asyncio.run(wait())

    assert len(watch.long_steps) == 1


def test_a_step_that_calculates_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def calculate() -> None:
        end = time.thread_time() + 2 * LONGEST
        while time.thread_time() < end:
            pass

    with watching(monkeypatch) as watch:
        asyncio.run(calculate())

    assert len(watch.long_steps) == 1
