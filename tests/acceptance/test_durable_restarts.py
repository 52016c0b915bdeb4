"""Whoever goes away and comes back, durable messages are delivered, in order, and no more than once without need."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from tests.acceptance.processes import Process, Site
from tests.acceptance.transfers import DELIVERED_WITHIN, Transfer, gaps, out_of_order, unflagged

STEADY = ["--period", "0.01"]


@pytest.fixture
def transfer(site: Site) -> Transfer:
    """Give a transfer."""
    return Transfer(site)


@pytest.fixture
def nameserver(transfer: Transfer) -> Process:
    """Run the nameserver through which the parts of the transfer find each other."""
    return transfer.nameserver()


def _numbers_up_to(count: int) -> list[int]:
    return [*range(1, count + 1)]


@pytest.mark.usefixtures("nameserver")
def test_what_was_published_while_the_consumer_was_away_is_delivered_in_order(transfer: Transfer) -> None:
    publisher = transfer.publisher(200, *STEADY)
    first = transfer.durable("away")
    transfer.await_handled(["away"], range(1, 10))

    first.kill()
    publisher.expect_word("done", DELIVERED_WITHIN)
    transfer.durable("away")

    transfer.await_handled(["away"], range(1, 201))
    transfer.await_settled()
    handled = transfer.handled("away")
    assert sorted({one.sequence for one in handled}) == _numbers_up_to(200)
    assert (unflagged(handled), out_of_order(handled)) == ([], [])


@pytest.mark.usefixtures("nameserver")
def test_who_starts_at_first_gets_what_was_published_before_anybody_consumed(transfer: Transfer) -> None:
    publisher = transfer.publisher(300)
    publisher.expect_word("done")

    transfer.durable("late", "--start-at", "first")

    transfer.await_handled(["late"], range(1, 301))
    assert transfer.numbers("late") == _numbers_up_to(300)


@pytest.mark.usefixtures("nameserver")
def test_who_starts_at_new_gets_all_that_is_published_from_its_first_attach_on(transfer: Transfer) -> None:
    early = transfer.publisher(50)
    early.expect_word("done")
    first = transfer.durable("recent", "--start-at", "new")
    transfer.await_attached("recent")
    first.kill()

    early.close()
    transfer.publisher(100)
    transfer.durable("recent", "--start-at", "new")

    transfer.await_handled(["recent"], range(51, 101))
    assert transfer.numbers("recent") == [*range(51, 101)]


@pytest.mark.usefixtures("nameserver")
def test_what_is_held_while_the_publisher_moves_to_another_port_is_accepted_and_not_delivered_again(
    transfer: Transfer,
) -> None:
    publisher = transfer.publisher(20)
    consumer = transfer.durable("holder", "--acknowledge", "manual", "--hold", "5")
    publisher.expect_word("done")
    consumer.expect_word("holding")
    attached = transfer.await_attached("holder")

    publisher.kill()
    transfer.publisher(40).expect_word("done")
    transfer.await_attached("holder", attached)
    consumer.tell("")

    assert consumer.expect_word("settled") == ["True"]
    transfer.await_handled(["holder"], range(1, 41))
    transfer.await_settled()
    assert transfer.numbers("holder") == _numbers_up_to(40)
    assert not any(one.is_redelivered for one in transfer.handled("holder"))


@pytest.mark.parametrize("part", ["nameserver", "publisher", "consumer"])
def test_a_part_that_is_killed_and_restarted_costs_nothing(transfer: Transfer, part: str) -> None:
    starts: dict[str, Callable[[], Process]] = {
        "nameserver": transfer.nameserver,
        "publisher": lambda: transfer.publisher(300, *STEADY),
        "consumer": lambda: transfer.durable("steady"),
    }
    parts = {name: start() for name, start in starts.items()}
    transfer.await_handled(["steady"], range(1, 50))

    parts[part].kill()
    starts[part]()

    _expect_all(transfer, "steady", 300)


def _expect_all(transfer: Transfer, name: str, count: int) -> None:
    transfer.await_handled([name], range(1, count + 1))
    transfer.await_settled()
    handled = transfer.handled(name)
    assert {one.number for one in transfer.sent()} <= {one.number for one in handled}
    assert (unflagged(handled), out_of_order(handled)) == ([], [])


@pytest.mark.usefixtures("nameserver")
def test_a_publisher_that_is_restarted_on_its_ports_is_gone_on_with(
    transfer: Transfer, free_ports: Callable[[int], list[int]]
) -> None:
    port, link_port = map(str, free_ports(2))
    fixed = ["--port", port, "--link-port", link_port, *STEADY]
    publisher = transfer.publisher(200, *fixed)
    transfer.durable("faithful")
    transfer.await_handled(["faithful"], range(1, 50))

    publisher.kill()
    transfer.publisher(200, *fixed)

    _expect_all(transfer, "faithful", 200)


def test_a_consumer_needs_no_nameserver_that_is_told_where_the_link_is(
    transfer: Transfer, free_ports: Callable[[int], list[int]]
) -> None:
    port, link_port = free_ports(2)
    fixed = ["--port", str(port), "--link-port", str(link_port), *STEADY]
    address = {"URI": f"tcp://127.0.0.1:{port}", "link": f"tcp://127.0.0.1:{link_port}"}
    publisher = transfer.publisher(200, *fixed)
    transfer.durable("told", "--nameserver", "none", "--addresses", json.dumps([address]))
    transfer.await_handled(["told"], range(1, 50))

    publisher.kill()
    transfer.publisher(200, *fixed)

    _expect_all(transfer, "told", 200)


def test_a_released_nameserver_makes_both_ends_meet(transfer: Transfer, released: Path) -> None:
    nameserver = transfer.released_nameserver(released)
    publisher = transfer.publisher(300, *STEADY)
    transfer.durable("met")
    transfer.await_handled(["met"], range(1, 50))

    publisher.kill()
    transfer.publisher(300, *STEADY)

    _expect_all(transfer, "met", 300)
    assert "Traceback" not in nameserver.errors


@pytest.mark.usefixtures("nameserver")
def test_a_durable_subscriber_gets_plain_messages_of_a_released_publisher(transfer: Transfer, released: Path) -> None:
    transfer.durable("plainly")
    transfer.released_publisher(released)

    transfer.await_handled(["plainly"], [100])

    handled = transfer.handled("plainly")
    assert gaps(handled) == []
    assert {one.sequence for one in handled} == {0}


@pytest.mark.usefixtures("nameserver")
def test_a_released_subscriber_gets_all_that_a_durable_publisher_sends(transfer: Transfer, released: Path) -> None:
    subscriber = transfer.released_subscriber(released, "plain")
    transfer.publisher(300, "--await-subscriber", *STEADY)

    transfer.await_handled(["plain"], [300])

    assert transfer.numbers("plain") == _numbers_up_to(300)
    assert not any(word in subscriber.errors for word in ("Traceback", "ERROR"))


def test_what_is_published_and_what_is_kept_are_the_same_bytes(transfer: Transfer, free_port: int) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe("pytroll://numbered")
        socket.connect(f"tcp://127.0.0.1:{free_port}")
        transfer.publisher(100, "--port", str(free_port), "--await-subscriber")

        published = [_next_frame(socket) for _ in range(100)]

    assert published == transfer.frames()


def _next_frame(socket: zmq.Socket[bytes]) -> bytes:
    assert socket.poll(DELIVERED_WITHIN * 1000)
    return socket.recv()
