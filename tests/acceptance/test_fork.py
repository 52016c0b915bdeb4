"""A process that forks: the child cannot break what the parent uses, and can open its own."""

from __future__ import annotations

import pytest

from tests.acceptance.processes import Process, Site
from tests.fixtures.waiting import UNIT

USES = ("send", "noisy_send", "wait", "receive", "receive_found", "connect", "ask")
STOPS = ("publisher", "noisy", "subscriber", "finder", "container", "nameserver", "client")


@pytest.fixture
def forking(site: Site) -> dict[str, str]:
    """Run the program that forks, and give what it says, by who and what."""
    process = site.program("forking.py")
    _await_end(process)
    return {who_and_what: outcome for who_and_what, _, outcome in (line.rpartition(" ") for line in process.lines)}


def _await_end(process: Process) -> None:
    assert process.wait(20 * UNIT) == 0, process.output + process.errors
    assert "Traceback" not in process.errors


def test_the_child_of_a_fork_cannot_use_what_its_parent_opened_and_opens_its_own(forking: dict[str, str]) -> None:
    assert {use: forking[f"child {use}"] for use in USES} == dict.fromkeys(USES, "UsedAfterFork")
    assert {stop: forking[f"child stop_{stop}"] for stop in STOPS} == dict.fromkeys(STOPS, "None")
    assert forking["child own"] == "True"
    assert forking["child own_finder"] == "1"
    assert forking["parent child_status"] == "7"
    assert float(forking["child duration"]) < 5 * UNIT

    assert {what: forking[f"parent {what}"] for what in ("silent", "noisy", "container")} == {
        "silent": "True",
        "noisy": "True",
        "container": "True",
    }
    assert forking["parent known"] == "1"
    assert forking["parent asks"] == "1"
