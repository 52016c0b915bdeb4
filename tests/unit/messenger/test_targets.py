"""Targets, and what was taken from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from posttroll.message import Message
from posttroll.messenger.targets import ACCEPTED, RELEASED, Incoming, Target
from posttroll.protocol.drops import Drops
from posttroll.protocol.frames import Outcome
from posttroll.protocol.link import Delivery
from posttroll.protocol.properties import Properties, encode_payload
from posttroll.settings import config


class Link:
    """Gives what is in its queue, and notes what becomes of it."""

    def __init__(self) -> None:
        self.queue: deque[Delivery] = deque()
        self.opened: list[tuple[str, int]] = []
        self.outcomes: dict[int, Outcome] = {}

    def open_target(self, target: str, on_arrival: Callable[[], None], credit: int, *, is_prompt: bool) -> None:
        self.opened.append((target, credit))
        on_arrival()

    def take(self, target: str) -> tuple[Delivery, str] | None:
        return (self.queue.popleft(), "alice") if self.queue else None

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        is_ours = delivery.sequence not in self.outcomes
        self.outcomes[delivery.sequence] = outcome
        return is_ours

    def arrive(self, payload: bytes) -> None:
        self.queue.append(Delivery("queue", len(self.queue), 1, payload))

    @property
    def states(self) -> dict[int, str]:
        return {sequence: outcome.state for sequence, outcome in self.outcomes.items()}


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def drops() -> Drops:
    return Drops()


@pytest.fixture
def target(link: Link, drops: Drops) -> Target:
    target = Target("messages", lambda: None, 10, drops)
    target.open(link)
    return target


def message(number: int = 0, size: int = 0) -> bytes:
    text = Message("/note", "info", {"number": number, "text": "x" * size}).encode()
    return encode_payload(text.encode(), Properties(str(number), "bob"))


def incoming_with(link: Link, target: Target, window: int, count: int) -> tuple[Incoming, list[Message]]:
    """Return what has got so many messages."""
    for number in range(count):
        link.arrive(message(number))
    incoming = Incoming(target, window)
    incoming.take_in(-1)
    return incoming, [incoming.begin(incoming.pop()) for _ in range(count)]


def test_it_is_opened_with_its_credit(link: Link, drops: Drops) -> None:
    arrivals: list[bool] = []

    Target("requests", lambda: arrivals.append(True), 7, drops).open(link)

    assert (link.opened, arrivals) == ([("requests", 7)], [True])


def test_there_is_nothing_before_it_is_opened_and_after_it_is_closed(link: Link, drops: Drops, target: Target) -> None:
    link.arrive(message())
    taken = target.take()
    link.arrive(message(1))
    target.close()

    assert Target("messages", lambda: None, 1, drops).take() is None
    assert target.take() is None
    assert not target.accept(taken)


def test_a_message_is_taken_with_its_properties_and_its_delivery(link: Link, target: Target) -> None:
    link.arrive(message(1))
    delivery = link.queue[0]

    taken = target.take()

    assert (taken.data["number"], taken.delivery) == (1, delivery)
    assert taken.properties == Properties("1", "bob", source="alice")
    assert target.take() is None


def test_a_message_is_accepted_released_or_rejected(link: Link, target: Target) -> None:
    for number in range(3):
        link.arrive(message(number))
    messages = [target.take() for _ in range(3)]

    assert target.accept(messages[0])
    assert target.release(messages[1])
    assert target.reject(messages[2], "x" * 3000)
    assert not target.accept(messages[2])

    assert link.states == {0: "accepted", 1: "released", 2: "accepted"}


def test_the_reason_of_a_rejection_is_cut_to_what_a_frame_may_have(link: Link, target: Target) -> None:
    link.arrive(message())

    target.reject(target.take(), "x" * 3000)

    assert link.outcomes[0] == Outcome("rejected", "x" * 2000)


@pytest.mark.parametrize("payload", [b"", b"text", b"text\n{}", message()[:-2], b"no message" + message()])
def test_what_is_no_message_is_rejected_and_counted_and_the_next_one_is_given(
    link: Link, drops: Drops, target: Target, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    link.arrive(payload)
    link.arrive(message(1))

    assert target.take().data["number"] == 1

    assert link.outcomes[0].state == "rejected"
    assert link.outcomes[0].reason.startswith("no message: ")
    assert drops.counts == {"not a message": 1}
    assert "what came from alice for messages is rejected" in caplog.text


def test_a_message_that_is_too_large_is_rejected(link: Link, drops: Drops) -> None:
    with config.set(max_message_size=2000):
        target = Target("messages", lambda: None, 10, drops)
    target.open(link)
    link.arrive(message(0, size=3000))
    link.arrive(message(1, size=1000))

    assert target.take().data["number"] == 1
    assert "3" in link.outcomes[0].reason


def test_a_message_that_did_not_come_by_a_target_cannot_be_settled(target: Target) -> None:
    assert not target.accept(Message("/note", "info"))


@pytest.mark.parametrize(("most", "taken"), [(0, 0), (2, 2), (5, 3), (-1, 3)])
def test_so_many_are_taken_in(link: Link, target: Target, most: int, taken: int) -> None:
    incoming = Incoming(target, 0)
    for number in range(3):
        link.arrive(message(number))

    assert (incoming.take_in(most), len(incoming)) == (taken, taken)


def test_what_is_got_is_accepted_when_the_next_one_is_asked_for(link: Link, target: Target) -> None:
    incoming, _ = incoming_with(link, target, 0, 2)
    assert link.states == {}

    incoming.settle_former()

    assert link.states == {0: "accepted", 1: "accepted"}


def test_with_a_window_the_eldest_beyond_it_is_accepted(link: Link, target: Target) -> None:
    incoming, _ = incoming_with(link, target, 2, 4)

    incoming.settle_former()

    assert link.states == {0: "accepted", 1: "accepted"}


@pytest.mark.parametrize(
    ("index", "cumulative", "settled"),
    [(1, False, [1]), (1, True, [0, 1]), (2, True, [0, 1, 2]), (None, False, [0, 1, 2])],
)
def test_one_is_settled_or_all_up_to_one_or_all(
    link: Link, target: Target, index: int | None, cumulative: bool, settled: list[int]
) -> None:
    incoming, messages = incoming_with(link, target, 3, 3)

    assert incoming.settle(ACCEPTED, None if index is None else messages[index], cumulative)

    assert sorted(link.outcomes) == settled


def test_what_is_settled_already_cannot_be_settled_again(link: Link, target: Target) -> None:
    incoming, messages = incoming_with(link, target, 3, 2)
    incoming.settle(RELEASED, messages[0])

    assert not incoming.settle(ACCEPTED, messages[0])
    assert incoming.settle(ACCEPTED)

    assert link.states == {0: "released", 1: "accepted"}


def test_all_are_settled_though_one_is_somebody_elses_now(link: Link, target: Target) -> None:
    incoming, _ = incoming_with(link, target, 3, 2)
    link.outcomes[0] = Outcome("released")

    assert not incoming.settle(ACCEPTED)

    assert link.states == {0: "accepted", 1: "accepted"}


def test_a_message_that_has_nobody_to_tell_counts_as_settled(target: Target) -> None:
    assert Incoming(target, 0).settle(ACCEPTED, Message("/note", "info"))


def test_what_is_cleared_is_not_settled(link: Link, target: Target) -> None:
    incoming, _ = incoming_with(link, target, 0, 2)
    incoming.append(Message("/note", "info"))

    incoming.clear()
    incoming.settle_former()

    assert (len(incoming), link.states) == (0, {})


def test_messages_may_be_taken_past_the_queue(link: Link, target: Target) -> None:
    incoming: Any = Incoming(target, 0)
    link.arrive(message(5))

    assert incoming.take().data["number"] == 5
    assert (len(incoming), incoming.take()) == (0, None)


def test_of_an_empty_queue_the_next_message_of_the_target_is_given(link: Link, target: Target) -> None:
    incoming: Any = Incoming(target, 0)
    link.arrive(message(5))

    assert incoming.pop().data["number"] == 5
    assert incoming.pop() is None
