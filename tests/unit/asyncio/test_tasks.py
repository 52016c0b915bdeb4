from __future__ import annotations

import asyncio
import logging

import pytest

from posttroll.asyncio.tasks import Worker


async def forever() -> None:
    await asyncio.Event().wait()


def test_a_worker_works_until_it_is_stopped() -> None:
    async def work() -> None:
        worker = Worker("posttroll-test", forever)
        assert not worker.is_alive()
        worker.start()
        assert worker.is_alive()
        assert "posttroll-test" in {task.get_name() for task in asyncio.all_tasks()}
        await asyncio.gather(worker.stop(), worker.stop())
        await worker.stop()
        assert worker.stopping
        assert not worker.is_alive()

    asyncio.run(work())


def test_a_worker_that_was_stopped_does_not_start() -> None:
    async def work() -> None:
        worker = Worker("posttroll-test", forever)
        await worker.stop()
        assert not worker.start().is_alive()

    asyncio.run(work())


def test_an_error_is_logged_and_raised_at_the_stop_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def work() -> None:
        worker = Worker("posttroll-test", fail).start()
        await asyncio.sleep(0)
        assert not worker.is_alive()
        with pytest.raises(ValueError, match="broken"):
            await worker.stop()
        await worker.stop()

    asyncio.run(work())

    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_stop_waits_for_what_is_to_be_cleaned_up_whoever_else_stops() -> None:
    ended = []

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)
            ended.append("cleaned up")

    async def work() -> None:
        worker = Worker("posttroll-test", clean_up).start()
        await asyncio.sleep(0)
        await asyncio.gather(worker.stop(), worker.stop())
        assert ended == ["cleaned up"]

    asyncio.run(work())


def test_a_worker_may_stop_itself() -> None:
    async def work() -> None:
        worker = Worker("posttroll-test", lambda: stop_itself())

        async def stop_itself() -> None:
            await worker.stop()
            await forever()

        worker.start()
        await asyncio.sleep(0.01)
        assert not worker.is_alive()

    asyncio.run(work())


def test_a_stop_that_is_cancelled_stops_all_the_same() -> None:
    async def work() -> None:
        worker = Worker("posttroll-test", forever).start()
        await asyncio.sleep(0)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await asyncio.sleep(0)
        assert not worker.is_alive()

    asyncio.run(work())
