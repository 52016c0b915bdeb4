"""Sending to everybody around, and hearing it: UDP multicast, or broadcast (IPv4)."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import struct
import time

from posttroll.errors import BindFailed, ConfigurationError
from posttroll.settings import SETTINGS, read
from posttroll.threads import Bell

__all__ = [
    "DEFAULT_BROADCAST_PORT",
    "DEFAULT_MC_GROUP",
    "MC_GROUP",
    "TTL_LOCALNET",
    "MulticastReceiver",
    "MulticastSender",
    "SocketTimeout",
    "get_configured_broadcast_port",
    "get_mc_group",
    "is_missing_network",
    "mcast_receiver",
    "mcast_sender",
]

logger = logging.getLogger(__name__)

DEFAULT_BROADCAST_PORT: int = SETTINGS["broadcast_port"].default
DEFAULT_MC_GROUP: str = SETTINGS["mc_group"].default
MC_GROUP = DEFAULT_MC_GROUP
TTL_LOCALNET = 31
SocketTimeout = TimeoutError

_BROADCAST = "<broadcast>"
_BROADCAST_ADDRESSES = ("0.0.0.0", "255.255.255.255")
_MULTICAST_NETWORKS = range(224, 240)
_JOIN_INTERVAL = 2.0
_RECEIVE_BUFFER = 2 * 2**20
_MISSING_NETWORK = frozenset(
    {errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETRESET}
)


def get_configured_broadcast_port() -> int:
    """Return the port of announcements."""
    return int(read("broadcast_port"))


def get_mc_group() -> str:
    """Return the multicast group of announcements."""
    return str(read("mc_group"))


def is_missing_network(error: OSError) -> bool:
    """Return whether it failed because the network is not there, or not yet."""
    return error.errno in _MISSING_NETWORK


class MulticastSender:
    """Sends datagrams to a group, the configured one if `mcgroup` is None."""

    def __init__(self, port: int, mcgroup: str | None = None) -> None:
        self.port = port
        self.socket, self.group = mcast_sender(mcgroup)

    def __call__(self, data: str | bytes) -> None:
        """Send one datagram; `OSError` when the network does not take it."""
        frame = data.encode() if isinstance(data, str) else data
        self.socket.sendto(frame, (self.group, self.port))

    def close(self) -> None:
        """Close; harmless when closed."""
        self.socket.close()


class MulticastReceiver:
    """Hears the datagrams of a group, and those sent to this host alone; closed by the thread that calls it.

    A missing network is waited for, and one that went away takes the membership with it: the group is joined again
    every few seconds.
    """

    BUFSIZE = 65535

    def __init__(self, port: int, mcgroup: str | None = None) -> None:
        self.port = port
        self._address = _resolve(mcgroup)
        self._interface = _interface()
        self.group = self._address or _BROADCAST
        self.socket = _bound_socket(port)
        self._timeout: float | None = None
        self._joined: bool | None = None
        self._next_join = 0.0
        self._bell = Bell()
        self._poller = select.poll()
        self._poller.register(self.socket, select.POLLIN)
        self._poller.register(self._bell, select.POLLIN)
        self._join(time.monotonic())

    def settimeout(self, tout: float | None = None) -> MulticastReceiver:
        """Set the seconds to wait for a datagram; None: for ever."""
        self._timeout = tout
        return self

    def __call__(self) -> tuple[str, tuple[str, int]]:
        """Return the next datagram as text, and its source; `TimeoutError` after the time set, or without any."""
        # Most of them are there already when many are announced; to wait for each would cost a third more.
        with contextlib.suppress(BlockingIOError):
            return self._take()
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not (ready := self._wait(deadline)):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("no datagram in time")
        if self._bell.fileno() in ready:
            self._bell.silence()
            raise TimeoutError("woken")
        try:
            return self._take()
        except BlockingIOError:  # it is announced before its checksum is found to be wrong
            raise TimeoutError("datagram damaged") from None

    def wake(self) -> None:
        """Make the waiting call, or the next one, raise `TimeoutError` at once; from any thread."""
        self._bell.ring()

    def close(self) -> None:
        """Close; harmless when closed."""
        self.socket.close()
        self._bell.close()

    def _take(self) -> tuple[str, tuple[str, int]]:
        data, source = self.socket.recvfrom(self.BUFSIZE, socket.MSG_DONTWAIT)
        return _as_text(data), source

    def _wait(self, deadline: float | None) -> list[int]:
        """Return the descriptors that became readable by the deadline, or by the time to join again."""
        now = time.monotonic()
        if now >= self._next_join:
            self._join(now)
        end = self._next_join if deadline is None else min(deadline, self._next_join)
        return [descriptor for descriptor, _ in self._poller.poll(math.ceil(max(0.0, end - now) * 1000))]

    def _join(self, now: float) -> None:
        self._next_join = now + _JOIN_INTERVAL
        if self._address is None:
            return
        try:
            _join_group(self.socket, self._address, self._interface)
        except OSError as error:
            if self._joined is not False:
                place = f"{self.group} at interface {self._interface} (setting multicast_interface)"
                logger.warning("cannot hear multicast group %s: %s; will try again", place, error.strerror)
            self._joined = False
        else:
            if self._joined is False:
                logger.info("hearing multicast group %s now", self.group)
            self._joined = True


def mcast_sender(mcgroup: str | None = None) -> tuple[socket.socket, str]:
    """Return a socket to send to a group with, and the group: ``<broadcast>`` where it is none."""
    group = _resolve(mcgroup)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if group is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            return sock, _BROADCAST
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _time_to_live())
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(_interface()))
    except BaseException:
        sock.close()
        raise
    return sock, group


def mcast_receiver(port: int, mcgroup: str | None = None) -> tuple[socket.socket, str]:
    """Return a socket that hears a group on a port, and the group: ``<broadcast>`` where it is none."""
    group = _resolve(mcgroup)
    sock = _bound_socket(port)
    try:
        if group is not None:
            _join_group(sock, group, _interface())
    except BaseException:
        sock.close()
        raise
    return sock, group or _BROADCAST


def _resolve(mcgroup: str | None) -> str | None:
    """Return the group's address, None if it means broadcast."""
    group = get_mc_group() if mcgroup is None else mcgroup
    if not group or group == _BROADCAST:
        return None
    try:
        address = _look_up(group)
    except (OSError, UnicodeError) as error:
        raise OSError(errno.EINVAL, f"Invalid multicast address {group!r} (setting mc_group): {error}") from None
    if address in _BROADCAST_ADDRESSES:
        return None
    if int(address.partition(".")[0]) not in _MULTICAST_NETWORKS:
        raise OSError(errno.EINVAL, f"Invalid multicast address {group!r} (setting mc_group)")
    return address


def _look_up(host: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET, host)
        return host  # no need for the codec of names, which takes 2 ms and 0.4 MB to load
    return socket.gethostbyname(host)


def _bound_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _time_to_live())
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        # For a burst of announcements; some systems give what they allow (net.core.rmem_max), others refuse more.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind(("", port))
    except OSError as error:
        sock.close()
        raise BindFailed(error.errno, f"cannot bind UDP port {port}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _interface() -> str:
    """Return the address of the interface for multicast, or what leaves the choice to the system."""
    return read("multicast_interface") or "0.0.0.0"


def _join_group(sock: socket.socket, group: str, interface: str) -> None:
    """Join, also when the socket is a member already."""
    membership = struct.pack("=4s4s", socket.inet_aton(group), socket.inet_aton(interface))
    try:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise


def _time_to_live() -> int:
    text = os.environ.get("PYTROLL_MC_TTL", TTL_LOCALNET)
    try:
        hops = int(text)
    except ValueError:
        hops = -1
    if not 0 <= hops <= 255:
        raise ConfigurationError(f"PYTROLL_MC_TTL is {text!r}, but must be a whole number, 0 to 255")
    return hops


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")
