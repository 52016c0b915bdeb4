"""Nothing is lost while everything that takes part is killed, and the judge who says so notices if it were."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.processes import Site
from tests.acceptance.transfers import Handled, gaps, out_of_order, unflagged
from tests.compatibility.releases import RELEASES, Unavailable
from tests.soak.chain import Chain
from tests.soak.plan import VICTIMS, Plan


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_and_the_released_are_not_disturbed_while_everybody_is_killed(
    site: Site, free_ports: Callable[[int], list[int]], seed: int
) -> None:
    port, link_port = free_ports(2)
    try:
        released = RELEASES[-1].interpreter()
    except Unavailable as reason:
        pytest.skip(str(reason))

    verdict = Chain(site, Plan(seed, 2000, 12.0, 12), (port, link_port), released, print).run()

    assert verdict.faults() == [], verdict.report()
    assert all(verdict.kills.values()), verdict.report()


def test_a_plan_is_the_same_for_the_same_seed_and_lets_everybody_have_a_turn() -> None:
    plan = Plan(seed=7, messages=100, seconds=1.0, kills=2 * len(VICTIMS), freezes=3)

    schedule = plan.schedule()

    assert schedule == plan.schedule() != Plan(8, 100, 1.0, 2 * len(VICTIMS), 3).schedule()
    assert sorted(harm.victim for harm in schedule if not harm.is_freeze) == sorted(2 * VICTIMS)
    assert sum(harm.is_freeze for harm in schedule) == 3
    assert [harm.after for harm in schedule] == sorted(harm.after for harm in schedule)


def _handled(sequence: int, *, again: bool = False, sent_in: str = "1", handled_in: str = "1") -> Handled:
    return Handled(sequence, sequence, again, 1 + again, sent_in, handled_in)


def test_what_is_handled_twice_has_to_be_flagged_once() -> None:
    twice = [_handled(1), _handled(2), _handled(2, again=True), _handled(3, again=True), _handled(3, again=True)]

    assert unflagged(twice) == []
    assert unflagged([*twice, _handled(2)]) == [2]


def test_order_is_judged_within_the_life_of_a_consumer() -> None:
    in_order = [_handled(1), _handled(3), _handled(2, again=True), _handled(2, handled_in="2")]

    assert out_of_order(in_order) == []
    assert out_of_order([*in_order, _handled(2)]) == [2]


def test_gaps_are_judged_within_the_life_of_a_publisher() -> None:
    without_gap = [_handled(2), _handled(3), _handled(5, sent_in="2"), _handled(6, sent_in="2")]

    assert gaps(without_gap) == []
    assert gaps([*without_gap, _handled(8, sent_in="2")]) == [8]
    assert gaps([*without_gap, _handled(6, sent_in="2")]) == [6]
