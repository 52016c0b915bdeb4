"""Carrying out commands."""

from __future__ import annotations

from typing import Any

import pytest

from posttroll.components.commands import Plans, carry_out
from posttroll.components.component import Component
from posttroll.components.decorators import command, handlers_of
from posttroll.components.messages import Command, Result
from posttroll.components.middleware import Stack
from posttroll.errors import Refused
from posttroll.message import Message


class Handlers(Component):
    def __init__(self) -> None:
        self.calls: list[str] = []

    @command("add")
    def add(self, one: int, other: int = 1) -> int:
        return one + other

    @command("refuse")
    def refuse(self) -> None:
        raise Refused("no such orbit")

    @command("status")
    def tell(self) -> str:
        return "cheerful"

    @command("quit")
    def fail(self) -> None:
        self.calls.append("own")
        raise ValueError("broken")

    @command("whoami")
    def whoami(self, message: Message, component: Component) -> str:
        assert component is self
        return message.type


def carried_out(name: str, component: Handlers | None = None, **parameters: Any) -> Result:
    component = component or Handlers()
    built_in = {
        "ping": lambda: "pong",
        "status": lambda: "built in",
        "quit": lambda: component.calls.append("built in"),
    }
    plans = Plans(component, handlers_of(component), built_in)
    message = Command(command=name, parameters=parameters).message()
    return carry_out(plans.make(message), Stack([]), message)


def test_what_a_handler_returns_is_the_value_of_a_success() -> None:
    assert carried_out("add", one=2, other=3) == Result.success(5, "add")
    assert carried_out("add", one=2) == Result.success(3, "add")


def test_what_a_handler_refuses_is_an_error() -> None:
    assert carried_out("refuse") == Result.error("no such orbit", "refuse")


@pytest.mark.parametrize("parameters", [{}, {"one": 1, "two": 2}, {"one": "a"}, {"self": 1, "one": 1}, {"offers": 1}])
def test_parameters_that_do_not_fit_are_an_exception(parameters: dict[str, Any]) -> None:
    result = carried_out("add", **parameters)

    assert (result.state, result.value) == ("exception", "TypeError")


def test_a_handler_may_see_who_asks() -> None:
    assert carried_out("whoami").value == "command"


def test_each_component_has_the_commands_that_are_built_in() -> None:
    assert carried_out("ping") == Result.success("pong", "ping")


def test_an_own_handler_answers_before_the_built_in_one() -> None:
    assert carried_out("status").value == "cheerful"


def test_the_built_in_handler_is_called_even_if_the_own_one_fails() -> None:
    component = Handlers()

    result = carried_out("quit", component)

    assert (result.state, result.text) == ("exception", "broken")
    assert component.calls == ["own", "built in"]


def test_an_unknown_command_is_an_error_that_names_the_nearest_one() -> None:
    assert carried_out("pong") == Result.error("no command 'pong'; the nearest known one is ping", "pong")


def test_what_is_no_command_is_an_error() -> None:
    message = Message("/command", "command", "quit")

    result = carry_out(Plans(Handlers(), [], {}).make(message), Stack([]), message)

    assert result.state == "error"
    assert "not a command" in result.text


@pytest.mark.parametrize(
    ("data", "has"),
    [
        ({"command": "add"}, True),
        ({"command": "ping"}, False),
        ({"command": ["add"]}, False),
        ("add", False),
        (None, False),
    ],
)
def test_it_is_known_beforehand_whether_an_own_handler_has_a_part_in_it(data: Any, has: bool) -> None:
    component = Handlers()

    plans = Plans(component, handlers_of(component), {})

    assert plans.has_own_handler(Message("/command", "command", data)) is has
