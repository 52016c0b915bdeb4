"""Repeating a message to everybody around, or to named receivers: how publishers announce themselves."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from posttroll.backends.base import Backend, DatagramSender, Peer
from posttroll.backends.registry import configured_backend
from posttroll.bbmcast import MulticastSender, get_configured_broadcast_port, is_missing_network
from posttroll.errors import ConfigurationError, PosttrollError
from posttroll.message import Message
from posttroll.protocol.addresses import PublisherAddress, nameserver_uri
from posttroll.protocol.codec import NEWEST_VERSION
from posttroll.protocol.discovery import ANNOUNCEMENT, GOODBYE, MAX_DATAGRAM, Announcer, announcement_subject
from posttroll.protocol.drops import Drops
from posttroll.threads import Worker

__all__ = [
    "REPLY_TIMEOUT",
    "AddressBroadcaster",
    "AddressServiceBroadcaster",
    "Broadcaster",
    "DesignatedReceiversSender",
    "MessageBroadcaster",
    "Receivers",
    "ServiceBroadcaster",
    "sendaddress",
    "sendaddressservice",
]

logger = logging.getLogger(__name__)

_REPLY_GRACE = 0.2
_GOODBYE_TIMEOUT = 0.1
_READ_BY_ALL = 1024

REPLY_TIMEOUT = 1.0
"""Seconds that receivers have to reply."""


class _Closable(Protocol):
    def close(self) -> None: ...


class _Worker(Protocol):
    @property
    def stopping(self) -> bool: ...

    def start(self) -> object: ...

    def is_alive(self) -> bool: ...


Sender = TypeVar("Sender", bound=_Closable)
Runner = TypeVar("Runner", bound=_Worker)


class Receivers:
    """Connections to named receivers, and what is told of their replies; whoever waits for them."""

    def __init__(
        self, default_port: int, receivers: str | Iterable[str], timeout: float, backend: Backend | None
    ) -> None:
        backend = backend or configured_backend()
        names = [receivers] if isinstance(receivers, str) else receivers
        self._peers = [Peer(nameserver_uri(name, default_port), backend.name) for name in dict.fromkeys(names)]
        self._troubles = Drops()
        self.channel = backend.open_request(self._peers)
        self.timeout = timeout
        self.grace = min(_REPLY_GRACE, timeout)

    def judge(self, replies: Mapping[Peer, bytes]) -> None:
        """Tell of those who did not reply, or did not accept what was sent."""
        for peer in self._peers:
            reply = replies.get(peer)
            if reply is None:
                self._tell(peer, "does not answer to")
            elif reply != b"ok":
                self._tell(peer, "does not accept", reply)

    def _tell(self, peer: Peer, trouble: str, reply: bytes = b"") -> None:
        if self._troubles.add(f"{peer.uri} {trouble}", time.monotonic()):
            logger.warning(
                "nameserver %s %s the announcement %s", peer.uri, trouble, reply[:60].decode(errors="replace")
            )


class DesignatedReceiversSender:
    """Sends to named receivers, all at once, over connections that are kept; can be closed from any thread."""

    def __init__(
        self,
        default_port: int,
        receivers: str | Iterable[str],
        timeout: float = REPLY_TIMEOUT,
        backend: Backend | None = None,
    ) -> None:
        self._receivers = Receivers(default_port, receivers, timeout, backend)

    def __call__(self, data: str | bytes) -> None:
        """Send, and wait a short while for the replies."""
        frame = data.encode() if isinstance(data, str) else data
        receivers = self._receivers
        receivers.judge(receivers.channel.request(frame, receivers.timeout, receivers.grace))

    def close(self) -> None:
        """Close; harmless when closed."""
        self._receivers.channel.close()


class Broadcaster(ABC, Generic[Sender, Runner]):
    """What is repeated, when, and by which sender; those who derive from it wait."""

    def __init__(
        self,
        msg: str | Message,
        port: int,
        interval: float,
        designated_receivers: str | Iterable[str] | None = None,
        *,
        name: str = "",
        goodbye: str | Message | None = None,
    ) -> None:
        self._port = port
        self._receivers = _as_list(designated_receivers)
        self._announcer = Announcer(str(msg), None if goodbye is None else str(goodbye), interval)
        self._active = interval > 0
        self._sender: Sender | None = None
        self._troubles = Drops()
        self._backend = configured_backend()
        self._started = False
        self._worker = self._make_worker(f"posttroll-announce-{name}")
        if self._active and not self._receivers:
            _check_length(str(msg), name)

    def start(self) -> Self:
        """Begin to send; raises what cannot get better with time, such as an invalid multicast group."""
        if self._active and not self._started and not self._worker.stopping:
            self._begin()
            self._started = True
            self._worker.start()
        return self

    def is_running(self) -> bool:
        """Return whether it repeats the message."""
        return self._worker.is_alive()

    @abstractmethod
    def _make_worker(self, name: str) -> Runner:
        """Return who repeats the message when it is started."""

    @abstractmethod
    def _open_sender(self, timeout: float = REPLY_TIMEOUT) -> Sender:
        """Return what sends, and waits so long for replies if there are any."""

    def _open_multicast(self) -> DatagramSender:
        opener = self._backend.announce_with(self._port)
        return MulticastSender(self._port) if opener is None else opener()

    def _begin(self) -> None:
        """Open the sender, unless there is no network yet."""
        try:
            self._sender = self._open_sender()
        except OSError as error:
            if not is_missing_network(error):
                raise
            self._tell(error)

    def _update(self) -> None:
        """Replace the message if it is no longer right."""

    def _ready_sender(self) -> Sender:
        if self._sender is None:
            self._sender = self._open_sender()
        return self._sender

    def _ready_goodbye_sender(self) -> Sender:
        if self._receivers:
            self._close_sender()
            self._sender = self._open_sender(_GOODBYE_TIMEOUT)
        return self._ready_sender()

    def _close_sender(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _tell(self, error: Exception) -> None:
        if self._troubles.add(type(error).__name__, time.monotonic()):
            logger.warning("cannot announce, will try again: %s", error)


class MessageBroadcaster(Broadcaster[DatagramSender, Worker]):
    """Repeats a message every `interval` seconds from a thread of its own, and more often at first.

    It goes by multicast to `port`, or to the `designated_receivers`. With an `interval` of 0 or less nothing is sent.
    At the stop `goodbye` is sent, once. Cannot be started again.
    """

    def stop(self) -> MessageBroadcaster:
        """End sending; harmless before the start and when stopped."""
        # The child of a fork has no such thread, and must not say goodbye for its parent.
        was_running = self.is_running()
        self._worker.stop()
        goodbye = self._announcer.stopped()
        if was_running and goodbye is not None:
            self._say(goodbye)
        self._close_sender()
        return self

    def _make_worker(self, name: str) -> Worker:
        return Worker(name, self._run, wake=self._break_off)

    def _run(self, worker: Worker) -> None:
        while (deadline := self._announcer.next_timeout()) is not None:
            if worker.wait(max(0.0, deadline - time.monotonic())):
                return
            self._update()
            if text := self._announcer.due(time.monotonic()):
                self._send(text, worker)

    def _send(self, text: str, worker: Worker) -> None:
        try:
            sender = self._ready_sender()
            if not worker.stopping:
                sender(text)
        except (OSError, PosttrollError) as error:
            if not worker.stopping:
                self._tell(error)
            # A sender may be tied to an interface that is gone.
            self._close_sender()

    def _say(self, goodbye: str) -> None:
        try:
            self._ready_goodbye_sender()(goodbye)
        except (OSError, PosttrollError) as error:
            logger.debug("no goodbye: %s", error)

    def _open_sender(self, timeout: float = REPLY_TIMEOUT) -> DatagramSender:
        if self._receivers:
            return DesignatedReceiversSender(self._port, self._receivers, timeout, self._backend)
        return self._open_multicast()

    def _break_off(self) -> None:
        """End a request under way; datagrams do not have to be waited for."""
        if self._receivers:
            self._close_sender()


class AddressBroadcaster(MessageBroadcaster):
    """Announces a (host, port)."""

    def __init__(
        self, name: str, address: tuple[str, int], interval: float, nameservers: str | Iterable[str] | None = None
    ) -> None:
        host, port = address
        super().__init__(
            Message(announcement_subject(name), ANNOUNCEMENT, {"URI": f"{host}:{port}"}),
            get_configured_broadcast_port(),
            interval,
            nameservers,
            name=name,
        )


class ServiceBroadcaster(Broadcaster[Sender, Runner]):
    """Announces that a publisher of one or more services is at an address; says goodbye at the stop.

    An `address` that can change is given as a function, which is asked before each announcement. `extra` returns what
    else is to be said of a publisher at an address.
    """

    def __init__(
        self,
        name: str,
        address: str | Callable[[], str],
        data_type: str | Sequence[str],
        interval: float = 2,
        nameservers: str | Iterable[str] | None = None,
        extra: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._subject = announcement_subject(name)
        self._extra = extra or (lambda _: {})
        self._services = tuple(_as_list(data_type))
        self._find_address = address if callable(address) else lambda: address
        self._address = self._find_address()
        announcement, goodbye = self._texts()
        super().__init__(
            announcement, get_configured_broadcast_port(), interval, nameservers, name=name, goodbye=goodbye
        )

    def _texts(self) -> tuple[str, str]:
        """Return the announcement and the goodbye."""
        backend, extra = configured_backend().name, self._extra(self._address)
        address = PublisherAddress(self._address, self._services, backend, NEWEST_VERSION, extra=extra)
        goodbye = {"URI": self._address, "service": list(self._services)}
        return (
            Message(self._subject, ANNOUNCEMENT, address.as_data()).encode(),
            Message(self._subject, GOODBYE, goodbye).encode(),
        )

    def _update(self) -> None:
        before, self._address = self._address, self._find_address()
        if self._address != before:
            self._announcer.replace(*self._texts())


class AddressServiceBroadcaster(ServiceBroadcaster[DatagramSender, Worker], MessageBroadcaster):
    """A `ServiceBroadcaster` with a thread of its own."""


sendaddress = AddressBroadcaster
sendaddressservice = AddressServiceBroadcaster


def _as_list(texts: str | Iterable[str] | None) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts or ())


def _check_length(text: str, name: str) -> None:
    size = len(text.encode())
    if size > MAX_DATAGRAM:
        raise ConfigurationError(
            f"the announcement of {name!r} takes {size} bytes, a datagram {MAX_DATAGRAM}; give it fewer aliases"
        )
    if size > _READ_BY_ALL:
        logger.warning(
            "the announcement of %r takes %d bytes; nameservers of older releases read %d", name, size, _READ_BY_ALL
        )
