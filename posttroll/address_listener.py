"""Keeping a subscriber connected to all who publish its services, whoever comes, goes or is restarted."""

from __future__ import annotations

import errno
import logging
import resource
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from posttroll.errors import PosttrollError, TimedOut, TransportError
from posttroll.lookup import NameserverClient, open_feed
from posttroll.message import Message
from posttroll.protocol.delivery import Delivery
from posttroll.settings import read
from posttroll.threads import Worker

__all__ = ["AddressListener", "check_room", "is_lack_of_room"]

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.EMFILE, errno.ENFILE)
_SHARE_OF_DESCRIPTORS = 3
_LOOK_UP_TIMEOUT = 1.0
_RETRY_AFTER = 1.0
_LOOK_AGAIN_AFTER = 2.0


class _Subscriber(Protocol):
    def meet(self, entry: Mapping[str, Any]) -> bool: ...

    def part(self, entry: Mapping[str, Any]) -> None: ...


class AddressListener:
    """Follows the nameservers' address feeds, in a thread of its own so that a long handler does not make it deaf.

    Whenever the connection to a feed is there, for the first time or after an outage, the nameservers are asked too,
    and once more a moment later: what they learnt before the feed could be heard. They are asked now and then while
    there is no feed, or the subscriber has no room for all.
    """

    def __init__(
        self,
        subscriber: _Subscriber,
        services: str | Iterable[str] = "",
        nameserver: str | Iterable[str] = "localhost",
    ) -> None:
        self._subscriber = subscriber
        self._services = frozenset([services] if isinstance(services, str) else services)
        self._looked_for: deque[tuple[str, bool]] = deque()
        self._delivery: Delivery[Message] = Delivery(Message.decode)
        self._look_ups = [0.0]
        self._is_fed = False
        self._has_refused = False
        self._is_answered = True
        self._client = NameserverClient(nameserver)
        try:
            self._feed = open_feed(self._client.peers)
        except BaseException:
            self._client.close()
            raise
        self._worker = Worker("posttroll-address-listener", self._run, self._close)

    def start(self) -> AddressListener:
        """Start listening."""
        self._worker.start()
        return self

    def look_for(self, service: str) -> None:
        """Listen for one more service from now on, and ask for it at once, even if it is not new; from any thread."""
        self._looked_for.append((service, True))
        self._feed.wake()

    def look_no_longer_for(self, service: str) -> None:
        """Listen no longer for a service, from the next look-up on; from any thread."""
        self._looked_for.append((service, False))

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening; wait at most `timeout` seconds until that is done."""
        self._worker.stop(timeout)

    def handle_msg(self, msg: Message) -> None:
        """Connect to the address that a message adds if its services are wanted; leave the one it removes."""
        entry = msg.data
        if not isinstance(entry, dict) or not isinstance(entry.get("URI"), str):
            if self._delivery.drops.add("not an address", time.monotonic()):
                logger.warning("news of an address dropped, there is none in it: %.200r", entry)
            return
        if not entry.get("status", True):
            self._subscriber.part(entry)
        elif self._wants(entry.get("service", ())):
            self._meet(entry)

    def _wants(self, services: object) -> bool:
        offered = [services] if isinstance(services, str) else services if isinstance(services, list) else []
        return "" in self._services or any(service in offered for service in self._services)

    def _meet(self, entry: Mapping[str, Any]) -> None:
        if not self._subscriber.meet(entry):
            self._has_refused = True

    def _close(self) -> None:
        self._feed.close()
        self._client.close()

    def _run(self, worker: Worker) -> None:
        while not worker.stopping and not self._feed.closed:
            due = min(self._look_ups, default=None)
            received = self._feed.receive(None if due is None else max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if received is not None and received.connected:
                self._is_fed = True
                self._look_ups = [now, now + _RETRY_AFTER]
            elif received is not None:
                self._delivery.call(self.handle_msg, received.frame, received.peer.uri, now)
            if due in self._look_ups and now >= due:
                self._look_ups.remove(due)
                self._take_looked_for()
                self._look_up(self._services)
            elif self._looked_for:
                self._look_up(self._take_looked_for())
            if not self._look_ups and (self._has_refused or not self._is_fed):
                self._has_refused = False
                self._look_ups.append(now + _LOOK_AGAIN_AFTER)

    def _take_looked_for(self) -> set[str]:
        """Return the services that were looked for; they are listened for from now on, those left no longer."""
        services: set[str] = set()
        for _ in range(len(self._looked_for)):
            service, is_wanted = self._looked_for.popleft()
            self._services -= {service}
            services.discard(service)
            if is_wanted:
                services.add(service)
        self._services |= services
        return services

    def _look_up(self, services: Iterable[str]) -> None:
        """Ask for services; see to it that all are asked for again if there was no answer."""
        try:
            for service in services:
                entries = self._client.ask(service, _LOOK_UP_TIMEOUT)
                self._note_answer(is_there=True)
                for entry in entries:
                    self._meet(entry)
        except PosttrollError as error:
            if self._client.closed:
                return
            now = time.monotonic()
            self._look_ups = [now + _RETRY_AFTER]
            if isinstance(error, TimedOut):
                self._note_answer(is_there=False)
            elif self._delivery.drops.add("look-up failed", now):
                logger.warning("cannot ask for addresses, will try again: %s", error)

    def _note_answer(self, *, is_there: bool) -> None:
        if is_there != self._is_answered:
            self._is_answered = is_there
            places = ", ".join(peer.uri for peer in self._client.peers)
            if is_there:
                logger.info("nameserver %s answers again", places)
            else:
                logger.warning("nameserver %s does not answer, will ask again", places)


def check_room(count: int, are: str) -> None:
    """Raise `TransportError` if so many are as many as one may be connected to; `are` says what they are."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(read("max_connections"), descriptors // _SHARE_OF_DESCRIPTORS)
    if count >= limit:
        reason = f"{limit} {are} (setting max_connections; limit of open files {descriptors})"
        raise TransportError(errno.EMFILE, reason)


def is_lack_of_room(error: Exception) -> bool:
    """Return whether an error says that there is no room for a connection now."""
    return getattr(error, "errno", None) in _NO_ROOM
