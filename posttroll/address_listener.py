"""Keeping a subscriber connected to all who publish its services, whoever comes, goes or is restarted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from posttroll.errors import PosttrollError
from posttroll.lookup import NameserverClient, open_feed
from posttroll.message import Message
from posttroll.protocol.lookout import LOOK_UP_TIMEOUT, Follower, Lookout
from posttroll.threads import Worker

__all__ = ["AddressListener"]


class AddressListener:
    """Follows the nameservers' address feeds, in a thread of its own so that a long handler does not make it deaf."""

    def __init__(
        self,
        subscriber: Follower,
        services: str | Iterable[str] = "",
        nameserver: str | Iterable[str] = "localhost",
    ) -> None:
        self._client = NameserverClient(nameserver)
        try:
            self._feed = open_feed(self._client.peers)
        except BaseException:
            self._client.close()
            raise
        self._lookout = Lookout(subscriber, services, Message.decode, self._client.places)
        self._worker = Worker("posttroll-address-listener", self._run, self._close)

    def start(self) -> AddressListener:
        """Start listening."""
        self._worker.start()
        return self

    def look_for(self, service: str) -> None:
        """Listen for one more service from now on, and ask for it at once, even if it is not new; from any thread."""
        self._lookout.look_for(service)
        self._feed.wake()

    def look_no_longer_for(self, service: str) -> None:
        """Listen no longer for a service, from the next look-up on; from any thread."""
        self._lookout.look_no_longer_for(service)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop listening; wait at most `timeout` seconds until that is done."""
        self._worker.stop(timeout)

    def handle_msg(self, msg: Message) -> None:
        """Connect to the address that a message adds if its services are wanted; leave the one it removes."""
        self._lookout.news(msg.data, time.monotonic())

    def _close(self) -> None:
        self._feed.close()
        self._client.close()

    def _run(self, worker: Worker) -> None:
        while not worker.stopping and not self._feed.closed:
            due = self._lookout.next_timeout()
            received = self._feed.receive(None if due == math.inf else max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if received is not None:
                self._lookout.heard(received.frame, received.peer.uri, received.connected, now)
            self._look_up(self._lookout.due(now))

    def _look_up(self, services: Iterable[str]) -> None:
        try:
            for service in services:
                entries = self._client.ask(service, LOOK_UP_TIMEOUT)
                self._lookout.answered(entries, time.monotonic())
        except PosttrollError as error:
            if not self._client.closed:
                self._lookout.failed(error, time.monotonic())
