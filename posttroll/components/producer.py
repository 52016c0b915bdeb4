"""What a component sends, documented in one place."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from posttroll.message import Message

__all__ = ["Outgoing", "Producer", "sends"]

Arguments = ParamSpec("Arguments")
Sender = TypeVar("Sender", bound="Producer")

_ATTRIBUTE = "_posttroll_sends"


class Outgoing(NamedTuple):
    """One kind of message that a producer sends, and the method that does it."""

    name: str
    parameters: str
    type: str
    topic: str
    documentation: str


class Producer:
    """The messages that a component sends, as methods decorated with `sends`: its interface on the network.

    `send` gets the messages: `Component.publish`, or what puts them to somebody.
    """

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self._topic: str | None = None

    def at(self, topic: str) -> Self:
        """Return a producer that sends the same messages on another topic."""
        other = copy.copy(self)
        other._topic = topic
        return other

    @classmethod
    def interface(cls) -> list[Outgoing]:
        """Return what the methods send, in the order in which they are written."""
        names = dict.fromkeys(name for one in reversed(cls.__mro__) for name in vars(one))
        found = (getattr(inspect.getattr_static(cls, name), _ATTRIBUTE, None) for name in names)
        return [outgoing for outgoing in found if outgoing is not None]


def sends(
    type: str, topic: str
) -> Callable[[Callable[Concatenate[Sender, Arguments], Any]], Callable[Concatenate[Sender, Arguments], Message]]:
    """Have a method of a `Producer`, which returns the data of a message, send that message and return it.

    The topic may name the method's parameters in braces, as in ``/2a/{platform}``.
    """

    def declare(
        method: Callable[Concatenate[Sender, Arguments], Any],
    ) -> Callable[Concatenate[Sender, Arguments], Message]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def send(self: Sender, /, *arguments: Arguments.args, **keywords: Arguments.kwargs) -> Message:
            given = signature.bind(self, *arguments, **keywords)
            given.apply_defaults()
            subject = (self._topic or topic).format_map(given.arguments)
            message = Message(subject, type, method(self, *arguments, **keywords))
            self._send(message)
            return message

        _, *parameters = signature.parameters.values()
        shown = str(signature.replace(parameters=parameters))
        setattr(send, _ATTRIBUTE, Outgoing(method.__name__, shown, type, topic, inspect.getdoc(method) or ""))
        return send

    return declare
