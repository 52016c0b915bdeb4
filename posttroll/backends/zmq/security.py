"""The two ways to secure a socket: not at all, or with CURVE."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Protocol

import zmq

from posttroll.backends.zmq import zap
from posttroll.backends.zmq.keys import KeyDirectory, load_public_key, load_secret_key
from posttroll.errors import ConfigurationError
from posttroll.settings import read, required

__all__ = ["STRATEGIES", "Curve", "Open", "Security", "strategy"]


class Security(Protocol):
    """Prepares sockets before they bind or connect."""

    @property
    def strength(self) -> int:
        """How well peers are authenticated: 0 not at all, 1 by key."""

    def guard_server(self, socket: zmq.Socket[Any]) -> zap.Lease | None:
        """Prepare a socket that will bind; the lease, if any, is to be given back when it is closed."""

    def guard_client(self, socket: zmq.Socket[Any]) -> None:
        """Prepare a socket that will connect."""

    def server_key(self) -> bytes:
        """Return the public key that servers have to have, in Z85, empty if they need none."""


class Open:
    """Plain text. Clients are told apart by their address only, if addresses are configured."""

    strength = 0

    def guard_server(self, socket: zmq.Socket[Any]) -> zap.Lease | None:
        """Let in the configured addresses, or everybody."""
        hosts = _authorized_hosts()
        return None if hosts is None else _enforce(socket, zap.Policy(hosts))

    def guard_client(self, socket: zmq.Socket[Any]) -> None:
        """Nothing to prepare."""

    def server_key(self) -> bytes:
        """Ask for none."""
        return b""


class Curve:
    """Encrypted, and both ends know the other's key."""

    strength = 1

    def guard_server(self, socket: zmq.Socket[Any]) -> zap.Lease | None:
        """Let in the clients whose public key is in the directory, from the configured addresses."""
        public, secret = load_secret_key(required("server_secret_key_file"))
        keys = KeyDirectory(required("clients_public_keys_directory"))
        socket.curve_publickey = public
        socket.curve_secretkey = secret
        socket.curve_server = True
        return _enforce(socket, zap.Policy(_authorized_hosts(), keys))

    def guard_client(self, socket: zmq.Socket[Any]) -> None:
        """Present the own key, and expect the server to have the configured one."""
        public, secret = load_secret_key(required("client_secret_key_file"))
        socket.curve_serverkey = self.server_key()
        socket.curve_publickey = public
        socket.curve_secretkey = secret

    def server_key(self) -> bytes:
        """Return the configured one."""
        return load_public_key(required("server_public_key_file"))


STRATEGIES: dict[str, Security] = {"unsecure_zmq": Open(), "secure_zmq": Curve()}


def strategy(backend: str) -> Security:
    """Return how the sockets of a backend are secured; `ConfigurationError` if it is none of ZeroMQ's."""
    try:
        return STRATEGIES[backend]
    except KeyError:
        raise ConfigurationError(
            f"backend {backend!r} cannot be reached over ZeroMQ, only {', '.join(STRATEGIES)}"
        ) from None


def _authorized_hosts() -> Container[str] | None:
    texts = read("authorized_client_addresses")
    if texts is None:
        return None
    # Imported for those who name some: loading it takes 1 ms and 0.3 MB.
    from posttroll.hosts import Hosts

    return Hosts(texts, "authorized_client_addresses")


def _enforce(socket: zmq.Socket[Any], policy: zap.Policy) -> zap.Lease:
    lease = zap.lease(socket.context, policy)
    socket.zap_domain = lease.domain
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return lease
