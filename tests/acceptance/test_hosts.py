"""Several hosts, their networks, and what becomes of them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.hosts import Host, Network, opened_network
from tests.acceptance.processes import Process
from tests.fixtures.waiting import UNIT

PINGS = {"connection_heartbeat_interval": 0.5, "connection_heartbeat_timeout": 1.5}
OUTAGE = 2.5
PARTS = pytest.mark.parametrize("part", ["nameserver", "publisher", "subscriber"])


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Network]:
    """Give a network of hosts; programs use the default ports, as nobody else is there."""
    with opened_network(tmp_path, PINGS) as network:
        yield network


class Chain:
    """A nameserver, a publisher and a subscriber, each on a host of its own."""

    def __init__(self, lan: Network, way: str) -> None:
        self.lan = lan
        self.hosts = {part: lan.host() for part in ("nameserver", "publisher", "subscriber")}
        self._designated = way == "designated"

    def start(self) -> Process:
        """Start all three; return the subscriber."""
        self.hosts["nameserver"].nameserver(*["--no-multicast"] * self._designated)
        self.start_publisher("first")
        return self.start_subscriber()

    def start_publisher(self, tag: str, port: int = 9000) -> Process:
        """Start a publisher on its host."""
        arguments = ["--nameservers", self.hosts["nameserver"].address] if self._designated else []
        return self.hosts["publisher"].publisher(tag, "--port", str(port), *arguments)

    def start_subscriber(self) -> Process:
        """Start a subscriber on its host."""
        return self.hosts["subscriber"].subscriber("--nameserver", self.hosts["nameserver"].address)


@pytest.fixture(params=["multicast", "designated"])
def chain(request: pytest.FixtureRequest, lan: Network) -> Chain:
    """Give a chain with either way of discovery."""
    return Chain(lan, request.param)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_a_publisher_on_another_host_is_found_at_its_own_address(chain: Chain) -> None:
    subscriber = chain.start()

    subscriber.expect_word("first")

    asking = chain.hosts["subscriber"].python("-c", _looking_up(chain.hosts["nameserver"]))
    assert asking.expect_word("found") == [f"tcp://{chain.hosts['publisher'].address}:9000"]


def _looking_up(nameserver: Host) -> str:
    return (
        "from posttroll.ns import get_pub_addresses\n"
        f"entries = get_pub_addresses('counter', 5, '{nameserver.address}')\n"
        "print('found', *(entry['URI'] for entry in entries))"
    )


def test_the_advertised_host_is_announced_as_it_was_given(chain: Chain) -> None:
    chain.hosts["publisher"].settings["advertised_host"] = "publisher.example"
    chain.start()

    asking = chain.hosts["subscriber"].python("-c", _looking_up(chain.hosts["nameserver"]))

    assert asking.expect_word("found") == ["tcp://publisher.example:9000"]


def test_a_nameserver_for_its_own_host_ignores_the_others(lan: Network) -> None:
    first, second = lan.host(), lan.host()
    first.nameserver("-L")
    second.publisher("foreign").expect_ready()
    first.publisher("own").expect_ready()

    with closing(first.program("watch.py")) as watcher:
        watcher.expect(lambda line: line not in ("[]", "silent"))
        _pause(1.0)
        for _ in range(5):
            seen = watcher.expect(lambda line: True)

    assert first.address in seen
    assert second.address not in seen


@PARTS
def test_messages_flow_again_and_who_came_meanwhile_is_found_after_a_host_was_cut_off(chain: Chain, part: str) -> None:
    subscriber = chain.start()
    subscriber.expect_word("first")
    host = chain.hosts[part]

    host.cut_off()
    chain.start_publisher("second", port=9001).expect_ready()
    _pause(OUTAGE)
    host.heal()

    subscriber.expect_word("second")
    subscriber.expect_word("first")


def test_a_subscriber_notices_that_a_publishers_host_died_without_a_word(chain: Chain) -> None:
    subscriber = chain.start()
    subscriber.expect_word("first")
    host = chain.hosts["publisher"]

    host.cut_off()
    host.close()
    chain.start_publisher("second").expect_ready()
    _pause(OUTAGE)
    host.heal()

    subscriber.expect_word("second")


@PARTS
def test_whose_network_comes_up_later_takes_part_then(lan: Network, part: str) -> None:
    hosts = {name: lan.host(is_up=name != part) for name in ("nameserver", "publisher", "subscriber")}
    hosts["publisher"].settings["advertised_host"] = hosts["publisher"].address
    hosts["nameserver"].nameserver()
    hosts["publisher"].publisher("late").expect_ready()
    subscriber = hosts["subscriber"].subscriber("--nameserver", hosts["nameserver"].address)
    _pause(OUTAGE)

    hosts[part].come_up()

    subscriber.expect_word("late")


def test_a_publisher_that_starts_before_its_network_is_found_at_its_address_without_being_told_it(lan: Network) -> None:
    hosts = {name: lan.host(is_up=name != "publisher") for name in ("nameserver", "publisher", "subscriber")}
    hosts["nameserver"].nameserver()
    hosts["publisher"].publisher("late").expect_ready()
    subscriber = hosts["subscriber"].subscriber("--nameserver", hosts["nameserver"].address)

    hosts["publisher"].come_up()

    subscriber.expect_word("late")


@PARTS
def test_messages_flow_again_and_who_comes_is_found_after_an_interface_was_down(lan: Network, part: str) -> None:
    chain = Chain(lan, "multicast")
    subscriber = chain.start()
    subscriber.expect_word("first")
    host = chain.hosts[part]

    host.go_down()
    _pause(OUTAGE)
    host.come_up()
    chain.start_publisher("second", port=9001)

    subscriber.expect_word("second")
    subscriber.expect_word("first")


def test_a_publisher_announced_under_a_name_that_takes_long_to_resolve_does_not_delay_the_others(lan: Network) -> None:
    host = lan.host()
    host.nameserver()
    host.publisher("good")
    subscriber = host.subscriber("--nameserver", host.address)
    subscriber.expect_word("good")

    host.publisher("nowhere", advertised_host="nowhere.example").expect_ready()

    deadline = time.monotonic() + 4.0
    while time.monotonic() < deadline:
        subscriber.expect_word("good", 1.0 * UNIT)


def test_a_program_ends_at_once_although_a_name_takes_long_to_resolve(lan: Network) -> None:
    host = lan.host()
    subscriber = host.subscriber("--nameserver", "none", "--addresses", "tcp://publisher.example:9000")
    subscriber.expect_ready()
    _pause(0.2)

    subscriber.signal(signal.SIGTERM)

    assert subscriber.wait(1.5 * UNIT) == 0
