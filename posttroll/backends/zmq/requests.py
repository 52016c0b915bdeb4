"""The asking end (DEALER) and the answering end (ROUTER): neither is wedged by a peer that is gone or talks rubbish."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zmq

from posttroll.backends.base import Peer, Question
from posttroll.backends.zmq.backlog import Backlog, Limits, source_of
from posttroll.backends.zmq.channel import Channel, ReceivingChannel
from posttroll.backends.zmq.socket import ServerSocket, Socket, check_process, connect_client, translated_errors
from posttroll.protocol.drops import Drops

__all__ = ["ZMQReplies", "ZMQRequests"]

logger = logging.getLogger(__name__)

_PATIENCE = 5.0
_PATIENCE_TO_CONNECT = 1.5
_MAX_REQUEST_SIZE = 16 * 2**20
_MAX_REPLY_SIZE = 256 * 2**20
_LIMITS = Limits(most=3000, largest=_MAX_REQUEST_SIZE, largest_together=4 * _MAX_REQUEST_SIZE)
_COST_OF_FRAME = 300
_ANSWERING: dict[int, int] = {zmq.MAXMSGSIZE: _MAX_REQUEST_SIZE, zmq.RCVHWM: 0, zmq.RCVBUF: 2**16}
_AT_ONCE = int(zmq.DONTWAIT)

_receive = zmq.backend.Socket.recv  # without what zmq.Socket.recv does before and after


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


class _Door:
    """One bound socket, and what was read from it."""

    def __init__(self, peer: Peer) -> None:
        self.server = ServerSocket(zmq.ROUTER, peer.uri, peer.backend, options=_ANSWERING)
        self.socket = self.server.socket
        self.backlog: Backlog[Question] = Backlog(self.server.address, _LIMITS)
        self._drops = Drops()
        self._refused: zmq.Frame | None = None

    def read(self) -> None:
        """Read what came."""
        self.backlog.fill(self._read_one)
        self._tell_refused()

    def _read_one(self) -> None:
        guest = _receive(self.socket, _AT_ONCE)
        frame = _receive(self.socket, _AT_ONCE, copy=False)
        rest = [frame]
        while rest[-1].more:
            rest.append(_receive(self.socket, _AT_ONCE, copy=False))
        if self.backlog.has_room(guest):
            self._keep(guest, [part.bytes for part in rest], source_of(frame))
        else:
            self.backlog.refuse(guest, frame)
            self._refused = frame

    def _keep(self, guest: bytes, rest: list[bytes], source: str) -> None:
        split = rest.index(b"") + 1 if b"" in rest[:-1] else 0
        body = rest[split:]
        envelope = _Envelope(self.socket, [guest, *rest[:split]])
        question = Question(body[0] if len(body) == 1 else None, source, envelope)
        self.backlog.put(guest, question, sum(map(len, rest)) + _COST_OF_FRAME * len(rest))

    def _tell_refused(self) -> None:
        if self._refused is not None and self._drops.add("too many requests", time.monotonic()):
            source = source_of(self._refused) or "unknown host"
            logger.warning("requests from %s come faster than they can be answered, and are dropped", source)
        self._refused = None


class ZMQReplies(ReceivingChannel[Question]):
    """Answers on one or several addresses."""

    def __init__(self, bindings: Sequence[Peer]) -> None:
        super().__init__()
        self._doors: dict[Socket, _Door] = {}
        try:
            for peer in bindings:
                door = _Door(peer)
                self._doors[door.socket] = door
                self._poller.register(door.socket, zmq.POLLIN)
        except BaseException:
            self.close()
            raise
        self.addresses = [door.server.address for door in self._doors.values()]

    def receive(self, timeout: float | None) -> Question | None:
        """Return the next request; None after `timeout` seconds without one (None: wait for ever), and when closed."""
        return self._receive(timeout)

    def _gather(self, deadline: float | None) -> None:
        """Have one request of each socket ready, so that no port is starved by another."""
        backlogs = [door.backlog for door in self._doors.values()]
        for socket in self._poll(0.0 if any(backlogs) else deadline):
            self._doors[socket].read()
        for backlog in backlogs:
            self._ready.extend(backlog.take(1))

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
            for socket in self._doors:  # who came in by an address is disconnected with it
                socket.unbind(socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _bind(self) -> None:
        with translated_errors("listen again"):
            for door in self._doors.values():
                door.socket.bind(door.server.address)

    def _close_sockets(self) -> None:
        for door in self._doors.values():
            self._poller.unregister(door.socket)
            door.server.close()
