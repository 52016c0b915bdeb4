"""Links that a loop drives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from posttroll import links
from posttroll.asyncio import driving
from posttroll.asyncio.driving import Driver, LoopPeer
from posttroll.backends import memory
from posttroll.backends.base import Backend, Peer
from posttroll.backends.registry import find_backend
from posttroll.errors import ConfigurationError, JournalError
from posttroll.link_peer import LinkPeer
from posttroll.links import Engine
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import Outcome
from posttroll.protocol.outbound import Concluded
from posttroll.settings import Ports
from tests.fixtures.waiting import UNIT

ACCEPTED = Outcome("accepted")
RELEASED = Outcome("released")
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


@pytest.fixture(params=[False, True], ids=["task", "thread"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Return where to keep messages, for what a thread drives, or None, for what a task does."""
    return tmp_path if request.param else None


class Notes:
    """What a peer was told, all in the thread of its loop."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.news = asyncio.Event()
        self.told: list[tuple[str, str]] = []

    def note(self, what: str, who: str) -> None:
        """Note something."""
        assert threading.get_ident() == self._thread
        self.told.append((what, who))
        self.news.set()

    def on_wanted(self, peer: str) -> None:
        self.note("wanted", peer)

    def on_unwanted(self, peer: str) -> None:
        self.note("unwanted", peer)

    def on_connect(self, peer: PeerInfo) -> None:
        self.note("connected", peer.name)

    def on_disconnect(self, peer: PeerInfo, reason: str) -> None:
        self.note("disconnected", peer.name)

    def on_outcome(self, concluded: Concluded) -> None:
        self.note(concluded.state, concluded.peer)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(10 * UNIT):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Program:
    """A peer, what it was told, and what it got."""

    def __init__(self, backend: Backend, name: str, directory: Path | None = None) -> None:
        self.notes = Notes()
        self.got: list[bytes] = []
        self._backend = backend
        self._channel = backend.open_links(LOOPBACK, Ports.read())
        own = None if directory is None else directory / name
        self.peer = LoopPeer(name, self._channel, self.notes, own)
        self._answering: asyncio.Task[None] | None = None

    def open(self, outcome: Outcome = ACCEPTED, credit: int = 200) -> None:
        """Settle all that comes."""
        news = asyncio.Event()

        async def answer() -> None:
            while True:
                await news.wait()
                news.clear()
                while (taken := self.peer.take("messages")) is not None:
                    self.got.append(taken[0].payload)
                    self.notes.news.set()
                    await self.peer.call(self.peer.link.settle, taken[0], outcome)

        self.peer.open_target("messages", news.set, credit)
        self._answering = asyncio.create_task(answer())

    async def put(self, to: str, payload: bytes = b"hello", *, persistent: bool = False) -> None:
        """Put a message."""
        await self.peer.call(self.peer.link.put, to, "messages", payload, persistent=persistent)

    @property
    def place(self) -> Peer:
        """Where it is."""
        return Peer(self.peer.address, self._backend.name)

    async def __aenter__(self) -> Program:
        await self.peer.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._answering is not None:
            self._answering.cancel()
        await self.peer.stop()
        assert self._channel.closed


@asynccontextmanager
async def two(backend: Backend, directory: Path | None = None) -> AsyncIterator[tuple[Program, Program]]:
    """Give two programs, of which the first is connected to the second."""
    async with Program(backend, "bob", directory) as bob, Program(backend, "alice", directory) as alice:
        bob.open()
        alice.peer.connect(bob.place)
        yield alice, bob


def peer_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("posttroll-")]


def test_what_is_put_arrives_in_order_and_all_are_told(backend: Backend, directory: Path | None) -> None:
    payloads = [str(number).encode() for number in range(COUNT)]

    async def main() -> None:
        async with two(backend, directory) as (alice, bob):
            alice.open()
            await asyncio.gather(*(alice.put("bob", payload, persistent=directory is not None) for payload in payloads))
            await bob.notes.until(lambda: len(bob.got) == COUNT)
            await alice.notes.until(lambda: alice.notes.told.count(("accepted", "bob")) == COUNT)
            await bob.put("alice", b"and back")
            await alice.notes.until(lambda: alice.got)
            assert await alice.peer.call(alice.peer.link.pending) == 0
            assert [one.name for one in alice.peer.peers()] == ["bob"]
            assert bool(peer_threads()) == (directory is not None)
        assert bob.got == payloads
        assert ("connected", "bob") in alice.notes.told

    asyncio.run(main())
    assert not peer_threads()


def test_who_is_wanted_is_told_and_withdrawn_messages_are_wanted_no_more(bus: Backend, directory: Path | None) -> None:
    class Tag:
        def sent(self) -> None: ...

        def concluded(self, state: str, reason: str) -> None: ...

    async def main() -> None:
        async with Program(bus, "alice", directory) as alice:
            tag = Tag()
            await alice.peer.call(alice.peer.link.put, "bob", "messages", b"hello", tag)
            await alice.notes.until(lambda: ("wanted", "bob") in alice.notes.told)
            assert await alice.peer.call(alice.peer.link.pending, "bob") == 1
            assert await alice.peer.call(alice.peer.link.withdraw, "bob", tag)
            await alice.notes.until(lambda: ("unwanted", "bob") in alice.notes.told)

    asyncio.run(main())


def test_who_is_left_is_gone_and_may_be_met_again(bus: Backend, directory: Path | None) -> None:
    async def main() -> None:
        async with two(bus, directory) as (alice, bob):
            await alice.notes.until(lambda: alice.peer.peers())
            alice.peer.disconnect(bob.place)
            await alice.notes.until(lambda: ("disconnected", "bob") in alice.notes.told)
            assert alice.peer.peers() == []
            alice.peer.connect(bob.place)
            await alice.put("bob")
            await bob.notes.until(lambda: bob.got)

    asyncio.run(main())


def test_to_say_goodbye_takes_no_time_and_the_other_one_knows_at_once(backend: Backend, directory: Path | None) -> None:
    async def main() -> None:
        async with two(backend, directory) as (alice, bob):
            await alice.notes.until(lambda: alice.peer.peers())
            begin = time.monotonic()
            await asyncio.gather(alice.peer.stop(), alice.peer.stop())
            assert time.monotonic() - begin < 0.2 * UNIT
            await bob.notes.until(lambda: ("disconnected", "alice") in bob.notes.told)
            assert time.monotonic() - begin < UNIT

    asyncio.run(main())


def test_a_stop_that_is_cancelled_at_any_step_leaves_nothing_open(bus: Backend, directory: Path | None) -> None:
    async def main(steps: int) -> bool:
        async with two(bus, directory) as (alice, bob):
            await alice.notes.until(lambda: alice.peer.peers())
            stopping = asyncio.create_task(alice.peer.stop())
            for _ in range(steps):
                await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.wait([stopping])
            await bob.notes.until(lambda: ("disconnected", "alice") in bob.notes.told)
            assert "posttroll-peer-alice" not in {task.get_name() for task in asyncio.all_tasks()}
            return stopping.cancelled()

    for steps in range(1, 4):
        asyncio.run(main(steps))


def test_a_start_that_fails_or_is_cancelled_leaves_nothing_open(bus: Backend, tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("no directory")

    async def main() -> None:
        alice = Program(bus, "alice", tmp_path)
        with pytest.raises(JournalError):
            await alice.peer.start()
        bob = Program(bus, "bob", tmp_path)
        starting = asyncio.create_task(bob.peer.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert not peer_threads()

    asyncio.run(main())


def test_what_is_persistent_is_left_over_for_the_next_life(bus: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with Program(bus, "alice", tmp_path) as alice:
            await alice.put("bob", persistent=True)
        async with two(bus, tmp_path) as (alice, bob):
            assert alice.peer.left_over == 1
            await bob.notes.until(lambda: bob.got == [b"hello"])

    asyncio.run(main())


def test_without_a_directory_nothing_is_persistent(bus: Backend) -> None:
    async def main() -> None:
        async with Program(bus, "alice") as alice:
            with pytest.raises(ConfigurationError, match="no journal"):
                await alice.put("bob", persistent=True)

    asyncio.run(main())


def test_only_a_few_are_taken_before_they_are_asked_for(bus: Backend, tmp_path: Path) -> None:
    async def take(bob: Program, arrived: asyncio.Event, count: int) -> list[bool]:
        taken: list[bool] = []
        async with asyncio.timeout(10 * UNIT):
            while len(taken) < count:
                if (one := bob.peer.take("messages")) is None:
                    await arrived.wait()
                    arrived.clear()
                else:
                    taken.append(one[0].redelivered)
        return taken

    async def main() -> None:
        arrived = asyncio.Event()
        async with Program(bus, "alice") as alice:
            for _ in range(100):
                await alice.put("bob")
            for count in (1, 100):
                async with Program(bus, "bob", tmp_path) as bob:
                    bob.peer.open_target("messages", arrived.set)
                    alice.peer.connect(bob.place)
                    were_delivered = await take(bob, arrived, count)
            assert 1 <= sum(were_delivered) <= 41

    asyncio.run(main())


def test_who_puts_without_end_keeps_nobody_waiting(bus: Backend) -> None:
    async def main() -> None:
        async with two(bus) as (alice, bob):
            longest, is_over = 0.0, False

            async def watch() -> None:
                nonlocal longest
                while not is_over:
                    begin = time.monotonic()
                    await asyncio.sleep(0)
                    longest = max(longest, time.monotonic() - begin)

            watching = asyncio.create_task(watch())
            for _ in range(3000):
                await alice.put("bob")
            await bob.notes.until(lambda: len(bob.got) == 3000)
            is_over = True
            await watching
            assert longest < 0.05 * UNIT

    asyncio.run(main())


def test_a_task_and_a_thread_talk(bus: Backend) -> None:
    class Nobody:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    async def main() -> None:
        got = threading.Event()
        with closing(bus.open_links(LOOPBACK, Ports.read())) as channel:
            bob = LinkPeer("bob", channel, Nobody())
            try:
                bob.start().open_target("messages", lambda: got.set() if bob.take("messages") else None)
                async with Program(bus, "alice") as alice:
                    alice.peer.connect(Peer(bob.address, bus.name))
                    await alice.put("bob")
                    assert await asyncio.to_thread(got.wait, 10 * UNIT)
            finally:
                await asyncio.to_thread(bob.stop)

    asyncio.run(main())


class Failing(Engine):
    """Fails in its first turn."""

    turns = 0

    def turn(self, deadline: float) -> bool:
        self.turns += 1
        if self.turns == 1:
            raise ZeroDivisionError
        return False

    def next_timeout(self) -> float:
        return time.monotonic()

    def leave(self) -> None:
        raise ZeroDivisionError("no leave was taken")

    @property
    def is_leaving(self) -> bool:
        return False


def test_trouble_is_logged_and_then_tried_again(
    bus: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "PAUSE_AFTER_TROUBLE", 0.001)

    async def main() -> None:
        channel = bus.open_links(None, Ports.read())
        engine = Failing("posttroll-test", channel, "the test has trouble")
        driver = Driver(engine, channel)
        driver.start()
        async with asyncio.timeout(10 * UNIT):
            while engine.turns < 3:
                await asyncio.sleep(0.001)
        with pytest.raises(ZeroDivisionError, match="no leave"):
            await driver.stop()
        assert channel.closed
        await driver.stop()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert "the test has trouble, will try again" in caplog.text
    assert links.PAUSE_AFTER_TROUBLE == 1.0
