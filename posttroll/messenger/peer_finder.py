"""Finding the other containers that are wanted, by name or by address."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from posttroll.address_listener import AddressListener
from posttroll.backends.base import Backend, Peer
from posttroll.backends.registry import find_backend
from posttroll.errors import ConfigurationError, PosttrollError
from posttroll.protocol.drops import Drops
from posttroll.protocol.peer_addresses import PeerAddress
from posttroll.room import check_room, is_lack_of_room

__all__ = ["BasePeerFinder", "Nameservers", "PeerFinder"]

logger = logging.getLogger(__name__)

Nameservers = str | Iterable[str] | Literal[False]


class _Link(Protocol):
    def connect(self, peer: Peer) -> None: ...

    def disconnect(self, peer: Peer) -> None: ...


class _Listener(Protocol):
    def look_for(self, service: str) -> None: ...

    def look_no_longer_for(self, service: str) -> None: ...


class _Found(NamedTuple):
    peer: Peer
    names: frozenset[str]


class BasePeerFinder:
    """Knows who is wanted and where they are; those who derive from it listen to the nameservers."""

    def __init__(self, link: _Link, backend: Backend, nameservers: Nameservers) -> None:
        self._link = link
        self._backend = backend
        self._drops = Drops()
        self._lock = threading.RLock()  # a signal handler may leave whom it likes
        self._wanted: set[str] = set()
        self._lasting: set[str] = set()
        self._found: dict[str, _Found] = {}
        self._nameservers: Nameservers = nameservers if nameservers is False else nameservers or "localhost"
        self._listener: _Listener | None = None
        self._is_stopped = False

    def find(self, peer: str) -> None:
        """Be connected to a peer, given by its name or ``tcp://host:port``, now or when it is there. Never waits."""
        if peer not in self._wanted:
            logger.info("looking for %s", peer)
        self._wanted.add(peer)
        if "://" in peer:
            self._link.connect(Peer(peer, self._backend.name))
        elif self._listener is not None:
            self._listener.look_for(peer)

    def stay_with(self, peer: str) -> None:
        """Do so until it is left, whether or not there is anything for it."""
        self._lasting.add(peer)
        self.find(peer)

    def give_up(self, peer: str) -> None:
        """Look no longer for a peer that did not come, unless there is a wish to stay with it."""
        if peer not in self._lasting:
            self.leave(peer)

    def leave(self, peer: str) -> None:
        """Be connected to a peer no longer."""
        with self._lock:
            self._wanted.discard(peer)
            self._lasting.discard(peer)
            left = [uri for uri, found in self._found.items() if self._wanted.isdisjoint(found.names)]
        if "://" in peer:
            self._disconnect(Peer(peer, self._backend.name))
        elif self._listener is not None:
            self._listener.look_no_longer_for(peer)
        for uri in left:
            self._forget(uri)

    def meet(self, entry: Mapping[str, Any]) -> bool:
        """Connect to a peer that a nameserver knows, if it is one that is wanted and can be used.

        Return False if there is no room for it now, so that it is worth another try later.
        """
        names = _names_in(entry)
        if self._is_stopped or "peer" not in entry or self._wanted.isdisjoint(names):
            return True
        try:
            self._connect(entry["URI"], _Found(self._read_peer(entry), names))
        except (PosttrollError, TypeError, ValueError) as error:
            if self._drops.add("peer refused", time.monotonic()):
                logger.warning("peer from the nameserver refused: %.200s: %.200s", entry, error)
            return not is_lack_of_room(error)
        return True

    def part(self, entry: Mapping[str, Any]) -> None:
        """Disconnect from a peer that a nameserver withdrew."""
        self._forget(entry["URI"])

    def stop(self) -> Any:
        """Look for nobody any more; to be awaited under asyncio."""
        raise NotImplementedError

    def _read_peer(self, entry: Mapping[str, Any]) -> Peer:
        """Return where an entry says that a peer is; `ConfigurationError` if that is nowhere to connect to."""
        uri, backend = entry["peer"], entry.get("backend", self._backend.name)
        if not isinstance(uri, str) or not isinstance(backend, str):
            raise ConfigurationError("its address or its backend is no text")
        if PeerAddress.parse(uri).peer != uri or "://" not in uri:
            raise ConfigurationError(f"{uri!r} is not of the form tcp://host:port")
        if find_backend(backend).strength < self._backend.strength:
            raise ConfigurationError(f"backend {backend} is weaker than the configured {self._backend.name}")
        return Peer(uri, backend)

    def _connect(self, uri: str, found: _Found) -> None:
        with self._lock:
            former = self._found.get(uri)
            if former is None:
                check_room(len(self._found), "peers are known")
            self._found[uri] = found
        if former is not None and former.peer != found.peer:
            self._disconnect(former.peer)
        self._link.connect(found.peer)

    def _forget(self, uri: str) -> None:
        with self._lock:
            found = self._found.pop(uri, None)
        if found is not None:
            self._disconnect(found.peer)

    def _disconnect(self, peer: Peer) -> None:
        """Disconnect, unless it is wanted for another reason."""
        with self._lock:
            is_wanted = peer.uri in self._wanted or any(found.peer == peer for found in self._found.values())
        if not is_wanted:
            self._link.disconnect(peer)


class PeerFinder(BasePeerFinder):
    """Has a link connected to those who are wanted, wherever nameservers say that they are; from any thread.

    Without nameservers that of this host is listened to; if they are False, nobody is found by name.
    """

    _listener: AddressListener | None

    def start(self) -> None:
        """Begin to listen to the nameservers, if there are any."""
        if self._nameservers is not False:
            self._listener = AddressListener(self, (), self._nameservers).start()
        if self._is_stopped:  # by a signal handler, meanwhile
            self.stop()

    def stop(self) -> None:
        """Look for nobody any more, without waiting for the end of that; connections stay. Harmless when stopped."""
        self._is_stopped = True
        if self._listener is not None:
            self._listener.stop(timeout=0.0)


def _names_in(entry: Mapping[str, Any]) -> frozenset[str]:
    services = entry.get("service")
    given = [services] if isinstance(services, str) else services if isinstance(services, list) else []
    return frozenset(service for service in given if isinstance(service, str))
