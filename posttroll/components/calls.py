"""Having handlers called by other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from posttroll.components.component import Component
from posttroll.components.decorators import Handler, Requests
from posttroll.components.middleware import Stack

__all__ = ["calls_of", "make_method"]


def calls_of(handlers: Iterable[Handler]) -> Mapping[str, Handler]:
    """Return the handlers of calls, by the names of these."""
    return {handler.handles.name: handler for handler in handlers if isinstance(handler.handles, Requests)}


def make_method(handler: Handler, component: Component, stack: Stack) -> Callable[..., Any]:
    """Return what calls a handler within the middleware."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        action = partial(handler.call, {"component": component}, *arguments, **keywords)
        outcome = stack.run(action, handler.name, None)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    return call
