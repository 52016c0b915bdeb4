"""Events, which call back in order, and timers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from posttroll.messenger import events as module
from posttroll.messenger.events import Event, Timers
from posttroll.testing import FakeClock


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(100.0)
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def test_all_are_called_with_what_happened_in_the_order_of_registration(calls: list[str]) -> None:
    event: Event[[str, int]] = Event("on_something")
    event(lambda name, number: calls.append(f"first {name} {number}"))
    event(lambda name, number: calls.append(f"second {name} {number}"))

    event.happen("it", number=1)

    assert calls == ["first it 1", "second it 1"]


def test_an_event_is_a_decorator_that_leaves_the_function_as_it_is(calls: list[str]) -> None:
    event: Event[[str]] = Event("on_something")

    @event
    def callback(name: str) -> None:
        calls.append(name)

    callback("direct")
    event.happen("event")

    assert calls == ["direct", "event"]


def test_an_event_is_true_while_it_calls_anybody(calls: list[str]) -> None:
    event: Event[[str]] = Event("on_something")
    assert not event

    event(calls.append)
    assert event

    event.remove(calls.append)
    assert not event
    with pytest.raises(ValueError, match="not in list"):
        event.remove(calls.append)


def test_a_callback_that_raises_is_logged_and_the_others_are_called(
    calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    event: Event[[str]] = Event("on_something")

    @event
    def fail(name: str) -> None:
        raise ZeroDivisionError(name)

    event(calls.append)

    assert event.happen("it") == "ZeroDivisionError"
    assert calls == ["it"]
    assert "on_something failed" in caplog.text


def test_a_callback_may_be_removed_by_a_callback(calls: list[str]) -> None:
    event: Event[[str]] = Event("on_something")

    @event
    def once(name: str) -> None:
        event.remove(once)

    event(calls.append)
    event.happen("it")

    assert (calls, len(event)) == (["it"], 1)


def test_timers_are_due_in_the_order_of_their_times(clock: FakeClock) -> None:
    timers: Timers[str] = Timers()
    assert timers.next_timeout() == math.inf
    timers.add(2.0, "late")
    timers.add(1.0, "early")
    assert (timers.next_timeout(), [*timers.due()]) == (101.0, [])

    clock.advance(1.0)
    assert [*timers.due()] == ["early"]

    clock.advance(1.0)
    assert ([*timers.due()], timers.next_timeout()) == (["late"], math.inf)


def test_timers_of_one_moment_are_due_in_the_order_in_which_they_were_added(clock: FakeClock) -> None:
    timers: Timers[Callable[[], None]] = Timers()
    callables = [lambda: None for _ in range(3)]
    for callback in callables:
        timers.add(0.0, callback)

    assert [*timers.due()] == callables


def test_a_timer_that_is_added_by_another_one_is_for_the_next_time(clock: FakeClock) -> None:
    timers: Timers[str] = Timers()
    timers.add(0.0, "first")

    for _ in timers.due():
        timers.add(0.0, "again")

    assert [*timers.due()] == ["again"]


def test_what_was_not_asked_for_stays_due(clock: FakeClock) -> None:
    timers: Timers[str] = Timers()
    for name in ("first", "second"):
        timers.add(0.0, name)

    assert next(timers.due()) == "first"
    assert [*timers.due()] == ["second"]
