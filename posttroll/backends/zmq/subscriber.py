"""The subscribing end: one SUB (or PULL) socket for each peer, drained in batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import zmq

from posttroll.backends.base import Batch, Peer, Received
from posttroll.backends.zmq import keeper
from posttroll.backends.zmq.connection import Connection, limited_connection_options
from posttroll.backends.zmq.connections import ConnectingChannel
from posttroll.backends.zmq.socket import Socket
from posttroll.settings import read

__all__ = ["ZMQSubscriber"]

_MOST_WATCHED = 100


class ZMQSubscriber(ConnectingChannel[Batch]):
    """A subscribing channel over ZeroMQ."""

    def __init__(self, *addresses: str, topics: Sequence[bytes] = (b"",), backend: str = "unsecure_zmq") -> None:
        super().__init__()
        self._is_receiving = False
        self._will_call = False
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
        self._check_open(peer)
        known = self._connections.get(peer)
        if known is not None and (not known.is_leaving or known.topics == topics):
            known.stay()
            return
        if known is not None:
            self._drop(known)
        is_watched = tell_connected or len(self._connections) < _MOST_WATCHED
        kind = zmq.PULL if topics is None else zmq.SUB
        connection = Connection(peer, kind, _options(), topics, is_watched=is_watched)
        connection.tells_connected = tell_connected
        self._add(connection)

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
            self._drop(connection)

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

    def _tell(self, connection: Connection, changes: list[bool]) -> None:
        if connection.tells_connected and True in changes:
            self._ready.append(Batch([b""], connection.peer, connected=True))

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
                if self._ready or self._awake:
                    self._bell.ring()  # as the news that an event loop waits for may be taken now
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


def _options() -> dict[int, int]:
    """Return the options of a subscribing socket."""
    return {zmq.LINGER: 0, zmq.RCVHWM: read("receive_high_water_mark"), **limited_connection_options()}
