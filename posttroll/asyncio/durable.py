"""Durable publishing and subscribing in a loop."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from posttroll import durable
from posttroll.asyncio.driving import Driver
from posttroll.asyncio.side_thread import LoopCalls, SideThread
from posttroll.backends.base import Backend, Peer
from posttroll.durable import State, consumer_receivers, outcome, peers_by_journal, replay_receivers
from posttroll.errors import JournalError, NotStarted, TimedOut
from posttroll.journal.base import Journal
from posttroll.links import LinkClient
from posttroll.protocol.frames import ACCEPTED
from posttroll.protocol.link import Delivery
from posttroll.settings import Ports

__all__ = ["Inbox", "Outbox", "open_outbox", "replay"]


class Outbox:
    """As `posttroll.durable.Outbox`; what touches the disk is done in a thread beside, in the order it was asked for.

    Made by `open_outbox`.
    """

    def __init__(self, outbox: durable.Outbox, side: SideThread, expiries: LoopCalls) -> None:
        self.journal = outbox.journal
        self.address = outbox.address
        self._outbox = outbox
        self._side = side
        self._expiries = expiries

    async def send(self, frame: bytes, ttl: float | None, publish: Callable[[bytes], bool]) -> bool:
        """Keep a frame, for consumers that come for it within `ttl` seconds, and `publish` it; return its result.

        `publish` is called in the thread. Cancelled before it began, nothing is kept or published; cancelled meanwhile,
        both are. `ValueError`, `JournalError`, also when stopped before it began.
        """
        try:
            return await self._side.call(self._outbox.send, frame, ttl, publish)
        except NotStarted:
            raise JournalError(f"the journal of what is published at {self.address} is closed") from None

    async def beat(self, publish: Callable[[Mapping[str, Any]], object]) -> None:
        """Have a heartbeat published, in the thread, with what plain subscribers need to know of what was sent."""
        await self._side.call(self._outbox.beat, publish)

    async def stop(self) -> None:
        """Serve no more and close the journal; harmless when stopped. Cancelled, both are done soon by themselves.

        Waits for a `publish` under way: the channel is to be closed first if that can wait for room.
        """
        self._expiries.close()
        await self._side.stop(self._outbox.stop)


async def open_outbox(
    open_journal: Callable[[], Journal],
    backend: Backend,
    address: str,
    ports: Ports,
    link_port: int,
    name: str,
    on_expired: Callable[[str, int], None],
    max_deliveries: int,
) -> Outbox:
    """Return the outbox of a publisher at `address`, with the journal that `open_journal` opens in a thread beside.

    `on_expired` is called in the loop. Cancelled, all is closed again.
    """
    side = SideThread(f"posttroll-journal-{name}")
    expiries = LoopCalls(asyncio.get_running_loop())
    opened: list[durable.Outbox] = []

    def tell_expired(consumer: str, count: int) -> None:
        expiries.add(on_expired, consumer, count)

    def open_it() -> None:
        journal = open_journal()
        opened.append(durable.Outbox(journal, backend, address, ports, link_port, name, tell_expired, max_deliveries))

    def close_it() -> None:
        for outbox in opened:
            outbox.stop()

    try:
        await side.call(open_it)
    except BaseException:
        await side.stop(close_it)
        raise
    return Outbox(opened[0], side, expiries)


class Inbox:
    """As `posttroll.durable.Inbox`, but driven by a task; `on_news` is called in the loop. No method waits.

    The task is started by the first `connect` in a running loop, else by `start`.
    """

    def __init__(
        self,
        backend: Backend,
        consumer: str,
        topics: Iterable[str],
        on_news: Callable[[], None],
        start_at: str | dt.datetime = "new",
    ) -> None:
        make_receiver = consumer_receivers(consumer, topics, start_at)
        channel = backend.open_links(None, Ports.read())
        self._client = LinkClient(channel, consumer, make_receiver, on_news)
        self._driver = Driver(self._client, channel)
        self.start, self.stop, self.close = self._driver.start, self._driver.stop, self._driver.close
        self.part, self.disconnect, self.take = self._client.part, self._client.disconnect, self._client.take

    def connect(self, peer: Peer, journal: str) -> None:
        """Attach to a journal whose publisher is at an address; if it is attached, look for it there too."""
        self._client.connect(peer, journal)
        with suppress(RuntimeError):  # no loop runs yet
            self.start()

    def settle(self, delivery: Delivery, state: State, reason: str = "") -> bool:
        """Tell the publisher what became of a delivery; return False if it is no longer this consumer's."""
        return self._client.settle(delivery, outcome(state, reason))


async def replay(
    backend: Backend,
    links: Iterable[tuple[Peer, str]],
    topics: Iterable[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
    timeout: float,
) -> AsyncGenerator[Delivery, None]:
    """Give what journals still hold, from `since` until before `until`, one journal after the other.

    `TimedOut` when nothing came for `timeout` seconds before the end. The iterator has an ``aclose()``, which closes
    the link; so do its end, an error and its cancellation.
    """
    make_receiver = replay_receivers(topics, since, until)
    for journal, places in peers_by_journal(links).items():
        news = asyncio.Event()
        channel = backend.open_links(None, Ports.read())
        client = LinkClient(channel, "replay", make_receiver, news.set)
        driver = Driver(client, channel)
        try:
            for peer in places:
                client.connect(peer, journal)
            driver.start()
            while client.is_attached_to_any:
                news.clear()
                while (delivery := client.take()) is not None:
                    yield delivery
                    client.settle(delivery, ACCEPTED)
                if client.is_attached_to_any:
                    await _await_news(news, timeout, places[0])
        finally:
            await driver.stop()


async def _await_news(news: asyncio.Event, timeout: float, place: Peer) -> None:
    try:
        async with asyncio.timeout(timeout):
            await news.wait()
    except TimeoutError:
        raise TimedOut(f"the replay from {place.uri} stopped: nothing came for {timeout:g} s") from None
