"""Which backend goes by which name. Nothing else in the package compares the names."""

from __future__ import annotations

import importlib.metadata
import pkgutil
from typing import cast

from posttroll.backends.base import Backend
from posttroll.errors import BackendNotInstalled, UnknownBackend
from posttroll.settings import read, tell_doubtful_settings

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
    return sorted(_BUILT_IN.keys() | {point.name for point in importlib.metadata.entry_points(group=_GROUP)})


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
    for point in importlib.metadata.entry_points(group=_GROUP, name=name):
        return cast(Backend, point.load())
    raise UnknownBackend(f"no backend {name!r}; known: {', '.join(known_backends())}")
