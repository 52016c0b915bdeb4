"""Publishing messages, with or without announcing oneself."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from posttroll.asyncio.message_broadcaster import AddressServiceBroadcaster
from posttroll.asyncio.plain import plain
from posttroll.asyncio.readiness import Readiness
from posttroll.asyncio.stoppable import Stoppable
from posttroll.asyncio.turns import Turn
from posttroll.backends.base import PublishChannel
from posttroll.errors import ConnectionLost, NotStarted
from posttroll.message import Message
from posttroll.protocol.topics import as_prefix
from posttroll.publication import (
    LOOPBACK,
    AnnouncedPublication,
    Publication,
    PublishArguments,
    noisy_arguments,
    silent_arguments,
)
from posttroll.settings import read

__all__ = [
    "NoisyPublisher",
    "Publish",
    "Publisher",
    "create_publisher_from_dict_config",
    "get_own_ip",
]

logger = logging.getLogger(__name__)

_FAR_AWAY = ("8.8.8.8", 80)
_BETWEEN_LOOKS = 0.05


async def get_own_ip() -> str:
    """Return the IPv4 address that other hosts know this one by, as far as it can be guessed; nothing is sent."""
    if (found := _routed_ip()) is not None:
        return found
    with suppress(OSError, IndexError):
        loop = asyncio.get_running_loop()
        return str((await loop.getaddrinfo(socket.gethostname(), None, family=socket.AF_INET))[0][4][0])
    return LOOPBACK


def _routed_ip() -> str | None:
    """Return the address that is used to reach others; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(_FAR_AWAY)
        return str(probe.getsockname()[0])
    return None


class Publisher(Stoppable, Publication):
    """Publishes on an address; the arguments are those of `posttroll.publisher.Publisher`.

    Used in one event loop, perhaps by ``async with``. Where `when_full` is "block", `send` awaits room in the queues of
    all subscribers. `on_overrun` and `on_expired` are called in the loop. A journal has a thread beside the loop.
    """

    _readiness: Readiness
    _plain = staticmethod(plain)

    async def start(self) -> Self:
        """Open the journal, if there is to be one, and bind the address; `JournalError`, `BindFailed`."""
        await self.stop()
        self._publisher = channel = self._backend.open_publish(self._address, self._ports, self._when_full)
        self._readiness = Readiness(channel.fileno, f"publisher {self._name or channel.address}")
        self._readiness.check_loop()
        self._turn = Turn()
        self._order = asyncio.Lock()
        try:
            if self._open_journal is not None:
                # Imported for those who have a journal: most have none, and start the quicker.
                from posttroll.asyncio.durable import open_outbox

                self._outbox = await open_outbox(self._open_journal, *self._outbox_arguments(self._tell_expired))
            self._check_started()
        except BaseException:
            await self._close(channel)
            raise
        logger.debug("publisher %s started on %s", self._name, channel.address)
        return self

    def _check_started(self) -> None:
        """Raise `NotStarted` if it was stopped while it was being started."""
        if self._readiness.closed:
            raise NotStarted(f"publisher {self._name or self._address} was stopped meanwhile")

    async def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one, which is not looked into.

        With a journal, return when it is kept there; it is for durable subscribers that come for it within `ttl`
        seconds. When it cannot be kept, it is not published either: `JournalFull` and other `JournalError`. Cancelled,
        it has sent the message as a whole or not at all, to plain and to durable subscribers, but for one that was kept
        and for which a plain subscriber had no room yet.
        """
        frame, channel = self._frame_of(msg), self._channel
        self._readiness.check_loop()
        await self._turn.give_way()
        if self._when_full == "block":
            had_room = await self._send_when_all_have_room(frame, ttl)
        else:
            had_room = await self._send_once(frame, ttl, channel.send)
        if not had_room:
            self._tell_overrun()

    async def _send_once(self, frame: bytes, ttl: float | None, publish: Callable[[bytes], bool]) -> bool:
        return publish(frame) if self._outbox is None else await self._outbox.send(frame, ttl, publish)

    async def _send_when_all_have_room(self, frame: bytes, ttl: float | None) -> bool:
        """Send in turn, as what is sent later must not overtake; return whether there was room at once."""
        channel = self._channel
        async with self._order:
            had_room = await self._send_once(frame, ttl, channel.try_send)
            is_sent = had_room
            while not is_sent:
                await self._readiness.wait(time.monotonic() + _BETWEEN_LOOKS)
                if self._readiness.closed:
                    raise ConnectionLost(f"cannot publish on {channel.address}: it is stopped")
                is_sent = channel.try_send(frame)
            return had_room

    async def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        await self.send(msg, ttl)

    async def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have.

        What is sent from then on reaches that subscriber. A subscription to a part of the topic counts too.
        """
        prefix, channel = as_prefix(topic).encode(), self._channel
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not channel.wait_for_subscriber(prefix, 0):
            if time.monotonic() >= deadline or self._readiness.closed:
                return False
            await self._readiness.wait(min(deadline, time.monotonic() + _BETWEEN_LOOKS))
        return True

    async def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        if not self._is_beat_due(min_interval):
            return
        if self._outbox is None:
            await self.send(self._heartbeat(min_interval))
        else:
            try_send = self._channel.try_send  # as those who have no room see life in what they have
            async with self._order:  # lest it tells of what is still to be published
                await self._outbox.beat(lambda extra: try_send(self._heartbeat(min_interval, extra).encode().encode()))
        self._note_beat()

    async def stop(self) -> None:
        """Stop publishing; harmless before the start and when stopped. What is in the journal stays there."""
        if self._publisher is None:
            return
        self._readiness.check_loop()
        self._readiness.close()
        await self._close(self._publisher)

    async def _close(self, channel: PublishChannel) -> None:
        try:
            if self._outbox is not None:
                await self._outbox.stop()  # first, so that nothing is kept that can no longer be published
        finally:
            channel.close()
            self._outbox = None

    async def __aenter__(self) -> Self:
        return await self.start()


class NoisyPublisher(Stoppable, AnnouncedPublication):
    """A publisher that announces itself; the arguments are those of `posttroll.publisher.NoisyPublisher`."""

    _publisher_class = Publisher
    _publisher: Publisher
    _announcer: AddressServiceBroadcaster | None = None

    async def start(self) -> Self:
        """Bind and begin to announce; nothing is left running if either fails."""
        await self.stop()
        await self._publisher.start()
        try:
            await self._announce()
        except BaseException:
            await self._publisher.stop()
            raise
        return self

    async def _announce(self) -> None:
        if self.port_number is None:
            return
        host = read("advertised_host")
        guess = host or await get_own_ip()
        self._publisher._check_started()
        may_change = guess == LOOPBACK and not host  # the network may only come up later
        address = (lambda: self._address_at(_routed_ip() or LOOPBACK)) if may_change else self._address_at(guess)
        arguments, more = self._announcer_arguments(address)
        self._announcer = AddressServiceBroadcaster(*arguments, **more)
        self._announcer.start()

    async def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one. See `Publisher.send`."""
        await self._publisher.send(msg, ttl)

    async def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        await self.send(msg, ttl)

    async def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have."""
        return await self._publisher.wait_for_subscriber(topic, timeout)

    async def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        await self._publisher.heartbeat(min_interval)

    async def stop(self) -> None:
        """Say goodbye and stop publishing; harmless before the start and when stopped."""
        announcer, self._announcer = self._announcer, None
        try:
            if announcer is not None:
                await announcer.stop()
        finally:
            await self._publisher.stop()

    async def __aenter__(self) -> Self:
        return await self.start()


class Publish(PublishArguments):
    """A publisher for an ``async with`` block; the arguments are those of `posttroll.publisher.Publish`."""

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        self.publisher = create_publisher_from_dict_config(settings)

    async def __aenter__(self) -> Publisher | NoisyPublisher:
        return await self.publisher.start()

    async def __aexit__(self, *error: object) -> None:
        await self.publisher.stop()


def create_publisher_from_dict_config(settings: Mapping[str, Any]) -> Publisher | NoisyPublisher:
    """Return the unstarted publisher that a dict of settings describes, which are the arguments of the two classes.

    See `posttroll.publisher.create_publisher_from_dict_config`.
    """
    if (silent := silent_arguments(settings)) is not None:
        address, options = silent
        return Publisher(address, **options)
    name, options = noisy_arguments(settings)
    return NoisyPublisher(name, **options)
