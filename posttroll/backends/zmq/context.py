"""The ZeroMQ context: one a process, and another one in the child of a fork."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import Any, Protocol

import zmq

from posttroll.errors import TimedOut

__all__ = ["close_at_exit", "context", "destroy_context", "get_context"]

logger = logging.getLogger(__name__)

_MAX_SOCKETS = 65_000
_IO_THREADS = 2

context: dict[int, zmq.Context[Any]] = {}
"""The contexts by process id; those of parents stay here so that a child never terminates them."""

_lock = threading.RLock()  # a signal handler may say goodbye over a new socket


class _Closable(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()
_has_published = False


def get_context() -> zmq.Context[Any]:
    """Return the context of this process, always the same one."""
    pid = os.getpid()
    with _lock:
        if pid not in context:
            context[pid] = zmq.Context()
            context[pid].set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
            context[pid].set(zmq.IO_THREADS, _IO_THREADS)
        return context[pid]


def destroy_context(linger: int | None = None) -> None:
    """Close all sockets of this process's context, each after `linger` milliseconds at most, and the context."""
    with _lock:
        mine = context.pop(os.getpid(), None)
    if mine is not None:
        _close_channels()
        mine.destroy(linger)


def close_at_exit(channel: _Closable, *, publishes: bool = False) -> None:
    """Have a channel closed when the program ends without doing it, and wait then for what it published to leave."""
    global _has_published
    _open.add(channel)
    _has_published |= publishes


def _close_channels() -> None:
    """Close each in its own way, as its sockets may be in use by a thread."""
    for channel in list(_open):
        try:
            channel.close()
        except TimedOut as error:
            logger.warning("a channel stays open: %s", error)


@atexit.register
def _flush() -> None:
    """Let what was sent last leave the process, within the linger time of its socket."""
    _close_channels()
    mine = context.get(os.getpid())
    # Termination waits for every socket, so one that a user left open would hang the exit; there is no public list.
    # It also waits for names that are being resolved, which those who have nothing to send need not do.
    if mine is not None and _has_published and all(socket.closed for socket in mine._sockets):
        mine.term()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
