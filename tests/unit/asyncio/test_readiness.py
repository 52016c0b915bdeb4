"""Waiting for a descriptor on an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from posttroll.asyncio.readiness import Readiness
from posttroll.errors import LocalProtocolError
from posttroll.threads import Bell
from tests.fixtures.waiting import UNIT


@pytest.fixture
def bell() -> Iterator[Bell]:
    with closing(Bell()) as bell:
        yield bell


def test_a_wait_ends_when_the_descriptor_is_readable(bell: Bell) -> None:
    async def scenario() -> None:
        readiness = Readiness(bell.fileno, "it")
        waiting = asyncio.create_task(readiness.wait())
        await asyncio.sleep(0)
        assert not waiting.done()

        bell.ring()

        async with asyncio.timeout(5 * UNIT):
            await waiting
            await readiness.wait()  # as it is still readable

    asyncio.run(scenario())


def test_a_wait_ends_at_its_time(bell: Bell) -> None:
    begin = time.monotonic()

    asyncio.run(Readiness(bell.fileno, "it").wait(begin + 0.02))

    assert begin + 0.019 < time.monotonic() < begin + 5 * UNIT


def test_a_time_that_is_past_is_no_reason_to_wait(bell: Bell) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(5 * UNIT):
            await Readiness(bell.fileno, "it").wait(-math.inf)

    asyncio.run(scenario())


def test_several_tasks_may_wait(bell: Bell) -> None:
    async def scenario() -> None:
        readiness = Readiness(bell.fileno, "it")
        async with asyncio.timeout(5 * UNIT), asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(readiness.wait())
            await asyncio.sleep(0)
            bell.ring()

    asyncio.run(scenario())


def test_a_cancelled_wait_leaves_the_others_waiting(bell: Bell) -> None:
    async def scenario() -> None:
        readiness = Readiness(bell.fileno, "it")
        first, second = (asyncio.create_task(readiness.wait()) for _ in range(2))
        await asyncio.sleep(0)

        first.cancel()
        await asyncio.wait([first])
        bell.ring()

        async with asyncio.timeout(5 * UNIT):
            await second
        assert first.cancelled()

    asyncio.run(scenario())


def test_what_is_readable_and_not_waited_for_keeps_no_loop_busy(bell: Bell) -> None:
    async def scenario() -> None:
        readiness = Readiness(bell.fileno, "it")
        bell.ring()
        await readiness.wait()

        assert not asyncio.get_running_loop().remove_reader(bell.fileno())

    asyncio.run(scenario())


def test_closing_ends_all_waits_now_and_later(bell: Bell) -> None:
    async def scenario() -> None:
        readiness = Readiness(bell.fileno, "it")
        async with asyncio.timeout(5 * UNIT), asyncio.TaskGroup() as group:
            group.create_task(readiness.wait())
            await asyncio.sleep(0)
            readiness.close()
            readiness.close()
        await readiness.wait()
        assert readiness.closed

    asyncio.run(scenario())


def test_it_belongs_to_the_loop_that_waits_first(bell: Bell) -> None:
    readiness = Readiness(bell.fileno, "it")
    bell.ring()
    asyncio.run(readiness.wait())

    with pytest.raises(LocalProtocolError, match="another event loop"):
        asyncio.run(readiness.wait())
