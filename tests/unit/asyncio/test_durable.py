"""Durable publishing and subscribing in a loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from posttroll import durable
from posttroll.asyncio.durable import Inbox, Outbox, open_outbox, replay
from posttroll.backends import memory
from posttroll.backends.base import Backend, Peer
from posttroll.backends.registry import find_backend
from posttroll.errors import ConfigurationError, JournalError, TimedOut
from posttroll.journal import Journal, MemoryJournal, journal_opener
from posttroll.protocol.link import Delivery
from posttroll.settings import Ports
from tests.fixtures.waiting import UNIT

LOOPBACK = "tcp://127.0.0.1:0"
COUNT = 1000


@pytest.fixture(params=["memory", "unsecure_zmq"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Return one backend after the other."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    return find_backend(request.param)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Return the backend that needs no sockets."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    return memory.backend


def frame(number: int) -> bytes:
    return f"pytroll://1b info me@here 2026-01-01T00:00:00 v1.01 text/ascii {number}".encode()


def number_in(delivery: Delivery) -> int:
    return int(delivery.payload.rpartition(b" ")[2])


def publish_nowhere(frame: bytes) -> bool:
    return True


def publish_wrongly(frame: bytes) -> bool:
    pytest.fail(f"{frame!r} was published")


def link_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("posttroll-link-")]


@asynccontextmanager
async def outbox(backend: Backend, open_journal: Callable[[], Journal] = MemoryJournal) -> AsyncIterator[Outbox]:
    """Give an outbox, which is stopped at the end."""
    opened = await open_outbox(open_journal, backend, LOOPBACK, Ports.read(), 0, "viirs", lambda *_: None, 10)
    try:
        yield opened
    finally:
        await opened.stop()


class Reader:
    """Has an inbox, and waits for what it gets."""

    def __init__(self, backend: Backend, consumer: str = "archive") -> None:
        self._backend = backend
        self._news = asyncio.Event()
        self.inbox = Inbox(backend, consumer, [], self._news.set, "first")

    def connect(self, sender: Outbox | durable.Outbox) -> None:
        """Attach to a journal."""
        self.inbox.connect(Peer(sender.address, self._backend.name), sender.journal.identity)

    async def take(self) -> Delivery:
        """Return the next delivery."""
        async with asyncio.timeout(10 * UNIT):
            while (delivery := self.inbox.take()) is None:
                self._news.clear()
                await self._news.wait()
        return delivery

    async def read(self, count: int) -> list[int]:
        """Accept so many deliveries; return their numbers."""
        numbers = []
        for _ in range(count):
            delivery = await self.take()
            numbers.append(number_in(delivery))
            assert self.inbox.settle(delivery, "accepted")
        return numbers

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.inbox.stop()


async def until_settled(sender: Outbox | durable.Outbox) -> None:
    """Wait until nothing is pending."""
    async with asyncio.timeout(10 * UNIT):
        while any(consumer.pending for consumer in sender.journal.consumers()):
            await asyncio.sleep(0.005)


def test_what_is_sent_arrives_once_and_in_order_without_a_thread_of_the_consumer(
    backend: Backend, tmp_path: Path
) -> None:
    published: list[bytes] = []

    def publish(sent: bytes) -> bool:
        published.append(sent)
        return True

    async def main() -> None:
        opener = journal_opener(tmp_path / "viirs.journal", "viirs")
        async with outbox(backend, opener) as sender, Reader(backend) as reader:
            reader.connect(sender)
            sending = asyncio.gather(*(sender.send(frame(number), None, publish) for number in range(COUNT)))
            numbers = await reader.read(COUNT)
            assert link_threads() == ["posttroll-link-viirs"]
            assert await sending == [True] * COUNT
            await until_settled(sender)
        assert numbers == [*range(COUNT)]
        assert published == [*map(frame, range(COUNT))]

    asyncio.run(main())
    assert not link_threads()


def test_a_blocking_consumer_gets_what_a_loop_sends(bus: Backend) -> None:
    numbers: list[int] = []

    async def main() -> None:
        async with outbox(bus) as sender:
            news = asyncio.Event()
            loop = asyncio.get_running_loop()

            def take_all() -> None:
                while (delivery := inbox.take()) is not None:
                    numbers.append(number_in(delivery))
                    inbox.settle(delivery, "accepted")
                if len(numbers) == COUNT:
                    loop.call_soon_threadsafe(news.set)

            inbox = durable.Inbox(bus, "archive", [], take_all, "first")
            with contextlib.closing(_Stopped(inbox)):
                inbox.connect(Peer(sender.address, bus.name), sender.journal.identity)
                for number in range(COUNT):
                    await sender.send(frame(number), None, publish_nowhere)
                async with asyncio.timeout(10 * UNIT):
                    await news.wait()

    asyncio.run(main())
    assert numbers == [*range(COUNT)]


class _Stopped:
    def __init__(self, inbox: durable.Inbox) -> None:
        self.close = inbox.stop


def test_a_loop_gets_what_a_blocking_publisher_sends(bus: Backend) -> None:
    async def main() -> list[int]:
        with ExitStack() as resources:
            sender = durable.Outbox(MemoryJournal(), bus, LOOPBACK, Ports.read(), 0, "viirs", lambda *_: None, 10)
            resources.callback(sender.stop)
            async with Reader(bus) as reader:
                reader.connect(sender)
                reading = asyncio.create_task(reader.read(COUNT))
                for number in range(COUNT):
                    await asyncio.to_thread(sender.send, frame(number), None, publish_nowhere)
                return await reading

    assert asyncio.run(main()) == [*range(COUNT)]


def test_two_loops_in_two_threads_share_a_journal(bus: Backend) -> None:
    ready, results = threading.Barrier(2), []

    async def read(sender: durable.Outbox) -> None:
        async with Reader(bus, threading.current_thread().name) as reader:
            reader.connect(sender)
            await asyncio.to_thread(ready.wait, 10 * UNIT)
            results.append(await reader.read(100))

    sender = durable.Outbox(MemoryJournal(), bus, LOOPBACK, Ports.read(), 0, "viirs", lambda *_: None, 10)
    try:
        threads = [threading.Thread(target=asyncio.run, args=(read(sender),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(100):
            sender.send(frame(number), None, publish_nowhere)
        for thread in threads:
            thread.join(10 * UNIT)
    finally:
        sender.stop()
    assert results == [[*range(100)]] * 2


def test_what_is_not_settled_at_the_stop_comes_again_at_once(bus: Backend) -> None:
    async def main() -> None:
        async with outbox(bus) as sender:
            for number in range(3):
                await sender.send(frame(number), None, publish_nowhere)
            async with Reader(bus) as reader:
                reader.connect(sender)
                assert await reader.read(1) == [0]
                begun = await reader.take()
            begin = time.monotonic()
            await reader.inbox.stop()
            async with Reader(bus) as reader:
                reader.connect(sender)
                again = await reader.take()
                assert time.monotonic() - begin < 0.9 * UNIT
                assert (again.payload, again.redelivered) == (begun.payload, True)

    asyncio.run(main())


def test_a_cancelled_stop_of_an_inbox_leaves_nothing_open(bus: Backend) -> None:
    async def main() -> None:
        async with outbox(bus) as sender:
            reader = Reader(bus)
            reader.connect(sender)
            await sender.send(frame(0), None, publish_nowhere)
            begun = await reader.take()
            stopping = asyncio.create_task(reader.inbox.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.wait([stopping])
            assert asyncio.all_tasks() == {asyncio.current_task()}
            async with Reader(bus) as other:
                other.connect(sender)
                assert (await other.take()).payload == begun.payload

    asyncio.run(main())


def test_an_inbox_made_before_its_loop_runs_begins_when_told_to(bus: Backend) -> None:
    sender = durable.Outbox(MemoryJournal(), bus, LOOPBACK, Ports.read(), 0, "viirs", lambda *_: None, 10)
    try:
        sender.send(frame(0), None, publish_nowhere)
        reader = Reader(bus)
        reader.connect(sender)

        async def main() -> list[int]:
            async with reader:
                reader.inbox.start()
                return await reader.read(1)

        assert asyncio.run(main()) == [0]
    finally:
        sender.stop()


def test_a_consumer_needs_a_name(bus: Backend) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        Inbox(bus, "", [], lambda: None)


def test_what_cannot_be_kept_is_not_published(bus: Backend) -> None:
    class FullJournal(MemoryJournal):
        def append(self, *args: object, **kwargs: object) -> int:
            raise JournalError("the disk is on fire")

    async def main() -> None:
        async with outbox(bus, FullJournal) as sender:
            with pytest.raises(JournalError, match="on fire"):
                await sender.send(frame(0), None, publish_wrongly)
            with pytest.raises(ValueError, match="ttl"):
                await sender.send(frame(0), -1, publish_wrongly)

    asyncio.run(main())


def test_a_heartbeat_tells_what_was_sent(bus: Backend) -> None:
    async def main() -> None:
        async with outbox(bus) as sender:
            beats: list[object] = []
            await sender.send(frame(0), None, publish_nowhere)
            await sender.beat(beats.append)
            assert len(beats) == 1

    asyncio.run(main())


def test_a_send_that_is_cancelled_before_it_began_leaves_nothing_behind(bus: Backend) -> None:
    async def main() -> None:
        is_open = threading.Event()
        async with outbox(bus) as sender:
            held_up = asyncio.create_task(sender.send(frame(0), None, lambda _: is_open.wait(10 * UNIT)))
            given_up = asyncio.create_task(sender.send(frame(1), None, publish_wrongly))
            await asyncio.sleep(0.01)
            given_up.cancel()
            await asyncio.wait([given_up])
            is_open.set()
            assert await held_up
            assert sender.journal.last == 1
        with pytest.raises(JournalError, match="closed"):
            await sender.send(frame(2), None, publish_wrongly)
        await sender.stop()

    asyncio.run(main())


def test_a_journal_that_cannot_be_opened_leaves_no_thread(bus: Backend) -> None:
    def fail() -> Journal:
        raise JournalError("the disk is on fire")

    async def main() -> None:
        with pytest.raises(JournalError, match="on fire"):
            async with outbox(bus, fail):
                pass

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("posttroll-journal")]


def test_to_open_an_outbox_may_be_cancelled(bus: Backend) -> None:
    begun, is_open, journal = threading.Event(), threading.Event(), MemoryJournal()

    def open_slowly() -> Journal:
        begun.set()
        assert is_open.wait(10 * UNIT)
        return journal

    async def main() -> None:
        opening = asyncio.create_task(open_outbox(open_slowly, bus, LOOPBACK, Ports.read(), 0, "v", print, 10))
        await asyncio.to_thread(begun.wait, 10 * UNIT)
        opening.cancel()
        await asyncio.sleep(0)
        is_open.set()
        await asyncio.wait([opening])
        assert opening.cancelled()

    asyncio.run(main())
    assert not link_threads()


def test_what_has_become_too_old_is_told_in_the_loop(bus: Backend) -> None:
    async def main() -> None:
        told = asyncio.get_running_loop().create_future()

        def on_expired(consumer: str, count: int) -> None:
            told.set_result((consumer, count, threading.current_thread() is threading.main_thread()))

        sender = await open_outbox(MemoryJournal, bus, LOOPBACK, Ports.read(), 0, "viirs", on_expired, 10)
        try:
            await sender.send(frame(0), 1e-6, publish_nowhere)
            async with Reader(bus) as reader:
                reader.connect(sender)
                async with asyncio.timeout(10 * UNIT):
                    assert await told == ("archive", 1, True)
        finally:
            await sender.stop()

    asyncio.run(main())


def test_a_replay_gives_all_that_is_kept(bus: Backend) -> None:
    async def main() -> None:
        async with outbox(bus) as one, outbox(bus) as two:
            for number in range(300):
                await (one if number < 250 else two).send(frame(number), None, publish_nowhere)
            links = [(Peer(sender.address, bus.name), sender.journal.identity) for sender in (one, two)]
            replayed = [number_in(one) async for one in replay(bus, links, [], None, None, 10 * UNIT)]
            assert replayed == [*range(300)]

    asyncio.run(main())


def test_a_replay_may_be_left_and_says_when_nothing_comes(bus: Backend) -> None:
    async def main() -> None:
        async with outbox(bus) as sender:
            await sender.send(frame(0), None, publish_nowhere)
            links = [(Peer(sender.address, bus.name), sender.journal.identity)]
            left = replay(bus, links, [], None, None, 10 * UNIT)
            assert number_in(await anext(left)) == 0
            await left.aclose()
        with pytest.raises(TimedOut, match="nothing came"):
            await anext(replay(bus, links, [], None, None, 0.01))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
