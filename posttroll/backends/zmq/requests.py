"""The asking end (DEALER) and the answering end (ROUTER): neither is wedged by a peer that is gone or talks rubbish."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
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
_MOST_AT_ONCE = 100

_receive = zmq.backend.Socket.recv  # without what zmq.Socket.recv does before and after


class _Exchange:
    """One request to several peers: who still has to be sent it, and who has answered."""

    def __init__(
        self,
        channel: ZMQRequests,
        number: bytes,
        frame: bytes,
        peers: Iterable[Peer],
        timeout: float,
        grace: float | None,
    ) -> None:
        self._channel = channel
        self.number = number
        self.frame = frame
        self.unsent = set(peers)
        self.silent = set(peers)
        self.replies: dict[Peer, bytes] = {}
        self.look_at = -math.inf
        """When to advance it although nothing happens."""
        self._deadline = time.monotonic() + timeout
        self._grace = grace

    def advance(self) -> bool:
        """Send and receive what can be at once; return whether it is over."""
        return self._channel.advance(self)

    def next_timeout(self) -> float:
        """Return when to advance though nothing happens."""
        return min(self._deadline, self.look_at)

    def put(self, peer: Peer, reply: bytes) -> None:
        """Keep a reply, the first of which may bring the end nearer."""
        if self._grace is not None and not self.replies:
            self._deadline = min(self._deadline, time.monotonic() + self._grace)
        self.replies[peer] = reply
        self.silent.remove(peer)

    @property
    def is_over(self) -> bool:
        """Whether all have answered, or the time is up."""
        return not self.silent or time.monotonic() >= self._deadline


class ZMQRequests(Channel):
    """Asks one or several peers at once, over connections that are kept."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        super().__init__()
        self._sockets: dict[Peer, Socket] = {}
        self._silent_since: dict[Peer, float] = {}
        self._numbers = itertools.count(1)
        self._under_way: _Exchange | None = None
        try:
            for peer in peers:
                self._add(peer, self._connect(peer))
        except BaseException:
            self.close()
            raise

    def _connect(self, peer: Peer) -> Socket:
        # Without IMMEDIATE, requests to a peer that is not there would pile up and all be asked when it comes.
        options: dict[int, int] = {zmq.IMMEDIATE: 1, zmq.MAXMSGSIZE: _MAX_REPLY_SIZE, zmq.LINGER: 0}
        return connect_client(zmq.DEALER, peer.uri, peer.backend, options)

    def _add(self, peer: Peer, socket: Socket) -> None:
        self._sockets[peer] = socket
        self._descriptors.register(_descriptor(socket))

    def request(self, frame: bytes, timeout: float, grace: float | None = None) -> Mapping[Peer, bytes]:
        """Return the replies that came in time; with `grace`, soon after the first."""
        check_process(self._pid)
        try:
            with self._lock:
                exchange = self.begin(frame, timeout, grace)
                while not exchange.advance():
                    self._poll(exchange.next_timeout())
                return exchange.replies
        finally:
            self._carry_out_orders()

    def begin(self, frame: bytes, timeout: float, grace: float | None = None) -> _Exchange:
        """Begin a request, which goes on when it is advanced; one that was begun before is given up."""
        check_process(self._pid)
        number = b"%d" % next(self._numbers)
        self._under_way = _Exchange(self, number, frame, self._sockets, timeout, grace)
        return self._under_way

    def advance(self, exchange: _Exchange) -> bool:
        """Send and receive what can be at once; return whether the exchange is over, or given up."""
        try:
            with self._lock, translated_errors("send a request"):
                self._obey()
                return self._closed or exchange is not self._under_way or self._advance(exchange)
        finally:
            self._carry_out_orders()

    def _advance(self, exchange: _Exchange) -> bool:
        self._renew_silent(exchange)
        # Those who have answered as well, as their descriptors stay readable until they are asked.
        were_all = [self._turn(exchange, peer, socket) for peer, socket in self._sockets.items()]
        renewals = (self._renews_at(exchange, peer) for peer in exchange.silent)
        exchange.look_at = min(renewals, default=math.inf) if all(were_all) else -math.inf
        return exchange.is_over

    def _turn(self, exchange: _Exchange, peer: Peer, socket: Socket) -> bool:
        """Send to a peer and read what it sent, up to its reply; return whether there is no more to be done now.

        It is only when libzmq was asked and has said so that the descriptor tells of the next.
        """
        for _ in range(_MOST_AT_ONCE):
            events = int(socket.get(zmq.EVENTS))
            may_send = peer in exchange.unsent and events & zmq.POLLOUT
            may_receive = peer in exchange.silent and events & zmq.POLLIN
            if not may_send and not may_receive:
                return True
            with contextlib.suppress(zmq.Again):
                if may_send:
                    socket.send_multipart([exchange.number, b"", exchange.frame], zmq.DONTWAIT)
                    exchange.unsent.remove(peer)
                if may_receive:
                    self._read_reply(exchange, peer, socket)
        return False

    def _read_reply(self, exchange: _Exchange, peer: Peer, socket: Socket) -> None:
        number, *reply = socket.recv_multipart(zmq.DONTWAIT)
        if number == exchange.number and reply:
            exchange.put(peer, reply[-1])
            del self._silent_since[peer]

    def _renew_silent(self, exchange: _Exchange) -> None:
        """Connect anew to who has not answered for long, as libzmq may have given up, and ask again."""
        now = time.monotonic()
        for peer in exchange.silent:
            self._silent_since.setdefault(peer, now)
            if now >= self._renews_at(exchange, peer):
                fresh, former = self._connect(peer), self._sockets[peer]
                self._descriptors.unregister(_descriptor(former))
                former.close(linger=0)
                self._add(peer, fresh)
                self._silent_since[peer] = now
                exchange.unsent.add(peer)

    def _renews_at(self, exchange: _Exchange, peer: Peer) -> float:
        return self._silent_since[peer] + (_PATIENCE_TO_CONNECT if peer in exchange.unsent else _PATIENCE)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when an exchange may advance."""
        return self._descriptors.fileno()

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)


def _descriptor(socket: Socket) -> int:
    return int(socket.get(zmq.FD))


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
        # A reply may take the news of requests that its descriptor would tell of, so the sockets themselves are asked.
        self._poller = zmq.Poller()
        self._poller.register(self._bell_descriptor, zmq.POLLIN)
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
        for socket in self._wait(self._poller.poll, 0.0 if any(backlogs) else deadline):
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
