"""Keeping a subscriber connected to all who publish its services, whoever comes, goes or is restarted."""

from __future__ import annotations

import time
from collections.abc import Iterable

from posttroll.asyncio.lookup import Feed, NameserverClient
from posttroll.asyncio.tasks import Worker
from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.protocol.lookout import LOOK_UP_TIMEOUT, Follower, Lookout

__all__ = ["AddressListener"]


class AddressListener:
    """Follows the nameservers' address feeds, in a task of the loop; the subscriber's methods must not wait."""

    def __init__(
        self,
        subscriber: Follower,
        services: str | Iterable[str] = "",
        nameserver: str | Iterable[str] = "localhost",
    ) -> None:
        self._client = NameserverClient(nameserver)
        try:
            self._feed = Feed(self._client.peers)
        except BaseException:
            self._client.close()
            raise
        self._lookout = Lookout(subscriber, services, Message.decode, self._client.places)
        self._worker = Worker("posttroll-address-listener", self._run)

    def start(self) -> AddressListener:
        """Start listening, in the running loop."""
        self._worker.start()
        return self

    def look_for(self, service: str) -> None:
        """Listen for one more service from now on, and ask for it at once, even if it is not new; from any thread."""
        self._lookout.look_for(service)
        self._feed.wake()

    def look_no_longer_for(self, service: str) -> None:
        """Listen no longer for a service, from the next look-up on; from any thread."""
        self._lookout.look_no_longer_for(service)

    async def stop(self) -> None:
        """Stop listening; harmless before the start and when stopped."""
        try:
            await self._worker.stop()
        finally:
            self._feed.close()
            self._client.close()

    async def _run(self) -> None:
        while not self._feed.closed:
            received = await self._feed.receive()
            now = time.monotonic()
            if received is not None:
                self._lookout.heard(received.frame, received.peer.uri, received.connected, now)
            await self._look_up(self._lookout.due(now))
            if received is None:
                await self._feed.wait(self._lookout.next_timeout())

    async def _look_up(self, services: Iterable[str]) -> None:
        try:
            for service in services:
                entries = await self._client.ask(service, LOOK_UP_TIMEOUT)
                self._lookout.answered(entries, time.monotonic())
        except PosttrollError as error:
            self._lookout.failed(error, time.monotonic())
