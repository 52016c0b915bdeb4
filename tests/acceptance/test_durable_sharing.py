"""Workers that share the messages of one durable name."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.processes import Site
from tests.acceptance.transfers import DELIVERED_WITHIN, Transfer, unflagged
from tests.fixtures.waiting import eventually

WORKERS = ("shared.1", "shared.2", "shared.3")
LONGER_THAN_SILENCE = 12.0
HOLDING = ("--acknowledge", "manual", "--hold", "5")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def transfer(site: Site) -> Transfer:
    """Give a transfer whose parts find each other through a nameserver."""
    transfer = Transfer(site)
    transfer.nameserver()
    return transfer


def _expect_all(transfer: Transfer, count: int) -> None:
    transfer.await_handled(WORKERS, range(1, count + 1))
    transfer.await_settled()
    assert unflagged(transfer.handled(*WORKERS)) == []


def test_every_message_goes_to_one_of_the_workers_and_each_gets_its_part(transfer: Transfer) -> None:
    for name in WORKERS:
        transfer.durable(name, "--handle", "0.005").expect_ready()
    transfer.publisher(600, "--period", "0.003")

    _expect_all(transfer, 600)

    assert len(transfer.handled(*WORKERS)) == 600
    assert all(len(transfer.handled(name)) > 50 for name in WORKERS)


def test_a_worker_keeps_what_it_works_on_for_as_long_as_it_lives_and_the_others_go_on(transfer: Transfer) -> None:
    publisher = transfer.publisher(400, "--period", "0.003")
    busy = transfer.durable("shared.1", *HOLDING)
    busy.expect_word("holding")

    for name in WORKERS[1:]:
        transfer.durable(name)
    transfer.await_handled(WORKERS, {*range(1, 401)} - {5})
    publisher.expect_word("done", DELIVERED_WITHIN)
    busy.expect_silence(LONGER_THAN_SILENCE)
    busy.tell("")

    assert busy.expect_word("settled") == ["True"]
    _expect_all(transfer, 400)
    assert len(transfer.handled(*WORKERS)) == 400


def test_what_a_killed_worker_held_goes_to_the_others_flagged(transfer: Transfer) -> None:
    transfer.publisher(100).expect_ready()
    doomed = transfer.durable("shared.1", *HOLDING)
    doomed.expect_word("holding")

    doomed.kill()
    for name in WORKERS[1:]:
        transfer.durable(name)

    _expect_all(transfer, 100)
    assert [one.is_redelivered for one in transfer.handled(*WORKERS[1:]) if one.number == 5] == [True]


def test_what_an_ended_worker_held_goes_to_the_others_at_once(transfer: Transfer) -> None:
    transfer.publisher(100).expect_ready()
    leaving = transfer.durable("shared.1", *HOLDING)
    leaving.expect_word("holding")
    other = transfer.durable("shared.2", *HOLDING)
    other.expect_ready()

    leaving.signal(signal.SIGTERM)

    other.expect_word("holding")
    other.tell("")
    _expect_all(transfer, 100)


def test_a_worker_that_comes_later_gets_its_part(transfer: Transfer) -> None:
    transfer.publisher(1000, "--period", "0.001").expect_ready()
    transfer.durable("shared.1", "--handle", "0.02")
    transfer.await_handled(["shared.1"], range(1, 10))

    transfer.durable("shared.2", "--handle", "0.02")

    eventually(lambda: len(transfer.handled("shared.2")) > 20, DELIVERED_WITHIN)
    assert unflagged(transfer.handled(*WORKERS)) == []
