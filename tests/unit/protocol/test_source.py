"""What a source gives out, to whom it has been given before, and what it notes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from posttroll.protocol.frames import Outcome
from posttroll.protocol.source import Entry, Position, Source

ACCEPTED, RELEASED, REJECTED = Outcome("accepted"), Outcome("released"), Outcome("rejected", "bad")


class ThreeMessages:
    """A store of three messages that remembers what was noted."""

    is_forgotten = False

    def __init__(self) -> None:
        self.noted: list[tuple[object, ...]] = []

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        return [Entry(number, b"") for number in range(after + 1, 4)], 3

    def save(self, cursor: int, handed_out: int) -> None:
        self.noted.append(("save", cursor, handed_out))

    def settle(self, sequence: int) -> None:
        self.noted.append(("settle", sequence))

    def count(self, sequence: int, count: int) -> None:
        self.noted.append(("count", sequence, count))

    def set_aside(self, sequence: int, count: int, reason: str) -> None:
        self.noted.append(("set aside", sequence, count, reason))


@pytest.fixture
def store() -> ThreeMessages:
    return ThreeMessages()


@pytest.fixture
def source(store: ThreeMessages) -> Source:
    """A source whose first message was set aside."""
    source = Source(store, Position(0, 0), max_deliveries=3)
    source.take(wall=0.0)
    source.settle(1, REJECTED)
    source.save()
    store.noted.clear()
    return source


def test_what_is_offered_comes_first_and_is_flagged(source: Source) -> None:
    source.offer(Entry(1, b"one"))

    assert source.take(wall=0.0) == (Entry(1, b"one"), 2)
    assert source.take(wall=0.0) == (Entry(2, b""), 1)


def test_what_is_offered_leaves_the_cursor_where_it_is(source: Source, store: ThreeMessages) -> None:
    source.offer(Entry(1, b""))
    source.take(wall=0.0)
    source.settle(1, ACCEPTED)
    source.save()

    assert source.cursor == 1
    assert store.noted == [("count", 1, 2), ("settle", 1)]


def test_what_is_offered_in_vain_is_set_aside_again(source: Source, store: ThreeMessages) -> None:
    source.offer(Entry(1, b""))
    for _ in range(2):
        taken = source.take(wall=0.0)
        assert taken is not None
        assert taken[0].sequence == 1
        source.settle(1, RELEASED)

    assert source.take(wall=0.0) == (Entry(2, b""), 1)
    assert ("set aside", 1, 3, "delivered 3 times without being accepted") in store.noted


def test_what_is_offered_twice_comes_once(source: Source) -> None:
    source.offer(Entry(1, b""))
    source.offer(Entry(1, b""))

    assert [source.take(wall=0.0) for _ in range(4)] == [
        (Entry(1, b""), 2),
        (Entry(2, b""), 1),
        (Entry(3, b""), 1),
        None,
    ]


def test_what_is_offered_may_be_claimed(source: Source) -> None:
    source.offer(Entry(1, b""))

    assert source.claim(1)
    assert not source.claim(1)


def test_a_single_delivery_is_allowed_once_more(store: ThreeMessages) -> None:
    source = Source(store, Position(1, 1), max_deliveries=1)

    source.offer(Entry(1, b""))

    assert source.take(wall=0.0) == (Entry(1, b""), 1)


class ManyMessages(ThreeMessages):
    """A store of a million messages that remembers how far it was read."""

    read_to = 0

    def read(self, after: int, limit: int) -> tuple[Sequence[Entry], int]:
        self.read_to = min(after + limit, 1_000_000)
        return [Entry(number, b"") for number in range(after + 1, self.read_to + 1)], self.read_to


def test_what_nobody_was_given_cannot_be_claimed() -> None:
    store = ManyMessages()
    source = Source(store, Position(0, 0))

    assert not source.claim(999_999)
    assert store.read_to == 0


def test_what_was_given_out_before_a_restart_can_be_claimed_once(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 2))

    assert source.claim(2)
    assert not source.claim(2)
    assert not source.claim(3)


def test_what_is_claimed_is_given_to_nobody_else(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 2))
    source.claim(1)

    assert source.take(wall=0.0) == (Entry(2, b""), 2)
    assert source.take(wall=0.0) == (Entry(3, b""), 1)
    assert source.take(wall=0.0) is None


def test_what_is_claimed_and_released_is_flagged(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 2))
    source.claim(1)

    source.settle(1, Outcome("released", begun=False))

    assert source.take(wall=0.0) == (Entry(1, b""), 2)


def test_what_is_claimed_and_released_again_and_again_is_given_out_once(store: ThreeMessages) -> None:
    source = Source(store, Position(2, 3))
    for _ in range(3):
        source.claim(3)
        source.settle(3, RELEASED)

    assert source.take(wall=0.0) == (Entry(3, b""), 2)
    assert source.take(wall=0.0) is None


def test_what_was_released_before_it_was_begun_is_not_counted(store: ThreeMessages) -> None:
    source = Source(store, Position(2, 2))
    source.take(wall=0.0)

    source.settle(3, Outcome("released", begun=False))

    assert source.take(wall=0.0) == (Entry(3, b""), 1)


def test_the_cursor_stays_before_the_first_that_is_not_settled(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 0))
    for _ in range(3):
        source.take(wall=0.0)

    source.settle(2, ACCEPTED)
    source.settle(3, ACCEPTED)
    source.save()
    source.settle(1, ACCEPTED)
    source.save()
    source.save()

    assert store.noted == [("settle", 2), ("settle", 3), ("save", 0, 3), ("save", 3, 3)]


def test_what_was_settled_beyond_the_cursor_is_passed_over_however_much_it_is() -> None:
    source = Source(ManyMessages(), Position(0, 1000, settled=frozenset(range(1, 1001))))

    assert source.take(wall=0.0) == (Entry(1001, b""), 1)


def test_counts_are_known_after_a_restart(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 2, counts={1: 4}))

    assert [source.take(wall=0.0) for _ in range(3)] == [
        (Entry(1, b""), 5),
        (Entry(2, b""), 2),
        (Entry(3, b""), 1),
    ]
    assert store.noted == [("count", 1, 5)]


def test_what_is_settled_twice_is_settled_once(store: ThreeMessages) -> None:
    source = Source(store, Position(0, 0))
    source.take(wall=0.0)
    source.settle(1, ACCEPTED)

    source.settle(1, REJECTED)

    assert store.noted == []
