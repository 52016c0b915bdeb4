"""Declaring handlers and finding them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from posttroll.components.decorators import Commands, Messages, Requests, command, handlers_of, on, request
from posttroll.errors import ConfigurationError

OFFERS = {"data": "the data", "message": "the message", "component": "the component"}


class Base:
    @on("file", "/1b")
    def first(self, data: Any) -> Any:
        return self, data

    @command("count")
    def second(self, start: int = 0) -> int:
        return start + 1


class Derived(Base):
    @request("area")
    @on(None)
    def third(self, message: Any = None) -> Any:
        return message

    @on("file", "/2a")
    def first(self, data: Any) -> Any:
        return "derived", data


def test_methods_are_found_with_what_they_handle_in_the_order_in_which_they_are_written() -> None:
    found = [(handler.name, handler.handles) for handler in handlers_of(Base())]

    assert found == [("first", Messages("file", "/1b")), ("second", Commands("count"))]


def test_a_derived_class_has_the_handlers_of_its_base_but_those_it_defines_anew() -> None:
    found = [(handler.name, handler.handles) for handler in handlers_of(Derived())]

    assert found == [
        ("first", Messages("file", "/2a")),
        ("second", Commands("count")),
        ("third", Requests("area")),
        ("third", Messages(None, "")),
    ]


def test_the_functions_of_a_module_are_found() -> None:
    module = ModuleType("handlers")
    module.resample = on("file", "/1b")(lambda data: data)  # type: ignore[attr-defined]
    module.number = 5  # type: ignore[attr-defined]

    assert [handler.handles for handler in handlers_of(module)] == [Messages("file", "/1b")]


def test_a_decorated_function_stays_what_it_is() -> None:
    assert Base().second(5) == 6


def test_a_method_is_called_on_its_object() -> None:
    base = Base()
    first, _ = handlers_of(base)

    assert first.call(OFFERS) == (base, "the data")


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (lambda data: data, "the data"),
        (lambda message: message, "the message"),
        (lambda component, data: (component, data), ("the component", "the data")),
        (lambda: "nothing", "nothing"),
        (lambda data, times=2: data * times, "the datathe data"),
    ],
)
def test_the_names_of_its_parameters_say_what_a_handler_of_messages_gets(function: Any, result: Any) -> None:
    module = ModuleType("handlers")
    module.handle = on("file")(function)  # type: ignore[attr-defined]
    (handler,) = handlers_of(module)

    assert handler.call(OFFERS) == result


def test_a_handler_of_messages_that_asks_for_what_there_is_not_is_refused() -> None:
    module = ModuleType("handlers")
    module.handle = on("file")(lambda path: path)  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match=r"has a parameter 'path'; .* gets data, message, component"):
        list(handlers_of(module))


@pytest.mark.parametrize("decorator", [on, command, request])
def test_a_decorator_that_is_not_told_what_is_handled_is_refused(decorator: Any) -> None:
    def work() -> None: ...

    with pytest.raises(ConfigurationError, match=r"decorator of .*work needs to be told"):
        decorator(work)


def test_a_handler_of_commands_gets_their_parameters_by_name_beside_what_it_asks_for() -> None:
    module = ModuleType("handlers")
    module.handle = command("count")(lambda start, component: (start, component))  # type: ignore[attr-defined]
    (handler,) = handlers_of(module)

    assert handler.call(OFFERS, start=3) == (3, "the component")


def test_a_handler_of_calls_gets_their_arguments() -> None:
    module = ModuleType("handlers")
    module.handle = request("add")(lambda one, other: one + other)  # type: ignore[attr-defined]
    (handler,) = handlers_of(module)

    assert handler.call(OFFERS, 1, other=2) == 3
