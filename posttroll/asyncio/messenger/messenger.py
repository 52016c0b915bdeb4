"""The messenger: what a program sends and gets, on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from posttroll.asyncio.driving import LoopPeer
from posttroll.asyncio.messenger.events import Event
from posttroll.asyncio.messenger.peer_finder import PeerFinder
from posttroll.asyncio.messenger.targets import Target
from posttroll.asyncio.messenger.trackers import Tracker
from posttroll.asyncio.news import News
from posttroll.asyncio.publisher import NoisyPublisher, Publisher, get_own_ip
from posttroll.asyncio.turns import Turn
from posttroll.errors import NotStarted
from posttroll.forks import check_process
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.messenger.base import MESSAGES, MOST_IN_TURN, BaseMessenger, logger
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import ACCEPTED, RELEASED, rejected
from posttroll.protocol.properties import Properties

__all__ = ["Messenger"]

P = ParamSpec("P")
Found = TypeVar("Found")


class Messenger(BaseMessenger[Tracker, Target]):
    """Sends messages to others, and gets those sent to it; the arguments are those of `posttroll.messenger.Messenger`.

    Callbacks may be coroutine functions. Who cancels a call finds everything as usable as before; a message that was
    not returned is there for the next one who asks. It belongs to the loop that it was first used in.
    """

    publisher: Publisher | NoisyPublisher | None
    on_message: Event[[Message]]
    on_sent: Event[[Tracker]]
    on_drop: Event[[Tracker, str]]
    on_connect: Event[[PeerInfo]]
    on_disconnect: Event[[PeerInfo, str]]
    _link: LoopPeer | None
    _news: News
    _outcomes: News
    _event_class = Event
    _order_class = asyncio.Lock
    _publisher_class = Publisher
    _noisy_publisher_class = NoisyPublisher
    _ip = ""

    @functools.cached_property
    def _turn(self) -> Turn:
        return Turn()

    def _make_news(self) -> News:
        return News(f"messenger {self.name}")

    async def start(self) -> Self:
        """Listen, connect and be found; nothing is left running if that fails: `BindFailed`, `JournalError`."""
        for news in (self._news, self._outcomes):
            news.check_loop()
        async with self._order, AsyncExitStack() as opened:
            await self._end()
            opened.push_async_callback(self._end)
            self._is_stopped = False
            self._ip = await get_own_ip()
            await self._open_link()
            if self._listens:
                self.publisher = self._make_publisher()
                await self.publisher.start()
            if not self._is_stopped:  # by another task, meanwhile
                opened.pop_all()
        logger.info("messenger %s is there, at %s", self.name, self.address or "no address of its own")
        return self

    async def _open_link(self) -> None:
        channel = self._open_channel()
        try:
            link = LoopPeer(self.name, channel, self._listener, self._directory, self._silence, self._bandwidth)
            self._listener.finder = finder = PeerFinder(link, self._backend, self._nameservers)
        except BaseException:
            channel.close()
            raise
        self._link, self._process = link, os.getpid()
        for target in self._targets:
            target.open(link)
        finder.start()
        self._outgoing.begin()
        self._outgoing.expect((await link.start()).left_over)

    async def stop(self) -> None:
        """Say goodbye and end; harmless before the start and when stopped. All is closed also if this is cancelled.

        Calls that wait return. What was got is accepted, unless there is an incoming window; what else is not settled
        is released. What was put and is not persistent is lost.
        """
        if self._link is not None:
            self._news.check_loop()
        self._is_stopped = True
        async with self._order:
            await self._end()

    async def _end(self) -> None:
        self._is_stopped = True
        for news in (self._news, self._outcomes):
            news.tell()
        link, self._link = self._link, None
        publisher, self.publisher = self.publisher, None
        async with AsyncExitStack() as stopping:
            if publisher is not None:
                # Ends last, as who hears that this one is gone does not wait for its outcomes.
                stopping.push_async_callback(publisher.stop)
            if link is not None:
                stopping.push_async_callback(link.stop)
                stopping.push_async_callback(self._listener.finder.stop)
                stopping.push_async_callback(_settle_all, link)
                self._incoming.settle_former()
            for target in self._targets:
                target.close()
            self._incoming.clear()

    async def close(self) -> None:
        """Do the same as `stop`."""
        await self.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                await self.release()
        finally:
            await self.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Return the next message, as `get` does; there is none any more when it is stopped."""
        message = await self.get(math.inf)
        if message is None:
            raise StopAsyncIteration
        return message

    async def connect(self, address: str) -> None:
        """Be connected to a peer, given by name or ``tcp://host:port``, even with nothing to send; `NotStarted`."""
        self._news.check_loop()
        self._stay_with(address)

    async def disconnect(self, address: str) -> None:
        """Leave a peer that was connected to; it is found again when there is something for it."""
        self._news.check_loop()
        self._leave(address)

    async def put(
        self,
        to: str,
        message: Message,
        *,
        ttl: float | None = None,
        persistent: bool = False,
        id: str | None = None,
        reply_to: str = "",
        correlation_id: str = "",
        target: str = MESSAGES,
    ) -> Tracker:
        """Have a message, as it is now, sent to a name or to ``tcp://host:port``, both perhaps with a ``/path``.

        Waits for a disk at most, if there is a journal; if cancelled then, it may be put all the same. It expires if
        the peer has not come for it within `ttl` seconds. `reply_to` may be an address or just a name, `id` is made if
        none is given. `ConfigurationError` for what cannot be an address, `EncodeError`, `JournalFull`, `NotStarted`.
        """
        tracker, payload = self._prepare(to, message, id, reply_to, correlation_id)
        await self._call(self._commit, tracker, payload, target, ttl, persistent)
        return tracker

    async def reply(self, message: Message, answer: Message, **options: Any) -> Tracker:
        """Put an answer to a message, to where it asks for answers, else to who sent it; `options` are those of `put`.

        `LocalProtocolError` if it did not come by a messenger.
        """
        return await self.put(self._asker(message, options), answer, **options)

    async def send(self, n: int = -1, timeout: float | None = None) -> int:
        """Wait until so many of the messages put are settled, or all; return how many were since the last call.

        With n = 0, and when not blocking, nothing is waited for. `TimedOut`, `Interrupted`.
        """
        if n:
            await self._await_outcome(
                lambda: not self._outgoing or 0 < n <= self._outgoing.settled, timeout, "messages to be settled"
            )
        return self._outgoing.reckon()

    async def recv(self, n: int = -1, timeout: float | None = None) -> int:
        """Wait until there is a message to get; take in all there are, or n; return how many there are to get.

        When not blocking, nothing is waited for. `TimedOut`, `Interrupted`.
        """
        await self._begin()
        if n:
            self._raise_interrupted()
            if not await self._take_in(n):
                await self._insist(
                    lambda: bool(self._incoming.take_in(n) or self._incoming), timeout, "a message", self._news
                )
        return self.incoming

    async def get(self, timeout: float | None = 0) -> Message | None:
        """Return the eldest message; None if there is none within `timeout` seconds, or as many as `timeout` says."""
        await self._begin()
        message = self._incoming.pop()
        if message is None and timeout != 0:
            message = await self._wait_until(self._incoming.pop, timeout, self._news)
        return None if message is None else self._incoming.begin(message)

    async def accept(self, message: Message | None = None, cumulative: bool = False) -> bool:
        """Tell the sender that a message has done its work, or all got; if `cumulative`, all got up to that one.

        Return False if one of them is settled already, or no longer this messenger's to settle.
        """
        return await self._call(self._incoming.settle, ACCEPTED, message, cumulative)

    async def release(self, message: Message | None = None, cumulative: bool = False) -> bool:
        """Have messages come again, to this messenger or another one of its name; otherwise as `accept`."""
        return await self._call(self._incoming.settle, RELEASED, message, cumulative)

    async def reject(self, message: Message | None = None, cumulative: bool = False, reason: str = "") -> bool:
        """Tell the sender that messages are of no use, and why; otherwise as `accept`."""
        return await self._call(self._incoming.settle, rejected(reason), message, cumulative)

    async def work(self, timeout: float | None = None) -> bool:
        """Call back for what happened, waiting at most `timeout` seconds for something; return whether anything did.

        Messages for which there is no callback are there to be got afterwards. `Interrupted`.
        """
        return await self._work(self._deadline(timeout), MOST_IN_TURN)

    async def run(self, runtime: float | None = None, count: int | None = None) -> None:
        """Call back for what happens until `stop`, KeyboardInterrupt, so many seconds or messages; `Interrupted`."""
        deadline = math.inf if runtime is None else time.monotonic() + runtime
        end = None if count is None else self._handled + count
        with contextlib.suppress(KeyboardInterrupt):
            while not self.stopped and time.monotonic() < deadline:
                most = MOST_IN_TURN if end is None else min(end - self._handled, MOST_IN_TURN)
                if most <= 0:
                    return
                await self._work(deadline, most)

    def _make_target(
        self, name: str, on_arrival: Callable[[], None], credit: int, is_prompt: bool, on_close: Callable[[], None]
    ) -> Target:
        return Target(name, on_arrival, credit, self._drops, self._call, is_prompt=is_prompt, on_close=on_close)

    def _track(self, properties: Properties, peer: str) -> Tracker:
        return Tracker(properties.id, properties.to, peer, self._outgoing, self._call)

    def _peer(self) -> LinkPeer:
        link: LoopPeer = self._started_link()
        return link.link

    def _own_ip(self) -> str:
        return self._ip

    def _wake(self) -> None:
        self._news.tell_from_outside()
        self._outcomes.tell_from_outside()

    async def _begin(self) -> None:
        """Accept what was got, as the next one is asked for."""
        self._news.check_loop()
        await self._turn.give_way()
        self._incoming.settle_former()

    async def _call(self, function: Callable[P, Found], *args: P.args, **kwargs: P.kwargs) -> Found:
        """Call a function that may have to wait for a disk; without a link it does not."""
        self._news.check_loop()
        if (link := self._link) is not None:
            try:
                return await link.call(function, *args, **kwargs)
            except NotStarted:
                if self._link is link:
                    raise
        return function(*args, **kwargs)

    async def _wait_until(self, look: Callable[[], Found], timeout: float | None, news: News) -> Found | None:
        """Look, and again whenever there is news, until something is found, the time is over, or all is stopped."""
        if not self.stopped:
            check_process(self._process, "the messenger")
        deadline = self._deadline(timeout)
        while True:
            since = news.count
            self._raise_interrupted()
            if found := look():
                return found
            if self.stopped or not await news.wait(since, deadline):
                return None

    async def _insist(self, look: Callable[[], bool], timeout: float | None, what: str, news: News) -> None:
        self._check_found(await self._wait_until(look, timeout, news), timeout, what)

    async def _await_outcome(self, look: Callable[[], bool], timeout: float | None, what: str) -> None:
        await self._insist(look, timeout, what, self._outcomes)

    async def _work(self, deadline: float, most: int) -> bool:
        self._news.check_loop()
        while True:
            since = self._news.count
            self._raise_interrupted()
            if await self._call_back(most):
                return True
            if self.stopped or time.monotonic() >= deadline:
                return False
            await self._news.wait(since, min(deadline, self._timers.next_timeout()))

    async def _call_back(self, most: int) -> int:
        """Call back for what happened, and for so many messages at most; return how much that was."""
        happened = 0
        for happen in self._due():
            await happen()
            happened += 1
        handled = await (self._handle_each if self.on_message or self._hooks else self._take_in)(most)
        self._handled += handled
        return happened + handled

    async def _take_in(self, most: int) -> int:
        """Queue so many messages, all there are if that is negative; return how many that were."""
        taken = 0
        while taken != most:
            await self._turn.give_way()
            if not self._incoming.take_in(1):
                break
            taken += 1
        return taken

    async def _handle_each(self, most: int) -> int:
        count = 0
        while count < most:
            await self._turn.give_way()
            if (message := self._next_to_handle()) is None:
                break
            await self._handle(message)
            count += 1
        return count

    async def _handle(self, message: Message) -> None:
        failures = None  # as it stays if this is cancelled
        if events := self._handlers(message):
            try:
                failures = [await event.happen(message) for event in events]
            finally:
                self._conclude(message, failures)


async def _settle_all(link: LoopPeer) -> None:
    """Wait until a link has settled what it is to settle soon."""
    with contextlib.suppress(NotStarted):
        await link.call(lambda: None)
