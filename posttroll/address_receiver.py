"""The nameserver's knowledge: who has announced what, and the feed that tells of changes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import netifaces

from posttroll.backends.base import DatagramReceiver, Peer, ReplyChannel
from posttroll.backends.registry import configured_backend
from posttroll.bbmcast import MulticastReceiver, get_configured_broadcast_port, get_mc_group
from posttroll.errors import ConnectionLost
from posttroll.hosts import Hosts
from posttroll.message import Message
from posttroll.protocol.addresses import AddressBook, Limits, PublisherAddress
from posttroll.protocol.codec import NEWEST_VERSION
from posttroll.protocol.discovery import ANNOUNCEMENT, Announcer, Registrar, announcement_subject
from posttroll.protocol.drops import Drops
from posttroll.publisher import NoisyPublisher, Publish, Publisher, get_own_ip
from posttroll.settings import SETTINGS, read
from posttroll.threads import Worker

__all__ = [
    "DEFAULT_ADDRESS_PUBLISH_PORT",
    "AddressReceiver",
    "get_configured_address_port",
    "get_local_ips",
    "getaddress",
    "ten_minutes",
    "zero_seconds",
]

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS_PUBLISH_PORT: int = SETTINGS["address_publish_port"].default

ten_minutes = timedelta(minutes=10)
zero_seconds = timedelta(seconds=0)

_NAME = "address_receiver"
_ALIAS = "addresses"
_LONGEST_WAIT = 2.0
_QUIET = 0.01
_PAUSE = 0.005
_BATCH = 1000
_WAIT_AFTER_ERROR = 1.0
_HEARTBEAT_INTERVAL = 29
_RESERVED_SHARE = 8
_PAUSE_WITHOUT_ROOM = 1.0


def get_local_ips() -> list[str]:
    """Return the IPv4 addresses of this host, with the loopback one."""
    interfaces = (netifaces.ifaddresses(name) for name in netifaces.interfaces())
    return [entry["addr"] for addresses in interfaces for entry in addresses.get(netifaces.AF_INET, ())]


def get_configured_address_port() -> int:
    """Return the port of the address feed."""
    return int(read("address_publish_port"))


class AddressReceiver:
    """Listens for announcements, keeps the addresses, and publishes what changes on the address feed.

    `max_age`: how long an address is kept after its last announcement. `port`: that of the feed. Without multicast,
    publishers register over TCP, and the feed is an address like others. `restrict_to_localhost`: announcements from
    other hosts are ignored, and nothing is bound where they could reach it.
    """

    def __init__(
        self,
        max_age: timedelta = ten_minutes,
        port: int | None = None,
        do_heartbeat: bool = True,
        multicast_enabled: bool = True,
        restrict_to_localhost: bool = False,
    ) -> None:
        self._backend = configured_backend()
        self._port = get_configured_address_port() if port is None else port
        self._heartbeat_interval = _HEARTBEAT_INTERVAL if do_heartbeat else None
        self._multicast_enabled = multicast_enabled
        self._host = "127.0.0.1" if restrict_to_localhost else "*"
        self._max_age = max_age.total_seconds()
        limits = Limits(
            read("max_addresses"),
            read("max_addresses_per_source"),
            read("max_addresses_per_service"),
            read("max_addresses_per_service_and_source"),
        )
        book = AddressBook(self._max_age, lambda: datetime.now(UTC), limits)
        self._lock = threading.Lock()  # guards the book, which others look up in
        self._book = book
        self._registrar = Registrar(book, _compose, _source_filter(restrict_to_localhost))
        self._troubles = Drops()
        self._worker: Worker | None = None
        self._resources = ExitStack()

    def start(self) -> AddressReceiver:
        """Bind and begin to listen; nothing is left running if that fails."""
        if self.is_running():
            return self
        with ExitStack() as resources:
            address = f"tcp://{self._host}:{self._port}"
            # Who subscribes to addresses asks for those that it has missed.
            options: dict[str, Any] = {"nameservers": False, "address": address, "journal": False}
            feed = resources.enter_context(Publish(_NAME, self._port, [_ALIAS], **options))
            _, receiver = self.set_up_address_receiver(get_configured_broadcast_port())
            resources.callback(receiver.close)
            logger.info("hearing %s; telling of changes at tcp://%s:%s", self._way_in(), self._host, feed.port_number)
            announcer = None if self._multicast_enabled else self._own_announcer(feed)
            self._worker = Worker(
                "posttroll-addresses", lambda worker: self._run(worker, receiver, feed, announcer), receiver.wake
            )
            self._worker.start()
            self._resources = resources.pop_all()
        return self

    def stop(self) -> AddressReceiver:
        """End listening; harmless before the start and when stopped."""
        try:
            if self._worker is not None:
                self._worker.stop()
        finally:
            self._resources.close()
        return self

    def is_running(self) -> bool:
        """Return whether it listens."""
        return self._worker is not None and self._worker.is_alive()

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many announcements were not used, by reason."""
        return self._registrar.drops.counts

    def get(self, name: str = "") -> list[dict[str, Any]]:
        """Return the entries of a service, of all with ""."""
        with self._lock:
            return self._book.look_up(name)

    def get_texts(self, name: str, version: str) -> list[str]:
        """Return the same as JSON, as a message of `version` holds it."""
        with self._lock:
            return self._book.look_up_texts(name, version)

    def process_address_message(self, data: str | bytes, pub: Publisher | NoisyPublisher) -> None:
        """Take one announcement, whoever sent it, and publish with `pub` what it changes."""
        with self._lock:
            messages = self._registrar.announcement(data, "", time.monotonic())
        _publish(messages, pub)

    def set_up_address_receiver(self, port: int) -> tuple[list[str] | bool, DatagramReceiver]:
        """Open what announcements come in by; return the nameservers that the feed registers at, and it."""
        if not self._multicast_enabled:
            binding = Peer(f"tcp://{self._host}:{port}", self._backend.name)
            return ["localhost"], _RegistrationReceiver(self._backend.open_reply([binding]))
        opener: Callable[[], DatagramReceiver] | None = self._backend.listen_with(port)
        return False, MulticastReceiver(port) if opener is None else opener()

    def _way_in(self) -> str:
        port = get_configured_broadcast_port()
        if self._multicast_enabled:
            return f"announcements to {get_mc_group() or 'all hosts'} at UDP port {port}"
        return f"registrations at tcp://{self._host}:{port}"

    def _own_announcer(self, feed: Publisher | NoisyPublisher) -> Announcer:
        """Return what announces the feed to this very object, which need not go through the network for it."""
        host = "127.0.0.1" if self._host != "*" else read("advertised_host") or get_own_ip()
        uri = f"tcp://{host}:{feed.port_number}"
        address = PublisherAddress(uri, (_NAME, _ALIAS), self._backend.name, NEWEST_VERSION)
        announcement = _compose(announcement_subject(_NAME), ANNOUNCEMENT, address.as_data())
        return Announcer(announcement, None, interval=self._max_age / 4)

    def _run(
        self, worker: Worker, receiver: DatagramReceiver, feed: Publisher | NoisyPublisher, announcer: Announcer | None
    ) -> None:
        last = -math.inf
        while not worker.stopping:
            try:
                is_news = self._turn(receiver, feed, announcer)
                # To wake for each of thousands of announcements a second costs three times as much as to take them.
                if not is_news and time.monotonic() - last < _QUIET:
                    worker.wait(_PAUSE)
                last = time.monotonic()
            except OSError as error:
                if not worker.stopping:
                    if self._troubles.add("network", time.monotonic()):
                        logger.warning("trouble with announcements, going on: %s", error)
                    worker.wait(_WAIT_AFTER_ERROR)

    def _turn(self, receiver: DatagramReceiver, feed: Publisher | NoisyPublisher, announcer: Announcer | None) -> bool:
        """Do what is due, wait for announcements, and take those that are there; return whether any was new."""
        now = time.monotonic()
        with self._lock:
            messages = self._registrar.handle_timeout(now)
            if announcer is not None and (own := announcer.due(now)):
                messages += self._registrar.announcement(own, "", now)
            deadline = self._registrar.next_timeout()
        _publish(messages, feed)
        if self._heartbeat_interval is not None:
            feed.heartbeat(self._heartbeat_interval)
        deadlines = [deadline, None if announcer is None else announcer.next_timeout()]
        wait = min((instant - now for instant in deadlines if instant is not None), default=_LONGEST_WAIT)
        receiver.settimeout(max(0.0, min(wait, _LONGEST_WAIT)))
        return self._hear(receiver, feed)

    def _hear(self, receiver: DatagramReceiver, feed: Publisher | NoisyPublisher) -> bool:
        is_news = False
        with contextlib.suppress(TimeoutError):
            for _ in range(_BATCH):
                data, (source, _) = receiver()
                receiver.settimeout(0.0)
                with self._lock:
                    messages = self._registrar.datagram(data, source, time.monotonic())
                _publish(messages, feed)
                is_news = is_news or bool(messages)
        return is_news


getaddress = AddressReceiver


class _RegistrationReceiver:
    """Registrations over TCP in the form of datagrams; each is answered "ok" before anybody looks at it.

    When the open files run out, all who registered are disconnected for a moment, and all have the same chance to come
    back, as a registration holds for much longer. libzmq would else be busy with failing to accept connections, and
    no look-up would be answered.
    """

    def __init__(self, channel: ReplyChannel) -> None:
        self._channel = channel
        self._timeout: float | None = None
        self._resume_at: float | None = None
        self._troubles = Drops()

    def settimeout(self, timeout: float | None) -> _RegistrationReceiver:
        self._timeout = timeout
        return self

    def __call__(self) -> tuple[bytes, tuple[str, int]]:
        question = self._channel.receive(self._keep_room(time.monotonic()))
        if question is None:
            raise ConnectionLost("closed") if self._channel.closed else TimeoutError("no registration in time")
        self._channel.reply(question, b"ok")
        return question.frame or b"", (question.source, 0)

    def _keep_room(self, now: float) -> float | None:
        """Keep a part of the open files for look-ups and followers; return how long to wait for a registration."""
        if self._resume_at is not None and now >= self._resume_at:
            self._channel.resume()
            self._resume_at = None
        if self._resume_at is None:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            if limit == resource.RLIM_INFINITY or _lowest_free_descriptor() < limit - limit // _RESERVED_SHARE:
                return self._timeout
            self._pause(now, limit)
            self._resume_at = now + _PAUSE_WITHOUT_ROOM
        pause = self._resume_at - now
        return pause if self._timeout is None else min(self._timeout, pause)

    def _pause(self, now: float, limit: int) -> None:
        self._channel.pause()
        if self._troubles.add("too few open files", now):
            logger.error(
                "publishers that register need more than the %d files that may be open; they take turns, and some are "
                "found late (raise ulimit -Hn, or LimitNOFILE of the systemd unit)",
                limit,
            )

    def wake(self) -> None:
        self._channel.close()

    def close(self) -> None:
        self._channel.close()


def _lowest_free_descriptor() -> float:
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return math.inf
    os.close(descriptor)
    return descriptor


def _compose(subject: str, type: str, data: Any) -> str:
    return Message(subject, type, data).encode()


def _publish(messages: list[str], publisher: Publisher | NoisyPublisher) -> None:
    for message in messages:
        publisher.send(message)


def _source_filter(restrict_to_localhost: bool) -> Callable[[str], bool]:
    """Return what says whether announcements from a host are taken."""
    authorized = read("authorized_announcer_addresses")
    hosts = None if authorized is None else Hosts(authorized, "authorized_announcer_addresses")
    local = frozenset(get_local_ips()) if restrict_to_localhost else None
    return lambda source: (hosts is None or source in hosts) and (local is None or source in local)
