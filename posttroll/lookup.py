"""Asking nameservers where a service is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from types import TracebackType
from typing import Literal, Self

from posttroll.backends.base import Peer, SubscribeChannel
from posttroll.backends.registry import configured_backend
from posttroll.errors import MessageError, RequestTimeout
from posttroll.message import Message
from posttroll.protocol.addresses import host_of, nameserver_uri
from posttroll.protocol.search import Entries, Search, merged, no_answer
from posttroll.protocol.topics import as_prefix
from posttroll.settings import read

__all__ = [
    "OTHERS_GRACE",
    "Inquiry",
    "Nameserver",
    "NameserverClient",
    "get_pub_address",
    "get_pub_addresses",
    "give_up",
    "open_feed",
]

logger = logging.getLogger(__name__)

_SUBJECT = "/oper/ns"
_FEED_TOPIC = as_prefix("/address").encode()

OTHERS_GRACE = 0.2
"""Seconds that other nameservers have to answer, too, once one did."""

Nameserver = str | Iterable[str] | Literal[False] | None
"""A host, ``host:port`` or ``tcp://host:port``, or several of them; nothing means this host."""


class Inquiry:
    """Connections to nameservers, the question to ask them and what their replies say; whoever waits for them."""

    def __init__(self, nameserver: Nameserver = "localhost") -> None:
        backend = configured_backend()
        names = [nameserver] if isinstance(nameserver, str) else nameserver
        _, port = backend.nameserver_ports()[0]
        self.peers = [Peer(nameserver_uri(name, port), backend.name) for name in dict.fromkeys(names or ["localhost"])]
        self.channel = backend.open_request(self.peers)

    @property
    def places(self) -> str:
        """Where the nameservers are, to be told."""
        return ", ".join(peer.uri for peer in self.peers)

    def question(self, service: str) -> bytes:
        """Return what to ask."""
        return Message(_SUBJECT, "request", {"service": service}).encode().encode()

    def entries(self, replies: Mapping[Peer, bytes], timeout: float) -> Entries:
        """Return what the replies that came in time say; `RequestTimeout` if there are none."""
        if not replies:
            raise no_answer(timeout, self.places)
        return merged(_entries(peer, reply) for peer, reply in replies.items())


class NameserverClient:
    """Asks one or several nameservers, over connections that are kept; `close` may come from any thread."""

    def __init__(self, nameserver: Nameserver = "localhost") -> None:
        self._inquiry = Inquiry(nameserver)
        self.peers, self.places = self._inquiry.peers, self._inquiry.places
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, service: str, timeout: float) -> Entries:
        """Return the entries of a service, of all with ""; `RequestTimeout` if no nameserver answers in time."""
        request = self._inquiry.question(service)
        return self._inquiry.entries(self._inquiry.channel.request(request, timeout, OTHERS_GRACE), timeout)

    def close(self) -> None:
        """Disconnect; harmless when closed."""
        self.closed = True
        self._inquiry.channel.close()


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


def _entries(peer: Peer, reply: bytes) -> Entries:
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


def get_pub_address(name: str, timeout: float = 10, nameserver: Nameserver = "localhost") -> Entries | Literal[""]:
    """Return the addresses that publish the service `name`, "" if there is none; `TimeoutError`.

    `nameserver`: one or several; what they know is put together, and one that does not answer delays none.
    """
    with NameserverClient(nameserver) as client:
        return client.ask(name, timeout) or ""


def get_pub_addresses(
    names: str | Iterable[str] | None = None, timeout: float = 10, nameserver: Nameserver = "localhost"
) -> Entries:
    """Return the addresses that publish the services `names` (None: all), asking for `timeout` seconds at most.

    It waits until there is one for each name, or the time is over; `TimeoutError` if no nameserver ever answered.
    """
    search = Search(names, timeout, time.monotonic())
    feed: SubscribeChannel | None = None
    with NameserverClient(nameserver) as client, _under_way(client), ExitStack() as resources:
        while timeout > 0:
            for name in search.missing():
                try:
                    search.answered(name, client.ask(name, search.left(time.monotonic())))
                except RequestTimeout:
                    if client.closed:
                        raise no_answer(timeout, client.places) from None
                    search.unanswered(client.places)
            if search.is_over(time.monotonic()):
                break
            if feed is None:
                feed = resources.enter_context(closing(open_feed(client.peers)))
            _await_news(feed, search)
    return search.entries()


def _await_news(feed: SubscribeChannel, search: Search) -> None:
    """Wait until the feed can be heard, tells of what is missing, or it is time to ask for that."""
    deadline = search.next_round(time.monotonic())
    while (left := deadline - time.monotonic()) > 0:
        received = feed.receive(left)
        if received is None or received.connected or search.concerns(received.frame):
            return
