"""What all receiving ends share: sockets that belong to whoever receives, and orders for the others.

ZeroMQ sockets may be used by one thread at a time. The thread that receives holds the lock and owns the sockets;
another one leaves an order in a queue and rings the bell, and the receiver carries it out. If nobody receives, the
other one carries it out itself.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import zmq

from posttroll.backends.zmq.context import close_at_exit
from posttroll.backends.zmq.socket import check_process, translated_errors
from posttroll.errors import TimedOut
from posttroll.threads import Bell, is_held_here

__all__ = ["Channel", "Descriptors", "ReceivingChannel", "milliseconds_until"]

_ORDER_TIMEOUT = 5.0

Item = TypeVar("Item")


class _Order:
    """Something to be done by whoever owns the sockets; its outcome goes to the one who gave it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._done = threading.Event()
        self._error: BaseException | None = None

    def carry_out(self) -> None:
        try:
            self._action()
        except Exception as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self) -> None:
        if not self._done.wait(_ORDER_TIMEOUT):
            raise TimedOut(f"the receiving thread does not answer within {_ORDER_TIMEOUT:g} s")
        if self._error is not None:
            raise self._error


class Descriptors:
    """What to wait for, which others can wait for by one descriptor, an epoll's or the like.

    Unlike ZeroMQ's poller, it does not ask each socket before and after, which is most of what waking up takes.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, descriptor: int) -> None:
        """Wait for it as well from now on."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unregister(self, descriptor: int) -> None:
        """Wait for it no longer; before it is closed."""
        self._selector.unregister(descriptor)

    def poll(self, timeout_ms: int | None) -> list[tuple[int, int]]:
        """Wait until some are readable; return them, each with what happened to it."""
        found = self._selector.select(None if timeout_ms is None else timeout_ms / 1000)
        return [(key.fd, events) for key, events in found]

    def fileno(self) -> int:
        """Return the descriptor that is readable when one of them is."""
        return self._selector.fileno()

    def close(self) -> None:
        """Give the descriptor back."""
        self._selector.close()


class Channel:
    """Sockets, what to wait for at them, and the lock and the bell that guard them."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # Ctrl-C cannot come before it is certain to be given back
        self._orders: deque[_Order] = deque()
        self._bell = Bell()
        self._bell_descriptor = self._bell.fileno()
        self._descriptors = Descriptors()
        self._descriptors.register(self._bell_descriptor)
        self._closed = False
        close_at_exit(self)

    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
        return self._closed

    def close(self) -> None:
        """Close all sockets, from any thread; in the child of a fork there is nothing to close."""
        if not self._closed and os.getpid() == self._pid:
            self._order(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close_sockets()
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._descriptors.close()
        self._bell.close()

    def _close_sockets(self) -> None:
        raise NotImplementedError

    def _order(self, action: Callable[[], None]) -> None:
        """Have `action` done by the owner of the sockets, and wait for it; raise what it raised."""
        check_process(self._pid)
        order = _Order(action)
        self._orders.append(order)
        self._bell.ring()
        self._carry_out_orders()
        # A signal handler that interrupts the receiver cannot wait for it: it is obeyed when the handler returns.
        if not is_held_here(self._lock):
            order.wait()

    def _carry_out_orders(self) -> None:
        while self._orders and not is_held_here(self._lock) and self._lock.acquire(blocking=False):
            try:
                self._obey()
            finally:
                self._lock.release()

    def _obey(self) -> None:
        while self._orders:
            self._orders.popleft().carry_out()

    def _poll(self, deadline: float | None) -> list[int]:
        """Wait for readable descriptors, the bell, or the deadline; return the descriptors."""
        return self._wait(self._descriptors.poll, deadline)

    def _wait(self, poll: Callable[[int | None], list[tuple[Any, int]]], deadline: float | None) -> list[Any]:
        """Do so with any poller's `poll`; return what it has found beside the bell."""
        timeout_ms = milliseconds_until(deadline)
        if timeout_ms == 0:
            found = poll(0)
        else:
            with self._bell.rung_by_signals():
                found = poll(timeout_ms)
        ready = [one for one, _ in found]
        if self._bell_descriptor in ready:
            ready.remove(self._bell_descriptor)
            self._bell.silence()
        return ready


class ReceivingChannel(Channel, Generic[Item]):
    """A channel that gathers items for whoever receives."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: deque[Item] = deque()
        self._is_woken = False

    def wake(self) -> None:
        """Make the waiting `receive`, or else the next one, return None at once; from any thread or signal handler."""
        self._is_woken = True
        self._bell.ring()

    def _receive(self, timeout: float | None) -> Item | None:
        """Return the next item; None after `timeout` seconds without one (None: wait for ever), and when closed."""
        check_process(self._pid)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._lock:
                return self._next(deadline)
        except zmq.ZMQError:
            with translated_errors("receive"):
                raise
        finally:
            if self._orders:  # left while the lock was being given back, or when a signal handler raised
                self._carry_out_orders()

    def _next(self, deadline: float | None) -> Item | None:
        while True:
            if self._orders:
                self._obey()
            if self._closed:
                return None
            if self._is_woken:
                self._is_woken = False
                return None
            if self._ready:
                return self._ready.popleft()
            expired = deadline is not None and time.monotonic() >= deadline
            try:
                self._gather(deadline)
            except zmq.ContextTerminated:
                self._close()
            if expired and not self._ready:
                return None

    def _gather(self, deadline: float | None) -> None:
        """Wait for items until the deadline, and have those that came ready."""
        raise NotImplementedError


def milliseconds_until(deadline: float | None) -> int | None:
    """Return the time left for a poller, rounded up so that it does not wake too early."""
    if deadline is None:
        return None
    return int(max(0.0, deadline - time.monotonic()) * 1000 + 0.999)
