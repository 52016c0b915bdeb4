"""ZeroMQ sockets: made with this package's options, bound and connected, their errors translated."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

import zmq

from posttroll.backends.zmq.context import get_context
from posttroll.backends.zmq.security import strategy
from posttroll.backends.zmq.zap import Lease
from posttroll.errors import BindFailed, ConfigurationError, ConnectionLost, TransportError
from posttroll.forks import check_process
from posttroll.protocol.addresses import host_of
from posttroll.settings import Ports, keepalive, read

__all__ = [
    "ConfigurationError",
    "ServerSocket",
    "check_process",
    "close_socket",
    "connect",
    "connect_client",
    "get_context",
    "get_tcp_keepalive_options",
    "open_client",
    "receive_limit",
    "set_up_client_socket",
    "set_up_server_socket",
    "translated_errors",
]

_LINGER_MS = 1000
_MOST_LISTENING = 1024
_HIGHEST_PORT = 65_535
_RANDOM_TRIES = 100
_PATIENCE = 0.3
_BETWEEN_TRIES = 0.01
_never = threading.Event()

# libzmq resolves names in the thread that moves the frames, so a name that takes long to resolve, which anybody may
# announce, would hold up all connections. Those to names have a thread of their own; these are masks of threads.
_FOR_NUMBERS, _FOR_NAMES = 1, 2

Socket = zmq.Socket[Any]


class _ZMQError(TransportError, zmq.ZMQError):  # type: ignore[misc]
    """Caught as `zmq.ZMQError` too, which is what programs written for earlier releases do."""

    def __init__(self, text: str, error: zmq.ZMQError) -> None:
        zmq.ZMQError.__init__(self, error.errno, text)

    def __str__(self) -> str:
        return str(self.strerror)


class _BindFailed(BindFailed, _ZMQError):  # type: ignore[misc]
    pass


class _ConnectionLost(ConnectionLost, _ZMQError):  # type: ignore[misc]
    pass


@contextlib.contextmanager
def translated_errors(what: str, kind: type[_ZMQError] = _ZMQError) -> Iterator[None]:
    """Turn ZeroMQ's errors into `TransportError`, saying what was tried."""
    try:
        yield
    except TransportError:
        raise
    except zmq.ZMQError as error:
        if error.errno in (zmq.ENOTSOCK, zmq.ETERM):
            kind = _ConnectionLost
        # pyzmq adds the address to some texts, which is in `what` already.
        reason = "it is stopped" if error.errno == zmq.ENOTSOCK else str(error.strerror).partition(" (addr=")[0]
        raise kind(f"cannot {what}: {reason}", error) from error


def get_tcp_keepalive_options() -> dict[int, int]:
    """Return the TCP keep-alive settings that are set, by ZeroMQ option."""
    return {getattr(zmq, name.upper()): value for name, value in keepalive().items()}


def close_socket(socket: Socket) -> None:
    """Close a socket; what it has to send still goes out for a moment."""
    socket.close()


def connect_client(kind: int, uri: str, backend: str, options: Mapping[int, Any] | None = None) -> Socket:
    """Return a socket that is connected to `uri` in the backend's way; `TransportError`, `ConfigurationError`."""
    socket = open_client(kind, uri, backend, options)
    try:
        connect(socket, uri)
    except BaseException:
        socket.close(linger=0)
        raise
    return socket


def open_client(kind: int, uri: str, backend: str, options: Mapping[int, Any] | None = None) -> Socket:
    """Return a socket that is ready to be connected to `uri` in the backend's way."""
    thread = _FOR_NUMBERS if _is_numeric(host_of(uri)) else _FOR_NAMES
    socket = _make(kind, {zmq.AFFINITY: thread, **(options or {})})
    try:
        if _needs_security(uri):
            strategy(backend).guard_client(socket)
    except BaseException:
        socket.close(linger=0)
        raise
    return socket


def connect(socket: Socket, uri: str) -> None:
    """Connect; `TransportError` when it is no address."""
    with translated_errors(f"connect to {uri!r}"):
        _check_port(uri)
        socket.connect(uri)


class ServerSocket:
    """A bound socket, the address it got, and the lease of its guard.

    `prepare` is called with the socket before anybody can connect to it.
    """

    def __init__(
        self,
        kind: int,
        address: str,
        backend: str,
        ports: Ports | None = None,
        options: Mapping[int, Any] | None = None,
        prepare: Callable[[Socket], None] | None = None,
    ) -> None:
        self.socket = _make(kind, {zmq.BACKLOG: _MOST_LISTENING, **(options or {})})
        self.lease: Lease | None = None
        try:
            if _needs_security(address):
                with translated_errors(f"secure {address!r}", _BindFailed):
                    self.lease = strategy(backend).guard_server(self.socket)
            if prepare is not None:
                prepare(self.socket)
            self.address = _bind(self.socket, address, ports)
        except BaseException:
            self.close(linger=0)
            raise

    def close(self, linger: int | None = None) -> None:
        """Close, and only then give the lease back."""
        self.socket.close(linger)
        if self.lease is not None:
            self.lease.give_back()


def _make(kind: int, options: Mapping[int, Any] | None) -> Socket:
    with translated_errors("open a socket"):
        socket: Socket = get_context().socket(kind)
        defaults = {zmq.LINGER: _LINGER_MS, zmq.AFFINITY: _FOR_NUMBERS, **get_tcp_keepalive_options()}
        for option, value in {**defaults, **(options or {})}.items():
            socket.set(option, value)
    return socket


def _is_numeric(host: str) -> bool:
    """Return whether nobody has to be asked what the host's address is."""
    address = host.strip("[]").partition("%")[0]
    for family in (AF_INET, AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            inet_pton(family, address)
            return True
    return host == "localhost"


def _needs_security(address: str) -> bool:
    return not address.startswith("inproc://")


def _bind(socket: Socket, address: str, ports: Ports | None) -> str:
    """Bind, and return the address with the real port."""
    host, colon, port = address.rpartition(":")
    if address.startswith("tcp://") and colon and port == "0":
        ports = ports or Ports.read()
        with translated_errors(f"bind {host} to a free port of {ports.minimum} to {ports.maximum - 1}", _BindFailed):
            return f"{host}:{_bind_to_free_port(socket, host, ports)}"
    with translated_errors(f"bind {address!r}", _BindFailed):
        _check_port(address)
        _bind_patiently(socket, address)
    if address.startswith("tcp://"):
        bound = str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        return f"{host}:{bound.rpartition(':')[2]}"
    return address


def _check_port(address: str) -> None:
    """Refuse what libzmq would take as the port's remainder by 65536."""
    port = address.rpartition(":")[2]
    if address.startswith("tcp://") and port.isdecimal() and int(port) > _HIGHEST_PORT:
        raise zmq.ZMQError(zmq.EINVAL)


def _bind_patiently(socket: Socket, address: str) -> None:
    """Bind; wait a moment if in use, as libzmq gives the port of a socket back only some time after it was closed."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.bind(address)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                raise
        _never.wait(_BETWEEN_TRIES)


def _bind_to_free_port(socket: Socket, host: str, ports: Ports) -> int:
    """Try some ports of the range at random, then all of them in turn, as most of a small range may be taken."""
    everything = range(ports.minimum, ports.maximum)
    some = random.sample(everything, min(len(everything), _RANDOM_TRIES))
    for port in itertools.chain(some, everything):
        try:
            socket.bind(f"{host}:{port}")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
        else:
            return port
    raise zmq.ZMQError(zmq.EADDRINUSE)


def receive_limit() -> dict[int, int]:
    """Return the option that keeps a peer from filling the memory with one frame."""
    # Twice the limit of messages, so that what is just too long is still seen, counted and logged.
    return {zmq.MAXMSGSIZE: 2 * int(read("max_message_size"))}


def set_up_client_socket(
    socket_type: int, address: str, options: Mapping[int, Any] | None = None, backend: str | None = None
) -> Socket:
    """Return a connected socket, for programs that speak ZeroMQ themselves."""
    return connect_client(socket_type, address, backend or read("backend"), options)


def set_up_server_socket(
    socket_type: int,
    destination: str,
    options: Mapping[int, Any] | None = None,
    port_interval: tuple[int | None, int | None] = (None, None),
    backend: str | None = None,
) -> tuple[Socket, int | None, Lease | None]:
    """Return a bound socket, for programs that speak ZeroMQ themselves; the port if it is TCP; its guard's lease."""
    server = ServerSocket(socket_type, destination, backend or read("backend"), Ports.read(*port_interval), options)
    port = int(server.address.rpartition(":")[2]) if destination.startswith("tcp://") else None
    return server.socket, port, server.lease
