"""Publishing messages, with or without announcing oneself."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from posttroll.backends.base import PublishChannel
from posttroll.backends.registry import configured_backend
from posttroll.errors import ConfigurationError, EncodeError, MissingSetting, NotStarted
from posttroll.message import Message
from posttroll.message_broadcaster import AddressServiceBroadcaster, sendaddressservice
from posttroll.protocol.addresses import with_port_of
from posttroll.protocol.drops import Drops
from posttroll.protocol.topics import as_prefix
from posttroll.settings import Ports, read

if TYPE_CHECKING:
    from posttroll.durable import Outbox
    from posttroll.journal import Journal, Wish

__all__ = [
    "NoisyPublisher",
    "Publish",
    "Publisher",
    "create_publisher_from_dict_config",
    "get_own_ip",
]

logger = logging.getLogger(__name__)

_FAR_AWAY = ("8.8.8.8", 80)
_LOOPBACK = "127.0.0.1"
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


def get_own_ip() -> str:
    """Return the IPv4 address that other hosts know this one by, as far as it can be guessed; nothing is sent."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(_FAR_AWAY)
        return str(probe.getsockname()[0])
    except OSError:
        pass
    finally:
        probe.close()
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return _LOOPBACK


class Publisher:
    """Publishes on an address, such as ``tcp://*:9000``; port 0 takes a free one of the range.

    Nothing is bound before `start`. A subscriber that cannot keep up has a queue of its own
    (setting ``send_high_water_mark``); when that is full, `when_full` decides: "drop" loses the message for that
    subscriber alone, "block" makes `send` wait. That a queue got full is counted in `overruns`, logged, and told to
    `on_overrun`, which is called with the publisher.

    With a `journal`, which is True, a path, or an open `Journal` such as a `MemoryJournal`, messages are kept until all
    durable subscribers have accepted them, but not for ever: see the settings ``journal_…``. Those subscribers connect
    to `link_port`; 0 takes a free one. What was too old for one of them is counted in `expired` and told to
    `on_expired`, which is called, in another thread, with the subscriber's durable name and the number of messages.
    The journal is closed at the stop.
    """

    def __init__(
        self,
        address: str,
        name: str = "",
        min_port: int | None = None,
        max_port: int | None = None,
        when_full: str | None = None,
        on_overrun: Callable[[Publisher], None] | None = None,
        journal: Wish = None,
        link_port: int = 0,
        on_expired: Callable[[str, int], None] | None = None,
    ) -> None:
        self._backend = configured_backend()
        self._address = address
        self._name = name
        self._ports = Ports.read(min_port, max_port)
        self._when_full = read("when_full") if when_full is None else when_full
        if self._when_full not in ("drop", "block"):
            raise ConfigurationError(f"when_full is {when_full!r}, but must be drop or block")
        self._on_overrun = on_overrun
        self._open_outbox = self._make_outbox_opener(journal, link_port)
        self._on_expired = on_expired
        self._expired = 0
        self._outbox: Outbox | None = None
        self._overruns = Drops()
        self._troubles = Drops()
        self._last_beat: float | None = None
        self._publisher: PublishChannel | None = None

    def start(self) -> Publisher:
        """Open the journal, if there is to be one, and bind the address; `JournalError`, `BindFailed`."""
        self.stop()
        with ExitStack() as opened:
            self._publisher = self._backend.open_publish(self._address, self._ports, self._when_full)
            opened.callback(self._publisher.close)
            self._outbox = None if self._open_outbox is None else self._open_outbox(self._publisher.address)
            opened.pop_all()
        logger.debug("publisher %s started on %s", self._name, self._publisher.address)
        return self

    def _make_outbox_opener(self, wish: Wish, link_port: int) -> Callable[[str], Outbox] | None:
        """Return what opens the journal and serves it beside an address; None if there is to be no journal."""
        wish = read("journal") if wish is None else wish
        if wish is False:
            return None
        # Imported for those who have a journal: most have none, and start the quicker.
        from posttroll.durable import Outbox
        from posttroll.journal import journal_opener

        open_journal = journal_opener(wish, self._name or self._address)
        max_deliveries = read("max_deliveries")
        return lambda address: Outbox(
            open_journal(),
            self._backend,
            address,
            self._ports,
            link_port,
            self._name or address,
            self._tell_expired,
            max_deliveries,
        )

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

    def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one, which is not looked into; safe from several threads.

        With a journal, return when it is kept there; it is for durable subscribers that come for it within `ttl`
        seconds. When it cannot be kept, it is not published either: `JournalFull` and other `JournalError`.
        """
        if isinstance(msg, Message):
            msg = msg.encode()
        if not isinstance(msg, str):
            raise TypeError(f"a publisher sends text or a Message, not {type(msg).__name__}")
        try:
            frame = msg.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"text cannot be written in UTF-8: {error}") from None
        publish = self._channel.send
        had_room = publish(frame) if self._outbox is None else self._outbox.send(frame, ttl, publish)
        if not had_room:
            self._tell_overrun()

    def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        self.send(msg, ttl)

    def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have.

        What is sent from then on reaches that subscriber. A subscription to a part of the topic counts too.
        """
        return self._channel.wait_for_subscriber(as_prefix(topic).encode(), timeout)

    def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        now = time.monotonic()
        if min_interval and self._last_beat is not None and now - self._last_beat < min_interval:
            return
        if self._outbox is None:
            self.send(self._heartbeat(min_interval))
        else:
            channel = self._channel
            self._outbox.beat(lambda extra: channel.send(self._heartbeat(min_interval, extra).encode().encode()))
        self._last_beat = now

    def _heartbeat(self, min_interval: float, extra: Mapping[str, Any] = MappingProxyType({})) -> Message:
        return Message(f"/heartbeat/{'_'.join(self._name.split())}", "beat", {"min_interval": min_interval, **extra})

    def stop(self) -> None:
        """Stop publishing; harmless before the start and when stopped. What is in the journal stays there."""
        try:
            if self._outbox is not None:
                self._outbox.stop()  # first, so that nothing is kept that can no longer be published
        finally:
            if self._publisher is not None:
                self._publisher.close()
            self._outbox = None

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()

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

    def _call(self, name: str, callback: Callable[..., None] | None, *arguments: Any) -> None:
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


class NoisyPublisher:
    """A publisher that announces itself under a name and aliases.

    `nameservers`: the hosts (``host`` or ``host:port``) to register at; without any, everybody around is told, by
    multicast. `broadcast_interval`: seconds between announcements; 0: none. `extra`: returns what else to announce with
    an address. `options`: what else a `Publisher` takes.
    """

    _publisher_class = Publisher

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
        self._announcer: AddressServiceBroadcaster | None = None

    def start(self) -> NoisyPublisher:
        """Bind and begin to announce; nothing is left running if either fails."""
        self.stop()
        self._publisher.start()
        try:
            self._announce()
        except BaseException:
            self._publisher.stop()
            raise
        return self

    def _announce(self) -> None:
        if self.port_number is None:
            return
        host = read("advertised_host")
        guess = host or get_own_ip()
        may_change = guess == _LOOPBACK and not host  # the network may only come up later
        self._announcer = sendaddressservice(
            self._name,
            (lambda: self._address_at(get_own_ip())) if may_change else self._address_at(guess),
            self._services,
            self._broadcast_interval,
            self._nameservers,
            **({} if self.journal is None and self._extra is None else {"extra": self._announced_with}),
        )
        self._announcer.start()

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

    def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one; safe from several threads. See `Publisher.send`."""
        self._publisher.send(msg, ttl)

    def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        self.send(msg, ttl)

    def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have."""
        return self._publisher.wait_for_subscriber(topic, timeout)

    def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        self._publisher.heartbeat(min_interval)

    def stop(self) -> None:
        """Say goodbye and stop publishing; harmless before the start and when stopped."""
        announcer, self._announcer = self._announcer, None
        try:
            if announcer is not None:
                announcer.stop()
        finally:
            self._publisher.stop()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


class Publish:
    """A publisher for a ``with`` block, of the class that the arguments ask for.

    With a port and ``nameservers=False`` it is a silent `Publisher`, else a `NoisyPublisher`. `address`: what the
    silent one binds instead of the port on all interfaces.
    """

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
        on_overrun: Callable[[Publisher], None] | None = None,
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
        self.publisher = create_publisher_from_dict_config(
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

    def __enter__(self) -> Publisher | NoisyPublisher:
        return self.publisher.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.publisher.stop()


def create_publisher_from_dict_config(settings: Mapping[str, Any]) -> Publisher | NoisyPublisher:
    """Return the unstarted publisher that a dict of settings describes, which are the arguments of the two classes.

    A `Publisher` if ``port`` or ``address`` is given and ``nameservers`` is False, else a `NoisyPublisher`, for which
    ``name`` is required (`KeyError`) and items it does not know are ignored.
    """
    given = dict(settings)
    if (given.get("port") or given.get("address")) and given.get("nameservers") is False:
        address = given.get("address") or f"tcp://*:{given['port']}"
        return Publisher(address, **{key: value for key, value in given.items() if key not in _NOISY_ONLY})
    if "name" not in given:
        raise MissingSetting("NoisyPublisher requires a name")
    defaults = {**_NOISY_DEFAULTS, **{key: given[key] for key in _OPTIONS if key in given}}
    return NoisyPublisher(given["name"], **{key: given.get(key, default) for key, default in defaults.items()})
