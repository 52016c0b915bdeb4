"""Which backend goes by which name. Nothing else in the package compares the names."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from posttroll.backends.base import Backend
from posttroll.errors import BackendNotInstalled, UnknownBackend
from posttroll.settings import read, tell_doubtful_settings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["configured_backend", "find_backend", "known_backends"]

_BUILT_IN = {
    "memory": "posttroll.backends.memory:backend",
    "secure_zmq": "posttroll.backends.zmq.backend:secure_zmq",
    "unsecure_zmq": "posttroll.backends.zmq.backend:unsecure_zmq",
}
_GROUP = "posttroll.backends"

_loaded: dict[str, Backend] = {}


def known_backends() -> list[str]:
    """Return the names of the backends of this package and of the installed plug-ins (entry points)."""
    return sorted(_BUILT_IN.keys() | {point.name for point in _plug_ins()})


def find_backend(name: str) -> Backend:
    """Return the backend of that name; `UnknownBackend`, `BackendNotInstalled`."""
    if name not in _loaded:
        try:
            _loaded[name] = _load(name)
        except ImportError as error:
            lack = f"needs {error.name}, which is not installed" if error.name else f"cannot be loaded: {error}"
            raise BackendNotInstalled(f"backend {name!r} {lack}") from error
    return _loaded[name]


def configured_backend() -> Backend:
    """Return the backend that the setting ``backend`` names."""
    tell_doubtful_settings()
    return find_backend(read("backend"))


def _load(name: str) -> Backend:
    if target := _BUILT_IN.get(name):
        module, _, attribute = target.partition(":")
        return cast(Backend, getattr(importlib.import_module(module), attribute))
    for point in _plug_ins():
        if point.name == name:
            return cast(Backend, point.load())
    raise UnknownBackend(f"no backend {name!r}; known: {', '.join(known_backends())}")


def _plug_ins() -> Iterable[EntryPoint]:
    # Imported when a plug-in is asked for: it takes as long as all the rest of the package.
    from importlib.metadata import entry_points

    return entry_points(group=_GROUP)
