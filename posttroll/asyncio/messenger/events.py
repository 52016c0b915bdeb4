"""Calling back for what happens, also by coroutines."""

from __future__ import annotations

import asyncio
import inspect
from typing import ParamSpec

from posttroll.asyncio.tasks import ends_this_task
from posttroll.messenger.events import BaseEvent

__all__ = ["Event"]

P = ParamSpec("P")


class Event(BaseEvent[P]):
    """Something that happens now and then; to call it with a callable has that called each time, in this order.

    So it can be a decorator. What a callable returns is awaited if it can be: it may be a coroutine function. One that
    raises is logged, and the others are called nevertheless.
    """

    async def happen(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Call all; return which exception the last one that failed has raised, "" if none did."""
        failure = ""
        for callback in tuple(self._callbacks):
            try:
                result = callback(*args, **kwargs)
                if inspect.isawaitable(result):
                    await result
            except (Exception, asyncio.CancelledError) as error:
                if ends_this_task(error):
                    raise
                failure = self._log(error)
        return failure
