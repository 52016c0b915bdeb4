"""One socket and its connection to a peer, which is made anew when libzmq gives it up.

After a protocol error (a frame beyond all limits, another kind of server on the port, a key that is refused) libzmq
does not try again, and the socket would be deaf for good. Its monitor shows it: a connection that is lost is tried
again at once, or never.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import zmq

from posttroll.backends.base import Peer
from posttroll.backends.zmq.socket import Socket, connect, open_client, receive_limit, translated_errors
from posttroll.settings import read

__all__ = ["Connection", "Monitor", "connection_options", "limited_connection_options"]

_RENEW_AFTER = 1.0
_LOST = (
    zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_TRYING = zmq.Event.CONNECT_RETRIED | zmq.Event.CONNECT_DELAYED | zmq.Event.CONNECTED
_WATCHED = _LOST | _TRYING | zmq.Event.HANDSHAKE_SUCCEEDED
_numbers = itertools.count(1)


def limited_connection_options() -> dict[int, int]:
    """Return the options of a lasting connection whose socket has a limit: bounded frames, and probes by TCP.

    libzmq ends the whole process by an assertion if a ping is due, or an answer overdue, on a connection from which it
    has stopped reading because of the limit.
    """
    interval = round(read("connection_heartbeat_interval")) or 1  # TCP counts in whole seconds
    if not read("connection_heartbeat_interval") or read("tcp_keepalive") is not None:
        return receive_limit()
    patience = read("connection_heartbeat_timeout")
    return {
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: interval,
        zmq.TCP_KEEPALIVE_INTVL: interval,
        zmq.TCP_KEEPALIVE_CNT: max(1, math.ceil(patience / interval)),
        zmq.TCP_MAXRT: int((interval + patience) * 1000),
        **receive_limit(),
    }


def connection_options() -> dict[int, int]:
    """Return the options of a lasting connection without one: bounded frames, and pings that notice a dead peer."""
    return {
        zmq.HEARTBEAT_IVL: int(read("connection_heartbeat_interval") * 1000),
        zmq.HEARTBEAT_TIMEOUT: int(read("connection_heartbeat_timeout") * 1000),
        **receive_limit(),
    }


class Monitor:
    """What libzmq tells of the connections of a socket, from before it connects or binds."""

    def __init__(self, socket: Socket, events: int) -> None:
        endpoint = f"inproc://posttroll-monitor-{next(_numbers)}"
        self._watched = socket
        with translated_errors("watch a socket"):
            self._news: Socket = socket.context.socket(zmq.PAIR)
            try:
                self._news.set(zmq.RCVHWM, 0)  # else libzmq waits, with all its connections, until news are read
                socket.monitor(endpoint, events)
                self._news.connect(endpoint)
            except BaseException:
                self._news.close(linger=0)
                raise
        self.descriptor = int(self._news.get(zmq.FD))

    def read(self) -> Iterator[tuple[int, int]]:
        """Give each event that was not read yet, and what libzmq says with it, mostly a descriptor."""
        # What pyzmq has for it takes asyncio and ssl along: 20 ms and 6 MB.
        with contextlib.suppress(zmq.Again):
            while True:
                frame = self._news.recv_multipart(zmq.DONTWAIT)[0]
                yield int.from_bytes(frame[:2], sys.byteorder), int.from_bytes(frame[2:6], sys.byteorder)

    def close(self) -> None:
        """End it, before the socket is closed."""
        with contextlib.suppress(zmq.ZMQError):  # the context is gone, or was closed with all its sockets
            self._watched.monitor(None, 0)
        self._news.close(linger=0)


class Connection:
    """A socket of a kind that is connected to a peer, and subscribed to the topics if there are some.

    `is_watched`: have a monitor, which takes two more descriptors.
    """

    def __init__(
        self,
        peer: Peer,
        kind: int,
        options: Mapping[int, Any],
        topics: Sequence[bytes] | None = None,
        *,
        is_watched: bool = True,
    ) -> None:
        self.peer = peer
        self.topics = topics
        self.tells_connected = False
        self.was_cut = False
        self._is_there = False
        self.monitor: Monitor | None = None
        self._linger = 0.0
        self._leaves_at: float | None = None
        self._renews_at: float | None = None
        self.socket = open_client(kind, peer.uri, peer.backend, options)
        self._descriptor = int(self.socket.get(zmq.FD))
        try:
            if is_watched:
                self.monitor = Monitor(self.socket, _WATCHED)
            for topic in topics or ():
                self.socket.subscribe(topic)
            connect(self.socket, peer.uri)
        except BaseException:
            self.close()
            raise

    @property
    def descriptors(self) -> list[int]:
        """What to poll: they become readable when libzmq has news for a socket that had none left."""
        return [self._descriptor] if self.monitor is None else [self._descriptor, self.monitor.descriptor]

    @property
    def is_leaving(self) -> bool:
        """Whether it is to be closed when nothing comes any more."""
        return self._leaves_at is not None

    def leave(self, linger: float, now: float) -> None:
        """Have it closed after `linger` seconds without a frame."""
        self._linger = linger
        self._leaves_at = now + linger

    def stay(self) -> None:
        """Keep it after all."""
        self._leaves_at = None

    def heard(self, now: float) -> None:
        """Note that a frame came."""
        if self._leaves_at is not None:
            self._leaves_at = now + self._linger

    def has_left(self, now: float) -> bool:
        """Return whether it is time to close it."""
        return self._leaves_at is not None and self._leaves_at <= now

    def next_timeout(self) -> float | None:
        """Return when to look at it again."""
        if self._leaves_at is None or self._renews_at is None:
            return self._renews_at if self._leaves_at is None else self._leaves_at
        return min(self._leaves_at, self._renews_at)

    def read_monitor(self, now: float) -> list[bool]:
        """Take note of what became of the connection; return whether it was then there, for each time that changed."""
        changes = []
        for event, _ in self.monitor.read() if self.monitor is not None else ():
            self._renews_at = now + _RENEW_AFTER if event & _LOST else None
            is_there = event == zmq.Event.HANDSHAKE_SUCCEEDED
            if is_there != self._is_there:
                self._is_there, self.was_cut = is_there, not is_there
                changes.append(is_there)
        return changes

    def has_frames(self) -> bool:
        """Return whether there are frames to take; makes libzmq subscribe again after it has connected again."""
        return bool(int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN)

    def renew_if_lost(self, now: float) -> bool:
        """Connect anew if libzmq has given up, and all that came before has been taken; return whether so."""
        if self._renews_at is None or self._renews_at > now:
            return False
        if self.has_frames():
            return False
        self._renews_at = None
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.peer.uri)
        connect(self.socket, self.peer.uri)
        return True

    def close(self) -> None:
        """Close."""
        if self.monitor is not None:
            self.monitor.close()
        self.socket.close()
