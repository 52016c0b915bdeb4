"""Handling messages: calling the handlers that want one, publishing what they return, settling it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from posttroll.components.component import Component
from posttroll.components.decorators import Handler, Messages
from posttroll.components.middleware import Decision, Stack
from posttroll.errors import ConfigurationError
from posttroll.message import Message
from posttroll.protocol.routing import Routing
from posttroll.threads import Worker

__all__ = ["MessageWork", "Source", "Wish", "Wishes", "settle", "warn_of_loss"]

logger = logging.getLogger(__name__)

Settled = TypeVar("Settled", covariant=True)

_BY_IMPORTANCE = ("accepted", "rejected", "released")


class Source(Protocol[Settled]):
    """Where a message came from, and is settled."""

    def accept(self, message: Message) -> Settled:
        """Have a message never come again; return False if it is somebody else's now, as the others do."""

    def release(self, message: Message) -> Settled:
        """Have a message come again."""

    def reject(self, message: Message, *, reason: str) -> Settled:
        """Have a message set aside."""


class Wish:
    """A handler that wants a message, and what it has declared of it."""

    def __init__(self, component: Component, handler: Handler, declared: Messages, publish_topic: str | None) -> None:
        self.component = component
        self.handler = handler
        self._declared = declared
        self._publish_topic = declared.publish_topic or publish_topic

    def call(self, message: Message) -> Any:
        """Call the handler."""
        return self.handler.call({"data": message.data, "message": message, "component": self.component})

    def do(self, message: Message) -> Any:
        """Call the handler, and publish what it returns; return that."""
        result = self.call(message)
        for one in result if inspect.isgenerator(result) else (result,):
            if (outgoing := self.outgoing(one, message)) is not None:
                self.component.publish(outgoing)
        return result

    def outgoing(self, result: Any, message: Message) -> Message | None:
        """Return what is to be published for what the handler made of a message, None for nothing."""
        if result is None or isinstance(result, Message):
            return result
        if self._publish_topic is None:
            raise ConfigurationError(f"{self.handler.name} returned data to publish, but there is no publish_topic")
        return Message(self._publish_topic, self._declared.publish_type or message.type, result)


class Wishes:
    """What the handlers of a component want; `publish_topic` is for results of handlers that do not name one."""

    def __init__(self, component: Component, handlers: Iterable[Handler], publish_topic: str | None) -> None:
        self._routing: Routing[Wish] = Routing()
        self.topics: list[str] = []
        for handler in handlers:
            if isinstance(declared := handler.handles, Messages):
                self._routing.add(Wish(component, handler, declared, publish_topic), declared.type, declared.topic)
                self.topics.append(declared.topic)

    def find(self, message: Message) -> Collection[Wish]:
        """Return those that a message fulfils, one of each handler."""
        found: dict[object, Wish] = {}
        for wish in self._routing.find(message):
            found.setdefault(wish.handler.function, wish)
        return found.values()


class MessageWork:
    """What a component does with messages."""

    def __init__(self, wishes: Wishes, stack: Stack) -> None:
        self._wishes = wishes
        self._stack = stack

    def handle(self, message: Message, source: Source[bool], worker: Worker) -> None:
        """Call all handlers that want a message, one after the other, each once, and settle it."""
        decisions = [
            self._stack.run(partial(wish.do, message), wish.handler.name, message, worker.wait).decision
            for wish in self._wishes.find(message)
        ]
        if not settle(message, source, decisions):
            warn_of_loss(message)


def settle(message: Message, source: Source[Settled], decisions: Iterable[Decision]) -> Settled:
    """Settle a message: it is released if a handler failed, and rejected if one refused it, whatever the others did."""
    decision = max(decisions, key=lambda one: _BY_IMPORTANCE.index(one.state), default=Decision("accepted"))
    if decision.state == "accepted":
        return source.accept(message)
    if decision.state == "rejected":
        return source.reject(message, reason=decision.reason)
    return source.release(message)


def warn_of_loss(message: Message) -> None:
    """Log that a message was not ours any more when it was settled."""
    logger.warning("%s was given to another worker meanwhile", message.subject)
