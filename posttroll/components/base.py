"""What is known of a component that runs, whoever runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from posttroll.components.component import Component
from posttroll.components.configuration import Configuration, make_middleware
from posttroll.components.decorators import coroutines_of, handlers_of
from posttroll.components.fingerprint import Fingerprint
from posttroll.components.messages import Result
from posttroll.components.middleware import CountMiddleware, Middleware, Stack
from posttroll.components.orders import Order
from posttroll.components.work import Wishes
from posttroll.errors import ConfigurationError
from posttroll.message import Message

__all__ = ["ANSWERS_WAITED_FOR", "ANSWER_TIME", "FAREWELL_TIME", "RunnerBase", "Target", "order_of", "reason_for_loop"]

Target = type[Component] | ModuleType

ANSWER_TIME = 60.0
"""How long a result waits for who wants it."""
ANSWERS_WAITED_FOR = 100
FAREWELL_TIME = 1.0
"""How long an end waits for the last results to arrive."""

_ORDERS: dict[str, Order] = {"quit": "quit", "restart": "restart"}


class RunnerBase:
    """A component with its handlers and the middleware around them, and what it tells of itself."""

    def __init__(self, target: Target, configuration: Configuration, middleware: Sequence[Middleware]) -> None:
        self._configuration = configuration
        self.component = _make_component(target, configuration)
        self._handlers = list(handlers_of(target if isinstance(target, ModuleType) else self.component))
        self._counts = CountMiddleware()
        self._stack = Stack([self._counts, *make_middleware(configuration.middleware), *middleware])
        self._wishes = Wishes(self.component, self._handlers, configuration.publish_topic)
        self._state = "starting"

    def _tell_status(self, in_hand: int, calls: int, outgoing: int, peers: Iterable[str]) -> dict[str, Any]:
        return {
            "state": self._state,
            "in_hand": in_hand,
            "calls": calls,
            "outgoing": outgoing,
            "peers": sorted(peers),
            "done": dict(self._counts.done),
            "failed": dict(self._counts.failed),
        }


def reason_for_loop(target: Target) -> str:
    """Return why only an event loop can run a class or a module, "" if that is not so."""
    if coroutines := [*coroutines_of(target)]:
        return f"has coroutines: {', '.join(coroutines)}"
    return "derives from the Component for event loops" if getattr(target, "needs_loop", False) else ""


def order_of(message: Message, result: Result) -> Order | None:
    """Return what a command that was carried out has told this life of a component to do, if anything."""
    was_for_former_life = message.delivery is not None and message.delivery.redelivered
    return None if result.state == "error" or was_for_former_life else _ORDERS.get(result.command)


def _make_component(target: Target, configuration: Configuration) -> Component:
    if not isinstance(target, ModuleType) and not (isinstance(target, type) and issubclass(target, Component)):
        raise ConfigurationError(f"{target!r} is neither a class derived from Component nor a module")
    component = Component() if isinstance(target, ModuleType) else target()
    version = str(getattr(target, "version", component.version))
    kind = target.__name__.rpartition(".")[2]
    component.name, component.settings = configuration.name, configuration.settings
    component.fingerprint = Fingerprint.of_this_process(component.name, kind, version, **configuration.fingerprint)
    return component
