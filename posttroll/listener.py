"""Messages in a queue: a subscriber that is read by a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Queue
from typing import Any, Literal

from posttroll.message import Message
from posttroll.subscriber import Subscriber, create_subscriber_from_dict_config
from posttroll.subscription import Acknowledge, Address, Nameserver, StartAt
from posttroll.threads import Worker

__all__ = ["Listener", "ListenerContainer"]


class _AcceptingQueue(Queue[Message]):
    """Accepts a message when the thread that got it asks for the next one."""

    def __init__(self, accept: Callable[[Message], object]) -> None:
        super().__init__()
        self._accept = accept
        self._former = threading.local()

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        former = getattr(self._former, "message", None)
        if former is not None:
            self._former.message = None
            self._accept(former)
        self._former.message = message = super().get(block, timeout)
        return message


class Listener:
    """Puts messages on a queue, for as long as a thread is in `run`.

    It is connected from the construction on, and to publishers that come later too; the arguments are those of
    `NSSubscriber`, and with ``nameserver=False`` and addresses no nameserver is asked.

    A durable message counts as accepted when the next one is taken from the queue; on a queue that was given, when it
    is put there.
    """

    logger = logging.getLogger("posttroll.listener.Listener")

    def __init__(
        self,
        topics: str | Iterable[str] | None = None,
        queue: Queue[Message] | None = None,
        addresses: Address | Iterable[Address] | None = None,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        services: str | Iterable[str] | None = "",
        durable: str | None = None,
        start_at: StartAt = "new",
        acknowledge: Acknowledge = "auto",
    ) -> None:
        self.topics = topics
        if queue is None and durable is not None and acknowledge == "auto":
            queue, acknowledge = _AcceptingQueue(self.accept), "manual"
        self.queue: Queue[Message] = Queue() if queue is None else queue
        self._options = {"durable": durable, "start_at": start_at, "acknowledge": acknowledge}
        self.addresses = addresses
        self.nameserver = nameserver
        self.services = services
        self.subscriber: Subscriber | None = None
        self.running = False
        if topics is not None:
            self.create_subscriber()

    def create_subscriber(self) -> None:
        """Connect anew; raises what is wrong with the arguments or the settings."""
        self.stop()
        self.subscriber = create_subscriber_from_dict_config(
            {
                "services": self.services,
                "topics": self.topics,
                "addresses": self.addresses,
                "nameserver": self.nameserver,
                "addr_listener": True,
                **({} if self._options["durable"] is None else self._options),
            }
        )

    def recv(self, timeout: float | None = None) -> Iterator[Message | None]:
        """Yield what the subscriber receives."""
        return iter(()) if self.subscriber is None else self.subscriber.recv(timeout)

    def run(self) -> None:
        """Put messages on the queue until `stop`."""
        self.logger.debug("listening for %s", self.topics)
        self.running = True
        for message in self.recv():
            if message is not None:
                self.add_to_queue(message)
        self.logger.debug("no longer listening for %s", self.topics)

    def add_to_queue(self, msg: Message) -> None:
        """Put one message on the queue."""
        self.queue.put(msg)

    def accept(self, msg: Message) -> bool:
        """Do the same as `Subscriber.accept`."""
        return self.subscriber is not None and self.subscriber.accept(msg)

    def stop(self) -> None:
        """Disconnect and end `run`, from any thread; harmless when stopped."""
        self.running = False
        if self.subscriber is not None:
            self.subscriber.stop()

    def restart(self) -> None:
        """Connect anew, and run."""
        self.create_subscriber()
        self.run()


class ListenerContainer:
    """A listener with its thread and its queue, `output_queue`.

    Without topics nothing is started before `restart_listener`. The arguments are those of `Listener`.
    """

    logger = logging.getLogger("posttroll.listener.ListenerContainer")

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
        self.addresses = addresses
        self.nameserver = nameserver
        self.services = services
        self._options: dict[str, Any] = {"durable": durable, "start_at": start_at, "acknowledge": acknowledge}
        self.output_queue: Queue[Message] = Queue()
        if durable is not None and acknowledge == "auto":
            self.output_queue = _AcceptingQueue(self.accept)
            self._options["acknowledge"] = "manual"
        self.listener: Listener | None = None
        self.thread: threading.Thread | None = None
        self._worker: Worker | None = None
        if topics is not None:
            self.restart_listener(topics)

    def restart_listener(self, topics: str | Iterable[str]) -> None:
        """Listen for other topics from now on; the queue stays the same."""
        self.stop()
        listener = Listener(topics, self.output_queue, self.addresses, self.nameserver, self.services, **self._options)
        self.listener = listener
        self._worker = Worker("posttroll-listener", lambda _: listener.run(), wake=listener.stop)
        self.thread = self._worker.start().thread
        self.logger.debug("started for %s", topics)

    def accept(self, msg: Message) -> bool:
        """Do the same as `Subscriber.accept`."""
        return self.listener is not None and self.listener.accept(msg)

    def stop(self) -> None:
        """Stop listening; what is on the queue stays there. Harmless when stopped."""
        if self._worker is not None:
            self._worker.stop()
            self.thread = None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Start anew, with the items as arguments."""
        self.__init__(**state)  # type: ignore[misc]
