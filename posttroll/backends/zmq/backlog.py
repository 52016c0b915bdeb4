"""What guests send faster than it is taken: kept up to a limit, and given out in turn.

libzmq ends the whole process by an assertion if it has stopped reading from a connection, as there is a limit, and the
peer goes that has sent a ping, or is to be sent one. So sockets that anybody may connect to have no limit of their own.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

import zmq

__all__ = ["Backlog", "Limits", "descriptor_of", "source_of"]

_MOST_READ = 5000
_MOST_IN_VAIN = 1000
_HUNDREDTH = 100

Item = TypeVar("Item")


class Limits(NamedTuple):
    """How many items, and bytes of them, are kept for one guest, and how many bytes for all together."""

    most: int
    largest: int
    largest_together: int


class _Queue(deque[tuple[Item, int]], Generic[Item]):
    """What one guest has sent, with the size of each."""

    size = 0


class Backlog(Generic[Item]):
    """What was read from a socket that is bound or connected to an address, by guest."""

    def __init__(self, address: str, limits: Limits) -> None:
        port = address.rpartition(":")[2]
        self._port = int(port) if address.startswith("tcp://") and port.isdigit() else None
        self._limits = limits
        self._waiting: dict[Hashable, _Queue[Item]] = {}  # in the order of their turns
        self._size = 0
        self._in_vain = 0
        self._cut_off: set[Hashable] = set()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def has_room(self, guest: Hashable) -> bool:
        """Return whether there is room for what a guest sends; there is, if nothing else of it is waiting.

        There is a hundredth of the usual room while more comes than can be read.
        """
        queue = self._waiting.get(guest)
        if queue is None:
            return guest not in self._cut_off
        most, largest, largest_together = self._limits
        if self._in_vain > _MOST_IN_VAIN:
            most //= _HUNDREDTH
        return len(queue) < most and queue.size < largest and self._size < largest_together

    def put(self, guest: Hashable, item: Item, size: int = 0) -> None:
        """Keep an item, room or not."""
        queue = self._waiting.setdefault(guest, _Queue())
        queue.append((item, size))
        queue.size += size
        self._size += size

    def put_or_refuse(self, guest: Hashable, item: Item, size: int, frame: zmq.Frame) -> None:
        """Keep an item that came with a frame if there is something in it, and room for it."""
        if size and self.has_room(guest):
            self.put(guest, item, size)
        else:
            self.refuse(guest, frame)

    def take(self, most: int) -> Iterator[Item]:
        """Give so many items at most, one of each guest in turn."""
        while self._waiting and most > 0:
            most -= 1
            yield self._take_one()

    def _take_one(self) -> Item:
        guest = next(iter(self._waiting))
        queue = self._waiting.pop(guest)
        item, size = queue.popleft()
        queue.size -= size
        self._size -= size
        if queue:
            self._waiting[guest] = queue  # as the last one from here on
        return item

    def refuse(self, guest: Hashable, frame: zmq.Frame) -> None:
        """Note that a frame was dropped; cut the guest off, and drop all it sent, if they come faster than that."""
        self._in_vain += 1
        # Once, as others come by its descriptor while what it has sent before is still being read.
        if self._in_vain > _MOST_IN_VAIN and self._port is not None and guest not in self._cut_off:
            self._cut_off.add(guest)
            self._size -= self._waiting.pop(guest, _Queue()).size
            _cut_off(frame, self._port)

    def fill(self, read_one: Callable[[], None]) -> bool:
        """Read until there is no more (`zmq.Again`), or for long; return whether there is no more."""
        try:
            for _ in range(_MOST_READ):
                read_one()
        except zmq.Again:
            self._in_vain = 0
            self._cut_off.clear()
            return True
        return False


def descriptor_of(frame: zmq.Frame) -> int | None:
    """Return the descriptor that a frame came by; None within the process."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None


def source_of(frame: zmq.Frame) -> str:
    """Return the host that a frame came from, "" when unknown."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""


def _cut_off(frame: zmq.Frame, port: int) -> None:
    """Shut the connection that a frame came by down, to or from a port; nothing if its descriptor is another's now."""
    descriptor = descriptor_of(frame)
    if descriptor is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        own, other = connection.getsockname(), connection.getpeername()
        if port in (own[1], other[1]) and other[0] == source_of(frame):
            connection.shutdown(socket.SHUT_RDWR)
