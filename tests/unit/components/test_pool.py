"""The threads that handlers run in."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from posttroll.components.pool import Pool
from posttroll.threads import Worker
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually


class Busy:
    """A job that goes on until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.was_told = False

    def __call__(self, worker: Worker) -> None:
        self.began.set()
        assert self.may_end.wait(5 * UNIT)
        self.was_told = worker.stopping


@pytest.fixture
def idle() -> threading.Event:
    return threading.Event()


@pytest.fixture
def pool(idle: threading.Event) -> Iterator[Pool]:
    pool = Pool("handlers", 2, idle.set).start()
    yield pool
    pool.close()


def test_jobs_are_done_by_as_many_threads_as_there_are(pool: Pool) -> None:
    jobs = [Busy(), Busy(), Busy()]
    for job in jobs:
        pool.submit(job)

    assert jobs[0].began.wait(5 * UNIT)
    assert jobs[1].began.wait(5 * UNIT)
    assert not jobs[2].began.wait(0.05)
    assert pool.in_hand == 3

    jobs[0].may_end.set()
    assert jobs[2].began.wait(5 * UNIT)
    for job in jobs:
        job.may_end.set()


def test_one_thread_does_its_jobs_in_order() -> None:
    pool = Pool("handlers", 1).start()
    done: list[int] = []
    for number in range(100):
        pool.submit(lambda _, number=number: done.append(number))  # type: ignore[misc]

    eventually(lambda: len(done) == 100)
    pool.close()

    assert done == list(range(100))


def test_there_is_room_while_a_thread_has_nothing_to_do(pool: Pool) -> None:
    job, other = Busy(), Busy()
    pool.submit(job)
    assert pool.wait_for_room()
    pool.submit(other)

    with in_background(pool.wait_for_room) as waiting:
        assert waiting.is_pending()
        job.may_end.set()

        assert waiting.result()
    other.may_end.set()


def test_closing_ends_the_wait_for_room(pool: Pool) -> None:
    jobs = [Busy(), Busy()]
    for job in jobs:
        pool.submit(job)

    with in_background(pool.wait_for_room) as waiting:
        assert waiting.is_pending()
        pool.close()

        assert not waiting.result()
    for job in jobs:
        job.may_end.set()


def test_closing_forgets_what_was_not_begun_and_tells_what_was(pool: Pool, idle: threading.Event) -> None:
    jobs = [Busy(), Busy(), Busy()]
    for job in jobs:
        pool.submit(job)
    assert jobs[0].began.wait(5 * UNIT)
    assert jobs[1].began.wait(5 * UNIT)

    pool.close()
    pool.submit(jobs[2])
    assert not idle.wait(0.05)
    for job in jobs:
        job.may_end.set()

    assert idle.wait(5 * UNIT)
    assert [job.was_told for job in jobs] == [True, True, False]
    assert not jobs[2].began.is_set()


def test_closing_twice_tells_once_that_nothing_is_being_done() -> None:
    calls: list[int] = []
    pool = Pool("handlers", 2, lambda: calls.append(1)).start()

    pool.close()
    pool.close()

    assert calls == [1]


def test_a_job_that_fails_is_logged_and_its_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool("handlers", 1).start()
    done = threading.Event()

    pool.submit(lambda _: 1 / 0)
    pool.submit(lambda _: done.set())

    assert done.wait(5 * UNIT)
    assert caplog.records[0].getMessage() == "a job failed"
    pool.close()


def test_the_threads_say_what_they_are_for(pool: Pool) -> None:
    names = {thread.name for thread in threading.enumerate()}

    assert {"posttroll-handlers-1", "posttroll-handlers-2"} <= names
