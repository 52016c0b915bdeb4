"""What is given back when."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posttroll.protocol.agenda import Agenda


@dataclass(eq=False)
class Item:
    due: float = math.inf


def taken(agenda: Agenda[Item], now: float = 0.0) -> list[Item]:
    return list(agenda.take(now))


def test_with_nothing_on_it_there_is_never_anything_to_take() -> None:
    agenda: Agenda[Item] = Agenda()

    assert agenda.next_timeout() == math.inf
    assert taken(agenda) == []


def test_what_is_touched_is_given_back_once_and_at_once() -> None:
    agenda, one, other = Agenda[Item](), Item(), Item()

    for item in (one, other, one):
        agenda.touch(item)

    assert agenda.next_timeout() == -math.inf
    assert taken(agenda) == [one, other]
    assert taken(agenda) == []


def test_what_is_scheduled_is_given_back_in_time_and_once() -> None:
    agenda, one, other = Agenda[Item](), Item(), Item()
    agenda.schedule(one, 5.0)
    agenda.schedule(other, 3.0)

    assert agenda.next_timeout() == 3.0
    assert taken(agenda, 2.9) == []
    assert taken(agenda, 5.0) == [other, one]
    assert agenda.next_timeout() == math.inf


def test_the_earliest_moment_counts() -> None:
    agenda, item = Agenda[Item](), Item()
    for moment in (5.0, 3.0, 4.0):
        agenda.schedule(item, moment)

    assert taken(agenda, 3.0) == [item]
    assert taken(agenda, 9.0) == []


def test_what_is_touched_before_its_time_is_still_given_back_by_then() -> None:
    agenda, item = Agenda[Item](), Item()
    agenda.schedule(item, 5.0)
    agenda.touch(item)

    assert taken(agenda, 1.0) == [item]
    agenda.schedule(item, 7.0)
    assert agenda.next_timeout() == 5.0
    assert taken(agenda, 5.0) == [item]


def test_what_is_touched_meanwhile_comes_next_time() -> None:
    agenda, one, other = Agenda[Item](), Item(), Item()
    agenda.touch(one)
    agenda.touch(other)

    first = []
    for item in agenda.take(0.0):
        first.append(item)
        agenda.touch(one)

    assert first == [one, other]
    assert taken(agenda) == [one]


def test_what_was_not_reached_comes_next_time() -> None:
    agenda, one, other = Agenda[Item](), Item(), Item()
    agenda.touch(one)
    agenda.touch(other)

    assert next(agenda.take(0.0)) is one
    assert taken(agenda) == [other]


def test_what_is_forgotten_is_not_given_back() -> None:
    agenda, one, other = Agenda[Item](), Item(), Item()
    agenda.touch(one)
    agenda.schedule(one, 5.0)
    agenda.schedule(other, 6.0)

    agenda.forget(one)

    assert taken(agenda, 9.0) == [other]


def test_what_is_forgotten_is_not_kept() -> None:
    agenda = Agenda[Item]()
    stays = Item()
    agenda.schedule(stays, 1e6)

    for _ in range(1000):
        item = Item()
        for moment in (9e9, 8e9):
            agenda.schedule(item, moment)
        agenda.forget(item)

    assert len(agenda._timed) < 10
    assert agenda.next_timeout() == 1e6
