"""Receiving messages, from given addresses or from whoever publishes a service."""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import resource
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol

from posttroll.address_listener import AddressListener as _AddressListener
from posttroll.backends.base import Batch, Peer
from posttroll.backends.registry import configured_backend, find_backend
from posttroll.errors import ConfigurationError, TransportError
from posttroll.lookup import get_pub_address, get_pub_addresses, give_up
from posttroll.message import CURRENT_MESSAGE_VERSION, Message
from posttroll.protocol.delivery import Delivery
from posttroll.protocol.topics import as_prefixes
from posttroll.settings import read

__all__ = [
    "NSSubscriber",
    "Subscribe",
    "Subscriber",
    "create_subscriber_from_dict_config",
    "get_pub_address",
    "get_pub_addresses",
]

logger = logging.getLogger(__name__)

Address = str | Mapping[str, Any]
Callback = Callable[[Message], object]
Nameserver = str | Iterable[str]

_LEAVING_SILENCE = 1.0
_NO_MORE: Any = object()
_NO_ROOM = (errno.EMFILE, errno.ENFILE)
_SHARE_OF_DESCRIPTORS = 3
_NAMESERVER_ONLY = ("nameserver", "port", "services", "addr_listener", "timeout")
_NAMESERVER_DEFAULTS = {
    "services": "",
    "topics": "pytroll:/",
    "addr_listener": False,
    "addresses": None,
    "timeout": 10,
    "translate": False,
}


class _Stoppable(Protocol):
    def stop(self) -> None: ...


class Subscriber:
    """Receives from publishers at known addresses.

    An address is a text or a dict with ``URI`` and perhaps ``backend``, as nameservers give it. `topics` are the
    beginnings of the subjects wanted, one or several. `message_filter` is called with each message, and those it
    returns something false for are dropped. `translate` replaces the host in the sender by that of the address.
    """

    def __init__(
        self,
        addresses: Address | Iterable[Address],
        topics: str | Iterable[str] = "",
        message_filter: Callable[[Message], object] | None = None,
        translate: bool = False,
    ) -> None:
        self._backend = configured_backend()
        self._topics = _frames(as_prefixes(topics))
        max_size = read("max_message_size")
        self._delivery = Delivery(functools.partial(Message.decode, max_size=max_size), message_filter, translate)
        self._addresses: dict[str, dict[str, Any]] = {}
        self._hooks: dict[Peer, Callback] = {}
        self._hook_numbers = itertools.count(1)
        self._helpers: list[_Stoppable] = []
        self._running: bool | None = None
        self._arrived: Iterator[Message | None] = iter(())
        self._channel = self._backend.open_subscribe()
        try:
            self.update(addresses)
        except BaseException:
            self._channel.close()
            raise

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

    def add(self, address: Address, topics: str | Iterable[str] | None = None) -> None:
        """Connect to one more address, for the same topics or others; a known one stays as it is."""
        item = _as_dict(address, self._backend.name)
        if item["URI"] not in self._addresses:
            frames = self._topics if topics is None else _frames(as_prefixes(topics))
            self._channel.connect(_peer(item), frames)
            self._addresses[item["URI"]] = item
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
            self._channel.disconnect(_peer(item), linger)
            logger.debug("disconnected from %s", item["URI"])

    def update(self, addresses: Address | Iterable[Address]) -> bool:
        """Connect and disconnect so that exactly these addresses remain; return whether anything changed."""
        wanted = {item["URI"]: item for item in (_as_dict(one, self._backend.name) for one in _as_list(addresses))}
        added = wanted.keys() - self._addresses.keys()
        removed = self._addresses.keys() - wanted.keys()
        for uri in removed:
            self.remove(uri)
        for uri, item in wanted.items():
            if uri in added:
                self.add(item)
        return bool(added or removed)

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

    def recv(self, timeout: float | None = None) -> Iterator[Message | None]:
        """Yield messages, and None whenever `timeout` seconds pass without one (None: never); end when closed.

        What cannot be decoded is counted in `drops`, logged, and does not end the loop.
        """
        if self._running is None:
            self._running = True
        while self._running:
            message = self._next(timeout)
            if not self._running or (message is None and self._channel.closed):
                return
            yield message

    def __call__(self, **kwargs: Any) -> Iterator[Message | None]:
        """Do the same as `recv`."""
        return self.recv(**kwargs)

    def _next(self, timeout: float | None) -> Message | None:
        """Return the next message for the application; the time that others take counts, too."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # Asked for anew each time, as a hook may receive meanwhile, and begin another batch.
            while (message := next(self._arrived, _NO_MORE)) is not _NO_MORE:
                if message is not None:
                    return message
                if not self._running or (deadline is not None and time.monotonic() >= deadline):
                    return None
            batch = self._channel.receive_batch(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if batch is None:
                return None
            self._arrived = self._accept(batch)

    def _accept(self, batch: Batch) -> Iterator[Message | None]:
        """Return what decodes each frame when it is asked for, and gives None for those that go to a hook."""
        source = itertools.repeat(batch.peer.uri), itertools.repeat(time.monotonic())
        callback = self._hooks.get(batch.peer)
        if callback is None:
            return map(self._delivery.accept, batch.frames, *source)
        return map(self._delivery.call, itertools.repeat(callback), batch.frames, *source)

    def stop(self) -> None:
        """Disconnect from all and end `recv`, from any thread; harmless when stopped."""
        self._running = False
        try:
            for helper in self._helpers:
                helper.stop()
        finally:
            self._channel.close()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()

    def meet(self, entry: Address) -> bool:
        """Connect to an address that a nameserver gave, unless it cannot or may not be used.

        Return False if there is no room for it now, so that it is worth another try later.
        """
        try:
            item = _as_dict(entry, self._backend.name)
            if item["URI"] not in self._addresses:
                self._check_discovered(item)
                self.add(item)
        except (ConfigurationError, TransportError, KeyError, TypeError, ValueError, NotImplementedError) as error:
            if self._delivery.drops.add("address refused", time.monotonic()):
                logger.warning("address from the nameserver refused: %.200s: %.200s", entry, error)
            return getattr(error, "errno", None) not in _NO_ROOM
        return True

    def _check_discovered(self, item: Mapping[str, Any]) -> None:
        version = str(item.get("supported_message_version", CURRENT_MESSAGE_VERSION))
        if version > CURRENT_MESSAGE_VERSION:
            raise ConfigurationError(f"it writes messages of version {version!r}, newer than {CURRENT_MESSAGE_VERSION}")
        if find_backend(item["backend"]).strength < self._backend.strength:
            raise ConfigurationError(f"backend {item['backend']} is weaker than the configured {self._backend.name}")
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = min(read("max_connections"), descriptors // _SHARE_OF_DESCRIPTORS)
        if len(self._addresses) >= limit:
            reason = f"{limit} connections are open (setting max_connections; limit of open files {descriptors})"
            raise TransportError(errno.EMFILE, reason)


class NSSubscriber:
    """Receives from all who publish one of the services, as a nameserver knows them.

    `services`: a name or several; "" means all, None no one. `addr_listener`: also connect to those who come later,
    and survive a nameserver that is away. `addresses`: more addresses to connect to. `timeout`: seconds to look for
    each service. `nameserver`: its host, or ``tcp://host:port``, or several of them, whose answers are merged.
    """

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
    ) -> None:
        self._services = _as_list(services)
        self._topics = topics
        self._wants_listener = addr_listener
        self._addresses = _as_list(addresses)
        self._timeout = timeout
        self._translate = translate
        self._nameserver = nameserver
        self._filter = message_filter
        self._subscriber: Subscriber | None = None
        self._starting: int | None = None

    def start(self) -> Subscriber:
        """Return a `Subscriber` that is connected to what was found.

        A nameserver that does not answer raises `TimedOut`; with an address listener it is looked for in the
        background instead.
        """
        self.stop()
        subscriber = Subscriber(self._addresses, self._topics, message_filter=self._filter, translate=self._translate)
        self._subscriber = subscriber
        try:
            if self._wants_listener and self._services:
                listener = _AddressListener(subscriber, self._services, self._nameserver)
                subscriber._helpers.append(listener)
                listener.start()
            self._starting = threading.get_ident()
            self._look_up(subscriber)
        except BaseException:
            self.stop()
            raise
        finally:
            self._starting = None
        return subscriber

    def _look_up(self, subscriber: Subscriber) -> None:
        for service in self._services:
            if subscriber.running is False:
                return
            try:
                found = get_pub_addresses(service, self._timeout, self._nameserver)
            except TimeoutError as error:
                if not self._wants_listener:
                    raise
                logger.warning("nameserver %s does not answer, still looking for it: %s", self._nameserver, error)
                return
            if not found:
                logger.warning("no publisher of %r found", service)
            for entry in found or ():
                subscriber.meet(entry)

    def stop(self) -> None:
        """Stop the subscriber, or end a `start` under way in another thread; harmless when stopped."""
        if self._starting is not None:
            give_up(self._starting)
        if self._subscriber is not None:
            self._subscriber.stop()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


class Subscribe:
    """A subscriber for a ``with`` block, of the class that the arguments ask for: see `NSSubscriber` for them.

    With addresses and ``nameserver=False`` no nameserver is asked. The connections are there after construction.
    """

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
        self.subscriber = create_subscriber_from_dict_config(settings)

    def __enter__(self) -> Subscriber:
        return self.subscriber

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.subscriber.stop()


def create_subscriber_from_dict_config(settings: Mapping[str, Any]) -> Subscriber:
    """Return the connected subscriber that a dict of settings describes, which are the arguments of the two classes.

    A `Subscriber` if ``addresses`` are given and ``nameserver`` is False, else what an `NSSubscriber` gives, which
    ignores items it does not know.
    """
    if settings.get("addresses") and settings.get("nameserver") is False:
        return Subscriber(**{key: value for key, value in settings.items() if key not in _NAMESERVER_ONLY})
    arguments = {key: settings.get(key, default) for key, default in _NAMESERVER_DEFAULTS.items()}
    if settings.get("message_filter") is not None:
        arguments["message_filter"] = settings["message_filter"]
    return NSSubscriber(**arguments, nameserver=settings.get("nameserver") or "localhost").start()


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


def _peer(item: Mapping[str, Any], tag: str = "") -> Peer:
    uri = item["URI"]
    return Peer(uri if "://" in uri else f"tcp://{uri}", item["backend"], tag)


def _frames(prefixes: Iterable[str]) -> list[bytes]:
    return [prefix.encode() for prefix in prefixes]
