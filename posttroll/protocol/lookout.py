"""Whom to meet, and when to ask nameservers for which services: the decisions of an address listener.

Whenever the connection to an address feed is there, for the first time or after an outage, all services are asked for,
and once more a moment later: what nameservers learnt before the feed could be heard. They are asked for again after a
failure, now and then while there is no feed, and when the subscriber had no room for all.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from posttroll.errors import PosttrollError, TimedOut
from posttroll.protocol.delivery import Delivery

__all__ = ["LOOK_UP_TIMEOUT", "Follower", "Lookout"]

logger = logging.getLogger(__name__)

LOOK_UP_TIMEOUT = 1.0
"""Seconds to wait for the answer to one question."""

_RETRY_AFTER = 1.0
_LOOK_AGAIN_AFTER = 2.0


class Follower(Protocol):
    """Who is to be connected."""

    def meet(self, entry: Mapping[str, Any]) -> bool:
        """Connect to an address; return False if there is no room for it now."""

    def part(self, entry: Mapping[str, Any]) -> None:
        """Disconnect from an address."""


class _Message(Protocol):
    sender: str
    data: Any


class Lookout:
    """Tells a follower whom to meet and whom to part from; `places` is where the nameservers are, for the log.

    `decode` reads a message. `look_for` and `look_no_longer_for` may be called by any thread, the rest by one.
    """

    def __init__(
        self, follower: Follower, services: str | Iterable[str], decode: Callable[[bytes], _Message], places: str
    ) -> None:
        self._follower = follower
        self.services = frozenset([services] if isinstance(services, str) else services)
        """What is listened for now."""
        self._places = places
        self._delivery: Delivery[_Message] = Delivery(decode)
        self.drops = self._delivery.drops
        """What could not be used, by reason."""
        self._looked_for: deque[tuple[str, bool]] = deque()
        self._look_ups = [-math.inf]
        self._is_fed = False
        self._is_answered = True

    def look_for(self, service: str) -> None:
        """Listen for one more service from now on, and ask for it at once, even if it is not new."""
        self._looked_for.append((service, True))

    def look_no_longer_for(self, service: str) -> None:
        """Listen no longer for a service."""
        self._looked_for.append((service, False))

    def next_timeout(self) -> float:
        """Return when something is due; `math.inf` for never."""
        return -math.inf if self._looked_for else min(self._look_ups, default=math.inf)

    def due(self, now: float) -> Iterable[str]:
        """Return the services to ask for now."""
        services = self._take_looked_for()
        if not self._look_ups or now < (first := min(self._look_ups)):
            return services
        self._look_ups.remove(first)
        if not self._is_fed:
            self._look_again(now)
        return self.services

    def heard(self, frame: bytes, uri: str, connected: bool, now: float) -> None:
        """Take what the feed at `uri` tells; or, if `connected`, that it can be heard, for the first time or again."""
        if connected:
            self._is_fed = True
            self._look_ups = [now, now + _RETRY_AFTER]
        else:
            self._delivery.call(lambda message: self.news(message.data, now), frame, uri, now)

    def news(self, entry: Any, now: float) -> None:
        """Meet the address that the data of a message adds if its services are wanted; part from the one it removes."""
        if not isinstance(entry, dict) or not isinstance(entry.get("URI"), str):
            if self.drops.add("not an address", now):
                logger.warning("news of an address dropped, there is none in it: %.200r", entry)
            return
        if not entry.get("status", True):
            self._follower.part(entry)
        elif self._wants(entry.get("service", ())):
            self._meet(entry, now)

    def answered(self, entries: Iterable[Mapping[str, Any]], now: float) -> None:
        """Meet the addresses that a nameserver gave."""
        self._note_answer(is_there=True)
        for entry in entries:
            self._meet(entry, now)

    def failed(self, error: PosttrollError, now: float) -> None:
        """Take note that there was no answer: all services are asked for again soon."""
        self._look_ups = [now + _RETRY_AFTER]
        if isinstance(error, TimedOut):
            self._note_answer(is_there=False)
        elif self.drops.add("look-up failed", now):
            logger.warning("cannot ask for addresses, will try again: %s", error)

    def _take_looked_for(self) -> set[str]:
        """Return the services that were looked for; they are listened for from now on, those left no longer."""
        services: set[str] = set()
        for _ in range(len(self._looked_for)):
            service, is_wanted = self._looked_for.popleft()
            self.services -= {service}
            services.discard(service)
            if is_wanted:
                services.add(service)
        self.services |= services
        return services

    def _wants(self, services: object) -> bool:
        offered = [services] if isinstance(services, str) else services if isinstance(services, list) else []
        return "" in self.services or any(service in offered for service in self.services)

    def _meet(self, entry: Mapping[str, Any], now: float) -> None:
        if not self._follower.meet(entry):
            self._look_again(now)

    def _look_again(self, now: float) -> None:
        if not self._look_ups:
            self._look_ups.append(now + _LOOK_AGAIN_AFTER)

    def _note_answer(self, *, is_there: bool) -> None:
        if is_there != self._is_answered:
            self._is_answered = is_there
            if is_there:
                logger.info("nameserver %s answers again", self._places)
            else:
                logger.warning("nameserver %s does not answer, will ask again", self._places)
