"""Carrying out commands: those that a component declares, and those that each has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from posttroll.components.component import Component
from posttroll.components.configuration import nearest
from posttroll.components.decorators import Commands, Handler
from posttroll.components.messages import Command, Result
from posttroll.components.middleware import Outcome, Stack
from posttroll.errors import DecodeError, Refused
from posttroll.message import Message

__all__ = ["CommandWork"]


class CommandWork:
    """What a component does on commands; the `built_in` ones come after its own handlers of the same name."""

    def __init__(
        self,
        component: Component,
        handlers: Iterable[Handler],
        stack: Stack,
        built_in: Mapping[str, Callable[[], Any]],
    ) -> None:
        self._component = component
        self._stack = stack
        self._built_in = built_in
        self._own: dict[str, list[Handler]] = {}
        for handler in handlers:
            if isinstance(handler.handles, Commands):
                self._own.setdefault(handler.handles.name, []).append(handler)

    def has_own_handler(self, message: Message) -> bool:
        """Return whether a handler of the component has a part in it, which may take long."""
        name = message.data.get("command") if isinstance(message.data, dict) else None
        return isinstance(name, str) and name in self._own

    def carry_out(self, message: Message) -> Result:
        """Do what a message asks for; return what became of it.

        All handlers are called. If one fails, that is the result, else what the first returned that returned anything.
        """
        try:
            command = Command.read(message)
        except DecodeError as error:
            return Result.error(str(error))
        actions = self._actions(command, message)
        if not actions:
            known = {*self._own, *self._built_in}
            return Result.error(f"no command {command.command!r}; {nearest(command.command, known)}", command.command)
        outcomes = [self._stack.run(action, command.command, message) for action in actions]
        return _result(outcomes, command.command)

    def _actions(self, command: Command, message: Message) -> list[Callable[[], Any]]:
        offers = {"message": message, "component": self._component}
        own: list[Callable[[], Any]] = [
            partial(handler.call, offers, **command.parameters) for handler in self._own.get(command.command, ())
        ]
        built_in = self._built_in.get(command.command)
        return own if built_in is None else [*own, built_in]


def _result(outcomes: Iterable[Outcome], command: str) -> Result:
    """Return the first failure, or else the first value."""
    values = []
    for outcome in outcomes:
        if isinstance(outcome.error, Refused):
            return Result.error(str(outcome.error), command)
        if outcome.error is not None:
            return Result.exception(outcome.error, command)
        values.append(outcome.result)
    return Result.success(next((value for value in values if value is not None), None), command)
