"""What the blocking and the asyncio subscribers share: all but the waiting."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from posttroll.backends.base import Batch, Peer
from posttroll.backends.registry import configured_backend, find_backend
from posttroll.errors import ConfigurationError, TransportError
from posttroll.message import CURRENT_MESSAGE_VERSION, Message, MessageError
from posttroll.protocol.delivery import Delivery
from posttroll.protocol.drops import Drops
from posttroll.protocol.gaps import Gaps
from posttroll.protocol.topics import as_prefixes
from posttroll.room import check_room, is_lack_of_room
from posttroll.settings import read

if TYPE_CHECKING:
    from posttroll.protocol.link import Delivery as LinkDelivery

__all__ = [
    "NO_MORE",
    "Acknowledge",
    "Address",
    "Callback",
    "Helper",
    "Inbox",
    "NSSubscription",
    "Nameserver",
    "StartAt",
    "State",
    "SubscribeArguments",
    "Subscription",
    "arguments_with_nameserver",
    "arguments_without_nameserver",
    "link_of",
]

logger = logging.getLogger("posttroll.subscriber")

Address = str | Mapping[str, Any]
Callback = Callable[[Message], object]
Nameserver = str | Iterable[str]
StartAt = Literal["new", "first"] | dt.datetime
Acknowledge = Literal["auto", "manual"]
Filter = TypeVar("Filter")
State = Literal["accepted", "rejected", "released"]

_LEAVING_SILENCE = 1.0
NO_MORE: Any = object()
_DURABLE_IN_TURN = 50
_OPTIONS = ("message_filter", "durable", "start_at", "acknowledge")
_NAMESERVER_ONLY = ("nameserver", "port", "services", "addr_listener", "timeout")
_NAMESERVER_DEFAULTS = {
    "services": "",
    "topics": "pytroll:/",
    "addr_listener": False,
    "addresses": None,
    "timeout": 10,
    "translate": False,
}


class Inbox(Protocol):
    """Where durable messages come in."""

    def connect(self, peer: Peer, journal: str) -> None:
        """Attach to a journal whose publisher is at an address."""

    def part(self, peer: Peer) -> None:
        """Look for a publisher no longer at an address; what it sent can still be settled."""

    def disconnect(self, peer: Peer) -> None:
        """Detach from the journal of the publisher at an address."""

    def take(self) -> LinkDelivery | None:
        """Return the next delivery, None if there is none now."""

    def settle(self, delivery: LinkDelivery, state: State, reason: str = "") -> bool:
        """Tell the publisher what became of a delivery; return False if it is no longer this consumer's."""

    def stop(self) -> Any:
        """Release what is not settled, and end; to be awaited under asyncio."""


class Helper(Protocol):
    """Works for a subscriber while that is there."""

    def stop(self) -> Any:
        """End; to be awaited under asyncio."""


class Subscription:
    """Receives from publishers at known addresses; those who derive from it wait for something to come."""

    def __init__(
        self,
        addresses: Address | Iterable[Address],
        topics: str | Iterable[str] = "",
        message_filter: Callable[[Message], object] | None = None,
        translate: bool = False,
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        if acknowledge not in ("auto", "manual"):
            raise ConfigurationError(f"acknowledge is {acknowledge!r}, but must be auto or manual")
        self._backend = configured_backend()
        self._topics = as_prefixes(topics)
        self._is_manual = acknowledge == "manual"
        max_size = read("max_message_size")
        decode = functools.partial(Message.decode, max_size=max_size)
        self._delivery = Delivery(decode, self._plain(message_filter, "message_filter"), translate)
        self._addresses: dict[str, dict[str, Any]] = {}
        self._hooks: dict[Peer, Callback] = {}
        self._hook_numbers = itertools.count(1)
        self._helpers: list[Helper] = []
        self._running: bool | None = None
        self._arrived: Iterator[Message | None] = iter(())
        self._gaps = Gaps(self._heartbeat_data)
        self._troubles = Drops()
        self._channel = self._backend.open_subscribe()
        self._inbox: Inbox | None = None
        try:
            if durable is not None:
                self._inbox = self._open_inbox(durable, start_at)
            self.update(addresses)
        except BaseException:
            self._abandon()
            raise

    @staticmethod
    def _plain(callback: Filter, what: str) -> Filter:
        """Return a callback if it can be called."""
        return callback

    def _open_inbox(self, durable: str, start_at: StartAt) -> Inbox:
        """Return where durable messages come in, which wakes the channel when there are some."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """Close what is open."""
        raise NotImplementedError

    @staticmethod
    def _magickfy_topics(topics: str | Iterable[str] | None) -> list[str] | None:
        return None if topics is None else as_prefixes(topics)

    @property
    def addresses(self) -> Collection[dict[str, Any]]:
        """The addresses it is connected to, as dicts."""
        return list(self._addresses.values())

    @property
    def subscribers(self) -> Collection[Any]:
        """The sockets, where the backend has some."""
        return list(getattr(self._channel, "addr_sub", {}).values())

    @property
    def running(self) -> bool | None:
        """None before the first `recv`, then whether it was not yet closed."""
        return self._running

    @property
    def drops(self) -> Mapping[str, int]:
        """How many messages and addresses were refused, by reason."""
        return self._delivery.drops.counts

    @property
    def missed(self) -> int:
        """How many messages did not arrive here that publishers with a journal have sent, by their heartbeats."""
        return self._gaps.missed

    def add(self, address: Address, topics: str | Iterable[str] | None = None) -> None:
        """Connect to one more address, for the same topics or others; a known one stays as it is.

        A durable subscriber goes on in another way if the address has a new ``link``. Other topics than its own are
        for addresses without ``link`` only.
        """
        item = _as_dict(address, self._backend.name)
        known = self._addresses.get(item["URI"])
        link = None if self._inbox is None else link_of(item)
        former = None if self._inbox is None or known is None else link_of(known)
        if known is not None and former == link:
            return
        if self._inbox is not None and link is not None:
            self._inbox.connect(*link)
        else:
            frames = _frames(self._topics if topics is None else as_prefixes(topics))
            peer = _peer(item)
            if self._inbox is not None:
                logger.warning(
                    "%s keeps no journal (or a nameserver hides it): its messages are not durable", item["URI"]
                )
            self._channel.connect(peer, self._gaps.connect(peer, frames) if "journal" in item else frames)
        self._addresses[item["URI"]] = item
        if known is not None and not (link and former and link[0] == former[0]):
            self._disconnect(known, _LEAVING_SILENCE)
        logger.debug("connected to %s", item["URI"])

    def remove(self, address: Address) -> None:
        """Disconnect from an address; an unknown one is ignored."""
        self._forget(address, linger=0.0)

    def part(self, entry: Address) -> None:
        """Disconnect from an address that a nameserver withdrew, once what is still on its way has come."""
        self._forget(entry, linger=_LEAVING_SILENCE)

    def _forget(self, address: Address, linger: float) -> None:
        item = self._addresses.pop(_as_dict(address, "")["URI"], None)
        if item is not None:
            self._disconnect(item, linger)
            logger.debug("disconnected from %s", item["URI"])

    def _disconnect(self, item: Mapping[str, Any], linger: float) -> None:
        if self._inbox is not None and (link := link_of(item)):
            peer, _ = link
            forget = self._inbox.part if linger else self._inbox.disconnect
            forget(peer)
        else:
            forget = self._gaps.part if linger else self._gaps.disconnect
            forget(_peer(item))
            self._channel.disconnect(_peer(item), linger)

    def update(self, addresses: Address | Iterable[Address]) -> bool:
        """Connect and disconnect so that exactly these addresses remain; return whether anything changed."""
        wanted = {item["URI"]: item for item in (_as_dict(one, self._backend.name) for one in _as_list(addresses))}
        before = list(self._addresses.items())
        unwanted = self._addresses.keys() - wanted.keys()
        for item in wanted.values():
            self.add(item)
        for uri in unwanted:  # after the others, as what came from a journal is kept while it has an address
            self.remove(uri)
        return list(self._addresses.items()) != before

    def add_hook_sub(self, address: Address, topics: str | Iterable[str], callback: Callback) -> None:
        """Subscribe to one more address, whose messages go to `callback` in the thread that runs `recv`."""
        self._add_hook(address, _frames(as_prefixes(topics)), callback)

    def add_hook_pull(self, address: Address, callback: Callback) -> None:
        """Pull from a queue, such as ``inproc://orders``; its messages go to `callback` as above."""
        self._add_hook(address, None, callback)

    def _add_hook(self, address: Address, frames: list[bytes] | None, callback: Callback) -> None:
        peer = _peer(_as_dict(address, self._backend.name), tag=f"hook {next(self._hook_numbers)}")
        self._hooks[peer] = callback
        self._channel.connect(peer, frames)

    def accept(self, message: Message) -> bool:
        """Have a message never come again to those of the durable name; return False if it is somebody else's now.

        That is so when this process was not heard of for so long that the message was given to another one. Messages
        that are not durable have nobody to tell: True. A copy of a message that was pickled is not durable.
        """
        return self._settle(message, "accepted")

    def release(self, message: Message) -> bool:
        """Have a message come again, to this subscriber or to another one of its name; return as `accept` does."""
        return self._settle(message, "released")

    def reject(self, message: Message, reason: str = "") -> bool:
        """Have a message set aside by its publisher, with the reason; return as `accept` does."""
        return self._settle(message, "rejected", reason)

    def _settle(self, message: Message, state: State, reason: str = "") -> bool:
        if message.delivery is None:
            return True
        return self._inbox is not None and self._inbox.settle(message.delivery, state, reason)

    def _take_arrived(self) -> Message | None:
        """Return the next of the messages that came, as `NO_MORE` if there is none; None for one that was not wanted.

        Asked for anew each time, as a hook may receive meanwhile, and begin another batch.
        """
        return next(self._arrived, NO_MORE)

    def _look(self) -> Iterator[Message | None] | None:
        """Return what gives the messages that are there, plain or durable, some of each in turn; None if none are."""
        if self._inbox is None:
            return self._receive(0.0)
        # Twice, as news of durable messages ends a wait, and may come faster than they are taken.
        arrived = self._receive(0.0) or self._receive(0.0)
        if arrived is None and (delivery := self._inbox.take()) is not None:
            others = itertools.islice(iter(self._inbox.take, None), _DURABLE_IN_TURN)
            return map(self._open, itertools.chain([delivery], others), itertools.repeat(self._inbox.settle))
        return arrived

    def _receive(self, timeout: float | None) -> Iterator[Message | None] | None:
        """Return what gives the plain messages that came next; None after the time, when woken and when closed."""
        batch = self._channel.receive_batch(timeout)
        return None if batch is None else self._accept(batch)

    def _open(self, delivery: LinkDelivery, settle: Callable[[LinkDelivery, State, str], object]) -> Message | None:
        """Return the message of a delivery; settle those that are not wanted, or are none."""
        message, complaint = None, ""
        state: State = "released"  # as it is if a signal handler raises in the midst of it
        try:
            message, complaint = self._decode(delivery)
            state = "rejected" if complaint else "accepted"
        finally:
            if message is None:
                settle(delivery, state, complaint)
        return message

    def _decode(self, delivery: LinkDelivery) -> tuple[Message | None, str]:
        """Return the message of a delivery if it is wanted, and what is wrong with it, if anything is."""
        now = time.monotonic()
        message = self._delivery.decode(delivery.payload, delivery.address, now)
        if message is None:
            return None, "no message"
        is_wanted = self._delivery.wants(message, delivery.address, now)
        if is_wanted is None:
            return None, "the filter failed"
        message.delivery = delivery
        return message if is_wanted else None, ""

    def _accept(self, batch: Batch) -> Iterator[Message | None]:
        """Return what decodes each frame when it is asked for, and gives None for those that go to a hook."""
        source = itertools.repeat(batch.peer.uri), itertools.repeat(time.monotonic())
        callback = self._hooks.get(batch.peer)
        if callback is None:
            return map(self._delivery.accept, self._count_missed(batch), *source)
        return map(self._delivery.call, itertools.repeat(callback), batch.frames, *source)

    def _count_missed(self, batch: Batch) -> list[bytes]:
        """Return the frames that are for the application, once it is known what else should have come."""
        before = self._gaps.missed
        frames = self._gaps.receive(batch.peer, batch.frames)
        if self._gaps.missed > before and self._troubles.add("missed", time.monotonic()):
            logger.warning("%d messages from %s did not arrive", self._gaps.missed - before, batch.peer.uri)
        return frames

    def _heartbeat_data(self, frame: bytes) -> object:
        try:
            return Message.decode(frame).data
        except MessageError:
            return None

    def meet(self, entry: Address) -> bool:
        """Connect to an address that a nameserver gave, unless it cannot or may not be used.

        Return False if there is no room for it now, so that it is worth another try later.
        """
        try:
            item = _as_dict(entry, self._backend.name)
            self._check_discovered(item)
            if item["URI"] not in self._addresses:
                check_room(len(self._addresses), "connections are open")
            self.add(item)
        except (ConfigurationError, TransportError, KeyError, TypeError, ValueError, NotImplementedError) as error:
            if self._delivery.drops.add("address refused", time.monotonic()):
                logger.warning("address from the nameserver refused: %.200s: %.200s", entry, error)
            return not is_lack_of_room(error)
        return True

    def _check_discovered(self, item: Mapping[str, Any]) -> None:
        version = str(item.get("supported_message_version", CURRENT_MESSAGE_VERSION))
        if version > CURRENT_MESSAGE_VERSION:
            raise ConfigurationError(f"it writes messages of version {version!r}, newer than {CURRENT_MESSAGE_VERSION}")
        if find_backend(item["backend"]).strength < self._backend.strength:
            raise ConfigurationError(f"backend {item['backend']} is weaker than the configured {self._backend.name}")


class NSSubscription:
    """Finds publishers of services; those who derive from it ask the nameservers."""

    def __init__(
        self,
        services: str | Iterable[str] | None = "",
        topics: str | Iterable[str] = "pytroll:/",
        addr_listener: bool = False,
        addresses: Address | Iterable[Address] | None = None,
        timeout: float = 10,
        translate: bool = False,
        nameserver: Nameserver = "localhost",
        message_filter: Callable[[Message], object] | None = None,
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        self._services = _as_list(services)
        self._wants_listener = bool(self._services) and (addr_listener or durable is not None)
        self._timeout = timeout
        self._nameserver = nameserver
        self._arguments: dict[str, Any] = {
            "addresses": _as_list(addresses),
            "topics": topics,
            "message_filter": message_filter,
            "translate": translate,
            "durable": durable,
            "start_at": start_at,
            "acknowledge": acknowledge,
        }

    def _meet_all(self, subscriber: Subscription, service: str, found: Iterable[Mapping[str, Any]]) -> None:
        """Connect to all that was found."""
        if not found:
            logger.warning("no publisher of %r found", service)
        for entry in found or ():
            subscriber.meet(entry)

    def _bear(self, error: TimeoutError) -> None:
        """Raise that a nameserver does not answer, unless the address listener goes on looking for it."""
        if not self._wants_listener:
            raise error
        logger.warning("nameserver %s does not answer, still looking for it: %s", self._nameserver, error)


class SubscribeArguments:
    """What is given to either ``Subscribe``."""

    def __init__(
        self,
        services: str | Iterable[str] | None = "",
        topics: str | Iterable[str] = "pytroll:/",
        addr_listener: bool = False,
        addresses: Address | Iterable[Address] | None = None,
        timeout: float = 10,
        translate: bool = False,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        message_filter: Callable[[Message], object] | None = None,
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        settings: dict[str, Any] = {
            "services": services,
            "topics": topics,
            "addr_listener": addr_listener,
            "addresses": addresses,
            "timeout": timeout,
            "translate": translate,
            "nameserver": nameserver,
        }
        if message_filter is not None:
            settings["message_filter"] = message_filter
        if durable is not None:
            settings.update(durable=durable, start_at=start_at, acknowledge=acknowledge)
        self._prepare(settings)

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        """Take note of the settings of a subscriber, or make it."""
        raise NotImplementedError


def arguments_without_nameserver(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a `Subscriber` that a dict of settings describes; None if it is an `NSSubscriber`."""
    if settings.get("addresses") and settings.get("nameserver") is False:
        return {key: value for key, value in settings.items() if key not in _NAMESERVER_ONLY}
    return None


def arguments_with_nameserver(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an `NSSubscriber` that a dict of settings describes; items it does not know are left."""
    arguments = {key: settings.get(key, default) for key, default in _NAMESERVER_DEFAULTS.items()}
    arguments.update((key, settings[key]) for key in _OPTIONS if settings.get(key) is not None)
    return {**arguments, "nameserver": settings.get("nameserver") or "localhost"}


def _as_list(given: Any) -> list[Any]:
    """Return what may be one thing, several, or none, as a list."""
    if given is None:
        return []
    if isinstance(given, str | Mapping):
        return [given]
    if isinstance(given, Iterable):
        return list(given)
    raise NotImplementedError(f"{given!r} is neither a text nor a dict nor several of them")


def _as_dict(address: Address, backend: str) -> dict[str, Any]:
    if isinstance(address, str):
        return {"URI": address, "backend": backend}
    if isinstance(address, Mapping):
        return {**address, "URI": address["URI"], "backend": address.get("backend", backend)}
    raise NotImplementedError(f"an address is a text or a dict with URI, not {address!r}")


def link_of(item: Mapping[str, Any]) -> tuple[Peer, str] | None:
    """Return where the publisher at an address serves its journal, and that one's identity; None if it has none."""
    uri, journal = item.get("link"), item.get("journal")
    if not isinstance(uri, str):
        return None
    return _peer({**item, "URI": uri}), journal if isinstance(journal, str) else uri


def _peer(item: Mapping[str, Any], tag: str = "") -> Peer:
    uri = item["URI"]
    return Peer(uri if "://" in uri else f"tcp://{uri}", item["backend"], tag)


def _frames(prefixes: Iterable[str]) -> list[bytes]:
    return [prefix.encode() for prefix in prefixes]
