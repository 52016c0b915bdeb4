"""Publishing messages, with or without announcing oneself."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from posttroll.message import Message
from posttroll.message_broadcaster import AddressServiceBroadcaster, sendaddressservice
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


def get_own_ip() -> str:
    """Return the IPv4 address that other hosts know this one by, as far as it can be guessed; nothing is sent."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(_FAR_AWAY)
        return str(probe.getsockname()[0])
    except OSError:
        pass
    finally:
        probe.close()
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return LOOPBACK


class Publisher(Publication):
    """Publishes on an address, such as ``tcp://*:9000``; port 0 takes a free one of the range.

    Nothing is bound before `start`. A subscriber that cannot keep up has a queue of its own
    (setting ``send_high_water_mark``); when that is full, `when_full` decides: "drop" loses the message for that
    subscriber alone, "block" makes `send` wait. That a queue got full is counted in `overruns`, logged, and told to
    `on_overrun`, which is called with the publisher.

    With a `journal`, which is True, a path, or an open `Journal` such as a `MemoryJournal`, messages are kept until all
    durable subscribers have accepted them, but not for ever: see the settings ``journal_…``. Those subscribers connect
    to `link_port`; 0 takes a free one. What was too old for one of them is counted in `expired` and told to
    `on_expired`, which is called, in another thread, with the subscriber's durable name and the number of messages.
    The journal is closed at the stop.
    """

    def start(self) -> Publisher:
        """Open the journal, if there is to be one, and bind the address; `JournalError`, `BindFailed`."""
        self.stop()
        with ExitStack() as opened:
            self._publisher = channel = self._backend.open_publish(self._address, self._ports, self._when_full)
            opened.callback(channel.close)
            self._open_outbox()
            opened.pop_all()
        logger.debug("publisher %s started on %s", self._name, channel.address)
        return self

    def _open_outbox(self) -> None:
        if self._open_journal is not None:
            # Imported for those who have a journal: most have none, and start the quicker.
            from posttroll.durable import Outbox

            self._outbox = Outbox(self._open_journal(), *self._outbox_arguments(self._tell_expired))

    def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one, which is not looked into; safe from several threads.

        With a journal, return when it is kept there; it is for durable subscribers that come for it within `ttl`
        seconds. When it cannot be kept, it is not published either: `JournalFull` and other `JournalError`.
        """
        frame = self._frame_of(msg)
        publish = self._channel.send
        had_room = publish(frame) if self._outbox is None else self._outbox.send(frame, ttl, publish)
        if not had_room:
            self._tell_overrun()

    def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        self.send(msg, ttl)

    def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have.

        What is sent from then on reaches that subscriber. A subscription to a part of the topic counts too.
        """
        return self._channel.wait_for_subscriber(as_prefix(topic).encode(), timeout)

    def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        if not self._is_beat_due(min_interval):
            return
        if self._outbox is None:
            self.send(self._heartbeat(min_interval))
        else:
            channel = self._channel
            self._outbox.beat(lambda extra: channel.send(self._heartbeat(min_interval, extra).encode().encode()))
        self._note_beat()

    def stop(self) -> None:
        """Stop publishing; harmless before the start and when stopped. What is in the journal stays there."""
        try:
            if self._outbox is not None:
                self._outbox.stop()  # first, so that nothing is kept that can no longer be published
        finally:
            if self._publisher is not None:
                self._publisher.close()
            self._outbox = None

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


class NoisyPublisher(AnnouncedPublication):
    """A publisher that announces itself under a name and aliases.

    `nameservers`: the hosts (``host`` or ``host:port``) to register at; without any, everybody around is told, by
    multicast. `broadcast_interval`: seconds between announcements; 0: none. `extra`: returns what else to announce with
    an address. `options`: what else a `Publisher` takes.
    """

    _publisher_class = Publisher
    _publisher: Publisher
    _announcer: AddressServiceBroadcaster | None = None

    def start(self) -> NoisyPublisher:
        """Bind and begin to announce; nothing is left running if either fails."""
        self.stop()
        self._publisher.start()
        try:
            self._announce()
        except BaseException:
            self._publisher.stop()
            raise
        return self

    def _announce(self) -> None:
        if self.port_number is None:
            return
        host = read("advertised_host")
        guess = host or get_own_ip()
        may_change = guess == LOOPBACK and not host  # the network may only come up later
        address = (lambda: self._address_at(get_own_ip())) if may_change else self._address_at(guess)
        arguments, more = self._announcer_arguments(address)
        self._announcer = sendaddressservice(*arguments, **more)
        self._announcer.start()

    def send(self, msg: str | Message, ttl: float | None = None) -> None:
        """Publish a message, or the text of one; safe from several threads. See `Publisher.send`."""
        self._publisher.send(msg, ttl)

    def send_string(self, msg: str | Message, ttl: float | None = None) -> None:
        """Do the same as `send`."""
        self.send(msg, ttl)

    def wait_for_subscriber(self, topic: str = "", timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, until messages of `topic` have a subscriber; return whether they have."""
        return self._publisher.wait_for_subscriber(topic, timeout)

    def heartbeat(self, min_interval: float = 0) -> None:
        """Send a sign of life, unless the last one was sent less than `min_interval` seconds ago."""
        self._publisher.heartbeat(min_interval)

    def stop(self) -> None:
        """Say goodbye and stop publishing; harmless before the start and when stopped."""
        announcer, self._announcer = self._announcer, None
        try:
            if announcer is not None:
                announcer.stop()
        finally:
            self._publisher.stop()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


class Publish(PublishArguments):
    """A publisher for a ``with`` block, of the class that the arguments ask for.

    With a port and ``nameservers=False`` it is a silent `Publisher`, else a `NoisyPublisher`. `address`: what the
    silent one binds instead of the port on all interfaces.
    """

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        self.publisher = create_publisher_from_dict_config(settings)

    def __enter__(self) -> Publisher | NoisyPublisher:
        return self.publisher.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.publisher.stop()


def create_publisher_from_dict_config(settings: Mapping[str, Any]) -> Publisher | NoisyPublisher:
    """Return the unstarted publisher that a dict of settings describes, which are the arguments of the two classes.

    A `Publisher` if ``port`` or ``address`` is given and ``nameservers`` is False, else a `NoisyPublisher`, for which
    ``name`` is required (`KeyError`) and items it does not know are ignored.
    """
    if (silent := silent_arguments(settings)) is not None:
        address, options = silent
        return Publisher(address, **options)
    name, options = noisy_arguments(settings)
    return NoisyPublisher(name, **options)
