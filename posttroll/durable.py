"""Durable publishing and subscribing: a journal, links and their transport put together."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal

from posttroll.backends.base import Backend, LinkChannel, Peer
from posttroll.errors import BindFailed, ConfigurationError, TimedOut
from posttroll.forks import check_process
from posttroll.journal.base import Journal
from posttroll.links import LinkClient, LinkServer
from posttroll.protocol.frames import ACCEPTED, RELEASED, Outcome, rejected
from posttroll.protocol.gaps import Tally
from posttroll.protocol.link import Delivery, Receiver
from posttroll.settings import Ports
from posttroll.threads import is_held_here

__all__ = [
    "Inbox",
    "Outbox",
    "State",
    "consumer_receivers",
    "outcome",
    "peers_by_journal",
    "replay",
    "replay_receivers",
    "ttl_in_seconds",
]

logger = logging.getLogger(__name__)

_CREDIT = 200
_LONGEST_NAME = 200

State = Literal["accepted", "rejected", "released"]


class Outbox:
    """Keeps what a publisher at `address` sends in its journal, and serves the journal's consumers on a port beside.

    The port is `link_port`; 0 takes the one that it had the last time, if that is free. Takes the journal over, and
    closes it at the stop.
    """

    def __init__(
        self,
        journal: Journal,
        backend: Backend,
        address: str,
        ports: Ports,
        link_port: int,
        name: str,
        on_expired: Callable[[str, int], None],
        max_deliveries: int,
    ) -> None:
        self.journal = journal
        self._tally = Tally(journal.identity, started=uuid.uuid4().hex)
        self._process = os.getpid()
        self._order = threading.RLock()  # a signal handler may publish what it has to say between two messages
        with ExitStack() as opened:
            opened.callback(journal.close)
            channel = _open_beside(backend, address, ports, link_port, journal)
            opened.callback(channel.close)
            self.address = channel.address
            self._server = LinkServer(journal, channel, name, on_expired, max_deliveries).start()
            opened.pop_all()

    def send(self, frame: bytes, ttl: float | None, publish: Callable[[bytes], bool]) -> bool:
        """Keep a frame, for consumers that come for it within `ttl` seconds, and `publish` it; return its result."""
        check_process(self._process, "the publisher")  # first, as nobody gives the lock back there if it was held
        wall = time.time()
        expires = None if ttl is None else wall + ttl_in_seconds(ttl)
        topic = frame.partition(b" ")[0].decode()
        with self._order:
            self.journal.append(topic, frame, wall, expires)
            self._tally.count(topic)
            had_room = publish(frame)
        self._server.appended()
        return had_room

    def beat(self, publish: Callable[[Mapping[str, Any]], object]) -> None:
        """Have a heartbeat published with what plain subscribers need to know of what was sent before it."""
        with self._order:
            publish(self._tally.as_data(self.journal.last))

    def stop(self) -> None:
        """Serve no more, from any thread; harmless when stopped."""
        try:
            self._server.stop(waits=not is_held_here(self._order))
        finally:
            self.journal.close()


def ttl_in_seconds(ttl: float) -> float:
    """Return how long a message lives; `ValueError` if that is no number above 0."""
    try:
        seconds = float(ttl)
    except (OverflowError, TypeError, ValueError):
        seconds = -1.0
    if not seconds > 0:
        raise ValueError(f"ttl is {ttl!r}, but must be a number of seconds above 0")
    return seconds


def _open_beside(backend: Backend, address: str, ports: Ports, link_port: int, journal: Journal) -> LinkChannel:
    scheme, _, place = address.partition("://")
    if scheme != "tcp":
        return backend.open_links(f"{address}.link", ports)
    host = place.rpartition(":")[0]
    former = journal.link_port
    if former and not link_port:
        try:
            return backend.open_links(f"tcp://{host}:{former}", ports)
        except BindFailed as error:
            logger.debug("port %d of the last time is taken: %s", former, error)
    channel = backend.open_links(f"tcp://{host}:{link_port}", ports)
    journal.link_port = int(channel.address.rpartition(":")[2])
    return channel


class Inbox:
    """What a consumer has got from durable publishers; `on_news` is called, in a thread, when there is more.

    `start_at`: where a consumer that is new to a journal begins: "new", "first" or a time.
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
        self._client = LinkClient(backend.open_links(None, Ports.read()), consumer, make_receiver, on_news).start()
        self.connect, self.part, self.disconnect = self._client.connect, self._client.part, self._client.disconnect
        self.take, self.stop = self._client.take, self._client.stop

    def settle(self, delivery: Delivery, state: State, reason: str = "") -> bool:
        """Tell the publisher what became of a delivery; return False if it is no longer this consumer's."""
        return self._client.settle(delivery, outcome(state, reason))


def consumer_receivers(consumer: str, topics: Iterable[str], start_at: str | dt.datetime) -> Callable[[str], Receiver]:
    """Return what makes the receivers of a consumer; `ConfigurationError` for what cannot be its name or its start."""
    if not isinstance(consumer, str) or not 0 < len(consumer) <= _LONGEST_NAME:
        raise ConfigurationError(f"durable is {consumer!r}, but must be a name of 1 to {_LONGEST_NAME} letters")
    return functools.partial(
        Receiver, consumer=consumer, topics=list(topics), start_at=_start(start_at), credit=_CREDIT
    )


def outcome(state: State, reason: str) -> Outcome:
    """Return what a publisher is told of a delivery; of the reason, what fits."""
    return rejected(reason) if state == "rejected" else ACCEPTED if state == "accepted" else RELEASED


def _start(start_at: str | dt.datetime) -> str:
    if isinstance(start_at, dt.datetime):
        return _iso(start_at)
    if start_at not in ("new", "first"):
        raise ConfigurationError(f"start_at is {start_at!r}, but must be new, first or a datetime")
    return start_at


def _iso(moment: dt.datetime | None) -> str:
    """Return a moment as text; one without time zone is taken for UTC, as those of messages are."""
    if moment is None:
        return ""
    if not isinstance(moment, dt.datetime):
        raise TypeError(f"{moment!r} is no datetime")
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()


def replay(
    backend: Backend,
    links: Iterable[tuple[Peer, str]],
    topics: Iterable[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
    timeout: float,
) -> Iterator[Delivery]:
    """Give what journals still hold, from `since` until before `until`, one journal after the other.

    `TimedOut` when nothing came for `timeout` seconds before the end.
    """
    make_receiver = replay_receivers(topics, since, until)
    for journal, places in peers_by_journal(links).items():
        news = threading.Event()
        client = LinkClient(backend.open_links(None, Ports.read()), "replay", make_receiver, news.set).start()
        try:
            for peer in places:
                client.connect(peer, journal)
            while client.is_attached_to_any:
                news.clear()
                while (delivery := client.take()) is not None:
                    yield delivery
                    client.settle(delivery, ACCEPTED)
                if client.is_attached_to_any and not news.wait(timeout):
                    raise TimedOut(f"the replay from {places[0].uri} stopped: nothing came for {timeout:g} s")
        finally:
            client.stop()


def replay_receivers(
    topics: Iterable[str], since: dt.datetime | None, until: dt.datetime | None
) -> Callable[[str], Receiver]:
    """Return what makes the receivers of a replay; `TypeError` for what is no datetime."""
    return functools.partial(
        Receiver,
        consumer="replay",
        topics=list(topics),
        start_at=_iso(since),
        until=_iso(until),
        distribution_mode="copy",
        credit=_CREDIT,
    )


def peers_by_journal(links: Iterable[tuple[Peer, str]]) -> dict[str, list[Peer]]:
    """Return where each journal is served."""
    peers: dict[str, list[Peer]] = {}
    for peer, journal in links:
        peers.setdefault(journal, []).append(peer)
    return peers
