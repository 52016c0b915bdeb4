"""Where what is sent to an address goes, and which address is seen there."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from posttroll.errors import ConfigurationError
from posttroll.protocol.peer_addresses import PeerAddress
from posttroll.protocol.routes import WITHOUT_CREDENTIALS, Routes

__all__ = ["Addressing", "Destination", "checked_name", "peer_at", "without_credentials"]

_LONGEST_NAME = 200
_MOST_REMEMBERED = 1000


class Destination(NamedTuple):
    """The peer that a message is for, a name or ``tcp://host:port``, and the address that is seen there."""

    peer: str
    visible: str


class Addressing:
    """Applies rules to addresses: routes decide who is meant, rewrites what is seen of it."""

    def __init__(self) -> None:
        self._routes, self._rewrites = Routes(), Routes(WITHOUT_CREDENTIALS)
        # Most messages go to the same few addresses, and to read one takes longer than to encode a message.
        self._resolve = lru_cache(_MOST_REMEMBERED)(self._resolve_anew)

    def route(self, pattern: str, address: str) -> None:
        """Have what is for addresses like a pattern go to another one; `ConfigurationError`."""
        self._routes.add(pattern, address)
        self._resolve.cache_clear()

    def rewrite(self, pattern: str, address: str) -> None:
        """Have another address seen instead of those like a pattern; `ConfigurationError`."""
        self._rewrites.add(pattern, address)
        self._resolve.cache_clear()

    def resolve(self, address: str) -> Destination:
        """Return where an address leads; user and password are never seen there. `ConfigurationError`."""
        return self._resolve(address)

    def _resolve_anew(self, address: str) -> Destination:
        return Destination(peer_at(self._routes.resolve(address)), without_credentials(self._rewrites.resolve(address)))


def peer_at(address: str) -> str:
    """Return the name or the ``tcp://host:port`` of the peer at an address; `ConfigurationError`."""
    parsed = PeerAddress.parse(address)
    if parsed.is_listening:
        raise ConfigurationError(f"{parsed.without_credentials()} is where to listen, which is not where to send")
    return parsed.peer


def without_credentials(address: str) -> str:
    """Return an address without user and password; `ConfigurationError` if it is none."""
    return str(PeerAddress.parse(address).without_credentials())


def checked_name(name: str) -> str:
    """Return a name that a peer can be addressed by; `ConfigurationError` for others."""
    if len(name) > _LONGEST_NAME or "://" in name or PeerAddress.parse(name).peer != name:
        raise ConfigurationError(f"a messenger cannot be called {name!r}: nobody could address it")
    return name
