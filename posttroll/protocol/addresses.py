"""Addresses of publishers: how they are announced, and the book that a nameserver keeps of them."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from posttroll.errors import RemoteProtocolError

__all__ = ["AddressBook", "Change", "Limits", "Outcome", "PublisherAddress", "host_of", "nameserver_uri"]

MAX_URI_LENGTH = 1024
_KNOWN_ITEMS = {"URI", "service", "backend", "supported_message_version"}
_MADE_HERE = {"status", "name", "receive_time"}
_SIZE_UNIT = 1024
_SERVICES_UNIT = 8

_split_uri = re.compile(r"(?:(?P<scheme>\w+)://)?(?P<host>\[[^\]]*\]|[^:]*)(?P<port>:[\d*]+)?").fullmatch


def nameserver_uri(nameserver: str, port: int) -> str:
    """Return where to reach a nameserver given as ``host``, ``host:port``, ``tcp://host`` or a whole URI."""
    parts = _split_uri(nameserver)
    if parts is None or parts["scheme"] not in (None, "tcp"):
        return nameserver
    return f"tcp://{parts['host']}{parts['port'] or f':{port}'}"


def host_of(uri: str) -> str:
    """Return the host that a URI, ``host:port`` or ``host`` names; ``localhost`` for what has none, as ``ipc://``."""
    parts = _split_uri(uri)
    if parts is None or parts["scheme"] not in (None, "tcp") or not parts["host"]:
        return "localhost"
    return parts["host"]


@dataclass(frozen=True)
class PublisherAddress:
    """Where a publisher is, and of which services. `extra` is what else its announcement says."""

    uri: str
    services: tuple[str, ...] = ()
    backend: str | None = None
    version: str | None = None
    name: str = "address"
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_data(cls, data: object, name: str = "address") -> PublisherAddress:
        """Return the address that an announcement's data tell; `RemoteProtocolError` if they are unusable."""
        if not isinstance(data, dict):
            raise RemoteProtocolError(f"data are {type(data).__name__}, not an object")
        return cls(
            uri=_read_uri(data.get("URI")),
            services=_read_services(data.get("service")),
            backend=_read_optional_text(data, "backend"),
            version=_read_optional_text(data, "supported_message_version"),
            name=name,
            extra={key: value for key, value in data.items() if key not in _KNOWN_ITEMS | _MADE_HERE},
        )

    def as_data(self) -> dict[str, Any]:
        """Return the data of an announcement of the address."""
        optional = {"supported_message_version": self.version, "backend": self.backend}
        given = {key: value for key, value in optional.items() if value is not None}
        return {"URI": self.uri, "service": list(self.services), **given, **self.extra}


def _read_uri(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise RemoteProtocolError("URI is missing or not a text")
    if len(value) > MAX_URI_LENGTH or " " in value or not value.isprintable():
        raise RemoteProtocolError(f"URI is too long or has white space in it: {value[:60]!r}")
    return value


def _read_services(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(service, str) for service in value):
        raise RemoteProtocolError("service is not a list of texts")
    return tuple(value)


def _read_optional_text(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise RemoteProtocolError(f"{key} is not a text")
    return value


@dataclass(frozen=True)
class Limits:
    """How many addresses are kept: in all, of one source, of one service, and of one service from one source.

    In all and of one source, an address with a long announcement or many services counts as several.
    """

    total: int = 50_000
    per_source: int = 10_000
    per_service: int = 1000
    per_service_and_source: int = 250


class Outcome(enum.Enum):
    """What became of an announcement."""

    ADDED = enum.auto()
    REFRESHED = enum.auto()
    CHANGED = enum.auto()
    REFUSED = enum.auto()
    OVERRULED = enum.auto()


class Change(NamedTuple):
    """What became of an announcement, and which addresses are gone for it."""

    outcome: Outcome
    removed: tuple[PublisherAddress, ...] = ()


_REFRESHED = Change(Outcome.REFRESHED)
_OVERRULED = Change(Outcome.OVERRULED)


@dataclass(slots=True)
class _Entry:
    address: PublisherAddress
    source: str
    cost: int
    heard: float
    received: datetime
    confirmed: bool = False

    def shares(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Give the key of each group it belongs to, and what it costs there."""
        yield ("total", ""), self.cost
        yield ("source", self.source), self.cost
        for service in dict.fromkeys(self.address.services):
            yield ("service", service), 1
            yield ("service and source", f"{self.source} {service}"), 1

    def as_data(self) -> dict[str, Any]:
        return {
            **self.address.as_data(),
            "status": True,
            "name": self.address.name,
            "receive_time": self.received.isoformat(),
        }


@dataclass(slots=True)
class _Group:
    """The URIs of the entries that share a limit; those heard only once also apart, eldest first."""

    members: dict[str, None] = field(default_factory=dict)
    unconfirmed: dict[str, None] = field(default_factory=dict)
    cost: int = 0
    confirmed_cost: int = 0


class AddressBook:
    """The addresses heard of within `max_age` seconds, no more than the limits allow.

    When there is no room for a newcomer, the eldest entry that was heard only once gives way; entries that were
    confirmed by a second announcement stay. What the very host that an address names says of it overrules what others
    say.
    """

    def __init__(self, max_age: float, wall_clock: Callable[[], datetime], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._limits = {
            "total": limits.total,
            "source": limits.per_source,
            "service": limits.per_service,
            "service and source": limits.per_service_and_source,
        }
        self._entries: dict[str, _Entry] = {}  # in the order in which they were last heard
        self._groups: dict[tuple[str, str], _Group] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def heard(self, address: PublisherAddress, source: str, now: float, size: int = 0) -> Change:
        """Take note of an announcement of `size` bytes that came from the host `source`."""
        known = self._entries.get(address.uri)
        if known is not None and (known.address is address or known.address == address):
            self._refresh(known, now)
            return _REFRESHED
        if known is not None and known.source == host_of(address.uri) != source:
            return _OVERRULED
        former = () if known is None else (self._forget(known),)
        cost = 1 + size // _SIZE_UNIT + len(address.services) // _SERVICES_UNIT
        entry = _Entry(address, source, cost, now, self._wall_clock())
        if not self._can_make_room(entry):
            return Change(Outcome.REFUSED, former)
        gone = *self._lost_services(former, address), *self._make_room(entry)
        self._enter(entry)
        return Change(Outcome.CHANGED if former else Outcome.ADDED, gone)

    def goodbye(self, uri: str, source: str) -> PublisherAddress | None:
        """Forget an address when the host that announced it says so; return it, None if it is not that host's."""
        entry = self._entries.get(uri)
        return self._forget(entry) if entry is not None and entry.source == source else None

    def expire(self, now: float) -> list[PublisherAddress]:
        """Forget the addresses not heard of within the maximal age; return them."""
        expired = []
        for entry in self._entries.values():
            if now - entry.heard < self._max_age:
                break
            expired.append(entry)
        return [self._forget(entry) for entry in expired]

    def next_timeout(self) -> float | None:
        """Return when the next address would have reached the maximal age."""
        eldest = next(iter(self._entries.values()), None)
        return None if eldest is None else eldest.heard + self._max_age

    def look_up(self, service: str = "") -> list[dict[str, Any]]:
        """Return the entries of a service, of all with "", as a nameserver's reply holds them."""
        group = self._groups.get(("total", "") if service == "" else ("service", service))
        return [] if group is None else [self._entries[uri].as_data() for uri in group.members]

    def _refresh(self, entry: _Entry, now: float) -> None:
        uri = entry.address.uri
        entry.heard, entry.received = now, self._wall_clock()
        del self._entries[uri]
        self._entries[uri] = entry
        if not entry.confirmed:
            entry.confirmed = True
            for key, cost in entry.shares():
                group = self._groups[key]
                del group.unconfirmed[uri]
                group.confirmed_cost += cost

    def _can_make_room(self, entry: _Entry) -> bool:
        for key, cost in entry.shares():
            group = self._groups.get(key)
            confirmed = 0 if group is None else group.confirmed_cost
            if confirmed + cost > self._limits[key[0]]:
                return False
        return True

    def _make_room(self, entry: _Entry) -> Iterator[PublisherAddress]:
        for key, cost in entry.shares():
            while (group := self._groups.get(key)) and group.cost + cost > self._limits[key[0]]:
                yield self._forget(self._entries[next(iter(group.unconfirmed))])

    def _enter(self, entry: _Entry) -> None:
        uri = entry.address.uri
        self._entries[uri] = entry
        for key, cost in entry.shares():
            group = self._groups.setdefault(key, _Group())
            group.members[uri] = group.unconfirmed[uri] = None
            group.cost += cost

    def _forget(self, entry: _Entry) -> PublisherAddress:
        uri = entry.address.uri
        del self._entries[uri]
        for key, cost in entry.shares():
            group = self._groups[key]
            del group.members[uri]
            group.unconfirmed.pop(uri, None)
            group.cost -= cost
            group.confirmed_cost -= cost if entry.confirmed else 0
            if not group.members:
                del self._groups[key]
        return entry.address

    @staticmethod
    def _lost_services(former: Sequence[PublisherAddress], address: PublisherAddress) -> Iterator[PublisherAddress]:
        """Give the former address if whoever follows one of its services has to be told that it is gone."""
        return (old for old in former if not set(old.services) <= set(address.services))
