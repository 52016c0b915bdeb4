"""Threads: started by name, waited on with a deadline, stopped from anywhere."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

__all__ = ["Bell", "Handover", "Worker", "is_held_here"]

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class _RungBySignals:
    """Has a descriptor written to by signals; a class, as its end is in the way of a message that has just come."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        self._former = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        try:
            if self._former != -1:  # an event loop's, which needs to know them
                signal.set_wakeup_fd(self._former)
            # Handles what another thread was told before: the interpreter would else wait with it until the poll ends.
            signal.pthread_sigmask(signal.SIG_BLOCK, ())
        except BaseException:
            signal.set_wakeup_fd(self._former)
            raise

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._former)


_SILENT = contextlib.nullcontext()


def is_held_here(lock: threading.RLock) -> bool:
    """Return whether this thread holds a lock: a signal handler that asks has then interrupted who holds it."""
    try:
        threading.Condition(lock).notify()
    except RuntimeError:
        return False
    return True


class Bell:
    """Something to poll beside sockets, which any thread or signal handler can ring."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the bell rings, -1 once closed."""
        return self._inside.fileno()

    def ring(self) -> None:
        """Wake whoever polls; never blocks, harmless when closed."""
        with contextlib.suppress(OSError):
            self._outside.send(b"!")

    def silence(self) -> None:
        """Take note of all that rang so far."""
        with contextlib.suppress(OSError):
            while len(self._inside.recv(4096)) == 4096:
                pass

    def rung_by_signals(self) -> AbstractContextManager[object]:
        """In the main thread, have signals ring too: one that comes just before a poll does not end that by itself."""
        if threading.current_thread() is not threading.main_thread():
            return _SILENT
        return _RungBySignals(self._outside.fileno())

    def close(self) -> None:
        """Give the descriptors back."""
        self._inside.close()
        self._outside.close()


class Handover(Generic[Item]):
    """Gives each item to one of the threads that wait for one, to the last that came: it is the warmest.

    A queue would do as well, but wakes up a second thread for each item, which then finds nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._waiting: list[_Seat[Item]] = []

    def put(self, item: Item) -> None:
        """Give an item to a thread, to the next one that asks if none waits; never blocks for long."""
        with self._lock:
            if not self._waiting:
                self._items.append(item)
                return
            seat = self._waiting.pop()
        seat.items.append(item)
        seat.is_given.release()

    def get(self) -> Item:
        """Wait for an item and return it."""
        with self._lock:
            if self._items:
                return self._items.popleft()
            seat = _Seat[Item]()
            self._waiting.append(seat)
        seat.is_given.acquire()
        return seat.items[0]


class _Seat(Generic[Item]):
    """Where a thread waits."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.is_given = threading.Lock()
        self.is_given.acquire()


class Worker:
    """A daemon thread with one job, which ends when it is told to.

    The target is called with the worker and runs until ``worker.stopping``. `wake` is called by `stop` and must
    bring the target back from whatever it waits on.
    """

    def __init__(self, name: str, target: Callable[[Worker], None], wake: Callable[[], None] | None = None) -> None:
        self._target = target
        self._wake = wake
        self._stopping = threading.Event()
        self._started = False
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stopping.is_set()

    def start(self) -> Worker:
        """Start the thread."""
        self.thread.start()
        self._started = True
        return self

    def wait(self, timeout: float | None) -> bool:
        """Wait in the target for `timeout` seconds, or until told to stop; return whether to stop."""
        return self._stopping.wait(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self.thread.is_alive()

    def stop(self, timeout: float = 5.0) -> None:
        """Tell the target to end and wait for it, unless `timeout` is 0; raise what it died of, if it did."""
        self._stopping.set()
        if self._wake is not None:
            self._wake()
        if timeout and self._started and self.thread is not threading.current_thread():
            self.thread.join(timeout)
            if self.thread.is_alive():
                logger.error("thread %s did not end within %g s", self.thread.name, timeout)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._target(self)
        except Exception as error:
            logger.exception("thread %s ended by an error", self.thread.name)
            self._error = error
