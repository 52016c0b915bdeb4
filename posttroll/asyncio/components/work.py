"""Having handlers called: coroutines in the loop, plain functions in threads, with the middleware around them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from posttroll.asyncio.components.threads import Threads
from posttroll.asyncio.tasks import ends_this_task
from posttroll.components.calls import make_method
from posttroll.components.commands import Plan
from posttroll.components.component import Component
from posttroll.components.decorators import Handler
from posttroll.components.messages import Result
from posttroll.components.middleware import Context, Outcome, Stack
from posttroll.components.work import Source, Wish, Wishes, settle, warn_of_loss
from posttroll.message import Message

__all__ = ["Execution", "MessageWork", "Pauses", "carry_out", "make_call"]


class Pauses:
    """Pauses between attempts, in the loop and in threads; all end when they are told to."""

    def __init__(self) -> None:
        self._is_over = asyncio.Event()
        self._is_over_in_threads = threading.Event()

    async def sleep(self, seconds: float) -> bool:
        """Pause in the loop; return whether to give up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()
        return self._is_over.is_set()

    def wait(self, seconds: float) -> bool:
        """Pause in a thread; return whether to give up."""
        return self._is_over_in_threads.wait(seconds)

    def end(self) -> None:
        """End all, also those to come."""
        self._is_over.set()
        self._is_over_in_threads.set()


class Execution:
    """Calls handlers within the middleware; without `pauses` nothing is tried again."""

    def __init__(self, stack: Stack, threads: Threads, pauses: Pauses | None = None) -> None:
        self._stack = stack
        self._threads = threads
        self._pauses = pauses

    async def run(
        self, handler: Handler, action: Callable[[], Any], name: str = "", message: Message | None = None
    ) -> Outcome:
        """Do what calls a handler, under another name if need be; what that raises is part of the outcome."""
        name = name or handler.name
        if handler.needs_loop:
            return await self._run_here(action, name, message)
        pause = () if self._pauses is None else (self._pauses.wait,)
        return await self._threads.call(partial(self._stack.run, action, name, message, *pause))

    async def _run_here(self, action: Callable[[], Awaitable[Any]], name: str, message: Message | None) -> Outcome:
        for attempt in itertools.count(1):
            outcome = await self._try(action, Context(name, message, attempt))
            if outcome.decision.state != "retried":
                break
            if self._pauses is None or await self._pauses.sleep(outcome.decision.delay):
                return outcome.given_up()
        return outcome

    async def _try(self, action: Callable[[], Awaitable[Any]], context: Context) -> Outcome:
        try:
            self._stack.begin(context)
            return self._stack.done(context, await action())
        except BaseException as error:  # whatever a handler raises, the loop has more to do
            if ends_this_task(error):
                raise
            return self._stack.failed(context, error)


class MessageWork:
    """What a component does with messages."""

    def __init__(self, wishes: Wishes, execution: Execution) -> None:
        self._wishes = wishes
        self._execution = execution

    async def handle(self, message: Message, source: Source[bool | Awaitable[bool]]) -> None:
        """Call all handlers that want a message, one after the other, each once, and settle it."""
        decisions = [(await self._fulfil(wish, message)).decision for wish in self._wishes.find(message)]
        settled = settle(message, source, decisions)
        if not (settled if isinstance(settled, bool) else await settled):
            warn_of_loss(message)

    async def _fulfil(self, wish: Wish, message: Message) -> Outcome:
        action = partial(_do if wish.handler.needs_loop else Wish.do, wish, message)
        return await self._execution.run(wish.handler, action, message=message)


async def carry_out(plan: Plan, execution: Execution, message: Message) -> Result:
    """Do what a message asks for; return what became of it."""
    return plan.result(
        [await execution.run(handler, action, plan.command, message) for handler, action in plan.actions]
    )


def make_call(handler: Handler, component: Component, stack: Stack, execution: Execution) -> Callable[..., Any]:
    """Return what calls a handler of calls within the middleware: a coroutine if that is one."""
    if not handler.needs_loop:
        return make_method(handler, component, stack)

    async def call(*arguments: Any, **keywords: Any) -> Any:
        async def action() -> Any:
            result = handler.call({"component": component}, *arguments, **keywords)
            return await result if inspect.isawaitable(result) else result

        outcome = await execution.run(handler, action)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    return call


async def _do(wish: Wish, message: Message) -> Any:
    """Do the same as `Wish.do`."""
    result = wish.call(message)
    if not inspect.isasyncgen(result):
        result = await result
        await _publish(wish, message, result)
        return result
    async with aclosing(result) as values:
        async for one in values:
            await _publish(wish, message, one)
    return result


async def _publish(wish: Wish, message: Message, result: Any) -> None:
    if (outgoing := wish.outgoing(result, message)) is not None:
        sent = wish.component.publish(outgoing)
        if sent is not None:
            await sent
