"""The ends of links: one ROUTER for all who come in, and one DEALER for each peer that is connected to.

A bundle is one ZeroMQ frame: libzmq ends the whole process by an assertion if a connection is lost between the parts of
a message of several.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import zmq

from posttroll.backends.base import Arrival, Peer
from posttroll.backends.zmq.backlog import Backlog, Limits, descriptor_of
from posttroll.backends.zmq.connection import Connection, Monitor, connection_options
from posttroll.backends.zmq.connections import ConnectingChannel
from posttroll.backends.zmq.context import close_at_exit
from posttroll.backends.zmq.security import strategy
from posttroll.backends.zmq.socket import ServerSocket, Socket, check_process
from posttroll.settings import Ports

__all__ = ["ZMQLinks"]

_MOST_WAITING = 1000
_LIMITS = Limits(_MOST_WAITING, largest=128 * 2**20, largest_together=512 * 2**20)
# What a bundle may hold beside the largest message: others, and what is said of them.
_LARGEST_HEAD = 4 * 2**20
_AT_ONCE = int(zmq.DONTWAIT)  # as an operation on enumerations takes longer than one on a socket
_AT_ONCE_WITH_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)

_send = zmq.backend.Socket.send  # without what zmq.Socket.send does before and after, for each part
_receive = zmq.backend.Socket.recv
_option = zmq.backend.Socket.get
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


class ZMQLinks(ConnectingChannel[Arrival]):
    """A channel for links; it is bound if there is an address."""

    _most_at_once = 10

    def __init__(self, address: str | None, ports: Ports, backend: str) -> None:
        super().__init__()
        close_at_exit(self, publishes=True)
        self._keys: dict[Peer, str] = {}
        self._backlogs: dict[Peer, Backlog[Arrival]] = {}
        self._server: _Server | None = None
        self._server_is_awake = False
        self._is_waiting = False
        self.address = ""
        try:
            if address is not None:
                self._serve(_Server(address, ports, backend))
        except BaseException:
            self.close()
            raise

    def _serve(self, server: _Server) -> None:
        self._server, self._server_is_awake = server, True
        self.address = server.address
        for descriptor in server.descriptors:
            self._descriptors.register(descriptor)

    def connect(self, peer: Peer) -> None:
        """Connect; known peers stay as they are."""
        self._order(lambda: self._connect(peer))

    def _connect(self, peer: Peer) -> None:
        self._check_open(peer)
        if peer not in self._connections:
            # Without IMMEDIATE, bundles for a peer that is not there would pile up and be sent when it comes.
            connection = Connection(peer, zmq.DEALER, {zmq.IMMEDIATE: 1, **_options()})
            is_secure = connection.socket.get(zmq.MECHANISM) == zmq.CURVE
            self._keys[peer] = strategy(peer.backend).server_key().decode() if is_secure else ""
            self._backlogs[peer] = Backlog(peer.uri, _LIMITS)
            self._add(connection)

    def disconnect(self, peer: Peer) -> None:
        """Disconnect, after what was sent; unknown peers are ignored."""
        self._order(lambda: self._disconnect(peer))

    def _disconnect(self, peer: Peer) -> None:
        if peer in self._connections:
            self._drop(self._connections[peer])
            del self._keys[peer], self._backlogs[peer]

    def receive(self, timeout: float | None) -> Arrival | None:
        """Return the next arrival; None after `timeout` seconds (None: wait for ever), when woken and when closed."""
        return self._receive(timeout)

    @property
    def has_more(self) -> bool:
        """Whether there is more to be received that was taken from ZeroMQ already."""
        return bool(self._ready)

    def send(self, peer: Hashable, bundle: bytes) -> bool:
        """Send a bundle; return False if the peer is not there, or does not take it now."""
        check_process(self._pid)
        try:
            with self._lock:
                return not self._closed and self._send(peer, bundle)
        except zmq.ZMQError:
            return False
        finally:
            if self._orders:
                self._carry_out_orders()

    def _send(self, peer: Hashable, bundle: bytes) -> bool:
        if isinstance(peer, Peer):
            connection = self._connections.get(peer)
            if connection is None or connection.was_cut:
                return False
            try:
                _send(connection.socket, bundle, _AT_ONCE)
            finally:  # as what fails may take the news of what came, too
                if _is_readable(connection.socket):
                    self._awake.add(connection)
                    self._bell.ring()
            return True
        if self._server is None or not isinstance(peer, bytes) or peer not in self._server.present:
            return False
        try:
            _send(self._server.socket, peer, _AT_ONCE_WITH_MORE)
            _send(self._server.socket, bundle, _AT_ONCE)
        finally:
            if _is_readable(self._server.socket):
                self._server_is_awake = True
                self._bell.ring()
        return True

    def _wait(self, poll: Callable[[int | None], list[tuple[Any, int]]], deadline: float | None) -> list[Any]:
        """Wait without the lock, so that others may send meanwhile, or close."""
        self._is_waiting = True
        self._lock.release()
        try:
            found = super()._wait(poll, deadline)
        finally:
            self._lock.acquire()
            self._is_waiting = False
            if self._closed:
                self._close_descriptors()
        return [] if self._closed else found

    def _close_descriptors(self) -> None:
        """Leave them to who waits for them, as to close them is nothing that ends the wait."""
        if not self._is_waiting:
            super()._close_descriptors()

    def _drain(self, connection: Connection, most: int) -> bool:
        socket, peer = connection.socket, connection.peer
        backlog, key = self._backlogs[peer], self._keys[peer]

        def read_one() -> None:
            frame = _receive_frame(socket)
            bundle = _bundle_in(socket, frame)
            backlog.put_or_refuse(peer, Arrival(peer, bundle, key), len(bundle), frame)

        is_all = backlog.fill(read_one)
        self._ready.extend(backlog.take(most))
        return is_all and not backlog

    def _tell(self, connection: Connection, changes: list[bool]) -> None:
        self._ready.extend(Arrival(connection.peer, connected=is_there) for is_there in changes)

    def _is_awake(self) -> bool:
        return self._server_is_awake or super()._is_awake()

    def _stir(self, descriptor: int) -> None:
        if self._server is not None and descriptor in self._server.descriptors:
            self._server_is_awake = True
            self._server.stir(descriptor)
        elif descriptor in self._by_descriptor:  # else it was disconnected meanwhile
            super()._stir(descriptor)

    def _take(self, most: int) -> None:
        super()._take(most)
        if self._server is not None and self._server_is_awake:
            self._server_is_awake = not self._server.take(most, self._ready)

    def _close_sockets(self) -> None:
        super()._close_sockets()
        self._server_is_awake = False
        if self._server is not None:
            self._server.close()


class _Server:
    """The bound socket, and who came in.

    A guest is known to the socket by its routing id, and to the monitor by its descriptor, which may be another one's
    soon after. Both come with what the guest sends.
    """

    def __init__(self, address: str, ports: Ports, backend: str) -> None:
        self.present: set[bytes] = set()
        """The routing ids of those who have sent something and were not cut since."""
        self._guests: dict[int, bytes | None] = {}  # the same by descriptor, None for who has not sent anything
        self._has_news = False
        with contextlib.ExitStack() as undo:

            def watch(socket: Socket) -> None:
                self._monitor = Monitor(socket, zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED)
                undo.callback(self._monitor.close)

            options = {zmq.ROUTER_MANDATORY: 1, **_options()}
            self._bound = ServerSocket(zmq.ROUTER, address, backend, ports, options, prepare=watch)
            undo.pop_all()
        self.socket = self._bound.socket
        self.address = self._bound.address
        self._backlog: Backlog[Arrival] = Backlog(self.address, _LIMITS)
        self.descriptors = [int(self.socket.get(zmq.FD)), self._monitor.descriptor]
        self._is_secure = self.socket.get(zmq.MECHANISM) == zmq.CURVE

    def stir(self, descriptor: int) -> None:
        """Note that a descriptor is readable."""
        self._has_news |= descriptor == self._monitor.descriptor

    def take(self, most: int, arrivals: deque[Arrival]) -> bool:
        """Take so many bundles at most, in turn from each guest, and the news; return whether those were all."""
        is_all = self._backlog.fill(self._read_one)
        if self._has_news:
            self._read_news()
        arrivals.extend(self._backlog.take(most))
        return is_all and not self._backlog

    def _read_one(self) -> None:
        guest = _receive(self.socket, _AT_ONCE)
        frame = _receive_frame(self.socket)
        key = str(frame.get("User-Id")) if self._is_secure else ""
        bundle = _bundle_in(self.socket, frame)
        self._backlog.put_or_refuse(guest, Arrival(guest, bundle, key), len(bundle), frame)
        self.present.add(guest)
        descriptor = descriptor_of(frame)
        if descriptor is not None and self._guests.get(descriptor) != guest:
            self._meet(descriptor, guest)

    def _meet(self, descriptor: int, guest: bytes) -> None:
        """Note whose a descriptor is; who had it before, or has it no longer, was cut."""
        self._read_news()
        self._part(self._guests.get(descriptor, guest))
        if descriptor in self._guests:
            self._guests[descriptor] = guest

    def _read_news(self) -> None:
        self._has_news = False
        for event, descriptor in self._monitor.read():
            self._part(self._guests.pop(descriptor, None))
            if event == zmq.Event.ACCEPTED:
                self._guests[descriptor] = None

    def _part(self, guest: bytes | None) -> None:
        """Tell that a guest was cut, if it is one that has sent something."""
        if guest is not None:
            self.present.discard(guest)
            self._backlog.put(guest, Arrival(guest))

    def close(self) -> None:
        """Close; what was sent goes on for a second at most."""
        self._monitor.close()
        self._bound.close()


def _is_readable(socket: Socket) -> bool:
    """Return whether there is something to receive; its descriptor tells only of what comes after that was asked."""
    return bool(int(_option(socket, _EVENTS)) & _READABLE)


def _options() -> dict[int, int]:
    options = connection_options()
    options[zmq.MAXMSGSIZE] += _LARGEST_HEAD
    return {zmq.SNDHWM: _MOST_WAITING, zmq.RCVHWM: 0, **options}


def _receive_frame(socket: Socket) -> zmq.Frame:
    return _receive(socket, _AT_ONCE, copy=False)


def _bundle_in(socket: Socket, frame: zmq.Frame) -> bytes:
    """Return what is in a frame, b"" if it has others after it, which is no bundle of ours."""
    is_alone = not frame.more
    while frame.more:
        frame = _receive_frame(socket)
    return frame.bytes if is_alone else b""
