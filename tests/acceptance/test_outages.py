"""Peers that hang, end or are killed, queues that are full, and applications that are busy elsewhere."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.acceptance.processes import Process, Site
from tests.fixtures.waiting import UNIT, eventually

PINGS = {"connection_heartbeat_interval": 0.3, "connection_heartbeat_timeout": 1.0}


ENDINGS: dict[str, Callable[[Process], object]] = {
    "is killed": Process.kill,
    "ends": lambda publisher: publisher.tell(""),
    "goes on": lambda _: None,
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_a_subscriber_whose_queue_is_full_takes_up_what_is_in_it_after_its_publisher(
    site: Site, end: Callable[[Process], object]
) -> None:
    publisher = site.publisher("slow", "--period", "0.001")
    address = f"tcp://127.0.0.1:{publisher.expect_ready()[0]}"
    own = ["--nameserver", "none", "--addresses", address, "--handle", "0.5"]
    subscriber = site.subscriber(*own, receive_high_water_mark=10, **PINGS)
    first = int(subscriber.expect_word("slow")[0])
    subscriber.expect_silence(0.3)

    end(publisher)

    numbers = [int(subscriber.expect_word("slow")[0]) for _ in range(12)]
    assert numbers == [*range(first + 1, first + 13)]


def test_messages_flow_again_when_a_frozen_publisher_goes_on(site: Site) -> None:
    publisher = site.publisher("counted")
    address = f"tcp://127.0.0.1:{publisher.expect_ready()[0]}"
    subscriber = site.subscriber("--nameserver", "none", "--addresses", address, **PINGS)
    subscriber.expect_word("counted")

    publisher.signal(signal.SIGSTOP)
    subscriber.expect_silence(2.0)
    publisher.signal(signal.SIGCONT)

    subscriber.expect_word("counted")


def test_a_frozen_nameserver_in_a_list_delays_neither_publisher_nor_subscriber(
    site: Site, free_ports: Callable[[int], list[int]]
) -> None:
    other = dict(zip(("nameserver_port", "broadcast_port", "address_publish_port"), free_ports(3), strict=True))
    frozen = site.nameserver("--no-multicast", **other)
    site.nameserver("--no-multicast")
    _await_port(other["nameserver_port"])
    frozen.signal(signal.SIGSTOP)

    site.publisher("counted", "--nameservers", f"localhost:{other['broadcast_port']}", "localhost")
    subscriber = site.subscriber("--nameserver", f"tcp://localhost:{other['nameserver_port']}", "localhost")

    subscriber.expect_word("counted")
    frozen.signal(signal.SIGCONT)


def _await_port(port: int) -> None:
    def answers() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(answers)


def test_nothing_is_lost_while_a_handler_works_and_the_publisher_is_restarted_on_its_port(
    site: Site, free_port: int
) -> None:
    first = site.publisher("slow", "--port", str(free_port))
    address = f"tcp://127.0.0.1:{free_port}"
    subscriber = site.subscriber("--nameserver", "none", "--addresses", address, "--handle", "4")
    subscriber.expect_word("slow")
    first.kill()

    second = site.publisher("second", "--port", str(free_port), "--wait")
    awaited = second.expect_word("awaited", 3.0)
    second.tell("")
    second.wait()

    assert awaited == ["True"]
    sent = int(second.output.split()[-1])
    numbers = [int(subscriber.expect_word("second", 30 * UNIT)[0]) for _ in range(sent)]
    assert numbers == [*range(1, sent + 1)]


def test_a_publisher_that_comes_while_a_handler_works_is_connected_to_meanwhile(site: Site) -> None:
    site.nameserver()
    subscriber = site.subscriber("--handle", "4")
    site.publisher("slow", "--wait", "--period", "60")
    subscriber.expect_word("slow")

    later = site.publisher("later", "--wait")

    assert later.expect_word("awaited", 3.0) == ["True"]
    assert subscriber.expect_word("later", 30 * UNIT) == ["1"]


@pytest.mark.parametrize("sort", [[], ["--container"]], ids=["subscriber", "container"])
def test_a_subscriber_lives_through_a_publisher_that_comes_and_goes(
    site: Site, free_port: int, sort: list[str]
) -> None:
    site.nameserver()
    subscriber = site.subscriber(*sort)
    for number in range(5):
        publisher = site.publisher(f"run{number}", "--port", str(free_port))
        subscriber.expect_word(f"run{number}")
        publisher.kill()

    assert subscriber.is_running()
    assert "Traceback" not in subscriber.errors
