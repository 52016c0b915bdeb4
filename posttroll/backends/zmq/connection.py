"""One subscribing socket and its connection, which is made anew when libzmq gives it up.

After a protocol error (a frame beyond all limits, another kind of server on the port, a key that is refused) libzmq
does not try again, and the subscriber would be deaf for good. The socket's monitor shows it: a connection that is lost
is tried again at once, or never.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from posttroll.backends.base import Peer
from posttroll.backends.zmq.socket import Socket, connect, open_client, translated_errors

__all__ = ["Connection"]

_RENEW_AFTER = 1.0
_LOST = (
    zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_TRYING = zmq.Event.CONNECT_RETRIED | zmq.Event.CONNECT_DELAYED | zmq.Event.CONNECTED
_WATCHED = _LOST | _TRYING | zmq.Event.HANDSHAKE_SUCCEEDED


class Connection:
    """A socket that is connected to a peer, for some topics, or to pull from it if they are None.

    `is_watched`: have a monitor, which takes two more descriptors.
    """

    def __init__(
        self, peer: Peer, topics: Sequence[bytes] | None, options: Mapping[int, Any], *, is_watched: bool
    ) -> None:
        self.peer = peer
        self.topics = topics
        self.tells_connected = False
        self.monitor: Socket | None = None
        self.monitor_descriptor: int | None = None
        self._linger = 0.0
        self._leaves_at: float | None = None
        self._renews_at: float | None = None
        self.socket = open_client(zmq.PULL if topics is None else zmq.SUB, peer.uri, peer.backend, options)
        self._descriptor = int(self.socket.get(zmq.FD))
        try:
            if is_watched:  # from before it connects, else the first news may have come and gone
                with translated_errors(f"watch the connection to {peer.uri!r}"):
                    self.monitor = self.socket.get_monitor_socket(_WATCHED)
                    self.monitor_descriptor = int(self.monitor.get(zmq.FD))
            for topic in topics or ():
                self.socket.subscribe(topic)
            connect(self.socket, peer.uri)
        except BaseException:
            self.close()
            raise

    @property
    def descriptors(self) -> list[int]:
        """What to poll: they become readable when libzmq has news for a socket that had none left."""
        return [descriptor for descriptor in (self._descriptor, self.monitor_descriptor) if descriptor is not None]

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

    def read_monitor(self, now: float) -> bool:
        """Take note of what became of the connection; return whether it was established meanwhile."""
        is_established = False
        with contextlib.suppress(zmq.Again):
            while self.monitor is not None:
                event = _read_event(self.monitor.recv_multipart(zmq.DONTWAIT))
                is_established |= event == zmq.Event.HANDSHAKE_SUCCEEDED
                self._renews_at = now + _RENEW_AFTER if event & _LOST else None
        return is_established

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
            with contextlib.suppress(zmq.ZMQError):  # the context is gone, or was closed with all its sockets
                self.socket.disable_monitor()
            self.monitor.close(linger=0)
        self.socket.close()


def _read_event(frames: Sequence[bytes]) -> int:
    """Return which event a monitor tells of."""
    # What pyzmq has for it takes asyncio and ssl along: 20 ms and 6 MB.
    return int.from_bytes(frames[0][:2], sys.byteorder)
