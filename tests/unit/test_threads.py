"""Workers, bells and calls at once."""

from __future__ import annotations

import logging
import select
import signal
import socket
import threading
import time
from contextlib import closing

import pytest

from posttroll.threads import Bell, Worker, is_held_here
from tests.fixtures.waiting import UNIT


def wait_until_stopped(worker: Worker) -> None:
    worker.wait(None)


def wait_for(gate: threading.Event) -> None:
    gate.wait(60)


def can_be_heard(bell: Bell, timeout: float = 0.0) -> bool:
    return bool(select.select([bell], [], [], timeout)[0])


def test_a_worker_runs_under_its_name_until_it_is_stopped() -> None:
    names: list[str] = []

    def note_name(worker: Worker) -> None:
        names.append(threading.current_thread().name)
        worker.wait(None)

    worker = Worker("posttroll-test", note_name).start()
    was_alive = worker.is_alive()
    worker.stop()

    assert was_alive
    assert names == ["posttroll-test"]
    assert not worker.is_alive()


def test_stopping_ends_a_wait_at_once() -> None:
    worker = Worker("posttroll-test", lambda worker: None if worker.wait(60) else pytest.fail("not told")).start()

    start = time.monotonic()
    worker.stop()

    assert time.monotonic() - start < UNIT
    assert worker.stopping


def test_a_wait_ends_when_its_time_is_over() -> None:
    outcomes: list[bool] = []

    Worker("posttroll-test", lambda worker: outcomes.append(worker.wait(0.01))).start().stop()

    assert outcomes in ([False], [True])
    assert Worker("posttroll-test", wait_until_stopped).wait(0.01) is False


def test_a_worker_can_be_stopped_twice() -> None:
    worker = Worker("posttroll-test", wait_until_stopped).start()

    worker.stop()
    worker.stop()

    assert not worker.is_alive()


def test_a_worker_can_be_stopped_before_it_starts() -> None:
    worker = Worker("posttroll-test", wait_until_stopped)

    worker.stop()

    assert not worker.is_alive()


def test_a_worker_can_stop_itself() -> None:
    worker = Worker("posttroll-test", lambda worker: worker.stop()).start()

    worker.stop()

    assert not worker.is_alive()


def test_stopping_wakes_what_the_target_waits_on() -> None:
    gate = threading.Event()

    worker = Worker("posttroll-test", lambda _: wait_for(gate), wake=gate.set).start()
    worker.stop()

    assert gate.is_set()
    assert not worker.is_alive()


def test_stopping_raises_once_what_the_worker_died_of(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Worker) -> None:
        raise ZeroDivisionError("the reason")

    with caplog.at_level(logging.CRITICAL, "posttroll.threads"):
        worker = Worker("posttroll-test", fail).start()

        with pytest.raises(ZeroDivisionError, match="the reason"):
            worker.stop()
        worker.stop()


def test_the_death_of_a_worker_is_logged_when_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Worker) -> None:
        raise ZeroDivisionError("the reason")

    worker = Worker("posttroll-test", fail).start()
    with pytest.raises(ZeroDivisionError):
        worker.stop()

    assert "posttroll-test ended by an error" in caplog.text
    assert "the reason" in caplog.text


def test_a_worker_that_does_not_listen_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    worker = Worker("posttroll-test", lambda _: wait_for(gate)).start()

    worker.stop(timeout=0.01)

    assert "posttroll-test did not end within 0.01 s" in caplog.text
    gate.set()
    worker.stop()


def test_a_worker_can_be_told_to_stop_without_waiting_for_it(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    worker = Worker("busy", lambda _: wait_for(gate)).start()

    worker.stop(timeout=0.0)
    was_alive = worker.is_alive()
    gate.set()
    worker.stop()

    assert was_alive
    assert not caplog.records


def test_a_thread_can_tell_whether_it_holds_a_lock() -> None:
    lock = threading.RLock()
    told: list[bool] = []
    other = Worker("other", lambda _: told.append(is_held_here(lock)))

    told.append(is_held_here(lock))
    with lock:
        told.append(is_held_here(lock))
        other.start().stop()

    assert told == [False, True, False]


def test_a_bell_is_heard_until_it_is_silenced() -> None:
    with closing(Bell()) as bell:
        before = can_be_heard(bell)
        bell.ring()
        bell.ring()
        rung = can_be_heard(bell)
        bell.silence()

        assert (before, rung, can_be_heard(bell)) == (False, True, False)


def test_a_bell_can_be_rung_more_often_than_its_buffer_holds() -> None:
    with closing(Bell()) as bell:
        for _ in range(100_000):
            bell.ring()
        bell.silence()

        assert not can_be_heard(bell)


def test_a_bell_wakes_who_waits_for_it() -> None:
    with closing(Bell()) as bell:
        ringer = threading.Timer(0.05, bell.ring)
        ringer.start()

        assert can_be_heard(bell, timeout=5 * UNIT)
        ringer.join()


def test_a_closed_bell_is_harmless() -> None:
    bell = Bell()
    bell.close()

    bell.ring()
    bell.silence()
    bell.close()

    assert bell.fileno() == -1


def test_a_signal_rings_while_the_main_thread_polls() -> None:
    bell = Bell()
    former = signal.signal(signal.SIGUSR1, lambda *_: None)
    poller = select.poll()
    poller.register(bell.fileno(), select.POLLIN)

    with bell.rung_by_signals():
        signal.raise_signal(signal.SIGUSR1)
        rung = poller.poll(1000 * UNIT)

    signal.signal(signal.SIGUSR1, former)
    bell.close()
    assert rung
    assert signal.set_wakeup_fd(-1) == -1


def test_an_event_loop_keeps_its_signals() -> None:
    bell = Bell()
    inside, outside = socket.socketpair()
    outside.setblocking(False)
    signal.set_wakeup_fd(outside.fileno())
    former = signal.signal(signal.SIGUSR1, lambda *_: None)

    with bell.rung_by_signals():
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, former)
    assert signal.set_wakeup_fd(-1) == outside.fileno()
    assert inside.recv(1) == bytes([signal.SIGUSR1])
    for end in (inside, outside, bell):
        end.close()


def test_other_threads_leave_signals_alone() -> None:
    bell = Bell()
    seen: list[int] = []

    def poll(_: Worker) -> None:
        with bell.rung_by_signals():
            seen.append(1)

    Worker("posttroll-test", poll).start().stop()
    bell.close()

    assert seen == [1]
