"""Looking after the sockets of subscribers whose application is busy elsewhere.

When a publisher comes back, libzmq connects again by itself, but sends the subscriptions only when somebody uses the
socket. Without this thread, all that is published while a handler works for an hour would be lost. It sleeps for as
long as all subscribers wait for messages, and so use their sockets themselves.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from queue import SimpleQueue
from typing import Protocol

from posttroll.threads import Worker

__all__ = ["call", "keep", "release"]

logger = logging.getLogger(__name__)

_INTERVAL = 1.0


class _Kept(Protocol):
    def look_after(self) -> bool | None:
        """Return whether it can do without until it calls."""


class _Keeper:
    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may release a channel while another one is kept
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._worker: Worker | None = None
        self._calls: SimpleQueue[None] = SimpleQueue()  # as a signal handler may call over another call

    def call(self) -> None:
        self._calls.put(None)

    def keep(self, channel: _Kept) -> None:
        with self._lock:
            self._kept.add(channel)
            if self._worker is None:
                self._worker = Worker("posttroll-keeper", self._run, wake=self.call).start()
        self.call()

    def release(self, channel: _Kept) -> None:
        with self._lock:
            self._kept.discard(channel)
            if self._kept or self._worker is None:
                return
            worker, self._worker = self._worker, None
        worker.stop()

    def _run(self, worker: Worker) -> None:
        while not worker.wait(_INTERVAL):
            while not self._calls.empty():
                self._calls.get()
            if self._look_after_all() and not worker.stopping:
                self._calls.get()

    def _look_after_all(self) -> bool:
        """Return whether nobody needs it again before a call."""
        with self._lock:
            channels = list(self._kept)
        will_call = [self._look_after(channel) for channel in channels]
        return all(will_call)

    def _look_after(self, channel: _Kept) -> bool:
        try:
            return bool(channel.look_after())
        except Exception:
            logger.exception("a subscriber is no longer looked after")
            with self._lock:
                self._kept.discard(channel)
            return True


_keeper = _Keeper()


def keep(channel: _Kept) -> None:
    """Call the channel's `look_after` every second from now on, from one thread for all channels."""
    _keeper.keep(channel)


def call() -> None:
    """Go on with that, after all channels have said that they could do without."""
    _keeper.call()


def release(channel: _Kept) -> None:
    """Look after it no longer; the thread ends with the last one."""
    _keeper.release(channel)


def _renew() -> None:
    global _keeper
    _keeper = _Keeper()


os.register_at_fork(after_in_child=_renew)
