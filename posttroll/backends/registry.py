"""Which backend goes by which name. Nothing else in the package compares the names."""

from __future__ import annotations

import pkgutil
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
            raise BackendNotInstalled(f"backend {name!r} needs {error.name}, which is not installed") from error
    return _loaded[name]


def configured_backend() -> Backend:
    """Return the backend that the setting ``backend`` names."""
    tell_doubtful_settings()
    return find_backend(read("backend"))


def _load(name: str) -> Backend:
    if target := _BUILT_IN.get(name):
        return cast(Backend, pkgutil.resolve_name(target))
    for point in _plug_ins():
        if point.name == name:
            return cast(Backend, point.load())
    raise UnknownBackend(f"no backend {name!r}; known: {', '.join(known_backends())}")


def _plug_ins() -> Iterable[EntryPoint]:
    # Imported when a plug-in is asked for: it takes as long as all the rest of the package.
    from importlib.metadata import entry_points

    return entry_points(group=_GROUP)
