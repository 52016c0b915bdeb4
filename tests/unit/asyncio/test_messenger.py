"""What a messenger does on an event loop."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from posttroll.asyncio.messenger import Messenger
from posttroll.errors import BindFailed, ConfigurationError, Interrupted, LocalProtocolError, NotStarted, TimedOut
from posttroll.message import Message
from posttroll.messenger import Messenger as BlockingMessenger
from tests.fixtures.cancelling import each_cancellation
from tests.fixtures.waiting import UNIT

pytestmark = pytest.mark.usefixtures("bus")

Wait = Callable[[Messenger], Awaitable[object]]


async def wait_for_sent(messenger: Messenger) -> None:
    await messenger.put("nobody", note())
    await messenger.send()


async def wait_for_tracker(messenger: Messenger) -> None:
    await (await messenger.put("nobody", note()))


WAITS = pytest.mark.parametrize(
    "wait",
    [
        Messenger.recv,
        Messenger.run,
        Messenger.work,
        lambda messenger: messenger.get(None),
        wait_for_sent,
        wait_for_tracker,
    ],
    ids=["recv", "run", "work", "get", "send", "tracker"],
)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it to its end, and see that it leaves no task and no thread."""

    async def watched() -> None:
        async with asyncio.timeout(10 * UNIT):
            await work()
        others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
        assert not others
        assert threads() == []

    asyncio.run(watched())


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("posttroll"))


@asynccontextmanager
async def pair(journal: Path | None = None, **options: Any) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """Give alice, and bob who is connected to her; both have a journal in a directory, if that is given."""
    options = {**options, "nameservers": False}
    async with (
        Messenger("alice", journal=journal and journal / "alice", **options) as alice,
        Messenger("bob", journal=journal and journal / "bob", **options) as bob,
    ):
        await bob.connect(alice.address)
        while not (alice.peers and bob.peers):
            await asyncio.sleep(0.001)
        yield alice, bob


def note(number: int = 0, subject: str = "/note") -> Message:
    return Message(subject, "info", {"number": number})


def number_of(message: Message | None) -> int:
    assert message is not None
    return int(message.data["number"])


async def begun(awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
    """Return a task that waits already."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0.01)
    assert not task.done()
    return task  # type: ignore[return-value]


def test_messages_go_both_ways_without_a_thread() -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            await bob.put("alice", note(1))
            question = await alice.get(None)
            await alice.reply(question, note(2))
            answer = await bob.get(None)

            assert (number_of(question), number_of(answer)) == (1, 2)
            assert answer.properties.correlation_id == question.properties.id
            assert threads() == []

    run(work)


def test_it_talks_with_a_blocking_one() -> None:
    def talk(address: str) -> list[int]:
        with BlockingMessenger("bob", nameservers=False, listen=False) as bob:
            bob.connect(address)
            tracker = bob.put("alice", note(1))
            got = [number_of(bob.get(5 * UNIT)) for _ in range(3)]
            bob.accept()
            return [*got, tracker.wait(5 * UNIT) == "accepted"]

    async def work() -> None:
        async with Messenger("alice", nameservers=False) as alice:
            for number in range(3):
                await alice.put("bob", note(number))
            talking = asyncio.create_task(asyncio.to_thread(talk, alice.address))
            assert number_of(await alice.get(None)) == 1
            await alice.accept()

            assert await talking == [0, 1, 2, True]
            assert await alice.send() == 3

    run(work)


def test_messages_can_be_iterated_over_until_the_stop() -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            trackers = [await bob.put("alice", note(number)) for number in range(3)]
            got = []
            async for message in alice:
                got.append(number_of(message))
                assert not trackers[message.data["number"]].settled
                if len(got) == 3:
                    await alice.stop()

            assert got == [0, 1, 2]
            assert [await tracker for tracker in trackers] == ["accepted"] * 3

    run(work)


def test_a_tracker_can_be_awaited_and_tells_in_the_loop() -> None:
    async def work() -> None:
        told: list[tuple[str, int]] = []
        async with pair() as (alice, bob):
            tracker = await bob.put("alice", note())
            tracker.add_done_callback(lambda one: told.append((one.state, threading.get_ident())))
            with pytest.raises(TimedOut, match="in vain for message"):
                await tracker.wait(0.001)

            await alice.reject(await alice.get(None), reason="no use")

            assert (await tracker, tracker.reason, bob.status(tracker.id)) == ("rejected", "no use", "rejected")
            assert told == [("rejected", threading.get_ident())]

    run(work)


def test_what_has_not_gone_out_can_be_taken_back() -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            tracker = await bob.put("nobody", note())

            assert await tracker.cancel()
            assert await tracker == "released"
            tracker = await bob.put("alice", note())
            await alice.get(None)
            await alice.accept()
            assert await tracker == "accepted"
            assert not await tracker.cancel()

    run(work)


def test_several_tasks_may_wait_at_once() -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            trackers = [await bob.put("alice", note(number)) for number in range(2)]
            one, other = await begun(trackers[0].wait()), await begun(bob.send())
            got = await asyncio.gather(alice.get(None), alice.get(None))
            await alice.accept()

            assert (await one, await other) == ("accepted", 2)
            assert sorted(map(number_of, got)) == [0, 1]

    run(work)


def test_calls_wait_as_long_as_they_are_told() -> None:
    async def work() -> None:
        async with Messenger("alice", nameservers=False, timeout=0.01) as alice:
            await alice.put("nobody", note())
            for wait in (alice.recv, alice.send):
                with pytest.raises(TimedOut):
                    await wait()
            assert (await alice.get(None), await alice.get(), await alice.work()) == (None, None, False)
            alice.blocking = False
            assert (await alice.send(), await alice.recv(), await alice.get(None), await alice.work()) == (
                0,
                0,
                None,
                False,
            )

    run(work)


def test_so_many_are_taken_in_as_asked_for() -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            trackers = [await bob.put("alice", note(number)) for number in range(5)]
            while await alice.recv(1) < 2:
                pass
            while await alice.recv() < 5:
                pass

            assert [number_of(await alice.get()) for _ in range(5)] == [0, 1, 2, 3, 4]
            await alice.accept()
            assert [await tracker for tracker in trackers] == ["accepted"] * 5

    run(work)


def test_beyond_the_incoming_window_the_eldest_is_accepted() -> None:
    async def work() -> None:
        async with pair(incoming_window=2) as (alice, bob):
            trackers = [await alice.put("bob", note(number)) for number in range(3)]
            messages = [await bob.get(None) for _ in range(3)]

            assert await trackers[0] == "accepted"
            assert await bob.release(messages[1])
            assert not await bob.accept(messages[0])
            assert number_of(await bob.get(None)) == 1

    run(work)


def test_callbacks_may_be_coroutine_functions_or_not() -> None:
    async def work() -> None:
        calls: list[Any] = []

        async def answer(message: Message) -> None:
            await alice.reply(message, note(7))
            calls.append("coroutine function")

        async def connected(peer: Any) -> None:
            calls.append(peer.name)

        async with Messenger("alice", nameservers=False) as alice, Messenger("bob", nameservers=False) as bob:
            alice.on_connect(connected)
            alice.on_message(lambda message: calls.append(message.subject))
            alice.on_message(answer)
            alice.add_hook(re.compile("/hooked"), lambda message: calls.append("hook"))
            await bob.connect(alice.address)
            for subject in ("/note", "/hooked"):
                await bob.put("alice", note(subject=subject))

            await alice.run(count=2)

            assert calls == ["bob", "/note", "coroutine function", "hook"]
            assert number_of(await bob.get(None)) == 7
            assert await bob.send() == 2

    run(work)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_a_message_whose_coroutine_fails_is_rejected(error: type[BaseException]) -> None:
    async def work() -> None:
        async def fail(message: Message) -> None:
            raise error

        async with pair() as (alice, bob):
            alice.on_message(fail)
            tracker = await bob.put("alice", note())
            await alice.run(count=1)

            assert (await tracker, tracker.reason) == ("rejected", f"a callback failed: {error.__name__}")

    run(work)


def test_a_message_whose_coroutine_is_cancelled_comes_again() -> None:
    async def work() -> None:
        has_begun = asyncio.Event()

        async def last(message: Message) -> None:
            has_begun.set()
            await asyncio.Event().wait()

        async with pair() as (alice, bob):
            alice.on_message(last)
            tracker = await bob.put("alice", note())
            running = asyncio.create_task(alice.run())
            await has_begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

            alice.on_message.remove(last)
            message = await alice.get(None)
            assert message.delivery.redelivered
            await alice.accept()
            assert await tracker == "accepted"

    run(work)


def test_run_calls_what_is_due_and_what_happened() -> None:
    async def work() -> None:
        calls: list[str] = []

        async def later() -> None:
            calls.append("later")

        async with Messenger("alice", nameservers=False) as alice:
            alice.on_drop(lambda tracker, reason: calls.append(reason))
            await alice.put("nobody", note(), ttl=0.01)
            alice.call_later(0.05, later)
            alice.call_later(0.1, alice.stop)
            await alice.run()

            assert calls == ["expired", "later"]
            assert alice.stopped

    run(work)


def test_others_have_their_turns_while_there_is_much_to_do() -> None:
    async def work() -> None:
        turns: list[int] = []

        async def count() -> None:
            while True:
                await asyncio.sleep(0)
                turns[-1] += 1

        def busy(message: Message) -> None:
            ends = time.monotonic() + 0.001
            while time.monotonic() < ends:
                pass
            turns.append(0)

        async with pair() as (alice, bob):
            alice.on_message(busy)
            for number in range(100):
                await bob.put("alice", note(number))
            turns.append(0)
            counting = asyncio.create_task(count())
            await alice.run(count=100)
            counting.cancel()

            waited = "".join("x" if turn else "." for turn in turns)
            assert max(map(len, waited.split("x"))) < 20, waited

    run(work)


@WAITS
def test_interrupt_ends_a_call_that_waits_and_from_another_thread_too(wait: Wait) -> None:
    async def work() -> None:
        async with Messenger("alice", nameservers=False) as alice:
            waiting = await begun(wait(alice))
            await asyncio.to_thread(alice.interrupt)
            with pytest.raises(Interrupted, match="alice was interrupted"):
                await waiting

            alice.interrupt()
            with pytest.raises(Interrupted):
                await wait(alice)

    run(work)


@WAITS
def test_a_call_that_waits_ends_at_the_stop(wait: Wait) -> None:
    async def work() -> None:
        alice = await Messenger("alice", nameservers=False).start()
        waiting = await begun(wait(alice))
        began = time.monotonic()
        await alice.stop()
        await waiting

        assert time.monotonic() - began < 0.2 * UNIT

    run(work)


@WAITS
def test_a_call_that_was_cancelled_leaves_nothing_behind(wait: Wait) -> None:
    async def work() -> None:
        async with pair() as (alice, bob):
            waiting = await begun(wait(alice))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

            tracker = await bob.put("alice", note(1))
            assert number_of(await alice.get(None)) == 1
            await alice.accept()
            assert await tracker == "accepted"

    run(work)


@pytest.mark.parametrize("journal", [False, True])
def test_wherever_a_call_is_cancelled_no_message_is_lost(journal: bool, tmp_path: Path) -> None:
    async def work() -> None:
        async with pair(tmp_path if journal else None) as (alice, bob):
            for name in ("put", "get", "accept", "wait", "send", "work"):
                for call in each_cancellation(name, most=10):
                    tracker = await call("put", bob.put, "alice", note(1))
                    message = None
                    while message is None or message.properties.id != tracker.id:  # put by the call that was cancelled
                        message = await call("get", alice.get, None)
                        await call("accept", alice.accept)
                    assert await call("wait", tracker.wait) == "accepted"
                    await call("send", bob.send)
                    await call("work", bob.work, 0.0)

    run(work)


@pytest.mark.parametrize("journal", [False, True])
def test_wherever_start_and_stop_are_cancelled_all_is_closed(journal: bool, tmp_path: Path, free_port: int) -> None:
    options = {"journal": tmp_path} if journal else {"nameservers": []}

    async def work() -> None:
        for name in ("start", "stop"):
            for call in each_cancellation(name):
                alice = Messenger("alice", **{"nameservers": False, "link_port": free_port, **options})
                await call("start", alice.start)
                await alice.put("nobody", note())
                stopping = await call("stop", alice.stop)
                assert stopping is None
                assert alice.stopped
                assert alice.address == ""
                others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
                assert not others, call
                while threads():  # which end by themselves
                    await asyncio.sleep(0.001)

    run(work)


def test_a_start_that_fails_leaves_nothing_running() -> None:
    async def work() -> None:
        async with Messenger("alice", nameservers=False) as alice:
            port = alice.publisher.port_number
            for options in ({"port": port}, {"link_port": int(alice.address.rpartition(":")[2])}):
                other = Messenger("other", nameservers=False, **options)
                with pytest.raises(BindFailed):
                    await other.start()
                assert (other.stopped, other.publisher, other.address) == (True, None, "")

    run(work)


def test_it_may_be_stopped_at_any_time_and_started_again() -> None:
    async def work() -> None:
        alice = Messenger("alice", nameservers=False)
        await alice.stop()
        with pytest.raises(NotStarted):
            await alice.put("bob", note())
        for _ in range(2):
            await alice.start()
            await alice.put("nobody", note())
            await asyncio.gather(alice.stop(), alice.close())
        await asyncio.gather(alice.start(), alice.start())
        await alice.start()
        assert (alice.outgoing, alice.stopped) == (0, False)
        tracker = await alice.put("nobody", note())
        await alice.stop()

        assert (await alice.recv(), await alice.get(None), await alice.work(), await tracker.cancel()) == (
            0,
            None,
            False,
            False,
        )

    run(work)


def test_it_is_found_by_name_without_a_thread() -> None:
    async def work() -> None:
        async with Messenger("alice", nameservers=[], broadcast_interval=0) as alice:
            began = time.monotonic()
            await alice.put("bob", note())
            assert threads() == []
            await alice.stop()

        assert time.monotonic() - began < 0.2 * UNIT

    run(work)


def test_what_was_got_when_an_error_ends_the_block_comes_again() -> None:
    async def work() -> None:
        async with Messenger("alice", nameservers=False) as alice:
            await alice.put("carol", note(1))

            async def fail() -> None:
                async with Messenger("carol", nameservers=False, listen=False) as carol:
                    await carol.connect(alice.address)
                    await carol.get(None)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            async with Messenger("carol", nameservers=False, listen=False) as carol:
                await carol.connect(alice.address)
                assert (await carol.get(None)).delivery.redelivered

    run(work)


def test_what_is_persistent_is_kept_and_sent_in_the_next_life(tmp_path: Path) -> None:
    async def work() -> None:
        async with Messenger("bob", nameservers=False, journal=tmp_path / "bob") as bob:
            with pytest.raises(ConfigurationError):
                await bob.put("bob", note())
            for number in range(3):
                await bob.put("alice", note(number), persistent=True)
            assert threads() == ["posttroll-journal-bob", "posttroll-peer-bob"]
            began = time.monotonic()
        assert time.monotonic() - began < 0.2 * UNIT

        async with pair(tmp_path) as (alice, bob):
            sent: list[str] = []
            bob.on_sent(lambda tracker: sent.append(tracker.state))
            assert bob.outgoing == 3
            assert [number_of(await alice.get(None)) for _ in range(3)] == [0, 1, 2]
            await alice.accept()

            assert await bob.send() == 3
            await alice.put("bob", note(4))
            assert number_of(await bob.get(None)) == 4
            await bob.work(0)
            assert sent == ["accepted"] * 3

    run(work)


def test_a_target_has_messages_of_its_own() -> None:
    async def work() -> None:
        arrived = asyncio.Event()
        closed: list[bool] = []
        async with pair() as (alice, bob):
            requests = alice.open_target("requests", arrived.set, on_close=lambda: closed.append(True))
            with pytest.raises(LocalProtocolError, match="open already"):
                alice.open_target("requests", arrived.set)
            trackers = [await bob.put("alice", note(number), target="requests") for number in range(3)]
            await arrived.wait()
            messages = [requests.take() for _ in range(3)]
            assert await requests.accept(messages[0])
            assert await requests.reject(messages[1], "no")
            assert await requests.release(messages[2])
            arrived.clear()
            await arrived.wait()
            assert await requests.accept(requests.take())

            assert [await tracker for tracker in trackers] == ["accepted", "rejected", "accepted"]
        assert (closed, requests.take(), await requests.accept(messages[0])) == ([True], None, False)

    run(work)


def test_it_belongs_to_one_loop() -> None:
    alice = Messenger("alice", nameservers=False)

    async def begin() -> None:
        async with alice:
            pass

    asyncio.run(begin())

    for use in (begin, alice.get, alice.recv, alice.work, lambda: alice.connect("bob"), alice.accept):
        with pytest.raises(LocalProtocolError, match="another event loop"):
            asyncio.run(use())  # type: ignore[arg-type]
