"""The subscribing end: one SUB (or PULL) socket for each peer, drained in batches."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from posttroll.backends.base import Peer, Received
from posttroll.backends.zmq import keeper
from posttroll.backends.zmq.channel import Channel
from posttroll.backends.zmq.socket import Socket, check_process, connect, open_client, receive_limit, translated_errors
from posttroll.errors import ConnectionLost
from posttroll.settings import read

__all__ = ["ZMQSubscriber"]

_BATCH = 200


@dataclass
class _Connection:
    peer: Peer
    topics: Sequence[bytes] | None
    socket: Socket
    monitor: Socket | None = None
    linger: float = 0.0
    leaves_at: float | None = None

    def close(self) -> None:
        if self.monitor is not None:
            with contextlib.suppress(zmq.ContextTerminated):
                self.socket.disable_monitor()
            self.monitor.close(linger=0)
        self.socket.close()


class ZMQSubscriber(Channel):
    """A subscribing channel over ZeroMQ; its peers may be open or secure, side by side."""

    def __init__(self, *addresses: str, topics: Sequence[bytes] = (b"",), backend: str = "unsecure_zmq") -> None:
        super().__init__()
        self._connections: dict[Peer, _Connection] = {}
        self._by_socket: dict[Socket, _Connection] = {}
        self._ready: deque[Received] = deque()
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
        if known is not None and (known.leaves_at is None or known.topics == topics):
            known.leaves_at = None
            return
        if known is not None:
            self._disconnect_now(known)
        kind = zmq.PULL if topics is None else zmq.SUB
        connection = _Connection(peer, topics, open_client(kind, peer.uri, peer.backend, _options()))
        try:
            if tell_connected:  # watched before it connects, else the news may have come and gone
                connection.monitor = connection.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            for topic in topics or ():
                connection.socket.subscribe(topic)
            connect(connection.socket, peer.uri)
        except BaseException:
            connection.close()
            raise
        self._connections[peer] = connection
        for socket in filter(None, (connection.socket, connection.monitor)):
            self._add(socket, connection)

    def _add(self, socket: Socket, connection: _Connection) -> None:
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
            connection.linger = linger
            connection.leaves_at = time.monotonic() + linger
        else:
            self._disconnect_now(connection)

    def _disconnect_now(self, connection: _Connection) -> None:
        del self._connections[connection.peer]
        for socket in filter(None, (connection.socket, connection.monitor)):
            del self._by_socket[socket]
            self._poller.unregister(socket)
        connection.close()

    def receive(self, timeout: float | None) -> Received | None:
        """Return the next frame; None after `timeout` seconds without one, and when closed."""
        check_process(self._pid)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._lock, translated_errors("receive"):
                return self._receive(deadline)
        finally:
            if self._orders:  # left while the lock was being given back, or when a signal handler raised
                self._carry_out_orders()

    def _receive(self, deadline: float | None) -> Received | None:
        while True:
            if self._orders:
                self._obey()
            if self._closed:
                return None
            if self._ready:
                return self._ready.popleft()
            expired = deadline is not None and time.monotonic() >= deadline
            try:
                self._gather(0.0 if expired else deadline)
            except zmq.ContextTerminated:
                self._close()
            if expired and not self._ready:
                return None

    def _gather(self, deadline: float | None) -> None:
        """Wait for frames, and take a batch from each socket that has some."""
        leaving = [connection for connection in self._connections.values() if connection.leaves_at is not None]
        deadlines = [deadline, *(connection.leaves_at for connection in leaving)]
        for socket in self._poll(min((moment for moment in deadlines if moment is not None), default=None)):
            connection = self._by_socket[socket]
            if socket is connection.monitor:
                self._note_connected(connection)
            else:
                self._drain(connection)
        for connection in leaving:
            if connection.leaves_at is not None and connection.leaves_at <= time.monotonic():
                self._disconnect_now(connection)

    def _drain(self, connection: _Connection) -> None:
        receive, peer = connection.socket.recv, connection.peer
        with contextlib.suppress(zmq.Again):
            for _ in range(_BATCH):
                self._ready.append(Received(receive(zmq.DONTWAIT), peer))
        if connection.leaves_at is not None:
            connection.leaves_at = time.monotonic() + connection.linger

    def _note_connected(self, connection: _Connection) -> None:
        assert connection.monitor is not None
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(connection.monitor.recv_multipart(zmq.DONTWAIT))
                if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._ready.append(Received(b"", connection.peer, connected=True))

    def look_after(self) -> None:
        """Let libzmq do what it does in the thread of the socket's user, if nobody uses it."""
        if self._lock.acquire(blocking=False):
            try:
                for socket in self._by_socket:
                    socket.get(zmq.EVENTS)
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
