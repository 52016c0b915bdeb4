"""Running a component in an event loop: how its parts begin, work together and end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from posttroll.asyncio.components.openings import open_messenger, open_server, open_subscriber
from posttroll.asyncio.components.orders import Orders
from posttroll.asyncio.components.outlet import Outlet
from posttroll.asyncio.components.pool import Pool
from posttroll.asyncio.components.threads import Threads
from posttroll.asyncio.components.work import Execution, MessageWork, Pauses, carry_out
from posttroll.asyncio.messenger import Messenger, Tracker
from posttroll.asyncio.rpc import RpcServer
from posttroll.asyncio.subscriber import Subscriber
from posttroll.asyncio.tasks import Worker
from posttroll.components.base import ANSWER_TIME, ANSWERS_WAITED_FOR, FAREWELL_TIME, RunnerBase, Target, order_of
from posttroll.components.commands import Plans
from posttroll.components.configuration import Configuration
from posttroll.components.messages import Command, Result
from posttroll.components.middleware import Middleware
from posttroll.components.orders import Order
from posttroll.daemon import notify
from posttroll.errors import Interrupted, PosttrollError, TimedOut
from posttroll.message import Message

__all__ = ["Runner"]

logger = logging.getLogger(__name__)


class Runner(RunnerBase):
    """Runs one component until it is told to end; once. The arguments are those of `posttroll.components.Runner`.

    `workers` of the configuration says how many handlers of messages are under way at a time, coroutines or not, and
    `request_workers` the same of calls. Middleware is called in the loop around coroutines, which is not to be blocked,
    and in their threads around plain functions. These may use `Component.publish` as ever, but not the messenger, which
    is the loop's.
    """

    def __init__(
        self,
        target: Target,
        configuration: Configuration,
        middleware: Sequence[Middleware] = (),
        check_restart: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(target, configuration, middleware)
        self._check_restart = check_restart
        built_in = {"ping": _ping, "status": self._status, "quit": _obey, "restart": self._refuse_vain_restart}
        self._plans = Plans(self.component, self._handlers, built_in)
        self._threads = Threads("handlers")
        self._command_threads = Threads("commands")
        self._own_threads = Threads("component")
        self._pauses = Pauses()
        self._work = MessageWork(self._wishes, Execution(self._stack, self._threads, self._pauses))
        self._command_execution = Execution(self._stack, self._command_threads)
        self._pool = Pool("handlers", configuration.workers)
        self._command_pool = Pool("commands", 1)
        self._orders = Orders()
        self._messenger: Messenger
        self._server: RpcServer | None = None
        self._answers: deque[Tracker] = deque(maxlen=ANSWERS_WAITED_FOR)
        self._deadline = 0.0

    async def run(self, on_ready: Callable[[], object] = lambda: None) -> Order:
        """Run it until it is told to end, and return how; `on_ready` is called when it gets messages.

        Raises what goes wrong, at the start or later. Cancelled, it ends at once: handlers that are coroutines are
        cancelled, others are left alone.
        """
        async with AsyncExitStack() as running:
            running.callback(logger.info, "%s has ended", self._configuration.name)
            await self._start(running)
            self._state = "running"
            on_ready()
            logger.info("%s is ready", self._configuration.name)
            return await self._drain()

    def stop(self, order: Order = "quit") -> None:
        """Have `run` return when the handlers have; at once when told again. From anywhere, signal handlers too."""
        self._orders.give(order)

    async def _start(self, running: AsyncExitStack) -> None:
        """Start all; what is started last is stopped first."""
        configuration, component = self._configuration, self.component
        self._messenger = component.messenger = messenger = await open_messenger(configuration)  # type: ignore[assignment]
        running.push_async_callback(messenger.stop)
        component.outlet = outlet = Outlet(messenger)
        running.push_async_callback(outlet.close, FAREWELL_TIME)
        messenger.on_message(self._receive)
        self._begin(running, "messages", messenger.run)
        running.push_async_callback(self._say_goodbye)
        running.callback(self._own_threads.close)
        await self._call(component.start)
        running.push_async_callback(self._call, component.stop)
        for threads in (self._threads, self._command_threads):
            running.callback(threads.close)
        for pool in (self._pool, self._command_pool):
            running.push_async_callback(pool.stop)
        execution = Execution(self._stack, self._threads)
        workers = configuration.request_workers
        self._server = await open_server(messenger, component, self._handlers, self._stack, execution, workers)
        running.push_async_callback(self._stop_server)
        if subscriber := await open_subscriber(configuration, self._wishes.topics):
            running.push_async_callback(subscriber.stop)
            self._begin(running, "component", partial(self._read, subscriber))

    async def _call(self, hook: Callable[[], Awaitable[None] | None]) -> None:
        """Call the component's start or stop."""
        result = hook() if inspect.iscoroutinefunction(hook) else await self._own_threads.call(hook)
        if result is not None:
            await result

    def _begin(self, running: AsyncExitStack, role: str, target: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something in a task; if it fails, all ends, and what was the matter is raised."""

        async def run() -> None:
            try:
                await target()
            except Exception:
                self.stop("failed")
                raise

        running.push_async_callback(Worker(f"posttroll-{role}-{self._configuration.name}", run).start().stop)

    async def _read(self, subscriber: Subscriber) -> None:
        """Take the next message only when it can be handled: another worker may have one before."""
        messages = subscriber.recv()
        while await self._pool.wait_for_room() and (message := await anext(messages, None)) is not None:
            self._pool.submit(partial(self._work.handle, message, subscriber))

    async def _receive(self, message: Message) -> None:
        """Do what a message asks for that was addressed to this component; what takes long is done beside."""
        if message.type != Command.type:
            self._pool.submit(partial(self._work.handle, message, self._messenger))
        elif self._plans.has_own_handler(message):
            self._command_pool.submit(partial(self._carry_out, message))
        else:
            await self._carry_out(message)

    async def _carry_out(self, message: Message) -> None:
        """Carry out a command, answer it, and settle it before it ends the program: the next one is not to get it."""
        result = await carry_out(self._plans.make(message), self._command_execution, message)
        try:
            await self._answer(message, result)
        except PosttrollError as error:
            logger.warning("the result of %s cannot be sent: %s", result.command, error)
            with suppress(PosttrollError):
                await self._answer(message, Result.exception(error, result.command))
        await self._messenger.accept(message)
        if (order := order_of(message, result)) is not None:
            self.stop(order)

    async def _answer(self, message: Message, result: Result) -> None:
        answer = result.message(self.component.fingerprint)
        self._answers.append(await self._messenger.reply(message, answer, ttl=ANSWER_TIME))

    async def _status(self) -> dict[str, Any]:
        calls = 0 if self._server is None else self._server.active
        return self._tell_status(self._pool.in_hand, calls, self._messenger.outgoing, self._messenger.peers)

    async def _refuse_vain_restart(self) -> None:
        await self._own_threads.call(self._check_restart)

    async def _drain(self) -> Order:
        """Wait for an order, and for handlers to come to their end unless another one comes; return the last one."""
        order = await self._orders.take()
        logger.info("%s is ending: %s", self._configuration.name, order)
        self._state = "ending"
        if order != "restart":
            notify("STOPPING=1")
        self._deadline = time.monotonic() + self._configuration.drain_timeout
        self._pauses.end()
        for pool in (self._pool, self._command_pool):
            pool.close()
        idle, again = asyncio.ensure_future(self._wait_until_idle()), asyncio.ensure_future(self._orders.take())
        try:
            await asyncio.wait([idle, again], timeout=self._time_left(), return_when=asyncio.FIRST_COMPLETED)
            if again.done():
                logger.warning("%s is told again, and ends at once", self._configuration.name)
                self._deadline = time.monotonic()
                return again.result()
            if not idle.done():
                logger.warning("handlers are still at work after %g s", self._configuration.drain_timeout)
        finally:
            idle.cancel()
            again.cancel()
            await asyncio.gather(idle, again, return_exceptions=True)
        return order

    async def _wait_until_idle(self) -> None:
        for pool in (self._pool, self._command_pool):
            await pool.wait_until_idle()
        await self._stop_server()

    async def _stop_server(self) -> None:
        if self._server is not None:
            await self._server.stop(self._time_left())

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def _say_goodbye(self) -> None:
        """Wait a moment for the last answers to arrive."""
        deadline = time.monotonic() + FAREWELL_TIME
        with suppress(TimedOut, Interrupted):
            for answer in self._answers:
                await answer.wait(max(0.0, deadline - time.monotonic()))


async def _ping() -> str:
    return "pong"


async def _obey() -> None:
    """Do nothing but agree."""
