"""For the tests of those who use this package: publishers and subscribers without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from weakref import WeakSet

from posttroll.backends import memory
from posttroll.message import Message
from posttroll.ns import NameServer, get_pub_address
from posttroll.publisher import Publisher
from posttroll.settings import config
from posttroll.subscriber import Subscriber
from posttroll.threads import Worker

__all__ = ["FakeClock", "memory_bus", "patched_publisher", "patched_subscriber_recv"]


@contextmanager
def patched_publisher() -> Iterator[list[str]]:
    """Give the list that receives all texts that any publisher sends; nothing is bound, announced or transmitted."""
    sent: list[str] = []
    started: WeakSet[Publisher] = WeakSet()

    def start(publisher: Publisher, *_: Any, **__: Any) -> Publisher:
        started.add(publisher)
        return publisher

    def send(publisher: Publisher, message: str | Message, ttl: float | None = None) -> None:
        if publisher not in started:
            raise RuntimeError("Cannot 'send' before the publisher is started.")
        if not isinstance(message, (str, Message)):
            raise TypeError(f"'send' takes a str or a Message, not {message!r}")
        sent.append(str(message))

    def stop(publisher: Publisher, *_: Any, **__: Any) -> None:
        pass

    with mock.patch.multiple(Publisher, start=start, send=send, stop=stop):
        yield sent


@contextmanager
def patched_subscriber_recv(messages: Iterable[Any]) -> Iterator[None]:
    """Make every subscriber receive just these messages, until it is closed."""

    def recv(subscriber: Subscriber, timeout: float | None = None) -> Iterator[Any]:
        for message in messages:
            if subscriber.running is False:
                return
            yield message

    with mock.patch.object(Subscriber, "recv", recv):
        yield


@contextmanager
def memory_bus(**faults: Any) -> Iterator[memory.Bus]:
    """Let all that is made meanwhile meet in memory, on a bus of its own with a nameserver on it.

    `faults` are the arguments of the bus: ``seed``, ``loss``, ``delay``, ``doubling``, ``reordering``, ``clock``.
    """
    former, memory.backend.bus = memory.backend.bus, memory.Bus(**faults)
    try:
        with config.set(backend="memory"), _running_nameserver():
            yield memory.backend.bus
    finally:
        memory.backend.bus = former


@contextmanager
def _running_nameserver() -> Iterator[None]:
    nameserver = NameServer()
    worker = Worker("posttroll-nameserver", lambda _: nameserver.run(), wake=nameserver.stop).start()
    try:
        get_pub_address("")
        yield
    finally:
        worker.stop()


class FakeClock:
    """A clock that stands still between the calls of `advance`; calling it gives the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
