"""The called side, on an event loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self, cast

from posttroll.asyncio.messenger import Messenger, Tracker
from posttroll.asyncio.rpc.errands import Errands
from posttroll.asyncio.side_thread import SideThread
from posttroll.asyncio.tasks import ends_this_task
from posttroll.asyncio.turns import Turn
from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.protocol.calls import Request
from posttroll.protocol.frames import ACCEPTED, RELEASED
from posttroll.rpc import contexts
from posttroll.rpc.contexts import BaseCallContext, handled_call, properties_of
from posttroll.rpc.contexts import CallContext as ThreadContext
from posttroll.rpc.serving import BaseServer, Method, public

__all__ = ["CallContext", "RpcServer", "current_call", "public"]

logger = logging.getLogger(__name__)

_END_TIMEOUT = 1.0


def current_call() -> CallContext:
    """Return the call that this task handles; `LocalProtocolError` if there is none.

    In a plain function, which runs in a thread, it is what `posttroll.rpc.current_call` returns.
    """
    return cast(CallContext, contexts.current_call())


class CallContext(BaseCallContext):
    """A call that is being handled, as its coroutine sees it, which is cancelled if the caller is not interested.

    `id` is the same at both ends; `peer` is the name of who calls, and `key` its public key, "" if it has none;
    `deadline` is when the caller gives up at the latest, by the monotonic clock.
    """

    def __init__(
        self, message: Message, request: Request, tell: Callable[[CallContext, int, Any], Awaitable[None]]
    ) -> None:
        super().__init__(message, request)
        self._tell = tell
        self._news = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the caller is no longer interested, for at most `timeout` seconds; return whether it is so.

        That is for other tasks than the one that handles the call, which is cancelled then.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.remaining if timeout is None else min(timeout, self.remaining)):
                await self._until(lambda: self._is_cancelled)
        return self.cancelled

    async def progress(self, value: object) -> None:
        """Tell a caller that looks at the progress how far it is; it may miss some if it looks seldom.

        Raises `CallCancelled` if the caller is no longer interested.
        """
        if (number := self._take_number()) is not None:
            await self._tell(self, number, value)

    async def _send(self, value: object) -> None:
        """Give the caller a value, and wait until there is room for it."""
        await self._until(self._may_go_on)
        await self.progress(value)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._news.clear()
            await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        if self._is_cancelled and self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            self._task = None

    @contextmanager
    def _handled_here(self) -> Iterator[None]:
        """Have this task cancelled when the caller is no longer interested."""
        task = self._task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self.remaining, self._cancel)
        token = handled_call.set(self)
        try:
            yield
        finally:
            handled_call.reset(token)
            timer.cancel()
            if self._task is None:
                task.uncancel()
            self._task = None


AnyContext = CallContext | ThreadContext


class RpcServer(BaseServer[Messenger, AnyContext]):
    """Has other programs call methods and functions of this one; the arguments are those of `posttroll.rpc.RpcServer`.

    Up to `workers` calls are handled at a time: coroutine functions and asynchronous generators in tasks of the loop,
    others in threads. A task is cancelled when its caller is no longer interested.
    """

    _is_awaited = True
    _threads: Sequence[SideThread] = ()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> Self:
        """Begin to handle calls, as soon as there is something to be called; harmless when started.

        What is registered later than something else may not be found by the first to call. `LocalProtocolError` if the
        messenger has another server.
        """
        if not self._is_serving:
            self._begin_serving()
            self._loop = asyncio.get_running_loop()
            self._threads = [SideThread(f"posttroll-handlers-{number + 1}") for number in range(self._most_busy)]
            self._free_threads = [*reversed(self._threads)]
            self._take_notices()
            self._hand_out()
        return self

    async def stop(self, drain: float = 5.0) -> None:
        """Take no more calls; wait up to `drain` seconds until those under way are answered, then cancel them.

        Cancelled, it waits no longer. Harmless when stopped.
        """
        self._is_serving = False
        is_idle = functools.partial(self._is_idle, self._errands.is_running_this())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    while not is_idle():
                        self._turned.clear()
                        await self._turned.wait()
        finally:
            self._give_up_all()
            await self._end()

    async def _end(self) -> None:
        threads, self._threads = self._threads, ()
        try:
            are_over = await self._errands.finish(_END_TIMEOUT)
        finally:
            for thread in threads:
                thread.end()
        if are_over:
            await asyncio.gather(*(thread.stop() for thread in threads))
        else:
            logger.error("calls under way did not end within %g s", _END_TIMEOUT)

    @functools.cached_property
    def _errands(self) -> Errands:
        return Errands("posttroll-handlers")

    @functools.cached_property
    def _turned(self) -> asyncio.Event:
        return asyncio.Event()

    def _wake(self) -> None:
        self._turned.set()

    def _hand_out(self) -> None:
        while (message := self._next_request()) is not None:
            self._errands.run(self._handle, message)

    async def _handle(self, message: Message) -> None:
        try:
            await self._handle_one(message)
        except Exception:
            logger.exception("a call from %s was not handled", properties_of(message).source)
        finally:
            self._busy -= 1
            self._wake()
        self._hand_out()

    async def _handle_one(self, message: Message) -> None:
        if (call := self._admit(message)) is None:
            return
        try:
            answer = await self._answer(call)
        except asyncio.CancelledError:  # the loop is about to end
            self._settle(call, RELEASED)
            raise
        await self._reply(call, answer)

    def _context(self, message: Message, request: Request) -> AnyContext:
        method = self._methods.get((request.object, request.method))
        if method is None or _is_asynchronous(method):
            return CallContext(message, request, self._tell_progress)
        return ThreadContext(message, request, self._tell_from_thread)

    async def _answer(self, call: AnyContext) -> Message:
        if isinstance(call, CallContext):
            return await self._carry_out_here(call)
        free = self._free_threads
        thread = free.pop()
        try:
            return await thread.call(self._carry_out, call)
        finally:
            free.append(thread)

    async def _carry_out_here(self, call: CallContext) -> Message:
        try:
            with call._handled_here():
                method, arguments, keywords = self._prepare(call)
                value = method(*arguments, **keywords)
                if inspect.isawaitable(value):
                    value = await value
                if isinstance(value, Iterator):
                    value = _stepped(value)
                if isinstance(value, AsyncIterator):
                    await self._hand_over(call, value)
                    value = None
                return self._result(call, value)
        except BaseException as error:
            if ends_this_task(error):
                raise
            return self._failure(call, error)

    async def _hand_over(self, call: CallContext, values: AsyncIterator[Any]) -> None:
        """Give the caller each value."""
        try:
            self._insist_on_room(call)
            turn = Turn()
            async for value in values:
                await call._send(value)
                await turn.give_way()
        finally:
            if isinstance(values, AsyncGenerator):
                await values.aclose()

    async def _reply(self, call: AnyContext, answer: Message) -> None:
        """Answer a caller that is still interested."""
        outcome = self._verdict(call)
        if outcome is None:
            try:
                tracker = await self._put(call, answer)
            except PosttrollError as error:
                outcome = self._cannot_answer(call, error)
            else:
                tracker.add_done_callback(functools.partial(self._replied, call, answer.type))
                return
        self._settle(call, outcome)

    def _replied(self, call: AnyContext, kind: str, tracker: Tracker) -> None:
        if (other := self._answer_after(kind, tracker)) is not None:
            self._errands.run(self._reply, call, other)
        else:
            self._settle(call, ACCEPTED)

    async def _tell_progress(self, call: AnyContext, number: int, value: object) -> None:
        (await self._put(call, self._progress(call, number, value))).add_done_callback(call._note_arrival)

    def _tell_from_thread(self, call: ThreadContext, number: int, value: object) -> None:
        telling = self._tell_progress(call, number, value)
        asyncio.run_coroutine_threadsafe(telling, self._loop).result(call.remaining)

    async def _put(self, call: AnyContext, message: Message) -> Tracker:
        return await self._messenger.put(call.peer, message, **self._envelope(call))


def _is_asynchronous(method: Method) -> bool:
    functions = method, type(method).__call__
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


async def _stepped(values: Iterator[Any]) -> AsyncGenerator[Any, None]:
    for value in values:
        yield value
