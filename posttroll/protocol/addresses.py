"""Addresses of publishers: how they are announced, and the book that a nameserver keeps of them."""

from __future__ import annotations

import enum
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from posttroll.errors import RemoteProtocolError
from posttroll.protocol import codec

__all__ = [
    "AddressBook",
    "Change",
    "Limits",
    "Outcome",
    "PublisherAddress",
    "host_of",
    "nameserver_uri",
    "with_port_of",
]

MAX_URI_LENGTH = 1024
_KNOWN_ITEMS = {"URI", "service", "backend", "supported_message_version"}
_MADE_HERE = {"status", "name", "receive_time"}
_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})
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


def with_port_of(address: str, bound: str) -> str:
    """Return an address that has the host of one and the port of another."""
    return f"{address.rpartition(':')[0]}:{bound.rpartition(':')[2]}"


@dataclass(frozen=True, slots=True)
class PublisherAddress:
    """Where a publisher is, and of which services. `extra` is what else its announcement says."""

    uri: str
    services: tuple[str, ...] = ()
    backend: str | None = None
    version: str | None = None
    name: str = "address"
    extra: Mapping[str, Any] = field(default_factory=lambda: _NO_EXTRA, hash=False)

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
            name=sys.intern(name),
            extra={key: value for key, value in data.items() if key not in _KNOWN_ITEMS | _MADE_HERE} or _NO_EXTRA,
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
    return None if value is None else sys.intern(value)


class Limits(NamedTuple):
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


class _Entry:
    __slots__ = ("address", "confirmed", "cost", "fingerprint", "head", "heard", "received", "source")

    def __init__(self, address: PublisherAddress, source: str, cost: int, heard: float, received: datetime) -> None:
        self.address = address
        self.source = source
        self.cost = cost
        self.heard = heard
        self.received = received
        self.fingerprint: int | None = None
        self.confirmed = False
        # Each message version has its own way to write moments; they can only be in the extra items.
        self.head = "" if self.address.extra else self._written(codec.NEWEST_VERSION)

    def as_data(self) -> dict[str, Any]:
        return {**self._lasting_data(), "receive_time": self.received.isoformat()}

    def as_text(self, version: str) -> str:
        return f'{self.head or self._written(version)}, "receive_time": "{self.received.isoformat()}"}}'

    def _written(self, version: str) -> str:
        _, body = codec.encode_body(version, self._lasting_data())
        return body[body.index("{") : -1]

    def _lasting_data(self) -> dict[str, Any]:
        return {**self.address.as_data(), "status": True, "name": self.address.name}


class _LargeGroup:
    """Entries that share a limit; all it does takes the same time however many there are."""

    __slots__ = ("confirmed_cost", "cost", "unconfirmed")

    def __init__(self) -> None:
        self.cost = self.confirmed_cost = 0
        self.unconfirmed: dict[_Entry, None] = {}

    def add(self, entry: _Entry, cost: int) -> None:
        self.cost += cost
        self.unconfirmed[entry] = None

    def confirm(self, entry: _Entry, cost: int) -> None:
        self.confirmed_cost += cost
        del self.unconfirmed[entry]

    def remove(self, entry: _Entry, cost: int) -> None:
        self.cost -= cost
        if entry.confirmed:
            self.confirmed_cost -= cost
        else:
            del self.unconfirmed[entry]

    def eldest_unconfirmed(self) -> _Entry:
        return next(iter(self.unconfirmed))


class _SmallGroup:
    """The same for entries that cost 1 each; there are several such groups for each entry, so they have to be light."""

    __slots__ = ("confirmed_cost", "members")

    def __init__(self) -> None:
        self.members: tuple[_Entry, ...] = ()
        self.confirmed_cost = 0

    @property
    def cost(self) -> int:
        return len(self.members)

    def add(self, entry: _Entry, cost: int) -> None:
        self.members += (entry,)

    def confirm(self, entry: _Entry, cost: int) -> None:
        self.confirmed_cost += cost

    def remove(self, entry: _Entry, cost: int) -> None:
        place = self.members.index(entry)
        self.members = self.members[:place] + self.members[place + 1 :]
        if entry.confirmed:
            self.confirmed_cost -= cost

    def eldest_unconfirmed(self) -> _Entry:
        return next(member for member in self.members if not member.confirmed)


_Group = _LargeGroup | _SmallGroup


class _Share(NamedTuple):
    """An entry's membership in a group: where that is found, what the entry costs in it, and the group's limit."""

    table: str
    key: str
    cost: int
    limit: int

    @property
    def new_group(self) -> _Group:
        return _SmallGroup() if self.table.startswith("service") else _LargeGroup()


class AddressBook:
    """The addresses heard of within `max_age` seconds, no more than the limits allow.

    When there is no room for a newcomer, the eldest entry that was heard only once gives way; entries that were
    confirmed by a second announcement stay. What the very host that an address names says of it overrules what others
    say. An announcement can be given a `fingerprint` to be known again by.
    """

    def __init__(self, max_age: float, wall_clock: Callable[[], datetime], limits: Limits | None = None) -> None:
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._limits = limits or Limits()
        self._entries: dict[str, _Entry] = {}  # in the order in which they were added
        self._by_age: OrderedDict[str, _Entry] = OrderedDict()  # in the order in which they were last heard
        self._by_fingerprint: dict[int, _Entry] = {}
        self._groups: dict[str, dict[str, _Group]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def heard_again(self, fingerprint: int, now: float) -> bool:
        """Take note of an announcement if it is the last one of a known address; return whether it is."""
        entry = self._by_fingerprint.get(fingerprint)
        if entry is not None:
            self._refresh(entry, now)
        return entry is not None

    def heard(
        self, address: PublisherAddress, source: str, now: float, size: int = 0, fingerprint: int | None = None
    ) -> Change:
        """Take note of an announcement of `size` bytes that came from the host `source`."""
        known = self._entries.get(address.uri)
        if known is not None and known.address == address:
            self._refresh(known, now)
            self._mark(known, fingerprint)
            return _REFRESHED
        if known is not None and known.source == host_of(address.uri) != source:
            return _OVERRULED
        former = () if known is None else (self._forget(known),)
        cost = 1 + size // _SIZE_UNIT + len(address.services) // _SERVICES_UNIT
        entry = _Entry(address, sys.intern(source), cost, now, self._wall_clock())
        if not self._can_make_room(entry):
            return Change(Outcome.REFUSED, former)
        gone = *self._lost_services(former, address), *self._make_room(entry)
        self._enter(entry)
        self._mark(entry, fingerprint)
        return Change(Outcome.CHANGED if former else Outcome.ADDED, gone)

    def goodbye(self, uri: str, source: str) -> PublisherAddress | None:
        """Forget an address when the host that announced it says so; return it, None if it is not that host's."""
        entry = self._entries.get(uri)
        return self._forget(entry) if entry is not None and entry.source == source else None

    def expire(self, now: float) -> list[PublisherAddress]:
        """Forget the addresses not heard of within the maximal age; return them."""
        expired = []
        for entry in self._by_age.values():
            if now - entry.heard < self._max_age:
                break
            expired.append(entry)
        return [self._forget(entry) for entry in expired]

    def next_timeout(self) -> float | None:
        """Return when the next address would have reached the maximal age."""
        eldest = next(iter(self._by_age.values()), None)
        return None if eldest is None else eldest.heard + self._max_age

    def look_up(self, service: str = "") -> list[dict[str, Any]]:
        """Return the entries of a service, of all with "", as a nameserver's reply holds them."""
        return [entry.as_data() for entry in self._of(service)]

    def look_up_texts(self, service: str, version: str) -> list[str]:
        """Return the same entries as a message of `version` writes them."""
        return [entry.as_text(version) for entry in self._of(service)]

    def _of(self, service: str) -> Iterable[_Entry]:
        if service == "":
            return self._entries.values()
        group = self._find("service", service)
        return group.members if isinstance(group, _SmallGroup) else ()

    def _refresh(self, entry: _Entry, now: float) -> None:
        entry.heard, entry.received = now, self._wall_clock()
        self._by_age.move_to_end(entry.address.uri)
        if not entry.confirmed:
            entry.confirmed = True
            for share in self._shares(entry):
                self._groups[share.table][share.key].confirm(entry, share.cost)

    def _shares(self, entry: _Entry) -> Iterator[_Share]:
        yield _Share("total", "", entry.cost, self._limits.total)
        yield _Share("source", entry.source, entry.cost, self._limits.per_source)
        from_source = f"service from {entry.source}"
        for service in dict.fromkeys(entry.address.services):
            yield _Share("service", service, 1, self._limits.per_service)
            yield _Share(from_source, service, 1, self._limits.per_service_and_source)

    def _find(self, table: str, key: str) -> _Group | None:
        return self._groups.get(table, {}).get(key)

    def _can_make_room(self, entry: _Entry) -> bool:
        for table, key, cost, limit in self._shares(entry):
            group = self._find(table, key)
            if (0 if group is None else group.confirmed_cost) + cost > limit:
                return False
        return True

    def _make_room(self, entry: _Entry) -> Iterator[PublisherAddress]:
        for table, key, cost, limit in self._shares(entry):
            while (group := self._find(table, key)) and group.cost + cost > limit:
                yield self._forget(group.eldest_unconfirmed())

    def _mark(self, entry: _Entry, fingerprint: int | None) -> None:
        if entry.fingerprint is not None:
            self._by_fingerprint.pop(entry.fingerprint, None)
        entry.fingerprint = fingerprint
        if fingerprint is not None:
            self._by_fingerprint[fingerprint] = entry

    def _enter(self, entry: _Entry) -> None:
        uri = entry.address.uri
        self._entries[uri] = self._by_age[uri] = entry
        for share in self._shares(entry):
            table = self._groups.setdefault(share.table, {})
            table.setdefault(share.key, share.new_group).add(entry, share.cost)

    def _forget(self, entry: _Entry) -> PublisherAddress:
        uri = entry.address.uri
        del self._entries[uri], self._by_age[uri]
        self._mark(entry, None)
        for share in self._shares(entry):
            table = self._groups[share.table]
            table[share.key].remove(entry, share.cost)
            if not table[share.key].cost:
                del table[share.key]
            if not table:
                del self._groups[share.table]
        return entry.address

    @staticmethod
    def _lost_services(former: Sequence[PublisherAddress], address: PublisherAddress) -> Iterator[PublisherAddress]:
        """Give the former address if whoever follows one of its services has to be told that it is gone."""
        return (old for old in former if not set(old.services) <= set(address.services))
