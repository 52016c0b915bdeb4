"""Networks that are cut, programs that are frozen, clocks that are set: what was sent is delivered all the same."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.hosts import Host, Network, opened_network
from tests.acceptance.processes import PROGRAMS, Process, Site
from tests.acceptance.transfers import Transfer, out_of_order, unflagged
from tests.fixtures.waiting import UNIT

PINGS = {"connection_heartbeat_interval": 0.3, "connection_heartbeat_timeout": 1.0}
STEADY = ["--period", "0.01"]
SILENCE = 12.0
"""Longer than anybody waits for a sign of life."""
A_YEAR = str(365 * 24 * 3600)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Network]:
    """Give a network of hosts; programs use the default ports, as nobody else is there."""
    with opened_network(tmp_path, {}) as network:
        yield network


class Ends:
    """A host with nameserver and publisher, and one with the consumer."""

    def __init__(self, lan: Network) -> None:
        self.near, self.far = lan.host(), lan.host()
        self.transfer = Transfer(self.near)
        self.near.nameserver()

    def consume(self, name: str, *arguments: str, **settings: object) -> Process:
        """Run a durable subscriber on the host that can be cut off."""
        arguments = ("--nameserver", self.near.address, *arguments)
        return self.transfer.durable(name, *arguments, site=self.far, **settings)


@pytest.fixture
def ends(lan: Network) -> Ends:
    """Give two hosts."""
    return Ends(lan)


def _cut_for(host: Host, seconds: float) -> None:
    host.cut_off()
    _pause(seconds)
    host.heal()


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _expect_all(transfer: Transfer, name: str, count: int) -> None:
    transfer.await_handled([name], range(1, count + 1))
    transfer.await_settled()
    handled = transfer.handled(name)
    assert (unflagged(handled), out_of_order(handled)) == ([], [])


@pytest.mark.parametrize(
    ("seconds", "pings"),
    [
        pytest.param(0.7, PINGS, id="too short to be noticed"),
        pytest.param(4.0, PINGS, id="until the connection is given up"),
        pytest.param(SILENCE, {}, id="until the other end counts as dead"),
    ],
)
def test_nothing_is_lost_when_the_network_is_cut_and_healed(
    ends: Ends, seconds: float, pings: dict[str, object]
) -> None:
    count = 300 + int(seconds / 0.01)
    ends.transfer.publisher(count, *STEADY, **pings)
    ends.consume("far", **pings)
    ends.transfer.await_handled(["far"], range(1, 50))

    _cut_for(ends.far, seconds)

    _expect_all(ends.transfer, "far", count)


def test_what_a_lone_consumer_works_on_while_it_is_cut_off_is_its_own_afterwards(ends: Ends) -> None:
    ends.transfer.publisher(20, **PINGS).expect_ready()
    consumer = ends.consume("far", "--acknowledge", "manual", "--hold", "5", **PINGS)
    consumer.expect_word("holding")
    attached = ends.transfer.await_attached("far")

    _cut_for(ends.far, 4.0)
    ends.transfer.await_attached("far", attached)
    consumer.tell("")

    assert consumer.expect_word("settled") == ["True"]
    _expect_all(ends.transfer, "far", 20)
    assert ends.transfer.numbers("far") == [*range(1, 21)]


def test_a_consumer_that_was_frozen_goes_on_where_it_was(site: Site) -> None:
    transfer = Transfer(site)
    transfer.nameserver()
    transfer.publisher(1000, *STEADY, **PINGS)
    consumer = transfer.durable("frozen")
    transfer.await_handled(["frozen"], range(1, 50))

    consumer.signal(signal.SIGSTOP)
    _pause(4.0)
    consumer.signal(signal.SIGCONT)

    _expect_all(transfer, "frozen", 1000)


@pytest.mark.parametrize("seconds", [3.0, SILENCE])
def test_a_publisher_that_was_frozen_goes_on_where_it_was(site: Site, seconds: float) -> None:
    transfer = Transfer(site)
    transfer.nameserver()
    publisher = transfer.publisher(300, *STEADY)
    transfer.durable("patient", **PINGS)
    transfer.await_handled(["patient"], range(1, 50))

    publisher.signal(signal.SIGSTOP)
    _pause(seconds)
    publisher.signal(signal.SIGCONT)

    _expect_all(transfer, "patient", 300)


def test_what_a_frozen_worker_held_is_another_ones_and_not_the_frozen_ones_to_settle(site: Site) -> None:
    transfer = Transfer(site)
    transfer.nameserver()
    transfer.publisher(20, **PINGS).expect_ready()
    holding = ("--acknowledge", "manual", "--hold", "5")
    frozen = transfer.durable("shared.1", *holding)
    frozen.expect_word("holding")

    frozen.signal(signal.SIGSTOP)
    other = transfer.durable("shared.2", *holding)
    other.expect_word("holding", SILENCE + 10 * UNIT)
    attached = transfer.await_attached("shared")
    frozen.signal(signal.SIGCONT)
    transfer.await_attached("shared", attached)
    frozen.tell("")
    frozen.expect_word("settled")
    other.kill()

    frozen.expect_word("holding", SILENCE + 10 * UNIT)
    frozen.tell("")
    assert frozen.expect_word("settled") == ["True"]
    transfer.await_handled(["shared.1", "shared.2"], range(1, 21))
    transfer.await_settled()
    assert [one.is_redelivered for one in transfer.handled("shared.1") if one.number == 5] == [False, True]


@pytest.mark.parametrize(
    ("whose", "jumps"),
    [
        pytest.param("publisher", [signal.SIGUSR1, signal.SIGUSR2], id="publisher ahead and back"),
        pytest.param("publisher", [signal.SIGUSR2, signal.SIGUSR1], id="publisher back and ahead"),
        pytest.param("consumer", [signal.SIGUSR1, signal.SIGUSR2], id="consumer ahead and back"),
    ],
)
def test_nothing_is_lost_when_the_clock_jumps_by_a_year(site: Site, whose: str, jumps: list[signal.Signals]) -> None:
    transfer = Transfer(site)
    transfer.nameserver()
    publisher = _jumping(site, transfer.publishing(1100, "--period", "0.0075"))
    consumer = _jumping(site, transfer.consuming("slow", "--handle", "0.01"))
    transfer.await_handled(["slow"], range(1, 50))
    jumper = publisher if whose == "publisher" else consumer

    for jump in jumps:
        jumper.signal(jump)
        _pause(SILENCE / 2)

    _expect_all(transfer, "slow", 1100)
    assert [one for one in transfer.handled("slow") if one.is_redelivered] == []


def _jumping(site: Site, program: list[str]) -> Process:
    return site.program("jumping.py", A_YEAR, str(PROGRAMS / program[0]), *program[1:])
