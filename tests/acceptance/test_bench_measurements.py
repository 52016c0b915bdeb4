"""Measurements of the benchmark that have children of their own, in their quick form and for this package alone."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from bench import accounts
from bench import contenders as who
from bench.harness import Contender, Measurement, Plan, Unavailable
from bench.measurements import asyncio, calls

_REPOSITORY = Path(__file__).resolve().parents[2]
_MEASUREMENTS = ("codec", "durable", "calls", "addressed", "discovery", "nameserver", "process")


@pytest.mark.parametrize("name", _MEASUREMENTS)
def test_a_quick_measurement_gives_values_for_metrics_with_units(name: str) -> None:
    measurement: Measurement = importlib.import_module(f"bench.measurements.{name}").MEASUREMENT
    this_package = Contender("this package", Path(sys.executable), "posttroll", str(_REPOSITORY))

    values = measurement.measure(this_package, Plan(rounds=1, seconds=0.05, quick=True))

    assert values
    assert values.keys() <= measurement.units.keys()
    assert min(values.values()) >= 0


@pytest.mark.parametrize("name", _MEASUREMENTS)
def test_goals_are_about_metrics_that_are_measured(name: str) -> None:
    measurement: Measurement = importlib.import_module(f"bench.measurements.{name}").MEASUREMENT

    assert {goal.metric for goal in measurement.goals} <= measurement.units.keys()


@pytest.mark.parametrize("ends", ["posttroll", "zmq_raw", "zmq_orjson"])
def test_calls_are_made_one_by_one_and_many_at_a_time(ends: str) -> None:
    contender = Contender("somebody", Path(sys.executable), ends, str(_REPOSITORY))

    values = calls.MEASUREMENT.measure(contender, Plan(rounds=1, seconds=0.05))

    assert values.keys() == calls.MEASUREMENT.units.keys()
    assert min(values.values()) > 0


def test_the_asyncio_end_is_measured_in_full() -> None:
    contender = Contender(who.ASYNCIO, Path(sys.executable), "posttroll_asyncio", str(_REPOSITORY))

    values = asyncio.MEASUREMENT.measure(contender, Plan(rounds=1, seconds=0.05))

    assert values.keys() == asyncio.MEASUREMENT.units.keys()
    assert min(values.values()) > 0


def test_what_else_is_awaited_is_measured_beside_it() -> None:
    contender = Contender(who.AWAITED, Path(sys.executable), "zmq_asyncio")

    assert min(asyncio.MEASUREMENT.measure(contender, Plan(rounds=1, seconds=0.05, quick=True)).values()) > 0


def test_the_accounts_of_this_process_are_plausible() -> None:
    before = accounts.wake_ups(os.getpid())

    assert accounts.cpu_seconds(os.getpid()) > 0
    assert accounts.memory_megabytes(os.getpid()) > 5
    assert accounts.session_megabytes(os.getsid(0)) >= accounts.memory_megabytes(os.getpid())
    assert accounts.wake_ups(os.getpid()) >= before


def test_a_process_that_is_gone_has_no_accounts() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitpid(pid, 0)

    with pytest.raises(Unavailable, match=str(pid)):
        accounts.wake_ups(pid)
