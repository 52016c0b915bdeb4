"""Calling what may have to wait for a disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

__all__ = ["Call"]

P = ParamSpec("P")
Result = TypeVar("Result")


class Call(Protocol):
    """Calls a function where it may wait, and returns what it does."""

    def __call__(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Awaitable[Result]:
        """Do so."""
