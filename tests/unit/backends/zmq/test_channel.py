from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from posttroll.backends.zmq import channel as module
from posttroll.backends.zmq.channel import Channel, milliseconds_until
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

PROMPTLY = 0.2 * UNIT


class Receiver(Channel):
    """Waits for orders only, and lets the test see who carries them out."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waiting = threading.Event()
        self.closings = 0

    def receive(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            while not self._closed and time.monotonic() < deadline:
                self.is_waiting.set()
                self._poll(deadline)
                self._obey()
        self._carry_out_orders()

    def order(self, action: Callable[[], None]) -> None:
        self._order(action)

    def hold(self) -> threading.Event:
        """Keep the sockets busy, without obeying, until the event is set."""
        held, until = threading.Event(), threading.Event()

        def keep() -> None:
            with self._lock:
                held.set()
                until.wait(10 * UNIT)
            self._carry_out_orders()

        threading.Thread(target=keep, daemon=True).start()
        assert held.wait(5 * UNIT)
        return until

    def _close_sockets(self) -> None:
        self.closings += 1


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Make a channel, and close it at the end."""
    with closing(Receiver()) as receiver:
        yield receiver


def has_orders(receiver: Receiver, count: int) -> bool:
    return len(receiver._orders) == count


def names() -> tuple[list[str], Callable[[], None]]:
    """Return a list, and what notes there the thread that it is called in."""
    called: list[str] = []
    return called, lambda: called.append(threading.current_thread().name)


def test_an_order_is_carried_out_by_its_giver_when_nobody_receives(receiver: Receiver) -> None:
    called, note = names()

    receiver.order(note)

    assert called == [threading.current_thread().name]


def test_an_order_reaches_a_receiver_that_waits(receiver: Receiver) -> None:
    called, note = names()

    with in_background(lambda: receiver.receive(60)):
        assert receiver.is_waiting.wait(5 * UNIT)
        start = time.monotonic()
        receiver.order(note)
        took = time.monotonic() - start
        receiver.close()

    assert called != [threading.current_thread().name]
    assert took < PROMPTLY


def test_an_order_given_while_the_lock_is_given_back_is_carried_out(receiver: Receiver) -> None:
    called, note = names()
    until = receiver.hold()

    with in_background(lambda: receiver.order(note)) as ordering:
        assert ordering.is_pending()
        assert called == []
        until.set()

        ordering.result()

    assert len(called) == 1


def test_orders_are_carried_out_in_the_order_in_which_they_were_given(receiver: Receiver) -> None:
    done: list[int] = []
    until = receiver.hold()
    givers = [threading.Thread(target=receiver.order, args=[partial(done.append, number)]) for number in range(5)]
    for number, giver in enumerate(givers):
        giver.start()
        eventually(partial(has_orders, receiver, number + 1))

    until.set()
    for giver in givers:
        giver.join(5 * UNIT)

    assert done == [0, 1, 2, 3, 4]


def test_the_error_of_an_order_goes_to_who_gave_it(receiver: Receiver) -> None:
    def fail() -> None:
        raise KeyError("order")

    with pytest.raises(KeyError, match="order"):
        receiver.order(fail)
    with in_background(lambda: receiver.receive(60)):
        assert receiver.is_waiting.wait(5 * UNIT)
        with pytest.raises(KeyError, match="order"):
            receiver.order(fail)
        receiver.close()


def test_an_order_that_nobody_carries_out_is_told(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ORDER_TIMEOUT", 0.1)
    until = receiver.hold()

    with pytest.raises(TimeoutError, match="does not answer"):
        receiver.order(lambda: None)

    until.set()


def test_an_order_of_the_owner_himself_is_not_waited_for(receiver: Receiver) -> None:
    """A signal handler runs in the thread it interrupts, which may own the sockets."""
    called, note = names()

    with receiver._lock:
        receiver.order(note)
        assert called == []
    receiver.order(lambda: None)

    assert len(called) == 1


def test_a_channel_is_closed_once_however_often_it_is_asked_for(receiver: Receiver) -> None:
    for _ in range(3):
        receiver.close()

    assert receiver.closed
    assert receiver.closings == 1


def test_two_threads_may_close_at_once(receiver: Receiver) -> None:
    until = receiver.hold()

    with in_background(receiver.close), in_background(receiver.close):
        eventually(partial(has_orders, receiver, 2))
        until.set()

    assert receiver.closings == 1


def test_the_child_of_a_fork_closes_nothing_and_gives_no_orders(receiver: Receiver) -> None:
    assert in_child(receiver.close) == "None"
    assert in_child(lambda: receiver.order(lambda: None)) == "UsedAfterFork"
    assert not receiver.closed


def test_what_is_closed_is_said_by_each_kind_of_channel() -> None:
    channel = Channel()

    with pytest.raises(NotImplementedError):
        channel.close()

    channel._bell.close()


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_polling_never_ends_too_early(receiver: Receiver, timeout: float) -> None:
    deadline = time.monotonic() + timeout

    assert receiver._poll(deadline) == []

    assert time.monotonic() >= deadline


def test_a_look_leaves_the_signals_to_the_event_loop(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def set_wakeup_fd(descriptor: int, **_: bool) -> int:
        asked.append(descriptor)
        return -1

    monkeypatch.setattr(signal, "set_wakeup_fd", set_wakeup_fd)

    receiver._poll(0.0)
    assert asked == []

    receiver._poll(time.monotonic() + 0.01)
    assert asked != []


def test_the_time_left_is_rounded_up_and_never_negative() -> None:
    now = time.monotonic()

    assert milliseconds_until(None) is None
    assert milliseconds_until(now - 1) == 0
    assert milliseconds_until(now + 100) in range(99_000, 100_001)
