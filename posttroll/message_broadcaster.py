"""Repeating a message to everybody around, or to named receivers: how publishers announce themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
    "AddressBroadcaster",
    "AddressServiceBroadcaster",
    "DesignatedReceiversSender",
    "MessageBroadcaster",
    "sendaddress",
    "sendaddressservice",
]

logger = logging.getLogger(__name__)

_REPLY_TIMEOUT = 1.0
_REPLY_GRACE = 0.2
_GOODBYE_TIMEOUT = 0.1
_READ_BY_ALL = 1024


class DesignatedReceiversSender:
    """Sends to named receivers, all at once, over connections that are kept; can be closed from any thread."""

    def __init__(
        self,
        default_port: int,
        receivers: str | Iterable[str],
        timeout: float = _REPLY_TIMEOUT,
        backend: Backend | None = None,
    ) -> None:
        backend = backend or configured_backend()
        names = [receivers] if isinstance(receivers, str) else receivers
        self._peers = [Peer(nameserver_uri(name, default_port), backend.name) for name in dict.fromkeys(names)]
        self._channel = backend.open_request(self._peers)
        self._timeout = timeout
        self._troubles = Drops()

    def __call__(self, data: str | bytes) -> None:
        """Send, and wait a short while for the replies."""
        frame = data.encode() if isinstance(data, str) else data
        replies = self._channel.request(frame, self._timeout, grace=min(_REPLY_GRACE, self._timeout))
        for peer in self._peers:
            reply = replies.get(peer)
            if reply is None:
                self._tell(peer, "does not answer to")
            elif reply != b"ok":
                self._tell(peer, "does not accept", reply)

    def close(self) -> None:
        """Close; harmless when closed."""
        self._channel.close()

    def _tell(self, peer: Peer, trouble: str, reply: bytes = b"") -> None:
        if self._troubles.add(f"{peer.uri} {trouble}", time.monotonic()):
            logger.warning(
                "nameserver %s %s the announcement %s", peer.uri, trouble, reply[:60].decode(errors="replace")
            )


class MessageBroadcaster:
    """Repeats a message every `interval` seconds from a thread of its own, and more often at first.

    It goes by multicast to `port`, or to the `designated_receivers`. With an `interval` of 0 or less nothing is sent.
    At the stop `goodbye` is sent, once. Cannot be started again.
    """

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
        self._sender: DatagramSender | None = None
        self._troubles = Drops()
        self._backend = configured_backend()
        self._worker = Worker(f"posttroll-announce-{name}", self._run, wake=self._break_off)
        self._started = False
        if self._active and not self._receivers:
            _check_length(str(msg), name)

    def start(self) -> MessageBroadcaster:
        """Begin to send; raises what cannot get better with time, such as an invalid multicast group."""
        if self._active and not self._started:
            try:
                self._sender = self._open_sender()
            except OSError as error:
                if not is_missing_network(error):
                    raise
                self._tell(error)
            self._started = True
            self._worker.start()
        return self

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

    def is_running(self) -> bool:
        """Return whether it repeats the message."""
        return self._worker.is_alive()

    def _run(self, worker: Worker) -> None:
        while (deadline := self._announcer.next_timeout()) is not None:
            if worker.wait(max(0.0, deadline - time.monotonic())):
                return
            self._update()
            if text := self._announcer.due(time.monotonic()):
                self._send(text, worker)

    def _update(self) -> None:
        """Replace the message if it is no longer right."""

    def _send(self, text: str, worker: Worker) -> None:
        try:
            if self._sender is None:
                self._sender = self._open_sender()
            if not worker.stopping:
                self._sender(text)
        except (OSError, PosttrollError) as error:
            if not worker.stopping:
                self._tell(error)
            # A sender may be tied to an interface that is gone.
            self._close_sender()
            self._sender = None

    def _say(self, goodbye: str) -> None:
        try:
            if self._sender is None or self._receivers:
                self._sender = self._open_sender(_GOODBYE_TIMEOUT)
            self._sender(goodbye)
        except (OSError, PosttrollError) as error:
            logger.debug("no goodbye: %s", error)

    def _open_sender(self, timeout: float = _REPLY_TIMEOUT) -> DatagramSender:
        if self._receivers:
            return DesignatedReceiversSender(self._port, self._receivers, timeout, self._backend)
        opener = self._backend.announce_with(self._port)
        return MulticastSender(self._port) if opener is None else opener()

    def _break_off(self) -> None:
        """End a request under way; datagrams do not have to be waited for."""
        if self._receivers:
            self._close_sender()

    def _close_sender(self) -> None:
        sender = self._sender
        if sender is not None:
            sender.close()

    def _tell(self, error: Exception) -> None:
        if self._troubles.add(type(error).__name__, time.monotonic()):
            logger.warning("cannot announce, will try again: %s", error)


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


class AddressServiceBroadcaster(MessageBroadcaster):
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
        self._name = name
        self._extra = extra or (lambda _: {})
        self._services = tuple(_as_list(data_type))
        self._find_address = address if callable(address) else lambda: address
        self._address = self._find_address()
        self._backend_name = configured_backend().name
        announcement, goodbye = self._texts()
        super().__init__(
            announcement, get_configured_broadcast_port(), interval, nameservers, name=name, goodbye=goodbye
        )

    def _texts(self) -> tuple[str, str]:
        """Return the announcement and the goodbye."""
        subject = announcement_subject(self._name)
        address = PublisherAddress(
            self._address,
            self._services,
            self._backend_name,
            NEWEST_VERSION,
            extra=self._extra(self._address),
        )
        goodbye = {"URI": self._address, "service": list(self._services)}
        return Message(subject, ANNOUNCEMENT, address.as_data()).encode(), Message(subject, GOODBYE, goodbye).encode()

    def _update(self) -> None:
        address = self._find_address()
        if address != self._address:
            self._address = address
            self._announcer.replace(*self._texts())


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
