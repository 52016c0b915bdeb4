"""Receiving messages, from given addresses or from whoever publishes a service."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from posttroll.address_listener import AddressListener as _AddressListener
from posttroll.lookup import get_pub_address, get_pub_addresses, give_up
from posttroll.message import Message
from posttroll.protocol.topics import as_prefixes
from posttroll.subscription import (
    NO_MORE,
    Inbox,
    NSSubscription,
    StartAt,
    SubscribeArguments,
    Subscription,
    arguments_with_nameserver,
    arguments_without_nameserver,
    link_of,
)

__all__ = [
    "NSSubscriber",
    "Subscribe",
    "Subscriber",
    "create_subscriber_from_dict_config",
    "get_pub_address",
    "get_pub_addresses",
]


class Subscriber(Subscription):
    """Receives from publishers at known addresses.

    An address is a text or a dict with ``URI`` and perhaps ``backend``, as nameservers give it. `topics` are the
    beginnings of the subjects wanted, one or several. `message_filter` is called with each message, and those it
    returns something false for are dropped. `translate` replaces the host in the sender by that of the address.

    With `durable`, a name, publishers that have a journal, whose addresses have the item ``link``, keep messages for
    it while it is away; subscribers that share a name share its messages. Where the name is new, `start_at` says what
    it gets: what is published from now on ("new"), all that is there ("first"), or what was published since a datetime.
    A message counts as accepted when `recv` is asked for the next one, unless `acknowledge` is "manual".
    """

    def _open_inbox(self, durable: str, start_at: StartAt) -> Inbox:
        # Imported for those who are durable: most are not, and start the quicker.
        from posttroll.durable import Inbox

        return Inbox(self._backend, durable, self._topics, self._channel.wake, start_at)

    def _abandon(self) -> None:
        self.stop()

    def recv(self, timeout: float | None = None) -> Iterator[Message | None]:
        """Yield messages, and None whenever `timeout` seconds pass without one (None: never); end when closed.

        What cannot be decoded is counted in `drops`, logged, and does not end the loop.

        A durable message is accepted when the next one is asked for, and released when the loop is left before that,
        by an exception or by ``break``; those acknowledged by hand are left alone.
        """
        if self._running is None:
            self._running = True
        while self._running:
            message = self._next(timeout)
            if not self._running or (message is None and self._channel.closed):
                return
            if message is None or message.delivery is None or self._is_manual:
                yield message
                continue
            is_done = False
            try:
                yield message
                is_done = True
            finally:
                settle = self.accept if is_done else self.release
                settle(message)

    def __call__(self, **kwargs: Any) -> Iterator[Message | None]:
        """Do the same as `recv`."""
        return self.recv(**kwargs)

    def replay(
        self,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        topics: str | Iterable[str] | None = None,
        timeout: float = 10,
    ) -> Iterator[Message]:
        """Yield what publishers that have a journal still hold, published from `since` until before `until`.

        One publisher after the other, of the own topics unless others are given. Nobody else is disturbed by it, and
        nothing is settled. `TimedOut` when nothing comes for `timeout` seconds.
        """
        # Imported for those who want it, see above.
        from posttroll.durable import replay

        prefixes = self._topics if topics is None else as_prefixes(topics)
        links = [link for item in self._addresses.values() if (link := link_of(item))]
        for delivery in replay(self._backend, links, prefixes, since, until, timeout):
            message, _ = self._decode(delivery)
            if message is not None:
                yield message

    def _next(self, timeout: float | None) -> Message | None:
        """Return the next message for the application; the time that others take counts, too."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while (message := self._take_arrived()) is not NO_MORE:
                if message is not None:
                    return message
                if not self._running or (deadline is not None and time.monotonic() >= deadline):
                    return None
            arrived = self._wait(deadline)
            if arrived is None:
                return None
            self._arrived = arrived

    def _wait(self, deadline: float | None) -> Iterator[Message | None] | None:
        """Return what gives the messages that came next; None at the deadline, and when closed."""
        if self._inbox is None:
            return self._receive(_seconds_until(deadline))
        while (arrived := self._look()) is None:
            arrived = self._receive(_seconds_until(deadline))
            if arrived is not None or self._channel.closed or (deadline is not None and time.monotonic() >= deadline):
                return arrived
        return arrived

    def stop(self) -> None:
        """Disconnect from all and end `recv`, from any thread; harmless when stopped.

        What is not settled is released.
        """
        self._running = False
        try:
            for helper in self._helpers:
                helper.stop()
        finally:
            try:
                if self._inbox is not None:
                    self._inbox.stop()
            finally:
                self._channel.close()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class NSSubscriber(NSSubscription):
    """Receives from all who publish one of the services, as a nameserver knows them.

    `services`: a name or several; "" means all, None no one. `addr_listener`: also connect to those who come later,
    and survive a nameserver that is away. `addresses`: more addresses to connect to. `timeout`: seconds to look for
    each service. `nameserver`: its host, or ``tcp://host:port``, or several of them, whose answers are merged.
    `durable`, `start_at`, `acknowledge`: see `Subscriber`; who is durable has an address listener in any case.
    """

    _subscriber: Subscriber | None = None
    _starting: int | None = None

    def start(self) -> Subscriber:
        """Return a `Subscriber` that is connected to what was found.

        A nameserver that does not answer raises `TimedOut`; with an address listener it is looked for in the
        background instead.
        """
        self.stop()
        self._subscriber = subscriber = Subscriber(**self._arguments)
        try:
            if self._wants_listener:
                listener = _AddressListener(subscriber, self._services, self._nameserver)
                subscriber._helpers.append(listener)
                listener.start()
            self._starting = threading.get_ident()
            self._look_up(subscriber)
        except BaseException:
            self.stop()
            raise
        finally:
            self._starting = None
        return subscriber

    def _look_up(self, subscriber: Subscriber) -> None:
        for service in self._services:
            if subscriber.running is False:
                return
            try:
                found = get_pub_addresses(service, self._timeout, self._nameserver)
            except TimeoutError as error:
                self._bear(error)
                return
            self._meet_all(subscriber, service, found)

    def stop(self) -> None:
        """Stop the subscriber, or end a `start` under way in another thread; harmless when stopped."""
        if self._starting is not None:
            give_up(self._starting)
        if self._subscriber is not None:
            self._subscriber.stop()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()


class Subscribe(SubscribeArguments):
    """A subscriber for a ``with`` block, of the class that the arguments ask for: see `NSSubscriber` for them.

    With addresses and ``nameserver=False`` no nameserver is asked. The connections are there after construction.
    """

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        self.subscriber = create_subscriber_from_dict_config(settings)

    def __enter__(self) -> Subscriber:
        return self.subscriber

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.subscriber.stop()


def create_subscriber_from_dict_config(settings: Mapping[str, Any]) -> Subscriber:
    """Return the connected subscriber that a dict of settings describes, which are the arguments of the two classes.

    A `Subscriber` if ``addresses`` are given and ``nameserver`` is False, else what an `NSSubscriber` gives, which
    ignores items it does not know.
    """
    if (arguments := arguments_without_nameserver(settings)) is not None:
        return Subscriber(**arguments)
    return NSSubscriber(**arguments_with_nameserver(settings)).start()
