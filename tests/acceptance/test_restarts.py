"""Publishers, subscribers and nameservers that are killed and restarted in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.acceptance.processes import FOUND_WITHIN, Process, Site
from tests.fixtures.waiting import UNIT

ORDERS = ["-".join(order) for order in itertools.permutations(["nameserver", "publisher", "subscriber"])]


class Chain:
    """A nameserver, a publisher, and a subscriber of either kind, each started when asked to."""

    def __init__(self, site: Site, way: str) -> None:
        self._site = site
        self._is_designated = way == "designated"
        self._tags = map("run{}".format, itertools.count())
        self.tag = ""
        self.port = 0
        self.parts: dict[str, list[Process]] = {}

    def start(self, part: str, port: int = 0) -> None:
        """Start a part; publishers count under a new tag each time."""
        if part == "nameserver":
            self.parts[part] = [self._site.nameserver(*["--no-multicast"] * self._is_designated)]
        elif part == "publisher":
            self.tag = next(self._tags)
            arguments = ["--port", str(port), *["--nameservers", "localhost"] * self._is_designated]
            self.parts[part] = [self._site.publisher(self.tag, *arguments)]
        else:
            self.parts[part] = [self._site.subscriber(), self._site.subscriber("--container")]

    def await_publisher(self) -> int:
        """Wait until the publisher has bound its port, and return it."""
        return int(self.parts["publisher"][0].expect_ready()[0])

    def kill(self, part: str) -> None:
        """Kill a part."""
        for process in self.parts[part]:
            process.kill()

    def expect_messages(self) -> None:
        """Wait until each subscriber has got a message of the present publisher."""
        for subscriber in self.parts["subscriber"]:
            subscriber.expect_word(self.tag)


@pytest.fixture(params=["multicast", "designated"])
def chain(request: pytest.FixtureRequest, site: Site) -> Chain:
    """Give a chain with either way of discovery."""
    return Chain(site, request.param)


@pytest.mark.parametrize("order", ORDERS)
def test_messages_flow_whatever_is_started_killed_and_restarted_in_whichever_order(chain: Chain, order: str) -> None:
    for part in order.split("-"):
        chain.start(part)
    chain.expect_messages()

    for part in order.split("-"):
        chain.kill(part)
        chain.start(part)

    chain.expect_messages()


@pytest.mark.parametrize("order", ["publisher-subscriber-nameserver", "subscriber-publisher-nameserver"])
def test_a_nameserver_that_is_started_seconds_later_makes_them_meet(chain: Chain, order: str) -> None:
    first, second, last = order.split("-")
    chain.start(first)
    chain.start(second)
    chain.await_publisher()
    for subscriber in chain.parts["subscriber"][:1]:
        subscriber.expect_ready()

    chain.start(last)

    chain.expect_messages()


@pytest.fixture
def flowing(chain: Chain) -> Chain:
    """Give a chain whose messages flow."""
    for part in ("nameserver", "publisher", "subscriber"):
        chain.start(part)
    chain.port = chain.await_publisher()
    chain.expect_messages()
    return chain


def test_messages_go_on_while_the_nameserver_is_dead(flowing: Chain) -> None:
    flowing.kill("nameserver")

    for subscriber in flowing.parts["subscriber"]:
        subscriber.expect(lambda line: int(line.split()[1]) > 100)


def test_who_comes_after_a_restart_of_the_nameserver_is_found_by_who_waited_through_it(flowing: Chain) -> None:
    flowing.kill("publisher")
    flowing.kill("nameserver")
    flowing.start("nameserver")

    flowing.start("publisher")

    flowing.expect_messages()


def test_a_publisher_that_comes_while_the_nameserver_is_dead_is_found_when_that_is_back(flowing: Chain) -> None:
    flowing.kill("nameserver")
    flowing.kill("publisher")
    flowing.start("publisher")
    flowing.await_publisher()

    flowing.start("nameserver")

    flowing.expect_messages()


@pytest.mark.parametrize(
    "port_of", [pytest.param(lambda chain: chain.port, id="same"), pytest.param(lambda _: 0, id="other")]
)
def test_a_killed_publisher_is_found_again_on_whichever_port_it_restarts(
    flowing: Chain, port_of: Callable[[Chain], int]
) -> None:
    flowing.kill("publisher")

    flowing.start("publisher", port_of(flowing))

    flowing.expect_messages()


def test_a_dead_nameserver_in_a_list_delays_neither_publisher_nor_subscriber(site: Site, free_port: int) -> None:
    dead = f"127.0.0.1:{free_port}"
    site.nameserver("--no-multicast")
    site.publisher("counted", "--nameservers", dead, "localhost")
    subscriber = site.subscriber("--nameserver", f"tcp://{dead}", "localhost")

    subscriber.expect_word("counted")


def test_what_only_one_of_several_nameservers_knows_is_found(
    site: Site, free_ports: Callable[[int], list[int]]
) -> None:
    second = dict(zip(("nameserver_port", "broadcast_port", "address_publish_port"), free_ports(3), strict=True))
    site.nameserver("--no-multicast")
    site.nameserver("--no-multicast", **second)
    site.publisher("first", "--nameservers", "localhost")
    site.publisher("second", "--nameservers", f"localhost:{second['broadcast_port']}")

    subscriber = site.subscriber("--nameserver", "localhost", f"tcp://localhost:{second['nameserver_port']}")

    subscriber.expect_word("first")
    subscriber.expect_word("second")


def test_a_subscriber_without_address_listener_is_told_of_a_silent_nameserver_in_time(site: Site) -> None:
    script = (
        "import time; from posttroll.subscriber import Subscribe; start = time.monotonic()\n"
        "try: Subscribe('counter', timeout=0.5)\n"
        "except TimeoutError as error: print('told', time.monotonic() - start, error)"
    )

    told = site.python("-c", script).expect_word("told")

    assert 0.4 < float(told[0]) < 0.5 + UNIT


def test_a_stopped_publisher_is_gone_at_once_for_new_peers(site: Site) -> None:
    site.nameserver()
    publisher = site.publisher("counted")
    _expect_known(site)

    publisher.tell("")
    publisher.wait()

    assert _look_up(site, 0.3) == "[]"


def test_a_killed_publisher_is_known_until_it_has_aged_out(site: Site) -> None:
    site.program("nameserver.py", "2").expect_ready()
    publisher = site.publisher("counted")
    _expect_known(site)

    publisher.kill()

    assert _look_up(site, 0.5) != "[]"
    with closing(site.program("watch.py")) as watcher:
        watcher.expect(lambda line: line == "[]", 2 * 1.5 + 2 * UNIT)


def _expect_known(site: Site) -> None:
    with closing(site.program("watch.py")) as watcher:
        watcher.expect(lambda line: line not in ("[]", "silent"), FOUND_WITHIN)


def _look_up(site: Site, timeout: float) -> str:
    script = f"from posttroll.ns import get_pub_addresses; print('found', get_pub_addresses('counter', {timeout}))"
    return " ".join(site.python("-c", script).expect_word("found"))
