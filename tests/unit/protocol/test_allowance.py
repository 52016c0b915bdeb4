from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.errors import ConfigurationError
from posttroll.protocol.allowance import Allowance


def test_after_a_pause_a_tenth_of_a_second_may_be_sent_at_once() -> None:
    allowance = Allowance(1000.0, now=50.0)

    assert allowance.level == pytest.approx(100.0)
    assert allowance.refresh(1000.0) == pytest.approx(100.0)


def test_who_has_something_left_need_not_wait() -> None:
    allowance = Allowance(1000.0, now=0.0)

    allowance.spend(99.0)

    assert allowance.next_timeout() is None


def test_a_debt_is_paid_at_the_rate() -> None:
    allowance = Allowance(1000.0, now=0.0)

    allowance.spend(2100.0)

    assert allowance.level == pytest.approx(-2000.0)
    assert allowance.next_timeout() == pytest.approx(2.0, abs=0.01)
    assert allowance.refresh(1.5) == pytest.approx(-500.0)
    assert allowance.next_timeout() == pytest.approx(2.0, abs=0.01)


def test_nothing_is_earned_twice_when_the_time_goes_back() -> None:
    allowance = Allowance(1000.0, now=0.0)
    allowance.spend(1100.0)
    allowance.refresh(0.5)

    allowance.refresh(0.1)

    assert allowance.refresh(0.5) == pytest.approx(-500.0)


@given(
    st.floats(1.0, 1e10),
    st.floats(0.0, 1e7),
    st.lists(st.integers(1, 2**24), min_size=1, max_size=20),
)
def test_once_the_moment_has_come_something_may_be_sent(rate: float, now: float, sizes: list[int]) -> None:
    allowance = Allowance(rate, now)
    for size in sizes:
        allowance.spend(size)

    moment = allowance.next_timeout()

    assert moment is None or allowance.refresh(moment) > 0


@given(st.floats(1e3, 1e9), st.lists(st.integers(1, 10_000), min_size=1, max_size=200))
def test_the_rate_is_kept(rate: float, sizes: list[int]) -> None:
    allowance = Allowance(rate, now=0.0)
    now = 0.0

    for size in sizes:
        now = allowance.next_timeout() or now
        allowance.refresh(now)
        allowance.spend(size)

    assert sum(sizes[:-1]) <= rate * (now + 0.1) + 1


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_a_positive_number(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="positive"):
        Allowance(rate, now=0.0)
