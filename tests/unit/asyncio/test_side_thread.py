"""A thread beside a loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest

from posttroll.asyncio.side_thread import LoopCalls, SideThread
from posttroll.errors import LocalProtocolError, NotStarted
from tests.fixtures.waiting import UNIT, eventually


def is_alive(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


class Gate:
    """Holds up a thread."""

    def __init__(self) -> None:
        self._has_come = threading.Event()
        self._is_open = threading.Event()

    def pass_through(self) -> str:
        self._has_come.set()
        assert self._is_open.wait(10 * UNIT)
        return "passed"

    def open(self) -> None:
        self._is_open.set()

    async def comer(self) -> None:
        """Wait until the thread is there."""
        assert await asyncio.to_thread(self._has_come.wait, 10 * UNIT)


def test_calls_run_in_one_other_thread_in_the_order_they_came() -> None:
    async def main() -> None:
        side, order = SideThread("posttroll-side"), []

        def note(number: int) -> tuple[int, str]:
            order.append(number)
            return number, threading.current_thread().name

        results = await asyncio.gather(*(side.call(note, number) for number in range(500)))
        await side.stop()

        assert results == [(number, "posttroll-side") for number in range(500)]
        assert order == [*range(500)]

    asyncio.run(main())
    assert not is_alive("posttroll-side")


def test_an_error_is_raised_where_the_result_is_waited_for() -> None:
    async def main() -> None:
        side = SideThread("posttroll-side")
        with pytest.raises(ZeroDivisionError):
            await side.call(lambda: 1 / 0)
        assert await side.call(lambda: "still there") == "still there"
        await side.stop()

    asyncio.run(main())


def test_cancelled_before_it_began_a_call_is_not_run_and_cancelled_meanwhile_it_runs_on() -> None:
    async def main() -> None:
        side, gate, done = SideThread("posttroll-side"), Gate(), []
        begun = asyncio.create_task(side.call(lambda: done.append(gate.pass_through())))
        waiting = asyncio.create_task(side.call(done.append, "ran"))
        await gate.comer()
        begun.cancel(), waiting.cancel()
        await asyncio.wait([begun, waiting])
        gate.open()
        await side.call(done.append, "after")
        await side.stop()

        assert begun.cancelled()
        assert waiting.cancelled()
        assert done == ["passed", "after"]

    asyncio.run(main())


def test_the_end_waits_for_what_was_begun_refuses_the_rest_and_does_a_last_thing() -> None:
    async def main() -> None:
        side, gate = SideThread("posttroll-side"), Gate()
        done: list[str] = []
        begun = asyncio.create_task(side.call(gate.pass_through))
        waiting = asyncio.create_task(side.call(done.append, "ran"))
        await gate.comer()
        stopping = asyncio.create_task(side.stop(lambda: done.append("last")))
        await asyncio.sleep(0)
        gate.open()
        await stopping
        await side.stop(lambda: done.append("too late"))

        assert (await begun, done) == ("passed", ["last"])
        with pytest.raises(NotStarted):
            await waiting
        with pytest.raises(NotStarted):
            await side.call(done.append, "too late")
        side.call_later(done.append, "too late")
        assert done == ["last"]

    asyncio.run(main())
    assert not is_alive("posttroll-side")


def test_whether_or_not_it_was_used_its_end_does_a_last_thing_and_tells_of_its_failure() -> None:
    async def main() -> None:
        await SideThread("posttroll-unused").stop()
        done: list[str] = []
        await SideThread("posttroll-unused").stop(lambda: done.append("last"))
        assert done == ["last"]
        with pytest.raises(ZeroDivisionError):
            await SideThread("posttroll-unused").stop(lambda: 1 / 0)

    asyncio.run(main())
    assert not is_alive("posttroll-unused")


def test_it_ends_although_nobody_waits_for_that_any_more() -> None:
    async def main() -> None:
        side, gate = SideThread("posttroll-side"), Gate()
        begun = asyncio.create_task(side.call(gate.pass_through))
        await gate.comer()
        stopping = asyncio.create_task(side.stop())
        await asyncio.sleep(0)
        begun.cancel(), stopping.cancel()
        await asyncio.wait([begun, stopping])
        gate.open()

    asyncio.run(main())
    eventually(lambda: not is_alive("posttroll-side"))


def test_what_is_done_later_is_logged_if_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("no such place")

    async def main() -> None:
        side = SideThread("posttroll-side")
        side.call_later(fail)
        await side.call(lambda: None)
        await asyncio.sleep(0)
        await side.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "posttroll-side: no such place" in caplog.text


def test_it_serves_one_loop() -> None:
    side = SideThread("posttroll-side")

    async def use() -> None:
        await side.call(lambda: None)

    async def use_in_another() -> None:
        with pytest.raises(LocalProtocolError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use())
        await side.stop()

    async def main() -> None:
        await use()
        await use_in_another()

    asyncio.run(main())


def test_calls_from_threads_come_in_their_order_and_leave_room_for_others(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls, called, late = LoopCalls(loop), [], []

        def take_long(number: int) -> None:
            called.append(number)
            end = time.monotonic() + 0.002
            while time.monotonic() < end:
                pass
            if number == 5:
                raise ValueError("a mistake in a listener")

        def add() -> None:
            for number in range(10):
                calls.add(take_long, number)

        add()
        loop.call_soon(lambda: loop.call_soon(lambda: late.append(len(called))))
        await in_thread(add)
        async with asyncio.timeout(10 * UNIT):
            while len(called) < 20:
                await asyncio.sleep(0)

        assert called == [*range(10), *range(10)]
        assert 0 < late[0] < 10
        assert "a mistake in a listener" in caplog.text
        calls.add(called.append, 99)
        calls.close()
        await asyncio.sleep(0)
        assert called[-1] == 9

    async def in_thread(function: Callable[[], None]) -> None:
        await asyncio.to_thread(function)

    asyncio.run(main())


def test_after_the_end_of_the_loop_nothing_is_called() -> None:
    async def make() -> LoopCalls:
        return LoopCalls(asyncio.get_running_loop())

    asyncio.run(make()).add(pytest.fail, "called")
