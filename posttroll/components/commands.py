"""Carrying out commands: those that a component declares, and those that each has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from posttroll.components.component import Component
from posttroll.components.configuration import nearest
from posttroll.components.decorators import Commands, Handler
from posttroll.components.messages import Command, Result
from posttroll.components.middleware import Outcome, Stack
from posttroll.errors import DecodeError, Refused
from posttroll.message import Message

__all__ = ["Plan", "Plans", "carry_out"]


Action = tuple[Handler, Callable[[], Any]]


class Plan(NamedTuple):
    """What is to be done on a command, one after the other; nothing if it cannot be, as the complaint says."""

    command: str
    actions: Sequence[Action] = ()
    complaint: str = ""

    def result(self, outcomes: Iterable[Outcome]) -> Result:
        """Return what became of it: the first failure, or else the first value."""
        if self.complaint:
            return Result.error(self.complaint, self.command)
        values = []
        for outcome in outcomes:
            if isinstance(outcome.error, Refused):
                return Result.error(str(outcome.error), self.command)
            if outcome.error is not None:
                return Result.exception(outcome.error, self.command)
            values.append(outcome.result)
        return Result.success(next((value for value in values if value is not None), None), self.command)


class Plans:
    """What a component does on commands; the `built_in` ones come after its own handlers of the same name."""

    def __init__(
        self, component: Component, handlers: Iterable[Handler], built_in: Mapping[str, Callable[[], Any]]
    ) -> None:
        self._component = component
        self._built_in = {name: Handler(function, Commands(name), ()) for name, function in built_in.items()}
        self._own: dict[str, list[Handler]] = {}
        for handler in handlers:
            if isinstance(handler.handles, Commands):
                self._own.setdefault(handler.handles.name, []).append(handler)

    def has_own_handler(self, message: Message) -> bool:
        """Return whether a handler of the component has a part in it, which may take long."""
        name = message.data.get("command") if isinstance(message.data, dict) else None
        return isinstance(name, str) and name in self._own

    def make(self, message: Message) -> Plan:
        """Return the plan for what a message asks for: to call all handlers of the command."""
        try:
            command = Command.read(message)
        except DecodeError as error:
            return Plan("", complaint=str(error))
        actions = self._actions(command, message)
        if not actions:
            known = {*self._own, *self._built_in}
            return Plan(command.command, complaint=f"no command {command.command!r}; {nearest(command.command, known)}")
        return Plan(command.command, actions)

    def _actions(self, command: Command, message: Message) -> list[Action]:
        offers = {"message": message, "component": self._component}
        own = self._own.get(command.command, ())
        actions: list[Action] = [(handler, partial(handler.call, offers, **command.parameters)) for handler in own]
        built_in = self._built_in.get(command.command)
        return actions if built_in is None else [*actions, (built_in, built_in.function)]


def carry_out(plan: Plan, stack: Stack, message: Message) -> Result:
    """Do what a message asks for; return what became of it."""
    return plan.result([stack.run(action, plan.command, message) for _, action in plan.actions])
