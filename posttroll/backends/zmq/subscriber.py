"""The subscribing end: one SUB (or PULL) socket for each peer, drained in batches."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

import zmq

from posttroll.backends.base import Peer, Received
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


class ZMQSubscriber(ReceivingChannel[Received]):
    """A subscribing channel over ZeroMQ; its peers may be open or secure, side by side."""

    def __init__(self, *addresses: str, topics: Sequence[bytes] = (b"",), backend: str = "unsecure_zmq") -> None:
        super().__init__()
        self._connections: dict[Peer, Connection] = {}
        self._by_socket: dict[Socket, Connection] = {}
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
        for socket in connection.sockets:
            self._by_socket[socket] = connection
            self._poller.register(socket, zmq.POLLIN)

    def disconnect(self, peer: Peer, linger: float = 0.0) -> None:
        """Disconnect, after `linger` seconds of silence; unknown peers are ignored."""
        self._order(lambda: self._disconnect(peer, linger))

    def _disconnect(self, peer: Peer, linger: float) -> None:
        connection = self._connections.get(peer)
        if connection is None:
            return
        if linger > 0:
            connection.leave(linger, time.monotonic())
        else:
            self._disconnect_now(connection)

    def _disconnect_now(self, connection: Connection) -> None:
        del self._connections[connection.peer]
        for socket in connection.sockets:
            del self._by_socket[socket]
            self._poller.unregister(socket)
        connection.close()

    def _gather(self, deadline: float | None) -> None:
        """Wait for frames, and take a batch from each socket that has some."""
        deadlines = [deadline, *(connection.next_timeout() for connection in self._connections.values())]
        for socket in self._poll(min((moment for moment in deadlines if moment is not None), default=None)):
            connection = self._by_socket[socket]
            if socket is connection.monitor:
                self._read_monitor(connection)
            else:
                self._drain(connection)
        self._keep_up()

    def _drain(self, connection: Connection) -> None:
        receive, peer = connection.socket.recv, connection.peer
        with contextlib.suppress(zmq.Again):
            for _ in range(_BATCH):
                self._ready.append(Received(receive(zmq.DONTWAIT), peer))
        connection.heard(time.monotonic())

    def _read_monitor(self, connection: Connection) -> None:
        if connection.read_monitor(time.monotonic()) and connection.tells_connected:
            self._ready.append(Received(b"", connection.peer, connected=True))

    def _keep_up(self) -> None:
        """Close the connections that have nothing more to say, and renew those that libzmq has given up."""
        now = time.monotonic()
        for connection in [one for one in self._connections.values() if one.next_timeout() is not None]:
            if connection.has_left(now):
                self._disconnect_now(connection)
            elif connection.renew_if_lost(now) and self._troubles.add("connection lost", now):
                logger.warning("connection to %s was cut or refused, connecting anew", connection.peer.uri)

    def look_after(self) -> None:
        """Do what else is done in the thread of the socket's user, if nobody uses it."""
        if self._lock.acquire(blocking=False):
            try:
                for connection in self._connections.values():
                    connection.socket.get(zmq.EVENTS)  # makes libzmq subscribe again after it has connected again
                    self._read_monitor(connection)
                self._keep_up()
            except zmq.ContextTerminated:
                self._close()
            finally:
                self._lock.release()
            self._carry_out_orders()

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
