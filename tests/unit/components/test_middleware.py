"""What goes on around handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from posttroll.components.middleware import (
    Context,
    CountMiddleware,
    Decision,
    LogMiddleware,
    Middleware,
    RetryMiddleware,
    Stack,
)
from posttroll.errors import Refused
from posttroll.message import Message
from posttroll.protocol.link import Delivery

MESSAGE = Message("/1b/viirs", "file", {"uid": "a"})


class Recording(Middleware):
    def __init__(self, name: str, calls: list[str], decision: Decision | None = None) -> None:
        self.name, self.calls, self.decision = name, calls, decision

    def before(self, context: Context) -> None:
        self.calls.append(f"{self.name} before {context.handler} {context.attempt}")

    def after(self, context: Context, result: Any) -> None:
        self.calls.append(f"{self.name} after {result}")

    def failure(self, context: Context, error: BaseException) -> Decision | None:
        self.calls.append(f"{self.name} failure {error}")
        return self.decision


class Broken(Middleware):
    def after(self, context: Context, result: Any) -> None:
        raise RuntimeError("broken")

    def failure(self, context: Context, error: BaseException) -> None:
        raise RuntimeError("broken")


class Strict(Middleware):
    def before(self, context: Context) -> None:
        raise Refused("not on Sundays")


def raising(error: BaseException) -> Callable[[], Any]:
    def action() -> Any:
        raise error

    return action


def failing(times: int) -> Callable[[], str]:
    errors = iter(range(times))

    def action() -> str:
        for number in errors:
            raise ValueError(f"failure {number}")
        return "done"

    return action


def test_layers_are_called_from_the_first_to_the_last_and_back() -> None:
    calls: list[str] = []

    outcome = Stack([Recording("one", calls), Recording("two", calls)]).run(lambda: "done", "resample", MESSAGE)

    assert (outcome.decision.state, outcome.result) == ("accepted", "done")
    assert calls == ["one before resample 1", "two before resample 1", "two after done", "one after done"]


def test_a_failure_is_told_to_all_layers_and_releases_the_message() -> None:
    calls: list[str] = []

    outcome = Stack([Recording("one", calls), Recording("two", calls)]).run(failing(1), "resample", MESSAGE)

    assert (outcome.decision.state, str(outcome.error)) == ("released", "failure 0")
    assert calls[2:] == ["two failure failure 0", "one failure failure 0"]


def test_the_innermost_layer_that_decides_decides() -> None:
    layers = [
        Recording("one", [], Decision("released")),
        Recording("two", [], Decision("rejected", "spoilt")),
        Recording("three", []),
    ]

    outcome = Stack(layers).run(failing(1), "resample", MESSAGE)

    assert outcome.decision == Decision("rejected", "spoilt")


def test_what_a_handler_refuses_is_rejected_with_its_reason() -> None:
    outcome = Stack([]).run(raising(Refused("no such satellite")), "resample", MESSAGE)

    assert outcome.decision == Decision("rejected", "no such satellite")


def test_what_a_layer_raises_before_counts_as_raised_by_the_handler() -> None:
    called: list[int] = []

    outcome = Stack([Strict()]).run(lambda: called.append(1), "resample", MESSAGE)

    assert (outcome.decision.state, called) == ("rejected", [])


def test_a_handler_that_ends_the_program_has_failed_and_no_more() -> None:
    assert Stack([]).run(raising(SystemExit(1)), "resample", MESSAGE).decision.state == "released"


def test_a_handler_that_is_interrupted_has_failed_and_no_more() -> None:
    assert Stack([]).run(raising(KeyboardInterrupt()), "work", MESSAGE).decision == Decision("released")


def test_what_is_refused_is_logged_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    Stack([LogMiddleware()]).run(raising(Refused("no such area")), "work", MESSAGE)

    record = caplog.records[-1]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "work refused with /1b/viirs: no such area"
    assert record.exc_info is None


def test_which_delivery_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    message = Message("/1b/viirs", "file", {"uid": "a"})
    message.delivery = Delivery("journal", 1, 3, b"")

    Stack([LogMiddleware()]).run(raising(ValueError("cannot")), "work", message)

    assert caplog.records[-1].getMessage().endswith(" with /1b/viirs, delivery 3")


def test_a_layer_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stack = Stack([Broken()])

    assert stack.run(failing(0), "resample", MESSAGE).decision.state == "accepted"
    assert stack.run(failing(1), "resample", MESSAGE).decision.state == "released"
    assert [record.getMessage() for record in caplog.records] == [
        "Broken.after failed on resample",
        "Broken.failure failed on resample",
    ]


def test_what_failed_is_tried_again_after_pauses_that_grow() -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    retry = RetryMiddleware(max_retries=4, delay=1, factor=3, max_delay=10)
    outcome = Stack([retry]).run(failing(4), "resample", MESSAGE, pause)

    assert (outcome.result, pauses) == ("done", [1, 3, 9, 10])


def test_retries_come_to_an_end() -> None:
    calls: list[str] = []

    stack = Stack([Recording("one", calls), RetryMiddleware(max_retries=2)])
    outcome = stack.run(failing(9), "resample", MESSAGE, lambda seconds: False)

    assert outcome.decision.state == "released"
    assert [call for call in calls if "before" in call] == [f"one before resample {attempt}" for attempt in (1, 2, 3)]


def test_a_retry_is_given_up_when_all_ends() -> None:
    outcome = Stack([RetryMiddleware()]).run(failing(1), "resample", MESSAGE, lambda seconds: True)

    assert outcome.decision.state == "released"


def test_what_was_refused_is_not_tried_again() -> None:
    outcome = Stack([RetryMiddleware()]).run(raising(Refused("no")), "resample", MESSAGE, lambda seconds: False)

    assert outcome.decision.state == "rejected"


def test_work_is_counted_by_handler() -> None:
    counts = CountMiddleware()
    stack = Stack([counts, RetryMiddleware()])

    stack.run(failing(2), "resample", MESSAGE, lambda seconds: False)
    stack.run(failing(0), "archive", MESSAGE)

    assert counts.done == {"resample": 1, "archive": 1}
    assert counts.failed == {"resample": 2}
    assert set(counts.seconds) == {"resample", "archive"}


def test_work_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stack = Stack([LogMiddleware()])

    stack.run(failing(0), "resample", MESSAGE)
    stack.run(failing(1), "resample", None)

    begin, end, _, failure = caplog.records
    assert begin.getMessage() == "resample begins with /1b/viirs"
    assert end.getMessage().startswith("resample done in 0.0")
    assert failure.getMessage().startswith("resample failed in attempt 1 after 0.0")
    assert failure.exc_info is not None
