"""Who wants which message."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

from posttroll.protocol import topics
from posttroll.protocol.codec import MAGIC

__all__ = ["Routing"]

Handler = TypeVar("Handler", bound=Hashable)


class _Message(Protocol):
    subject: str
    type: str


class _Wish(NamedTuple, Generic[Handler]):
    place: int
    type: str | None
    handler: Handler


class Routing(Generic[Handler]):
    """Handlers by message type and topic.

    A topic is what a subscription's is, a beginning of the message's text: ``/1b/viirs`` has ``/1b/viirs/npp`` and
    ``/1b/viirs2`` alike, and the empty one has everything.
    """

    def __init__(self) -> None:
        self._wishes: dict[str, list[_Wish[Handler]]] = {}
        self._lengths: list[int] = []
        self._count = 0

    def add(self, handler: Handler, type: str | None, topic: str) -> None:
        """Have a handler found for messages of a type, None for any, and a topic."""
        prefix = topics.as_prefix(topic)
        self._wishes.setdefault(prefix, []).append(_Wish(self._count, type, handler))
        self._lengths = sorted({len(prefix) for prefix in self._wishes})
        self._count += 1

    def find(self, message: _Message) -> list[Handler]:
        """Return the handlers that want a message, in the order in which they were added, each of them once."""
        text = f"{MAGIC}{message.subject} {message.type} "
        wishes = [
            wish
            for length in self._lengths
            if length <= len(text)
            for wish in self._wishes.get(text[:length], ())
            if wish.type is None or wish.type == message.type
        ]
        wishes.sort(key=lambda wish: wish.place)
        return list(dict.fromkeys(wish.handler for wish in wishes))
