"""Asking nameservers where a service is."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from posttroll.backends.base import Peer, SubscribeChannel
from posttroll.backends.registry import configured_backend
from posttroll.errors import MessageError, RequestTimeout
from posttroll.message import Message
from posttroll.protocol.addresses import host_of, nameserver_uri
from posttroll.protocol.topics import as_prefix
from posttroll.settings import read

__all__ = ["Nameserver", "NameserverClient", "get_pub_address", "get_pub_addresses", "give_up", "open_feed"]

logger = logging.getLogger(__name__)

_SUBJECT = "/oper/ns"
_FEED_TOPIC = as_prefix("/address").encode()
_OTHER_NAMESERVERS_GRACE = 0.2
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

Nameserver = str | Iterable[str] | Literal[False] | None
"""A host, ``host:port`` or ``tcp://host:port``, or several of them; nothing means this host."""


class NameserverClient:
    """Asks one or several nameservers, over connections that are kept; `close` may come from any thread."""

    def __init__(self, nameserver: Nameserver = "localhost") -> None:
        backend = configured_backend()
        names = [nameserver] if isinstance(nameserver, str) else nameserver
        _, port = backend.nameserver_ports()[0]
        self.peers = [Peer(nameserver_uri(name, port), backend.name) for name in dict.fromkeys(names or ["localhost"])]
        self._channel = backend.open_request(self.peers)
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, service: str, timeout: float) -> list[dict[str, Any]]:
        """Return the entries of a service, of all with ""; `RequestTimeout` if no nameserver answers in time."""
        request = Message(_SUBJECT, "request", {"service": service}).encode().encode()
        replies = self._channel.request(request, timeout, _OTHER_NAMESERVERS_GRACE)
        if not replies:
            raise RequestTimeout(f"Didn't get an address after {timeout:g} seconds.")
        return list(
            {entry["URI"]: entry for peer, reply in replies.items() for entry in _entries(peer, reply)}.values()
        )

    def close(self) -> None:
        """Disconnect; harmless when closed."""
        self.closed = True
        self._channel.close()


def open_feed(nameservers: Iterable[Peer]) -> SubscribeChannel:
    """Return a channel that tells which addresses come and go, and when it can hear of that."""
    backend, port = configured_backend(), read("address_publish_port")
    feed = backend.open_subscribe()
    try:
        for peer in nameservers:
            feed.connect(Peer(f"tcp://{host_of(peer.uri)}:{port}", backend.name), [_FEED_TOPIC], tell_connected=True)
    except BaseException:
        feed.close()
        raise
    return feed


def _entries(peer: Peer, reply: bytes) -> list[dict[str, Any]]:
    """Return the usable entries of a reply."""
    try:
        data = Message.decode(reply).data
    except MessageError as error:
        logger.warning("nameserver %s gave an unusable reply: %s", peer.uri, error)
        return []
    if not isinstance(data, list):
        return []
    return [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("URI"), str)]


_clients: dict[int, NameserverClient] = {}


@contextmanager
def _under_way(client: NameserverClient) -> Iterator[None]:
    """Have `give_up` in another thread find the client that this one waits for."""
    thread = threading.get_ident()
    _clients[thread] = client
    try:
        yield
    finally:
        _clients.pop(thread, None)


def give_up(thread: int) -> None:
    """Make `get_pub_addresses`, if it is under way in that thread, raise `RequestTimeout` at once."""
    client = _clients.get(thread)
    if client is not None:
        client.close()


def get_pub_address(
    name: str, timeout: float = 10, nameserver: Nameserver = "localhost"
) -> list[dict[str, Any]] | Literal[""]:
    """Return the addresses that publish the service `name`, "" if there is none; `TimeoutError`.

    `nameserver`: one or several; what they know is put together, and one that does not answer delays none.
    """
    with NameserverClient(nameserver) as client:
        return client.ask(name, timeout) or ""


def get_pub_addresses(
    names: str | Iterable[str] | None = None, timeout: float = 10, nameserver: Nameserver = "localhost"
) -> list[dict[str, Any]]:
    """Return the addresses that publish the services `names` (None: all), asking for `timeout` seconds at most.

    It waits until there is one for each name, or the time is over; `TimeoutError` if no nameserver ever answered.
    """
    wanted = [""] if names is None else [names] if isinstance(names, str) else list(names)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    deadline = time.monotonic() + timeout
    has_answered = False
    pause, longest_pause = _FIRST_PAUSE, min(timeout / 20, _LONGEST_PAUSE)
    feed: SubscribeChannel | None = None
    with NameserverClient(nameserver) as client, _under_way(client), ExitStack() as resources:
        while timeout > 0:
            for name in [name for name, entries in found.items() if not entries]:
                try:
                    found[name] = client.ask(name, max(0.0, deadline - time.monotonic()))
                    has_answered = True
                except RequestTimeout:
                    if client.closed or not has_answered:
                        raise RequestTimeout(f"Didn't get an address after {timeout:g} seconds.") from None
            left = deadline - time.monotonic()
            if all(found.values()) or left <= 0:
                break
            if feed is None:
                feed = resources.enter_context(closing(open_feed(client.peers)))
            pause = min(2 * pause, longest_pause)
            _await_news(feed, [name for name, entries in found.items() if not entries], min(pause, left))
    return list({entry["URI"]: entry for entries in found.values() for entry in entries}.values())


def _await_news(feed: SubscribeChannel, names: Iterable[str], timeout: float) -> None:
    """Wait until the feed can be heard, or tells of one of the services; `timeout` seconds at most."""
    wanted = [json.dumps(name).encode() if name else b"" for name in names]
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        received = feed.receive(left)
        if received is None or received.connected or any(name in received.frame for name in wanted):
            return
