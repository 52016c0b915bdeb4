"""What a running component waits for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from posttroll.components.orders import Orders
from posttroll.threads import Worker
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT


@pytest.fixture
def orders() -> Iterator[Orders]:
    with closing(Orders()) as orders:
        yield orders


def test_orders_are_taken_in_the_order_in_which_they_are_given(orders: Orders) -> None:
    orders.give("restart")
    orders.give("quit")

    assert [orders.take(0), orders.take(0), orders.take(0)] == ["restart", "quit", None]


def test_an_order_is_waited_for(orders: Orders) -> None:
    with in_background(orders.take) as taking:
        assert taking.is_pending()
        orders.give("quit")

        assert taking.result() == "quit"


def test_without_an_order_the_wait_comes_to_an_end(orders: Orders) -> None:
    assert orders.take(0.01) is None


def test_an_order_given_by_a_signal_that_another_thread_was_told_is_taken(orders: Orders) -> None:
    def tell(worker: Worker) -> None:
        worker.wait(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, lambda *_: orders.give("quit"))
    try:
        teller = Worker("posttroll-teller", tell).start()
        assert orders.take(5 * UNIT) == "quit"
        teller.stop()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_orders_may_be_given_when_nobody_takes_them_any_more(orders: Orders) -> None:
    orders.close()

    orders.give("quit")
