"""Declaring what a function handles, and finding what a class or module has declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from posttroll.errors import ConfigurationError

__all__ = ["Commands", "Handler", "Messages", "Requests", "command", "coroutines_of", "handlers_of", "on", "request"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ATTRIBUTE = "_posttroll_handles"


class Messages(NamedTuple):
    """Messages of a type, None for any, and a topic; and what a handler's return value is published as."""

    type: str | None
    topic: str
    publish_type: str | None = None
    publish_topic: str | None = None


class Commands(NamedTuple):
    """Commands of a name."""

    name: str


class Requests(NamedTuple):
    """Calls of a method."""

    name: str


Subject = Messages | Commands | Requests

_OFFERED = {
    Messages: ("data", "message", "component"),
    Commands: ("message", "component"),
    Requests: ("component",),
}


def on(
    type: str | None, topic: str = "", *, publish_type: str | None = None, publish_topic: str | None = None
) -> Callable[[Function], Function]:
    """Handle messages of a type (None: any) and topic with the decorated function.

    The names of its parameters say what it gets: ``data`` the message's data, ``message`` the whole `Message`,
    ``component`` the `Component`. What it returns is published: a `Message` as it is, anything else but None as the
    data of one with `publish_topic` (None: that of the configuration) and `publish_type` (None: the type of the message
    handled). A generator has all published that it yields. A function may handle several.

    Here as in `command` and `request` it may be a coroutine or an asynchronous generator, for an event loop: then
    `posttroll.asyncio.components` runs the component.
    """
    return _declaring(Messages(type, topic, publish_type, publish_topic))


def command(name: str) -> Callable[[Function], Function]:
    """Handle a command with the decorated function.

    It gets the command's parameters by their names, and ``message`` and ``component`` as in `on`. What it returns is
    the value of the result.
    """
    return _declaring(Commands(name))


def request(name: str) -> Callable[[Function], Function]:
    """Handle the calls of a method with the decorated function.

    It gets the caller's arguments, and ``component`` as in `on`. What it returns is the reply.
    """
    return _declaring(Requests(name))


def _declaring(subject: Subject) -> Callable[[Function], Function]:
    if callable(subject[0]):
        raise ConfigurationError(f"the decorator of {subject[0].__qualname__} needs to be told what that handles")

    def declare(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, (subject, *getattr(function, _ATTRIBUTE, ())))
        return function

    return declare


class Handler(NamedTuple):
    """A function, bound to its object if it is a method, with what it handles and which of the offers it takes."""

    function: Callable[..., Any]
    handles: Subject
    takes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", self.function))

    @property
    def needs_loop(self) -> bool:
        """Whether it is a coroutine, or generates asynchronously."""
        return _needs_loop(self.function)

    def call(self, offers: Mapping[str, Any], /, *arguments: Any, **keywords: Any) -> Any:
        """Call the function with the arguments, and those of the offers that it takes."""
        return self.function(*arguments, **keywords, **{name: offers[name] for name in self.takes})


def handlers_of(owner: object) -> Iterator[Handler]:
    """Yield what an object's methods or a module's functions declare, in the order in which they are written.

    Raises `ConfigurationError` for a handler of messages that asks for what there is not.
    """
    for name, subjects in _declarations(owner):
        for subject in subjects:
            yield _handler(getattr(owner, name), subject)


def coroutines_of(owner: type | ModuleType) -> Iterator[str]:
    """Yield the names of what a class or a module has for an event loop: handlers, and a class's start and stop."""
    own = ("start", "stop") if isinstance(owner, type) else ()
    for name in (*own, *(name for name, _ in _declarations(owner))):
        if _needs_loop(getattr(owner, name, None)):
            yield name


def _declarations(owner: object) -> Iterator[tuple[str, tuple[Subject, ...]]]:
    kind = owner if isinstance(owner, type) else type(owner)
    namespaces = [owner] if isinstance(owner, ModuleType) else reversed(kind.__mro__)
    for name in dict.fromkeys(name for one in namespaces for name in vars(one)):
        if subjects := getattr(inspect.getattr_static(owner, name), _ATTRIBUTE, ()):
            yield name, subjects


def _needs_loop(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _handler(function: Callable[..., Any], subject: Subject) -> Handler:
    parameters = inspect.signature(function).parameters
    offered = _OFFERED[type(subject)]
    if isinstance(subject, Messages):
        for name, parameter in parameters.items():
            if name not in offered and parameter.default is parameter.empty:
                raise ConfigurationError(
                    f"{function.__qualname__} has a parameter {name!r}; a handler of messages gets {', '.join(offered)}"
                )
    return Handler(function, subject, tuple(name for name in offered if name in parameters))
