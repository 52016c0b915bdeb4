"""The count of what is thrown away."""

from __future__ import annotations

from typing import Any, cast

import pytest

from posttroll.protocol.drops import Drops


def test_nothing_is_dropped_at_first() -> None:
    drops = Drops()

    assert drops.counts == {}
    assert drops.total() == 0


def test_drops_are_counted_by_reason() -> None:
    drops = Drops()

    for reason in ("no message", "too long", "no message"):
        drops.add(reason, now=0.0)

    assert drops.counts == {"no message": 2, "too long": 1}
    assert drops.total() == 3


def test_the_first_of_a_reason_is_to_be_reported() -> None:
    drops = Drops()

    assert drops.add("no message", now=0.0)
    assert drops.add("too long", now=0.0)


def test_a_reason_is_reported_again_after_the_interval_only() -> None:
    drops = Drops(report_interval=60.0)

    reports = [drops.add("no message", now) for now in (0.0, 1.0, 59.9, 60.0, 61.0, 119.9, 120.0)]

    assert reports == [True, False, False, True, False, False, True]


def test_reasons_are_reported_independently() -> None:
    drops = Drops()
    drops.add("no message", now=0.0)

    assert drops.add("too long", now=1.0)
    assert not drops.add("no message", now=1.0)


def test_the_interval_can_be_chosen() -> None:
    drops = Drops(report_interval=5.0)

    assert [drops.add("no message", now) for now in (0.0, 4.0, 5.0)] == [True, False, True]


def test_counts_follow_but_cannot_be_changed() -> None:
    drops = Drops()
    counts = drops.counts

    drops.add("no message", now=0.0)

    assert counts["no message"] == 1
    with pytest.raises(TypeError):
        cast(Any, counts)["no message"] = 0


def test_a_reason_that_never_occurred_was_counted_zero_times() -> None:
    assert Drops().counts.get("no message", 0) == 0
