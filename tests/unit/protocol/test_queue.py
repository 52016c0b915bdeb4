"""What waits in memory for one other container."""

from __future__ import annotations

import pytest

from posttroll.errors import JournalFull
from posttroll.protocol.frames import Outcome
from posttroll.protocol.queue import Queue
from posttroll.protocol.source import Source
from tests.unit.protocol.simulation import ACCEPTED, REJECTED, RELEASED


def filled(*payloads: bytes, max_size: int = 100) -> tuple[Queue, Source]:
    queue = Queue("queue", max_size)
    for payload in payloads:
        queue.append("", payload, 0.0)
    return queue, queue.open_source("consumer", [], "first", 0.0)


def given_out(source: Source, wall: float = 0.0) -> list[bytes]:
    payloads = []
    while (taken := source.take(wall)) is not None:
        payloads.append(taken[0].payload)
    return payloads


def test_messages_are_given_out_in_order_and_numbered() -> None:
    queue, source = filled(b"one", b"two")

    assert queue.append("", b"three", 0.0) == 3
    assert given_out(source) == [b"one", b"two", b"three"]


def test_there_is_one_source() -> None:
    queue, source = filled()

    assert queue.open_source("another consumer", ["topic"], "new", 9.0) is source


@pytest.mark.parametrize("outcome", [ACCEPTED, REJECTED], ids=lambda outcome: outcome.state)
@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 3, 1]])
def test_of_what_is_settled_nothing_is_kept(outcome: Outcome, order: list[int]) -> None:
    queue, source = filled(b"one", b"two", b"three")
    given_out(source)

    for sequence in order:
        source.settle(sequence, outcome)
    source.save()
    queue.commit()

    assert (queue._entries, queue._size) == ({}, 0)


def test_what_is_released_is_given_out_again_before_what_came_later() -> None:
    _, source = filled(b"one", b"two", b"three")
    source.take(0.0)
    source.take(0.0)

    source.settle(1, RELEASED)

    assert given_out(source) == [b"one", b"three"]


def test_what_is_taken_back_is_not_given_out() -> None:
    queue, source = filled(b"one", b"two", b"three")

    was_there = source.withdraw(2)

    assert was_there
    assert given_out(source) == [b"one", b"three"]
    assert list(queue._entries) == [1, 3]


def test_what_is_given_out_is_not_taken_back() -> None:
    _, source = filled(b"one")
    source.take(0.0)

    assert not source.withdraw(1)
    assert not source.withdraw(7)


def test_a_full_queue_takes_nothing_before_there_is_room_again() -> None:
    queue, source = filled(b"one", b"two", max_size=8)

    with pytest.raises(JournalFull, match="no room for 3 bytes: 2 messages of 6 bytes wait, 8 are allowed"):
        queue.append("", b"six", 0.0)
    source.take(0.0)
    source.settle(1, ACCEPTED)
    source.save()

    assert queue.append("", b"six", 0.0) == 3
    assert given_out(source) == [b"two", b"six"]


def test_what_is_next_and_too_old_is_given_up_and_told() -> None:
    queue = Queue("queue", 100)
    for payload, expires in ((b"one", 5.0), (b"two", 5.0), (b"three", 9.0), (b"four", 5.0)):
        queue.append("", payload, 0.0, expires)
    source = queue.open_source("consumer", [], "first", 0.0)
    told: list[tuple[bytes, str]] = []
    source.on_change = lambda entry, state, reason: told.append((entry.payload, state))

    source.expire(4.9)
    before = list(told)
    source.expire(5.0)

    assert before == []
    assert told == [(b"one", "expired"), (b"two", "expired")]
    assert given_out(source, 5.0) == [b"three"]


def test_it_needs_no_care_and_has_an_end() -> None:
    queue, source = filled(b"one")

    queue.tidy()
    lost = queue.expire(1e9, 1e9)
    queue.close()

    assert lost == {}
    assert not queue.is_forgotten
    assert given_out(source) == []
