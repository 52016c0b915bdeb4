from __future__ import annotations

import pytest
import zmq

from posttroll.backends.zmq.backlog import Backlog, Limits

LIMITS = Limits(most=3, largest=100, largest_together=200)


@pytest.fixture
def backlog() -> Backlog[str]:
    return Backlog("tcp://127.0.0.1:9", LIMITS)


def add(backlog: Backlog[str], item: str, size: int = 1) -> None:
    """Offer an item; its first letter is the guest."""
    backlog.put_or_refuse(item[0], item, size, zmq.Frame())


def test_guests_take_turns(backlog: Backlog[str]) -> None:
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        add(backlog, item)

    assert list(backlog.take(2)) == ["a1", "b1"]
    assert list(backlog.take(10)) == ["c1", "a2", "b2", "a3"]
    assert not backlog


def test_one_guest_has_room_for_so_many_items(backlog: Backlog[str]) -> None:
    for item in ("a1", "a2", "a3", "a4", "b1"):
        add(backlog, item)
    assert list(backlog.take(1)) == ["a1"]
    add(backlog, "a5")

    assert list(backlog.take(10)) == ["b1", "a2", "a3", "a5"]


def test_one_guest_has_room_for_so_many_bytes_but_always_for_one_item(backlog: Backlog[str]) -> None:
    for item, size in (("a1", 1000), ("a2", 1), ("b1", 99), ("b2", 99), ("b3", 1)):
        add(backlog, item, size)

    assert list(backlog.take(10)) == ["a1", "b1"]

    for item in ("a3", "a4"):
        add(backlog, item)
    assert list(backlog.take(10)) == ["a3", "a4"]


def test_beyond_what_all_may_have_together_each_has_one_item(backlog: Backlog[str]) -> None:
    for item, size in (("a1", 99), ("a2", 99), ("b1", 99), ("b2", 1), ("c1", 1), ("c2", 1)):
        add(backlog, item, size)

    assert list(backlog.take(10)) == ["a1", "b1", "c1", "a2"]


def test_what_is_empty_is_not_kept_unless_it_has_to_be(backlog: Backlog[str]) -> None:
    add(backlog, "a1", 0)
    assert not backlog

    for item in ("b1", "b2", "b3", "b4"):
        backlog.put("b", item)
    assert list(backlog.take(10)) == ["b1", "b2", "b3", "b4"]


def test_reading_ends_when_there_is_no_more_and_after_a_while(backlog: Backlog[str]) -> None:
    numbers = iter(range(6000))

    def read_one() -> None:
        if next(numbers, None) is None:
            raise zmq.Again

    assert not backlog.fill(read_one)
    assert backlog.fill(read_one)
