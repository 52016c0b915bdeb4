"""Receiving messages, from given addresses or from whoever publishes a service."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from posttroll.asyncio.address_listener import AddressListener
from posttroll.asyncio.lookup import get_pub_address, get_pub_addresses
from posttroll.asyncio.plain import plain
from posttroll.asyncio.readiness import Readiness
from posttroll.asyncio.stoppable import Stoppable
from posttroll.asyncio.turns import Turn
from posttroll.errors import LocalProtocolError, RequestTimeout
from posttroll.message import Message
from posttroll.protocol.topics import as_prefixes
from posttroll.subscription import (
    NO_MORE,
    Address,
    Callback,
    NSSubscription,
    StartAt,
    SubscribeArguments,
    Subscription,
    arguments_with_nameserver,
    arguments_without_nameserver,
    link_of,
)

if TYPE_CHECKING:
    from posttroll.asyncio.durable import Inbox

__all__ = [
    "Messages",
    "NSSubscriber",
    "Subscribe",
    "Subscriber",
    "create_subscriber_from_dict_config",
    "get_pub_address",
    "get_pub_addresses",
]


class Subscriber(Stoppable, Subscription):
    """Receives from publishers at known addresses; the arguments are those of `posttroll.subscriber.Subscriber`.

    It is iterated over, or used by ``async with``, in one event loop. What is not asked for waits in the queues of the
    publishers, each of which loses what is beyond its limit, unless it waits itself.
    """

    _inbox: Inbox | None
    _plain = staticmethod(plain)

    @functools.cached_property
    def _turn(self) -> Turn:
        return Turn()

    @functools.cached_property
    def _readiness(self) -> Readiness:
        return Readiness(self._channel.fileno, f"a subscriber for {', '.join(self._topics)}")

    def _open_inbox(self, durable: str, start_at: StartAt) -> Inbox:
        # Imported for those who are durable: most are not, and start the quicker.
        from posttroll.asyncio.durable import Inbox

        return Inbox(self._backend, durable, self._topics, self._channel.wake, start_at)

    def _abandon(self) -> None:
        self._channel.close()
        if self._inbox is not None:
            self._inbox.close()

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the messages; see `recv`."""
        return Messages(self, None)

    def recv(self, timeout: float | None = None) -> AsyncIterator[Message | None]:
        """Return what gives messages, and None whenever `timeout` seconds pass without one, until this is stopped.

        To wait for a message may be cancelled, and begun again. What cannot be decoded is counted in `drops`, logged,
        and ends nothing. A durable message is accepted when the next one is asked for, and released when the iterator
        is dropped before that, as a loop does that is left; those acknowledged by hand are left alone.
        """
        return Messages(self, timeout)

    __call__ = recv

    def add_hook_sub(self, address: Address, topics: str | Iterable[str], callback: Callback) -> None:
        """Subscribe to one more address, whose messages go to `callback` while others are waited for.

        The callback is a plain function; `ConfigurationError` for a coroutine function.
        """
        super().add_hook_sub(address, topics, plain(callback, "a hook"))

    def add_hook_pull(self, address: Address, callback: Callback) -> None:
        """Pull from a queue, such as ``inproc://orders``; its messages go to `callback` as above."""
        super().add_hook_pull(address, plain(callback, "a hook"))

    async def replay(
        self,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        topics: str | Iterable[str] | None = None,
        timeout: float = 10,
    ) -> AsyncIterator[Message]:
        """Yield what publishers that have a journal still hold, published from `since` until before `until`.

        One publisher after the other, of the own topics unless others are given. Nobody else is disturbed by it, and
        nothing is settled. `TimedOut` when nothing comes for `timeout` seconds.
        """
        # Imported for those who want it, see above.
        from posttroll.asyncio.durable import replay

        prefixes = self._topics if topics is None else as_prefixes(topics)
        links = [link for item in self._addresses.values() if (link := link_of(item))]
        async with aclosing(replay(self._backend, links, prefixes, since, until, timeout)) as deliveries:
            async for delivery in deliveries:
                message, _ = self._decode(delivery)
                if message is not None:
                    yield message

    def _take_at_once(self) -> Message | None:
        """Return the next message if it is here and wanted, and others have had their turns not long ago."""
        return None if self._turn.is_over or not self._running else next(self._arrived, None)

    async def _next(self, timeout: float | None) -> Message | None:
        """Return the next message; None at the end of the time, which is that of others, too, and when stopped."""
        self._readiness.check_loop()
        if self._running is None:
            self._running = True
            if self._inbox is not None:
                self._inbox.start()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        await self._turn.give_way()
        while self._running:
            while (message := self._take_arrived()) is not NO_MORE:
                if message is not None:
                    return message
                await self._turn.give_way()
            if (arrived := self._look()) is not None:
                self._arrived = arrived
            elif self._channel.closed or time.monotonic() >= deadline:
                return None
            else:
                await self._readiness.wait(min(deadline, self._channel.next_timeout()))
                self._turn.begin()
        return None

    async def stop(self) -> None:
        """Disconnect from all and end all iterations; harmless when stopped. What is not settled is released."""
        self._running = False
        try:
            for helper in self._helpers:
                await helper.stop()
        finally:
            self._readiness.close()
            try:
                if self._inbox is not None:
                    await self._inbox.stop()
            finally:
                self._channel.close()

    async def __aenter__(self) -> Self:
        return self


class Messages(AsyncIterator[Any]):
    """The messages of a subscriber, for one task at a time.

    No generator, so that it goes on after a wait was cancelled.
    """

    def __init__(self, subscriber: Subscriber, timeout: float | None) -> None:
        self._subscriber = subscriber
        self._timeout = timeout
        self._held: Message | None = None
        self._is_asked = False

    async def __anext__(self) -> Message | None:
        if self._is_asked:
            raise LocalProtocolError("another task waits for the next message; give each task an iterator of its own")
        self._is_asked = True
        try:
            return await self._take_next()
        finally:
            self._is_asked = False

    async def _take_next(self) -> Message | None:
        held, self._held = self._held, None
        if held is not None:
            self._subscriber.accept(held)
        message = self._subscriber._take_at_once() or await self._subscriber._next(self._timeout)
        if message is None and (not self._subscriber.running or self._subscriber._channel.closed):
            raise StopAsyncIteration
        if message is not None and message.delivery is not None and not self._subscriber._is_manual:
            self._held = message
        return message

    async def aclose(self) -> None:
        """Release a durable message for which the next one was not asked for."""
        self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._subscriber.release(held)


class NSSubscriber(Stoppable, NSSubscription):
    """Receives from all who publish one of the services; an ``async with`` block gets the subscriber.

    The arguments are those of `posttroll.subscriber.NSSubscriber`.
    """

    _subscriber: Subscriber | None = None
    _look_up_under_way: asyncio.Task[list[dict[str, Any]]] | None = None

    async def start(self) -> Subscriber:
        """Return a `Subscriber` that is connected to what was found.

        A nameserver that does not answer raises `TimedOut`; with an address listener it is looked for in the
        background instead.
        """
        await self.stop()
        self._subscriber = subscriber = Subscriber(**self._arguments)
        try:
            if self._wants_listener:
                listener = AddressListener(subscriber, self._services, self._nameserver)
                subscriber._helpers.append(listener)
                listener.start()
            await self._look_up(subscriber)
        except BaseException:
            await self.stop()
            raise
        return subscriber

    async def __aenter__(self) -> Subscriber:
        return await self.start()

    async def _look_up(self, subscriber: Subscriber) -> None:
        for service in self._services:
            if subscriber.running is False:
                return
            try:
                found = await self._ask(subscriber, service)
            except TimeoutError as error:
                self._bear(error)
                return
            self._meet_all(subscriber, service, found)

    async def _ask(self, subscriber: Subscriber, service: str) -> list[dict[str, Any]]:
        """Ask for a service, in a task that `stop` can end."""
        looking_up = get_pub_addresses(service, self._timeout, self._nameserver)
        self._look_up_under_way = task = asyncio.create_task(looking_up, name="posttroll-look-up")
        try:
            return await task
        except asyncio.CancelledError:
            if subscriber.running is not False or not task.cancelled():
                raise
            raise RequestTimeout(f"the look-up of {service!r} was given up") from None
        finally:
            self._look_up_under_way = None

    async def stop(self) -> None:
        """Stop the subscriber, or end a `start` under way in another task; harmless when stopped."""
        if self._subscriber is not None:
            await self._subscriber.stop()
        if self._look_up_under_way is not None:
            self._look_up_under_way.cancel()


class Subscribe(SubscribeArguments):
    """A subscriber for an ``async with`` block, of the class that the arguments ask for.

    They are those of `posttroll.subscriber.Subscribe`. The connections are there when the block begins.
    """

    subscriber: Subscriber | None = None

    def _prepare(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    async def __aenter__(self) -> Subscriber:
        self.subscriber = await create_subscriber_from_dict_config(self._settings)
        return self.subscriber

    async def __aexit__(self, *error: object) -> None:
        if self.subscriber is not None:
            await self.subscriber.stop()


async def create_subscriber_from_dict_config(settings: Mapping[str, Any]) -> Subscriber:
    """Return the connected subscriber that a dict of settings describes, which are the arguments of the two classes.

    A `Subscriber` if ``addresses`` are given and ``nameserver`` is False, else what an `NSSubscriber` gives, which
    ignores items it does not know.
    """
    if (arguments := arguments_without_nameserver(settings)) is not None:
        return Subscriber(**arguments)
    return await NSSubscriber(**arguments_with_nameserver(settings)).start()
