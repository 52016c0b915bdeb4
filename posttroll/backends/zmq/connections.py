"""Receiving from many connections without asking those that have nothing."""

from __future__ import annotations

import logging
import math
import time

from posttroll.backends.base import Peer
from posttroll.backends.zmq.channel import Item, ReceivingChannel
from posttroll.backends.zmq.connection import Connection
from posttroll.errors import ConnectionLost
from posttroll.protocol.drops import Drops

__all__ = ["ConnectingChannel"]

logger = logging.getLogger(__name__)

_LONGEST_SLEEP = 5.0
_BETWEEN_LOOKS = 0.05


class ConnectingChannel(ReceivingChannel[Item]):
    """A receiving channel with a connection to each of its peers, which may be open or secure, side by side."""

    _most_at_once = 200
    """How much is taken from one connection before the others have their turn."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: dict[Peer, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._awake: set[Connection] = set()
        self._all_wake_at = time.monotonic() + _LONGEST_SLEEP
        self._expectant: set[Connection] = set()
        self._look_at = math.inf  # when the first of them is to be looked at, or before
        self._troubles = Drops()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there may be something to receive."""
        return self._descriptors.fileno()

    def next_timeout(self) -> float:
        """Return when to receive though the descriptor is silent, as somebody else has taken the news, or is lost."""
        if self._ready or self._is_woken or self._closed or self._is_awake():
            return -math.inf
        return min(self._all_wake_at, self._look_at)

    def _drain(self, connection: Connection, most: int) -> bool:
        """Make at most so much of what came ready; return whether that was all."""
        raise NotImplementedError

    def _tell(self, connection: Connection, changes: list[bool]) -> None:
        """Make ready the news that the connection is there, or was cut."""
        raise NotImplementedError

    def _check_open(self, peer: Peer) -> None:
        if self._closed:
            raise ConnectionLost(f"cannot connect to {peer.uri!r}: the channel is closed")

    def _add(self, connection: Connection) -> None:
        self._connections[connection.peer] = connection
        self._awake.add(connection)
        for descriptor in connection.descriptors:
            self._by_descriptor[descriptor] = connection
            self._descriptors.register(descriptor)
        self._read_monitor(connection)

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.peer]
        self._expectant.discard(connection)
        self._awake.discard(connection)
        for descriptor in connection.descriptors:
            del self._by_descriptor[descriptor]
            self._descriptors.unregister(descriptor)
        connection.close()

    def _gather(self, deadline: float | None) -> None:
        """Take what came, or wait for something until the deadline."""
        self._take(self._most_at_once)
        if self._is_awake():  # somebody talks without end, and others may have begun
            self._wake_up(0.0)
        elif not self._ready:
            self._wake_up(deadline)
            self._take(1)  # so that it is on its way to the application before the end of what came is looked for
        if time.monotonic() >= self._look_at:
            self._keep_up()

    def _is_awake(self) -> bool:
        """Return whether there may be something to take."""
        return bool(self._awake)

    def _wake_up(self, deadline: float | None) -> None:
        """Wait until something happens at a connection; those where it does are awake from then on.

        All are woken now and then: who else uses a socket may take its news, and nobody is to be deaf for that.
        """
        own = min(self._all_wake_at, self._look_at)
        deadline = own if deadline is None else min(deadline, own)
        for descriptor in self._poll(deadline):
            self._stir(descriptor)
        if (now := time.monotonic()) >= self._all_wake_at:
            self._all_wake_at = now + _LONGEST_SLEEP
            self._awake.update(self._connections.values())

    def _stir(self, descriptor: int) -> None:
        """Wake the connection whose descriptor is readable."""
        connection = self._by_descriptor[descriptor]
        self._awake.add(connection)
        if connection.monitor is not None and descriptor == connection.monitor.descriptor:
            self._read_monitor(connection)

    def _take(self, most: int) -> None:
        """Take so much at most from each connection that is awake.

        It stays so until libzmq has said that there is no more: only then does its descriptor tell of the next.
        """
        for connection in list(self._awake):
            if self._drain(connection, most):
                self._awake.discard(connection)

    def _read_monitor(self, connection: Connection) -> None:
        if changes := connection.read_monitor(time.monotonic()):
            self._tell(connection, changes)
        self._expect(connection)

    def _expect(self, connection: Connection) -> None:
        """Look at the connection again in time, if it asks for that."""
        moment = connection.next_timeout()
        if moment is not None:
            self._expectant.add(connection)
            self._look_at = min(self._look_at, moment)

    def _keep_up(self) -> None:
        """Close the connections that have nothing more to say, and renew those that libzmq has given up."""
        now = time.monotonic()
        for connection in list(self._expectant):
            moment = connection.next_timeout()
            if moment is not None and moment > now:
                continue
            self._awake.add(connection)  # as to look at it may take the news of frames
            if connection.has_left(now):
                self._drop(connection)
            elif connection.renew_if_lost(now) and self._troubles.add("connection lost", now):
                logger.warning("connection to %s was cut or refused, connecting anew", connection.peer.uri)
            elif connection.next_timeout() is None:
                self._expectant.discard(connection)
        moments = (connection.next_timeout() for connection in self._expectant)
        first = min((moment for moment in moments if moment is not None), default=math.inf)
        self._look_at = max(first, now + _BETWEEN_LOOKS)

    def _close_sockets(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
