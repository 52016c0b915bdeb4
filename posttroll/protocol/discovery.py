"""How publishers make themselves known, and what a nameserver makes of it.

An `Announcer` says when to announce: at once, soon again a few times, then at its interval; at the end it has a
goodbye. A `Registrar` takes announcements and goodbyes from anywhere into its `AddressBook`, and gives the messages
that tell the followers of the address feed what changed: addresses that are new, and addresses that are gone.
Nothing that arrives makes it raise; what it cannot use is counted by reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from posttroll.errors import DecodeError, MessageError, RemoteProtocolError
from posttroll.protocol import codec
from posttroll.protocol.addresses import AddressBook, Outcome, PublisherAddress
from posttroll.protocol.drops import Drops

__all__ = [
    "ANNOUNCEMENT",
    "GOODBYE",
    "MAX_DATAGRAM",
    "Announcer",
    "Compose",
    "Registrar",
    "Request",
    "announcement_subject",
    "read_request",
]

logger = logging.getLogger(__name__)

ANNOUNCEMENT = "info"
GOODBYE = "goodbye"
MAX_DATAGRAM = 65_507
"""Most bytes that a UDP datagram carries."""

_SUBJECT = "/address"
_MAX_DEPTH = 20
_FIRST_GAP = 0.1
_MOST_LINES = 300
_LINES_INTERVAL = 60.0
_MOST_REFUSED = 10_000
_REFUSALS = {Outcome.REFUSED: "too many addresses", Outcome.OVERRULED: "another host's address"}

Compose = Callable[[str, str, Any], str]
"""What makes the text of a message of this process, now, from a subject, a type and data."""


def announcement_subject(name: str) -> str:
    """Return the subject of the announcements of a publisher; subjects have no white space."""
    return f"{_SUBJECT}/" + "".join("_" if character.isspace() else character for character in name)


class Announcer:
    """What to announce, and when: every `interval` seconds, more often at first; never if it is 0 or less."""

    def __init__(self, announcement: str, goodbye: str | None, interval: float) -> None:
        self._announcement = announcement
        self._goodbye = goodbye
        self._interval = interval
        self._gap = min(_FIRST_GAP, interval)
        self._next = -math.inf if interval > 0 else None
        self._announced = False

    def due(self, now: float) -> str | None:
        """Return the announcement if it is to be sent now."""
        if self._next is None or now < self._next:
            return None
        self._next = now + self._gap
        self._gap = min(2 * self._gap, self._interval)
        self._announced = True
        return self._announcement

    def replace(self, announcement: str, goodbye: str | None) -> None:
        """Have something else to say from now on, and say it more often at first."""
        self._announcement = announcement
        self._goodbye = goodbye
        self._gap = min(_FIRST_GAP, self._interval)

    def next_timeout(self) -> float | None:
        """Return when the next announcement is due; None for never."""
        return self._next

    def stopped(self) -> str | None:
        """End announcing; return the goodbye to send, None if nothing was announced."""
        self._next = None
        return self._goodbye if self._announced else None


class _Announcement(NamedTuple):
    type: str
    address: PublisherAddress
    addition: str


class _Chronicle:
    """Logs who comes and who goes, so that a flood of addresses is not one of lines: the rest is for who debugs."""

    def __init__(self) -> None:
        self._lines = 0
        self._since = -math.inf

    def tell(self, now: float, text: str, *details: object) -> None:
        if now - self._since >= _LINES_INTERVAL:
            self._lines, self._since = 0, now
        self._lines += 1
        if self._lines == _MOST_LINES + 1:
            logger.info("more than %d changes of addresses, not telling of others for a while", _MOST_LINES)
        logger.log(logging.INFO if self._lines <= _MOST_LINES else logging.DEBUG, text, *details)


class Registrar:
    """Feeds an address book with what arrives, and tells what to publish about it."""

    def __init__(
        self,
        book: AddressBook,
        compose: Compose,
        accepts: Callable[[str], bool] = lambda source: True,
        drops: Drops | None = None,
    ) -> None:
        self._book = book
        self._compose = compose
        self._accepts = accepts
        self._chronicle = _Chronicle()
        self._without_room: set[tuple[int, str]] = set()
        self.drops = drops or Drops()

    def datagram(self, data: str | bytes, source: str, now: float) -> list[str]:
        """Take what the host `source` sent, if it may; return the messages to publish."""
        if not self._accepts(source):
            self._drop("source not allowed", source, now)
            return []
        return self.announcement(data, source, now)

    def announcement(self, data: str | bytes, source: str, now: float) -> list[str]:
        """Take an announcement or a goodbye; return the messages to publish."""
        # A publisher repeats its announcement to the byte, so most of them need not be read again; their keyed hashes
        # take a tenth of the memory that they would.
        fingerprint = hash(data)
        if self._book.heard_again(fingerprint, now):
            return []
        if (fingerprint, source) in self._without_room:
            self._drop(_REFUSALS[Outcome.REFUSED], source, now)
            return []
        try:
            kind, address, addition = _read_announcement(data)
        except (MessageError, RemoteProtocolError) as error:
            self._drop("unusable announcement", source, now, str(error))
            return []
        if kind == GOODBYE:
            return self._take_leave(address, source, now)
        change = self._book.heard(address, source, now, len(data), fingerprint)
        if change.outcome is Outcome.REFRESHED:
            return []
        self._note_room(change.outcome, (fingerprint, source))
        if reason := _REFUSALS.get(change.outcome):
            self._drop(reason, source, now, address.uri)
            return self._removals(change.removed, "no room for it", now)
        verb = "new" if change.outcome is Outcome.ADDED else "changed"
        self._chronicle.tell(now, "%s: %s, announced by %s", verb, _described(address), source or "this process")
        gone = "replaced" if change.outcome is Outcome.CHANGED else "gave way"
        return [*self._removals(change.removed, gone, now), addition]

    def handle_timeout(self, now: float) -> list[str]:
        """Forget the addresses not heard of any more; return the messages to publish."""
        return self._removals(self._book.expire(now), "not heard of any more", now)

    def next_timeout(self) -> float | None:
        """Return when to call `handle_timeout`; None while there is nothing to forget."""
        return self._book.next_timeout()

    def _note_room(self, outcome: Outcome, announced: tuple[int, str]) -> None:
        """Remember what there is no room for from whom, until something changes: to read it takes ten times as long."""
        if outcome is not Outcome.REFUSED or len(self._without_room) >= _MOST_REFUSED:
            self._without_room.clear()
        if outcome is Outcome.REFUSED:
            self._without_room.add(announced)

    def _take_leave(self, address: PublisherAddress, source: str, now: float) -> list[str]:
        gone = self._book.goodbye(address.uri, source)
        if gone is None:
            self._drop("goodbye for an unknown or another host's address", source, now, address.uri)
            return []
        return self._removals([gone], "said goodbye", now)

    def _removals(self, addresses: Iterable[PublisherAddress], reason: str, now: float) -> list[str]:
        addresses = list(addresses)
        if addresses:
            self._without_room.clear()
        for address in addresses:
            self._chronicle.tell(now, "gone: %s, %s", _described(address), reason)
        return [
            self._compose(
                f"/address/{address.name}",
                ANNOUNCEMENT,
                {"status": False, "URI": address.uri, "service": list(address.services)},
            )
            for address in addresses
        ]

    def _drop(self, reason: str, source: str, now: float, detail: str = "") -> None:
        if self.drops.add(reason, now):
            told = f"{reason} ({detail})" if detail else reason
            logger.warning("dropped from %s: %s (%d so far)", source or "unknown host", told, self.drops.counts[reason])


def _described(address: PublisherAddress) -> str:
    return f"{address.uri} of {', '.join(map(repr, address.services))[:200] or 'no service'}"


def _read_announcement(data: str | bytes) -> _Announcement:
    fields = codec.decode(data, MAX_DATAGRAM, _MAX_DEPTH)
    if fields.type not in (ANNOUNCEMENT, GOODBYE) or not fields.subject.lower().startswith(_SUBJECT):
        raise RemoteProtocolError(f"message {fields.subject[:60]!r} {fields.type[:60]!r} is no announcement")
    name = fields.subject.split("/")[1]
    address = PublisherAddress.from_data(fields.data, name)
    entry = {**address.as_data(), "status": True}
    addition = codec.encode(fields.subject, fields.type, fields.sender, fields.time, None, entry)
    return _Announcement(fields.type, address, addition)


class Request(NamedTuple):
    """The service that a client asks a nameserver for, "" for all, and the message version it speaks."""

    service: str
    version: str


def read_request(frame: bytes | None) -> Request:
    """Return what a client asks for; `DecodeError` or `RemoteProtocolError` if it cannot be known."""
    if frame is None:
        raise DecodeError("request is not one frame")
    fields = codec.decode(frame, MAX_DATAGRAM, _MAX_DEPTH)
    service = fields.data.get("service") if isinstance(fields.data, dict) else None
    if not isinstance(service, str):
        raise RemoteProtocolError("request names no service")
    return Request(service, fields.version)
