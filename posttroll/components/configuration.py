"""What a component is told in its YAML file."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from posttroll.components.fingerprint import Fingerprint
from posttroll.components.middleware import CountMiddleware, LogMiddleware, Middleware, RetryMiddleware
from posttroll.errors import ConfigurationError

__all__ = ["Configuration", "find", "make_middleware"]

_LARGEST_PORT = 65535
_MOST_WORKERS = 1000
_MIDDLEWARE = {"log": LogMiddleware, "count": CountMiddleware, "retry": RetryMiddleware}


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The items of the file, of which only `name` is needed. Times are in seconds."""

    name: str
    """Its own, which no other running component has: it publishes, and is found, under it."""
    aliases: list[str] = []
    """More names of what it publishes."""
    services: str | list[str] | None = ""
    """Whose messages it gets; "" for everybody's, null for nobody's."""
    addresses: list[str] = []
    """Publishers at known addresses, such as ``tcp://host:9000``, beside those."""
    topics: str | list[str] | None = None
    """Topics to subscribe to; those of the handlers if it does not say."""
    nameservers: str | list[str] | bool | None = None
    """Hosts of nameservers to look up and register at, or false; else the one here, and multicast."""
    shared: str | None = None
    """Durable name of a group of equal components, each message being for one of them."""
    private: str | None = None
    """Durable name that nobody else has: it gets each message, also those published while it was away."""
    start_at: Literal["new", "first"] = "new"
    """What a new durable name gets: what is published from then on, or all that is kept."""
    workers: int = 1
    """How many handlers of messages run at a time; with one, in order."""
    request_workers: int = 4
    """How many handlers of calls run at a time."""
    publish_topic: str | None = None
    """Topic of what handlers return, unless they say themselves."""
    journal: bool | str | None = None
    """Whether what it publishes is kept for durable subscribers, or the file for that; else as the setting says."""
    outbox: str | None = None
    """Directory for what is put to others as persistent."""
    port: int = 0
    """Port to publish on; 0 for any."""
    link_port: int = 0
    """Port for messages addressed to it; 0 for any."""
    timeout: float = 1.0
    """How long to look for each service at the start; later it is looked for beside the work."""
    drain_timeout: float = 30.0
    """How long handlers may go on when the component is to end."""
    middleware: Sequence[str | dict[str, dict[str, Any]]] = ("log",)
    """What goes on around handlers: log, count, retry, ``module:Class``, or one of them with arguments."""
    logging: dict[str, Any] = {}
    """For `logging.config.dictConfig`."""
    fingerprint: dict[str, Any] = {}
    """Own items of the fingerprint."""
    settings: dict[str, Any] = {}
    """Whatever the handlers want to know."""

    @classmethod
    def load(cls, source: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> Self:
        """Return what a file or a mapping says, with some items changed; `ConfigurationError`, `OSError`."""
        if isinstance(source, Mapping):
            return cls._of({**source, **overrides}, "the configuration")
        place = os.fspath(source)
        with open(place, "rb") as file:
            text = file.read()
        try:
            items = msgspec.yaml.decode(text)
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"{place} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(items, dict):
            raise ConfigurationError(f"{place} has no items, but needs at least a name")
        return cls._of({**items, **overrides}, place)

    @classmethod
    def _of(cls, items: Mapping[Any, Any], place: str) -> Self:
        for item in items:
            if item not in cls.__struct_fields__:
                raise ConfigurationError(f"unknown item {item!r} in {place}; {nearest(item, cls.__struct_fields__)}")
        try:
            configuration = msgspec.convert(items, cls)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{place}: {error}") from None
        configuration._check(place)
        return configuration

    def _check(self, place: str) -> None:
        wrong = {
            "name is empty or has white space": len(self.name.split()) != 1 or self.name.strip() != self.name,
            "shared and private exclude each other": self.shared is not None and self.private is not None,
            f"workers and request_workers have to be 1 to {_MOST_WORKERS}": not all(
                1 <= count <= _MOST_WORKERS for count in (self.workers, self.request_workers)
            ),
            f"port and link_port have to be 0 to {_LARGEST_PORT}": not all(
                0 <= port <= _LARGEST_PORT for port in (self.port, self.link_port)
            ),
            "an own item of the fingerprint has the name of a usual one": not self.fingerprint.keys().isdisjoint(
                Fingerprint.__dataclass_fields__
            ),
            "nameservers are hosts, or false": self.nameservers is True,
            "timeout and drain_timeout cannot be negative": min(self.timeout, self.drain_timeout) < 0,
        }
        for complaint, applies in wrong.items():
            if applies:
                raise ConfigurationError(f"{place}: {complaint}")


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the words that name what comes nearest to a mistyped name, or else all that is known."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"the nearest known one is {near[0]}" if near else f"known: {', '.join(sorted(known))}"


def find(place: str) -> Any:
    """Return the object at ``module:name``, or the module if there is no name; `ConfigurationError`.

    Raises whatever else the module's own code raises.
    """
    module_name, _, name = place.partition(":")
    if module_name.startswith("."):
        raise ConfigurationError(f"{place} is not of the form module:Class")
    try:
        module = importlib.import_module(module_name)
        return getattr(module, name) if name else module
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigurationError(f"cannot find {place}: {error}") from error


def make_middleware(wishes: Iterable[str | Mapping[str, Mapping[str, Any]]]) -> list[Middleware]:
    """Return the layers that the configuration names; `ConfigurationError`."""
    return [_make_layer(name, arguments) for wish in wishes for name, arguments in _named(wish).items()]


def _named(wish: str | Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    return {wish: {}} if isinstance(wish, str) else wish


def _make_layer(name: str, arguments: Mapping[str, Any]) -> Middleware:
    if name not in _MIDDLEWARE and ":" not in name:
        raise ConfigurationError(f"unknown middleware {name!r}; {nearest(name, _MIDDLEWARE)}, or module:Class")
    kind = _MIDDLEWARE.get(name) or find(name)
    try:
        layer = kind(**arguments)
    except TypeError as error:
        raise ConfigurationError(f"middleware {name}: {error}") from None
    if not isinstance(layer, Middleware):
        raise ConfigurationError(f"middleware {name} is no Middleware")
    return layer
