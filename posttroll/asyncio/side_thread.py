"""A thread beside a loop, for what touches a disk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from posttroll.asyncio.home import Home
from posttroll.asyncio.turns import Turn
from posttroll.errors import NotStarted
from posttroll.threads import Worker

__all__ = ["LoopCalls", "SideThread"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Result = TypeVar("Result")


class LoopCalls:
    """Has functions called in a loop, in order, whichever thread adds them; many are one interruption of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._added: deque[Callable[[], object]] = deque()
        self._is_expected = False
        self._is_closed = False

    def add(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have a function called soon, from any thread; never when closed, or after the end of the loop."""
        self._added.append(functools.partial(function, *args, **kwargs))
        if not self._is_expected:
            self._is_expected = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        self._is_expected = False  # first, so that what is added from here on is not overlooked
        turn = Turn()
        turn.begin()
        while self._added and not self._is_closed:
            function = self._added.popleft()
            try:
                function()
            except Exception:
                logger.exception("a call from another thread failed")
            if self._added and turn.is_over:
                self._is_expected = True
                self._loop.call_soon(self._call)
                return

    def close(self) -> None:
        """Call nothing any more."""
        self._is_closed = True
        self._added.clear()


class _Call:
    """A function to be run, and who waits for its result."""

    def __init__(self, function: Callable[[], Any], result: asyncio.Future[Any], *, is_last: bool) -> None:
        self.result = result
        self.is_last = is_last
        self._function = function

    def run(self, calls: LoopCalls) -> None:
        """Run it, unless nobody waits for it any more, and have the result told in the loop."""
        if self.result.cancelled():
            return
        try:
            value = self._function()
        except BaseException as error:
            calls.add(self.fail, error)
        else:
            calls.add(self._succeed, value)

    def _succeed(self, value: object) -> None:
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Raise an error where the result is waited for."""
        if not self.result.done():
            self.result.set_exception(error)


class SideThread:
    """Runs functions in one thread of its own, first come first served, for one loop.

    Started when first used.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._worker = Worker(name, self._run)
        self._home = Home(name)
        self._calls: LoopCalls
        self._end: asyncio.Future[Any] | None = None

    async def call(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Run a function there and return its result; `NotStarted` when stopped, `LocalProtocolError` in another loop.

        Cancelled before it has begun, it is not run; cancelled meanwhile, it runs on.
        """
        if self._worker.stopping:
            raise self._refusal()
        result: Result = await self._put(functools.partial(function, *args, **kwargs))
        return result

    def call_later(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a function there, in its turn, and log it if it fails; nothing when stopped."""
        if not self._worker.stopping:
            self._put(functools.partial(function, *args, **kwargs)).add_done_callback(self._log_failure)

    def _log_failure(self, result: asyncio.Future[Any]) -> None:
        error = None if result.cancelled() else result.exception()
        if error is not None and not self._worker.stopping:
            logger.error("%s: %s", self._name, error)

    def _refusal(self) -> NotStarted:
        return NotStarted(f"{self._name} is stopped")

    def _put(self, function: Callable[[], Any], *, is_last: bool = False) -> asyncio.Future[Any]:
        is_new, loop = self._home.loop is None, self._home.check()
        if is_new:
            self._calls = LoopCalls(loop)
            self._worker.start()
        result: asyncio.Future[Any] = loop.create_future()
        self._waiting.put(_Call(function, result, is_last=is_last))
        return result

    def _run(self, worker: Worker) -> None:
        is_over = False
        while not is_over:
            call = self._waiting.get()
            is_over = call.is_last
            if worker.stopping and not is_over:
                self._calls.add(call.fail, self._refusal())
            else:
                call.run(self._calls)

    def end(self, last: Callable[[], object] | None = None) -> None:
        """Stop without waiting: what has not begun is not run, but raises; `last` is run there as the last thing."""
        if self._worker.stopping:
            return
        self._worker.stop(timeout=0.0)
        if self._home.loop is not None or last is not None:
            self._end = self._put(last or (lambda: None), is_last=True)
            self._end.add_done_callback(lambda end: end.cancelled() or end.exception())  # as nobody may wait for it

    async def stop(self, last: Callable[[], object] | None = None) -> None:
        """Do the same and wait for the end; raise what `last` raised. Cancelled, it ends by itself. Harmless twice."""
        self.end(last)
        if self._end is not None:
            await asyncio.wait([self._end])
            self._worker.stop()
            self._end.result()
