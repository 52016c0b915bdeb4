"""The asking end (DEALER) and the answering end (ROUTER): neither is wedged by a peer that is gone or talks rubbish."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zmq

from posttroll.backends.base import Peer, Question
from posttroll.backends.zmq.channel import Channel, ReceivingChannel
from posttroll.backends.zmq.socket import ServerSocket, Socket, check_process, connect_client, translated_errors

__all__ = ["ZMQReplies", "ZMQRequests"]

_PATIENCE = 5.0
_PATIENCE_TO_CONNECT = 1.5
_MAX_REQUEST_SIZE = 16 * 2**20
_MAX_REPLY_SIZE = 256 * 2**20


@dataclass
class _Exchange:
    """One request to several peers: who still has to be sent it, and who has answered."""

    number: bytes
    frame: bytes
    unsent: set[Peer]
    silent: set[Peer]
    replies: dict[Peer, bytes] = field(default_factory=dict)


class ZMQRequests(Channel):
    """Asks one or several peers at once, over connections that are kept."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        super().__init__()
        self._sockets: dict[Peer, Socket] = {}
        self._silent_since: dict[Peer, float] = {}
        self._numbers = itertools.count(1)
        try:
            for peer in peers:
                self._sockets[peer] = self._connect(peer)
        except BaseException:
            self.close()
            raise

    def _connect(self, peer: Peer) -> Socket:
        # Without IMMEDIATE, requests to a peer that is not there would pile up and all be asked when it comes.
        options: dict[int, int] = {zmq.IMMEDIATE: 1, zmq.MAXMSGSIZE: _MAX_REPLY_SIZE, zmq.LINGER: 0}
        return connect_client(zmq.DEALER, peer.uri, peer.backend, options)

    def request(self, frame: bytes, timeout: float, grace: float | None = None) -> Mapping[Peer, bytes]:
        """Return the replies that came in time; with `grace`, soon after the first."""
        check_process(self._pid)
        deadline = time.monotonic() + timeout
        try:
            with self._lock, translated_errors("send a request"):
                exchange = _Exchange(b"%d" % next(self._numbers), frame, set(self._sockets), set(self._sockets))
                while exchange.silent and not self._closed and time.monotonic() < deadline:
                    had_none = not exchange.replies
                    self._renew_silent(exchange)
                    self._turn(exchange, min(deadline, time.monotonic() + _PATIENCE_TO_CONNECT))
                    if grace is not None and had_none and exchange.replies:
                        deadline = min(deadline, time.monotonic() + grace)
                for peer in exchange.replies:
                    del self._silent_since[peer]
                return exchange.replies
        finally:
            self._carry_out_orders()

    def _turn(self, exchange: _Exchange, deadline: float) -> None:
        peers = {self._sockets[peer]: peer for peer in exchange.silent}
        for socket, peer in peers.items():
            self._poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if peer in exchange.unsent else 0))
        try:
            ready = self._poll(deadline)
        finally:
            for socket in peers:
                self._poller.unregister(socket)
        for socket in ready:
            self._exchange(exchange, peers[socket], socket)
        self._obey()

    def _exchange(self, exchange: _Exchange, peer: Peer, socket: Socket) -> None:
        with contextlib.suppress(zmq.Again):
            if peer in exchange.unsent:
                socket.send_multipart([exchange.number, b"", exchange.frame], zmq.DONTWAIT)
                exchange.unsent.remove(peer)
        with contextlib.suppress(zmq.Again):
            number, *reply = socket.recv_multipart(zmq.DONTWAIT)
            if number == exchange.number and reply:
                exchange.replies[peer] = reply[-1]
                exchange.silent.remove(peer)

    def _renew_silent(self, exchange: _Exchange) -> None:
        """Connect anew to who has not answered for long, as libzmq may have given up, and ask again."""
        now = time.monotonic()
        for peer in exchange.silent:
            patience = _PATIENCE_TO_CONNECT if peer in exchange.unsent else _PATIENCE
            if now - self._silent_since.setdefault(peer, now) >= patience:
                fresh = self._connect(peer)
                self._sockets[peer].close(linger=0)
                self._sockets[peer] = fresh
                self._silent_since[peer] = now
                exchange.unsent.add(peer)

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)


class _Envelope(NamedTuple):
    socket: Socket
    frames: list[bytes]


class ZMQReplies(ReceivingChannel[Question]):
    """Answers on one or several addresses."""

    def __init__(self, bindings: Sequence[Peer]) -> None:
        super().__init__()
        self._servers: list[ServerSocket] = []
        try:
            for peer in bindings:
                server = ServerSocket(zmq.ROUTER, peer.uri, peer.backend, options={zmq.MAXMSGSIZE: _MAX_REQUEST_SIZE})
                self._servers.append(server)
                self._poller.register(server.socket, zmq.POLLIN)
        except BaseException:
            self.close()
            raise
        self.addresses = [server.address for server in self._servers]

    def receive(self, timeout: float | None) -> Question | None:
        """Return the next request; None after `timeout` seconds without one (None: wait for ever), and when closed."""
        return self._receive(timeout)

    def _gather(self, deadline: float | None) -> None:
        for socket in self._poll(deadline):
            self._take_one(socket)

    def _take_one(self, socket: Socket) -> None:
        """Take one request of each socket in turn, so that no port is starved by another."""
        with contextlib.suppress(zmq.Again):
            frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
            source = _source(frames[-1])
            identity, *rest = (frame.bytes for frame in frames)
            split = rest.index(b"") + 1 if b"" in rest[:-1] else 0
            body = rest[split:]
            envelope = _Envelope(socket, [identity, *rest[:split]])
            self._ready.append(Question(body[0] if len(body) == 1 else None, source, envelope))

    def reply(self, question: Question, frame: bytes) -> None:
        """Answer; a peer that is gone or does not read is left without."""
        socket, frames = question.envelope
        with self._lock, contextlib.suppress(zmq.ZMQError):
            socket.send_multipart([*frames, frame], zmq.DONTWAIT)
        self._carry_out_orders()

    def pause(self) -> None:
        """Disconnect everybody, and let nobody connect until `resume`; `TransportError`."""
        self._order(self._unbind)

    def resume(self) -> None:
        """Let everybody connect again; `TransportError`."""
        self._order(self._bind)

    def _unbind(self) -> None:
        with translated_errors("stop listening"):
            for server in self._servers:  # who came in by an address is disconnected with it
                server.socket.unbind(server.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _bind(self) -> None:
        with translated_errors("listen again"):
            for server in self._servers:
                server.socket.bind(server.address)

    def _close_sockets(self) -> None:
        for server in self._servers:
            self._poller.unregister(server.socket)
            server.close()


def _source(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
