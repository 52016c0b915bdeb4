"""What the blocking and the asyncio publishers share: all but the waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from posttroll.backends.base import PublishChannel
from posttroll.backends.registry import configured_backend
from posttroll.errors import ConfigurationError, EncodeError, MissingSetting, NotStarted
from posttroll.message import Message
from posttroll.protocol.addresses import with_port_of
from posttroll.protocol.drops import Drops
from posttroll.settings import Ports, read

if TYPE_CHECKING:
    from posttroll.journal import Journal, Wish

__all__ = ["LOOPBACK", "AnnouncedPublication", "Publication", "PublishArguments", "noisy_arguments", "silent_arguments"]

logger = logging.getLogger("posttroll.publisher")

Callback = TypeVar("Callback")

LOOPBACK = "127.0.0.1"

_NOISY_ONLY = ("nameservers", "aliases", "broadcast_interval", "port", "address")
_NOISY_DEFAULTS = {
    "port": 0,
    "aliases": None,
    "broadcast_interval": 2,
    "nameservers": None,
    "min_port": None,
    "max_port": None,
}
_OPTIONS = ("when_full", "on_overrun", "journal", "link_port", "on_expired")


class Publication:
    """Publishes on an address; those who derive from it open, send and stop."""

    def __init__(
        self,
        address: str,
        name: str = "",
        min_port: int | None = None,
        max_port: int | None = None,
        when_full: str | None = None,
        on_overrun: Callable[[Any], object] | None = None,
        journal: Wish = None,
        link_port: int = 0,
        on_expired: Callable[[str, int], object] | None = None,
    ) -> None:
        self._backend = configured_backend()
        self._address = address
        self._name = name
        self._ports = Ports.read(min_port, max_port)
        self._when_full = read("when_full") if when_full is None else when_full
        if self._when_full not in ("drop", "block"):
            raise ConfigurationError(f"when_full is {when_full!r}, but must be drop or block")
        self._on_overrun = self._plain(on_overrun, "on_overrun")
        self._open_journal = self._make_journal_opener(journal)
        self._link_port = link_port
        self._max_deliveries = read("max_deliveries")
        self._on_expired = self._plain(on_expired, "on_expired")
        self._expired = 0
        self._outbox: Any = None
        self._overruns = Drops()
        self._troubles = Drops()
        self._last_beat: float | None = None
        self._publisher: PublishChannel | None = None

    @staticmethod
    def _plain(callback: Callback, what: str) -> Callback:
        """Return a callback if it can be called."""
        return callback

    def _make_journal_opener(self, wish: Wish) -> Callable[[], Journal] | None:
        """Return what opens the journal; None if there is to be none."""
        wish = read("journal") if wish is None else wish
        if wish is False:
            return None
        # Imported for those who have a journal: most have none, and start the quicker.
        from posttroll.journal import journal_opener

        return journal_opener(wish, self._name or self._address)

    def _outbox_arguments(self, on_expired: Callable[[str, int], None]) -> tuple[Any, ...]:
        """Return what an outbox beside the publisher is made of, but for its journal."""
        address = self._channel.address
        name = self._name or address
        return self._backend, address, self._ports, self._link_port, name, on_expired, self._max_deliveries

    @property
    def name(self) -> str:
        """The name given."""
        return self._name

    @property
    def port_number(self) -> int | None:
        """The port bound; before the start, and on an address without port, None."""
        address = self._publisher.address if self._publisher is not None else ""
        port = address.rpartition(":")[2]
        return int(port) if port.isdigit() else None

    @property
    def overruns(self) -> int:
        """How often the queue of some subscriber was found full; in between it may lose many messages."""
        return self._overruns.total()

    @property
    def journal(self) -> Journal | None:
        """The journal, if the publisher has one and is started."""
        return None if self._outbox is None else self._outbox.journal

    @property
    def link_address(self) -> str | None:
        """The address bound for durable subscribers, if there is a journal and the publisher is started."""
        return None if self._outbox is None else self._outbox.address

    @property
    def expired(self) -> int:
        """How many messages became too old before a durable subscriber got them, counted once for each of those."""
        return self._expired

    def _frame_of(self, msg: str | Message) -> bytes:
        """Return what is sent for a message or the text of one; `TypeError`, `EncodeError`."""
        if isinstance(msg, Message):
            msg = msg.encode()
        if not isinstance(msg, str):
            raise TypeError(f"a publisher sends text or a Message, not {type(msg).__name__}")
        try:
            return msg.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"text cannot be written in UTF-8: {error}") from None

    def _is_beat_due(self, min_interval: float) -> bool:
        """Return whether it is time for a heartbeat."""
        return not min_interval or self._last_beat is None or time.monotonic() - self._last_beat >= min_interval

    def _note_beat(self) -> None:
        self._last_beat = time.monotonic()

    def _heartbeat(self, min_interval: float, extra: Mapping[str, Any] = MappingProxyType({})) -> Message:
        return Message(f"/heartbeat/{'_'.join(self._name.split())}", "beat", {"min_interval": min_interval, **extra})

    def _tell_expired(self, consumer: str, count: int) -> None:
        self._expired += count
        if self._troubles.add("expired", time.monotonic()):
            logger.warning(
                "publisher %s: %d messages became too old before consumer %s got them (%d so far, of all consumers)",
                self._name or self._address,
                count,
                consumer,
                self._expired,
            )
        self._call("on_expired", self._on_expired, consumer, count)

    def _call(self, name: str, callback: Callable[..., object] | None, *arguments: Any) -> None:
        if callback is not None:
            try:
                callback(*arguments)
            except Exception:
                if self._troubles.add(name, time.monotonic()):
                    logger.exception("%s of publisher %s failed", name, self._name or self._address)

    @property
    def _channel(self) -> PublishChannel:
        if self._publisher is None:
            raise NotStarted("the publisher is not started")
        return self._publisher

    def _tell_overrun(self) -> None:
        if self._overruns.add("queue full", time.monotonic()):
            logger.warning(
                "publisher %s: a subscriber cannot keep up, messages are %s (queue full %d times so far)",
                self._name or self._address,
                "delayed" if self._when_full == "block" else "dropped for it",
                self.overruns,
            )
        self._call("on_overrun", self._on_overrun, self)


class AnnouncedPublication:
    """Publishes and announces that; those who derive from it do so."""

    _publisher_class: Callable[..., Publication]

    def __init__(
        self,
        name: str,
        port: int = 0,
        aliases: str | Iterable[str] | None = None,
        broadcast_interval: float = 2,
        nameservers: str | Iterable[str] | None = None,
        min_port: int | None = None,
        max_port: int | None = None,
        extra: Callable[[str], Mapping[str, str]] | None = None,
        **options: Any,
    ) -> None:
        self.min_port = min_port
        self.max_port = max_port
        self._name = name
        self._services = [name, *([aliases] if isinstance(aliases, str) else aliases or ())]
        self._broadcast_interval = broadcast_interval
        self._nameservers = [nameservers] if isinstance(nameservers, str) else list(nameservers or ())
        self._extra = extra
        self._publisher = self._publisher_class(f"tcp://*:{port}", name, min_port, max_port, **options)

    def _announcer_arguments(self, address: str | Callable[[], str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what an announcer of an address is made of."""
        has_more = self.journal is not None or self._extra is not None
        positional = self._name, address, self._services, self._broadcast_interval, self._nameservers
        return positional, {"extra": self._announced_with} if has_more else {}

    def _address_at(self, host: str) -> str:
        return f"tcp://{host}:{self.port_number}"

    def _announced_with(self, address: str) -> dict[str, str]:
        return {**self._links_at(address), **({} if self._extra is None else self._extra(address))}

    def _links_at(self, address: str) -> dict[str, str]:
        """Return what the announcement of an address says of the journal and where it is served."""
        if self.journal is None or self.link_address is None:
            return {}
        return {"link": with_port_of(address, self.link_address), "journal": self.journal.identity}

    @property
    def port_number(self) -> int | None:
        """The port bound, None before the start."""
        return self._publisher.port_number

    @property
    def overruns(self) -> int:
        """How often the queue of some subscriber was found full; in between it may lose many messages."""
        return self._publisher.overruns

    @property
    def journal(self) -> Journal | None:
        """The journal, if the publisher has one and is started."""
        return self._publisher.journal

    @property
    def link_address(self) -> str | None:
        """The address bound for durable subscribers, if there is a journal and the publisher is started."""
        return self._publisher.link_address

    @property
    def expired(self) -> int:
        """How many messages became too old before a durable subscriber got them, counted once for each of those."""
        return self._publisher.expired


class PublishArguments:
    """What is given to either ``Publish``."""

    def __init__(
        self,
        name: str,
        port: int = 0,
        aliases: str | Iterable[str] | None = None,
        broadcast_interval: float = 2,
        nameservers: str | Iterable[str] | Literal[False] | None = None,
        min_port: int | None = None,
        max_port: int | None = None,
        when_full: str | None = None,
        on_overrun: Callable[[Any], object] | None = None,
        address: str | None = None,
        journal: Wish = None,
        link_port: int = 0,
        on_expired: Callable[[str, int], None] | None = None,
    ) -> None:
        optional = {
            "when_full": when_full,
            "on_overrun": on_overrun,
            "address": address,
            "journal": journal,
            "link_port": link_port or None,
            "on_expired": on_expired,
        }
        self._prepare(
            {
                "name": name,
                "port": port,
                "aliases": aliases,
                "broadcast_interval": broadcast_interval,
                "nameservers": nameservers,
                "min_port": min_port,
                "max_port": max_port,
                **{key: value for key, value in optional.items() if value is not None},
            }
        )

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        """Make the publisher that the settings describe, and start nothing."""
        raise NotImplementedError


Arguments = tuple[str, dict[str, Any]]


def silent_arguments(settings: Mapping[str, Any]) -> Arguments | None:
    """Return the arguments of a `Publisher` that a dict of settings describes; None if it is a `NoisyPublisher`."""
    if not (settings.get("port") or settings.get("address")) or settings.get("nameservers") is not False:
        return None
    address = settings.get("address") or f"tcp://*:{settings['port']}"
    return address, {key: value for key, value in settings.items() if key not in _NOISY_ONLY}


def noisy_arguments(settings: Mapping[str, Any]) -> Arguments:
    """Return the arguments of a `NoisyPublisher` that a dict of settings describes; `MissingSetting` without name."""
    if "name" not in settings:
        raise MissingSetting("NoisyPublisher requires a name")
    defaults = {**_NOISY_DEFAULTS, **{key: settings[key] for key in _OPTIONS if key in settings}}
    return settings["name"], {key: settings.get(key, default) for key, default in defaults.items()}
