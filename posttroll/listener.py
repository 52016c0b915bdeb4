"""Messages in a queue: a subscriber that is read by a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from queue import Queue
from typing import Any, Literal

from posttroll.message import Message
from posttroll.subscriber import Address, Nameserver, Subscriber, create_subscriber_from_dict_config
from posttroll.threads import Worker

__all__ = ["Listener", "ListenerContainer"]


class Listener:
    """Puts messages on a queue, for as long as a thread is in `run`.

    It is connected from the construction on, and to publishers that come later too; the arguments are those of
    `NSSubscriber`, and with ``nameserver=False`` and addresses no nameserver is asked.
    """

    logger = logging.getLogger("posttroll.listener.Listener")

    def __init__(
        self,
        topics: str | Iterable[str] | None = None,
        queue: Queue[Message] | None = None,
        addresses: Address | Iterable[Address] | None = None,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        services: str | Iterable[str] | None = "",
    ) -> None:
        self.topics = topics
        self.queue: Queue[Message] = Queue() if queue is None else queue
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

    Without topics nothing is started before `restart_listener`.
    """

    logger = logging.getLogger("posttroll.listener.ListenerContainer")

    def __init__(
        self,
        topics: str | Iterable[str] | None = None,
        addresses: Address | Iterable[Address] | None = None,
        nameserver: Nameserver | Literal[False] | None = "localhost",
        services: str | Iterable[str] | None = "",
    ) -> None:
        self.addresses = addresses
        self.nameserver = nameserver
        self.services = services
        self.output_queue: Queue[Message] = Queue()
        self.listener: Listener | None = None
        self.thread: threading.Thread | None = None
        self._worker: Worker | None = None
        if topics is not None:
            self.restart_listener(topics)

    def restart_listener(self, topics: str | Iterable[str]) -> None:
        """Listen for other topics from now on; the queue stays the same."""
        self.stop()
        listener = Listener(topics, self.output_queue, self.addresses, self.nameserver, self.services)
        self.listener = listener
        self._worker = Worker("posttroll-listener", lambda _: listener.run(), wake=listener.stop)
        self.thread = self._worker.start().thread
        self.logger.debug("started for %s", topics)

    def stop(self) -> None:
        """Stop listening; what is on the queue stays there. Harmless when stopped."""
        if self._worker is not None:
            self._worker.stop()
            self.thread = None

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Start anew, with the items as arguments."""
        self.__init__(**state)  # type: ignore[misc]
