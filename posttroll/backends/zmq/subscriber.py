"""The subscribing end: one SUB (or PULL) socket for each peer, drained in batches."""

from __future__ import annotations

import logging
import math
import select
import time
from collections.abc import Mapping, Sequence

import zmq

from posttroll.backends.base import Batch, Peer, Received
from posttroll.backends.zmq import keeper
from posttroll.backends.zmq.channel import ReceivingChannel
from posttroll.backends.zmq.connection import Connection
from posttroll.backends.zmq.socket import Socket, receive_limit
from posttroll.errors import ConnectionLost
from posttroll.protocol.drops import Drops
from posttroll.settings import read

__all__ = ["ZMQSubscriber"]

logger = logging.getLogger(__name__)

_BATCH = 200
_MOST_WATCHED = 100
_LONGEST_SLEEP = 5.0
_BETWEEN_LOOKS = 0.05


class ZMQSubscriber(ReceivingChannel[Batch]):
    """A subscribing channel over ZeroMQ; its peers may be open or secure, side by side."""

    def __init__(self, *addresses: str, topics: Sequence[bytes] = (b"",), backend: str = "unsecure_zmq") -> None:
        super().__init__()
        self._connections: dict[Peer, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._awake: set[Connection] = set()
        self._all_wake_at = time.monotonic() + _LONGEST_SLEEP
        self._is_receiving = False
        self._will_call = False
        # Unlike ZeroMQ's poller, it does not ask each socket before and after, which is most of what waking up takes.
        self._descriptors = select.poll()
        self._descriptors.register(self._bell_descriptor, select.POLLIN)
        self._expectant: set[Connection] = set()
        self._look_at = math.inf  # when the first of them is to be looked at, or before
        self._troubles = Drops()
        for address in addresses:
            self.connect(Peer(address, backend), topics)
        keeper.keep(self)

    @property
    def addr_sub(self) -> Mapping[str, Socket]:
        """The sockets by the address they are connected to."""
        return {peer.uri: connection.socket for peer, connection in self._connections.items()}

    def connect(self, peer: Peer, topics: Sequence[bytes] | None, tell_connected: bool = False) -> None:
        """Connect; known peers stay as they are, those about to be disconnected stay connected."""
        self._order(lambda: self._connect(peer, topics, tell_connected))

    def _connect(self, peer: Peer, topics: Sequence[bytes] | None, tell_connected: bool) -> None:
        if self._closed:
            raise ConnectionLost(f"cannot connect to {peer.uri!r}: the subscriber is closed")
        known = self._connections.get(peer)
        if known is not None and (not known.is_leaving or known.topics == topics):
            known.stay()
            return
        if known is not None:
            self._disconnect_now(known)
        is_watched = tell_connected or len(self._connections) < _MOST_WATCHED
        connection = Connection(peer, topics, _options(), is_watched=is_watched)
        connection.tells_connected = tell_connected
        self._connections[peer] = connection
        self._awake.add(connection)
        for descriptor in connection.descriptors:
            self._by_descriptor[descriptor] = connection
            self._descriptors.register(descriptor, select.POLLIN)
        self._read_monitor(connection)

    def disconnect(self, peer: Peer, linger: float = 0.0) -> None:
        """Disconnect, after `linger` seconds of silence; unknown peers are ignored."""
        self._order(lambda: self._disconnect(peer, linger))

    def _disconnect(self, peer: Peer, linger: float) -> None:
        connection = self._connections.get(peer)
        if connection is None:
            return
        if linger > 0:
            connection.leave(linger, time.monotonic())
            self._expect(connection)
            self._awake.add(connection)
        else:
            self._disconnect_now(connection)

    def _disconnect_now(self, connection: Connection) -> None:
        del self._connections[connection.peer]
        self._expectant.discard(connection)
        self._awake.discard(connection)
        for descriptor in connection.descriptors:
            del self._by_descriptor[descriptor]
            self._descriptors.unregister(descriptor)
        connection.close()

    def receive(self, timeout: float | None) -> Received | None:
        """Return the next frame; None after `timeout` seconds without one (None: wait for ever), and when closed."""
        batch = self.receive_batch(timeout)
        if batch is None:
            return None
        received = Received(batch.frames.pop(0), batch.peer, batch.connected)
        if batch.frames:
            self._ready.appendleft(batch)
        return received

    def receive_batch(self, timeout: float | None) -> Batch | None:
        """Return what came from one peer; None after `timeout` seconds without anything, and when closed."""
        self._is_receiving = True
        try:
            return self._receive(timeout)
        finally:
            self._is_receiving = False
            if self._will_call:
                self._will_call = False
                keeper.call()

    def _gather(self, deadline: float | None) -> None:
        """Take frames, or wait for some until the deadline."""
        self._take(_BATCH)
        if self._awake:  # somebody talks without end, and others may have begun
            self._wake_up(0.0)
        elif not self._ready:
            self._wake_up(deadline)
            self._take(1)  # so that it is on its way to the application before the end of what came is looked for
        if time.monotonic() >= self._look_at:
            self._keep_up()

    def _wake_up(self, deadline: float | None) -> None:
        """Wait until something happens at a connection; those where it does are awake from then on.

        All are woken now and then: who else uses a socket may take its news, and nobody is to be deaf for that.
        """
        own = min(self._all_wake_at, self._look_at)
        deadline = own if deadline is None else min(deadline, own)
        for descriptor in self._wait(self._descriptors.poll, deadline):
            connection = self._by_descriptor[descriptor]
            self._awake.add(connection)
            if descriptor == connection.monitor_descriptor:
                self._read_monitor(connection)
        if (now := time.monotonic()) >= self._all_wake_at:
            self._all_wake_at = now + _LONGEST_SLEEP
            self._awake.update(self._connections.values())

    def _take(self, most: int) -> None:
        """Take so many frames at most from each connection that is awake.

        It stays so until libzmq has said that there are no more: only then does its descriptor tell of the next.
        """
        for connection in list(self._awake):
            if self._drain(connection, most):
                self._awake.discard(connection)

    def _drain(self, connection: Connection, most: int) -> bool:
        """Take so many frames at most; return whether that was all."""
        receive, at_once = connection.socket.recv, zmq.DONTWAIT
        frames: list[bytes] = []
        try:
            while len(frames) < most:
                frames.append(receive(at_once))
        except zmq.Again:
            return True
        finally:
            if frames:
                self._ready.append(Batch(frames, connection.peer))
                if connection.is_leaving:
                    connection.heard(time.monotonic())
        return False

    def _read_monitor(self, connection: Connection) -> None:
        if connection.read_monitor(time.monotonic()) and connection.tells_connected:
            self._ready.append(Batch([b""], connection.peer, connected=True))
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
                self._disconnect_now(connection)
            elif connection.renew_if_lost(now) and self._troubles.add("connection lost", now):
                logger.warning("connection to %s was cut or refused, connecting anew", connection.peer.uri)
            elif connection.next_timeout() is None:
                self._expectant.discard(connection)
        moments = (connection.next_timeout() for connection in self._expectant)
        first = min((moment for moment in moments if moment is not None), default=math.inf)
        self._look_at = max(first, now + _BETWEEN_LOOKS)

    def look_after(self) -> bool:
        """Do what else is done in the thread of the socket's user, if nobody uses it.

        Return whether somebody does, in which case the keeper is called when that ends.
        """
        self._will_call = True  # before the look: it ends either before that, or sees this
        if self._is_receiving:
            return True
        self._will_call = False
        if self._lock.acquire(blocking=False):
            try:
                for connection in self._connections.values():
                    if connection.has_frames():
                        self._awake.add(connection)
                    self._read_monitor(connection)
                self._keep_up()
            except zmq.ContextTerminated:
                self._close()
            finally:
                self._lock.release()
            self._carry_out_orders()
        return False

    def close(self) -> None:
        """Disconnect from all."""
        super().close()
        keeper.release(self)

    def _close_sockets(self) -> None:
        for connection in list(self._connections.values()):
            self._disconnect_now(connection)


def _options() -> dict[int, int]:
    """Return the options of a subscribing socket: bounded queues and frames, and pings that notice a dead host."""
    return {
        zmq.LINGER: 0,
        zmq.RCVHWM: read("receive_high_water_mark"),
        zmq.HEARTBEAT_IVL: int(read("connection_heartbeat_interval") * 1000),
        zmq.HEARTBEAT_TIMEOUT: int(read("connection_heartbeat_timeout") * 1000),
        **receive_limit(),
    }
