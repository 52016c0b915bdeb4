"""Messages in a queue: a subscriber that is read by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, Literal, Self

from posttroll.asyncio.news import News
from posttroll.asyncio.stoppable import Stoppable
from posttroll.asyncio.subscriber import Subscriber, create_subscriber_from_dict_config
from posttroll.asyncio.tasks import Worker
from posttroll.message import Message
from posttroll.subscription import Acknowledge, Address, Nameserver, StartAt

__all__ = ["Listener", "ListenerContainer"]

logger = logging.getLogger(__name__)

_MOST_QUEUED = 1000


class _AcceptingQueue(asyncio.Queue[Message]):
    """Accepts what was got when the next message is asked for."""

    def __init__(self, accept: Callable[[Message], object]) -> None:
        super().__init__(_MOST_QUEUED)
        self._accept = accept
        self._got: list[Message] = []

    def accept_former(self) -> None:
        """Accept what was got so far."""
        got, self._got = self._got, []
        for message in got:
            self._accept(message)

    async def get(self) -> Message:
        self.accept_former()
        return await super().get()

    def get_nowait(self) -> Message:
        self.accept_former()
        message = super().get_nowait()
        self._got.append(message)
        return message


class Listener:
    """Puts messages on a queue, for as long as a task is in `run`; those beyond its size wait with the publishers.

    The arguments are those of `posttroll.listener.Listener`; without a queue it makes one for 1,000 messages. A durable
    message counts as accepted when the next one is taken from there; on a queue that was given, when it is put there.
    """

    def __init__(
        self,
        topics: str | Iterable[str] | None = None,
        queue: asyncio.Queue[Message] | None = None,
        addresses: Address | Iterable[Address] | None = None,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        services: str | Iterable[str] | None = "",
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        is_accepting = durable is not None and acknowledge == "auto"
        self._accepts_at_once = is_accepting and queue is not None
        if queue is None:
            queue = _AcceptingQueue(self.accept) if is_accepting else asyncio.Queue(_MOST_QUEUED)
        self.queue = queue
        self.topics = topics
        self.addresses = addresses
        self.nameserver = nameserver
        self.services = services
        self.subscriber: Subscriber | None = None
        self.running = False
        self.on_news: Callable[[], object] = lambda: None
        """Called when something was put on the queue, and when `run` has ended."""
        self._options: dict[str, Any] = {}
        if durable is not None:
            self._options = {"durable": durable, "start_at": start_at, "acknowledge": "manual"}

    async def create_subscriber(self) -> Subscriber:
        """Connect anew, and return by what; raises what is wrong with the arguments or the settings."""
        await self.stop()
        self.subscriber = await create_subscriber_from_dict_config(
            {
                "services": self.services,
                "topics": self.topics,
                "addresses": self.addresses,
                "nameserver": self.nameserver,
                "addr_listener": True,
                **self._options,
            }
        )
        return self.subscriber

    async def run(self) -> None:
        """Connect, and put messages on the queue until `stop`; cancelled, it stops."""
        try:
            subscriber = await self.create_subscriber()
            logger.debug("listening for %s", self.topics)
            self.running = True
            async for message in subscriber:
                await self.add_to_queue(message)
        finally:
            await self.stop()
            self.on_news()
            logger.debug("no longer listening for %s", self.topics)

    async def add_to_queue(self, msg: Message) -> None:
        """Put one message on the queue, when there is room."""
        await self.queue.put(msg)
        if self._accepts_at_once:
            self.accept(msg)
        self.on_news()

    def accept(self, msg: Message) -> bool:
        """Do the same as `Subscriber.accept`."""
        return self.subscriber is not None and self.subscriber.accept(msg)

    async def stop(self) -> None:
        """Disconnect and end `run`; harmless when stopped."""
        self.running = False
        if self.subscriber is not None:
            await self.subscriber.stop()


class ListenerContainer(Stoppable):
    """A listener with its task and its queue, `output_queue`; an asynchronous iterator, started by ``async with``.

    Without topics nothing is started before `restart_listener`. The arguments are those of `Listener`. A durable
    message counts as accepted when the next one is asked for.
    """

    def __init__(
        self,
        topics: str | Iterable[str] | None = None,
        addresses: Address | Iterable[Address] | None = None,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        services: str | Iterable[str] | None = "",
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        self._topics = topics
        self._arguments = addresses, nameserver, services, durable, start_at
        self.output_queue: asyncio.Queue[Message] = asyncio.Queue(_MOST_QUEUED)
        if durable is not None and acknowledge == "auto":
            self.output_queue = _AcceptingQueue(self.accept)
        self.listener: Listener | None = None
        self._worker: Worker | None = None
        self._workers: list[Worker] = []
        self._news = News("a listener")
        self._order = asyncio.Lock()
        self._is_stopped = True

    async def start(self) -> Self:
        """Listen for the topics, if there are any; harmless when started."""
        if self._is_stopped and self._topics is not None:
            await self.restart_listener(self._topics)
        return self

    async def restart_listener(self, topics: str | Iterable[str]) -> None:
        """Listen for other topics from now on; the queue stays the same."""
        async with self._order:
            former, worker = self.listener, self._worker
            self._is_stopped, self._worker = False, None
            if former is not None and former.running:
                await former.stop()  # its task may still wait for room for what it has
            elif worker is not None and worker.is_alive():
                await worker.stop()
            self.listener = listener = Listener(topics, self.output_queue, *self._arguments, acknowledge="manual")
            listener.on_news = self._news.tell
            self._worker = Worker("posttroll-listener", listener.run).start()
            self._workers = [*(one for one in self._workers if one.is_alive()), self._worker]

    def accept(self, msg: Message) -> bool:
        """Do the same as `Subscriber.accept`."""
        return self.listener is not None and self.listener.accept(msg)

    async def stop(self) -> None:
        """Stop listening; what is on the queue stays there. Harmless when stopped. Raises what ended the listener."""
        self._is_stopped = True
        self._news.tell()
        async with AsyncExitStack() as stopping:
            for worker in self._workers:
                stopping.push_async_callback(worker.stop)

    async def __aenter__(self) -> Self:
        return await self.start()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        if isinstance(self.output_queue, _AcceptingQueue):
            self.output_queue.accept_former()
        while self.output_queue.empty():
            since = self._news.count
            if self._worker is not None and not self._worker.is_alive():
                await self.stop()  # which raises what ended it
            if self._is_stopped:
                raise StopAsyncIteration
            await self._news.wait(since)
        return self.output_queue.get_nowait()
