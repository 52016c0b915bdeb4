"""Asking nameservers where a service is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from typing import Literal

from posttroll.asyncio.readiness import Readiness
from posttroll.asyncio.requests import Requests
from posttroll.asyncio.turns import Turn
from posttroll.backends.base import Peer, Received
from posttroll.errors import RequestTimeout
from posttroll.lookup import OTHERS_GRACE, Inquiry, Nameserver, open_feed
from posttroll.protocol.search import Entries, Search

__all__ = ["Feed", "Nameserver", "NameserverClient", "get_pub_address", "get_pub_addresses"]


class NameserverClient:
    """Asks one or several nameservers, over connections that are kept."""

    def __init__(self, nameserver: Nameserver = "localhost") -> None:
        self._inquiry = Inquiry(nameserver)
        self.peers, self.places = self._inquiry.peers, self._inquiry.places
        self._requests = Requests(self._inquiry.channel)

    async def ask(self, service: str, timeout: float) -> Entries:
        """Return the entries of a service, of all with ""; `RequestTimeout` if no nameserver answers in time."""
        replies = await self._requests.request(self._inquiry.question(service), timeout, OTHERS_GRACE)
        return self._inquiry.entries(replies, timeout)

    def close(self) -> None:
        """Disconnect; harmless when closed."""
        self._requests.close()


class Feed:
    """What tells which addresses come and go, heard in a loop."""

    def __init__(self, nameservers: Iterable[Peer]) -> None:
        self._channel = open_feed(nameservers)
        self._readiness = Readiness(self._channel.fileno, "a feed of addresses")
        self._turn = Turn()
        self.wake = self._channel.wake
        """Have the waiting task, or else the next one, go on at once; from any thread."""

    @property
    def closed(self) -> bool:
        """Whether nothing will be heard any more."""
        return self._channel.closed

    async def receive(self) -> Received | None:
        """Return what came, None if nothing did; gives others their turns, but does not wait."""
        await self._turn.give_way()
        return self._channel.receive(0)

    async def wait(self, until: float) -> None:
        """Wait until there may be something to receive, or until the monotonic time `until`; not when closed."""
        if not self._channel.closed:
            await self._readiness.wait(min(until, self._channel.next_timeout()))

    def close(self) -> None:
        """Disconnect; harmless when closed."""
        self._readiness.close()
        self._channel.close()


async def get_pub_address(
    name: str, timeout: float = 10, nameserver: Nameserver = "localhost"
) -> Entries | Literal[""]:
    """Return the addresses that publish the service `name`, "" if there is none; `TimeoutError`.

    `nameserver`: one or several; what they know is put together, and one that does not answer delays none.
    """
    with closing(NameserverClient(nameserver)) as client:
        return await client.ask(name, timeout) or ""


async def get_pub_addresses(
    names: str | Iterable[str] | None = None, timeout: float = 10, nameserver: Nameserver = "localhost"
) -> Entries:
    """Return the addresses that publish the services `names` (None: all), asking for `timeout` seconds at most.

    It waits until there is one for each name, or the time is over; `TimeoutError` if no nameserver ever answered.
    """
    search = Search(names, timeout, time.monotonic())
    feed: Feed | None = None
    with ExitStack() as resources:
        client = resources.enter_context(closing(NameserverClient(nameserver)))
        while timeout > 0:
            for name in search.missing():
                try:
                    search.answered(name, await client.ask(name, search.left(time.monotonic())))
                except RequestTimeout:
                    search.unanswered(client.places)
            if search.is_over(time.monotonic()):
                break
            if feed is None:
                feed = resources.enter_context(closing(Feed(client.peers)))
            await _await_news(feed, search)
    return search.entries()


async def _await_news(feed: Feed, search: Search) -> None:
    """Wait until the feed can be heard, tells of what is missing, or it is time to ask for that."""
    deadline = search.next_round(time.monotonic())
    while time.monotonic() < deadline:
        received = await feed.receive()
        if received is None:
            await feed.wait(deadline)
        elif received.connected or search.concerns(received.frame):
            return
