"""Handling messages: calling the handlers that want one, publishing what they return, settling it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

from posttroll.components.component import Component
from posttroll.components.decorators import Handler, Messages
from posttroll.components.middleware import Decision, Stack
from posttroll.errors import ConfigurationError
from posttroll.message import Message
from posttroll.protocol.routing import Routing
from posttroll.threads import Worker

__all__ = ["MessageWork", "Source"]

logger = logging.getLogger(__name__)

_BY_IMPORTANCE = ("accepted", "rejected", "released")


class Source(Protocol):
    """Where a message came from, and is settled."""

    def accept(self, message: Message) -> bool:
        """Have a message never come again; return False if it is somebody else's now, as the others do."""

    def release(self, message: Message) -> bool:
        """Have a message come again."""

    def reject(self, message: Message, *, reason: str) -> bool:
        """Have a message set aside."""


class MessageWork:
    """What a component does with messages; `publish_topic` is for results of handlers that do not name one."""

    def __init__(
        self, component: Component, handlers: Iterable[Handler], stack: Stack, publish_topic: str | None
    ) -> None:
        self._component = component
        self._stack = stack
        self._publish_topic = publish_topic
        self._routing: Routing[tuple[Handler, Messages]] = Routing()
        self.topics: list[str] = []
        for handler in handlers:
            if isinstance(handler.handles, Messages):
                self._routing.add((handler, handler.handles), handler.handles.type, handler.handles.topic)
                self.topics.append(handler.handles.topic)

    def handle(self, message: Message, source: Source, worker: Worker) -> None:
        """Call all handlers that want a message, one after the other, each once, and settle it.

        It is released if one of them failed, and rejected if one refused it, whatever the others did.
        """
        wanted: dict[object, tuple[Handler, Messages]] = {}
        for handler, wish in self._routing.find(message):
            wanted.setdefault(handler.function, (handler, wish))
        decisions = [
            self._stack.run(partial(self._do, handler, wish, message), handler.name, message, worker.wait).decision
            for handler, wish in wanted.values()
        ]
        decision = max(decisions, key=lambda one: _BY_IMPORTANCE.index(one.state), default=Decision("accepted"))
        if not _settle(message, source, decision):
            logger.warning("%s was given to another worker meanwhile", message.subject)

    def _do(self, handler: Handler, wish: Messages, message: Message) -> Any:
        result = handler.call({"data": message.data, "message": message, "component": self._component})
        for one in result if inspect.isgenerator(result) else (result,):
            if one is not None:
                self._component.publish(self._outgoing(one, handler, wish, message))
        return result

    def _outgoing(self, result: Any, handler: Handler, wish: Messages, message: Message) -> Message:
        if isinstance(result, Message):
            return result
        topic = wish.publish_topic or self._publish_topic
        if topic is None:
            raise ConfigurationError(f"{handler.name} returned data to publish, but there is no publish_topic")
        return Message(topic, wish.publish_type or message.type, result)


def _settle(message: Message, source: Source, decision: Decision) -> bool:
    if decision.state == "accepted":
        return source.accept(message)
    if decision.state == "rejected":
        return source.reject(message, reason=decision.reason)
    return source.release(message)
