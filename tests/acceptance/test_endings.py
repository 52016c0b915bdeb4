"""A program that ends, ends, and what it sent last arrives."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from posttroll.subscriber import Subscriber
from tests.acceptance.processes import Process, Site
from tests.fixtures.waiting import UNIT

AT_ONCE = 1.5 * UNIT
THINGS = (
    "publisher",
    "noisy",
    "designated",
    "nameserver",
    "subscriber",
    "finder",
    "container",
    "handler",
    "logger",
    "all",
)
PUBLISHING = ("publisher", "noisy", "designated", "all")
WAYS = {"end": 0, "drop": 0, "exit": 3, "raise": 1}


def _receive_all(process: Process) -> list[int]:
    """Return the numbers of what the process sends from now on, until its last message."""
    (port,) = process.expect_ready()
    with closing(Subscriber(f"tcp://127.0.0.1:{port}", "/leave")) as subscriber:
        numbers: list[int] = []
        for message in subscriber.recv(3 * UNIT):
            if message is None:
                return numbers
            numbers.append(message.data["number"])
            if numbers[-1] == 99:
                return numbers
    return numbers


def _await_end(process: Process, status: int) -> None:
    left = float(process.expect_word("leaving", 20 * UNIT)[0])
    assert process.wait(AT_ONCE) == status, process.errors
    assert time.monotonic() - left < AT_ONCE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("thing", ["publisher", "all"])
def test_a_program_that_ends_without_stop_ends_at_once_and_its_messages_arrive(
    site: Site, thing: str, way: str
) -> None:
    process = site.program("leave.py", thing, way)

    numbers = _receive_all(process)

    assert numbers == [*range(100)]
    _await_end(process, WAYS[way])


@pytest.mark.parametrize("thing", [thing for thing in THINGS if thing not in ("publisher", "all")])
def test_a_program_ends_whatever_it_forgot_to_stop(site: Site, thing: str) -> None:
    process = site.program("leave.py", thing, "end")

    if thing in PUBLISHING:
        assert _receive_all(process) == [*range(100)]

    _await_end(process, 0)
    assert process.errors.count("Traceback") == 0, process.errors


@pytest.mark.parametrize("thing", ["publisher", "noisy"])
def test_a_program_that_stops_and_exits_right_after_sending_loses_nothing(site: Site, thing: str) -> None:
    process = site.program("leave.py", thing, "stop")

    assert _receive_all(process) == [*range(100)]

    _await_end(process, 0)


def test_a_program_that_is_interrupted_while_it_waits_for_messages_ends_at_once(site: Site) -> None:
    script = (
        "from posttroll.publisher import NoisyPublisher\n"
        "from posttroll.subscriber import Subscriber\n"
        "subscriber = Subscriber('tcp://127.0.0.1:1')\n"
        "publisher = NoisyPublisher('interrupted').start()\n"
        "print('ready', flush=True)\n"
        "list(subscriber.recv())\n"
    )
    process = site.python("-c", script)
    process.expect_ready()
    time.sleep(0.3 * UNIT)  # until it really waits: nothing tells when
    start = time.monotonic()

    process.signal(2)

    assert process.wait(AT_ONCE) == -2
    assert time.monotonic() - start < AT_ONCE
    assert process.errors.rstrip().endswith("KeyboardInterrupt")
