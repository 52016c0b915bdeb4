"""Callbacks that are called, not awaited."""

from __future__ import annotations

import inspect
from typing import TypeVar

from posttroll.errors import ConfigurationError

__all__ = ["plain"]

Callback = TypeVar("Callback")


def plain(callback: Callback, what: str) -> Callback:
    """Return a callback, perhaps None, for `what`; `ConfigurationError` if it is a coroutine function."""
    if inspect.iscoroutinefunction(callback):
        raise ConfigurationError(f"{what} is the coroutine function {callback!r}, but it is called, not awaited")
    return callback
