"""Running a component: how its subscription, its messenger and its handlers begin, work together and end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from posttroll.components.base import (
    ANSWER_TIME,
    ANSWERS_WAITED_FOR,
    FAREWELL_TIME,
    RunnerBase,
    Target,
    order_of,
    reason_for_loop,
)
from posttroll.components.commands import Plans, carry_out
from posttroll.components.configuration import Configuration
from posttroll.components.messages import Command, Result
from posttroll.components.middleware import Middleware
from posttroll.components.openings import open_messenger, open_server, open_subscriber
from posttroll.components.orders import Order, Orders
from posttroll.components.pool import Pool
from posttroll.components.work import MessageWork
from posttroll.daemon import notify
from posttroll.errors import ConfigurationError, Interrupted, PosttrollError, TimedOut
from posttroll.message import Message
from posttroll.messenger import Tracker
from posttroll.rpc import RpcServer
from posttroll.subscriber import Subscriber
from posttroll.threads import Worker

__all__ = ["Runner"]

logger = logging.getLogger(__name__)


class Runner(RunnerBase):
    """Runs one component until it is told to end; once.

    `target`: a class derived from `Component`, or a module with handlers. `middleware` is put inside of what the
    configuration names. `check_restart` is called before a command to restart is obeyed, and may raise `Refused`.
    """

    def __init__(
        self,
        target: Target,
        configuration: Configuration,
        middleware: Sequence[Middleware] = (),
        check_restart: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(target, configuration, middleware)
        if reason := reason_for_loop(target):
            raise ConfigurationError(
                f"{self.component.fingerprint.kind} {reason}; posttroll.asyncio.components runs it"
            )
        self._work = MessageWork(self._wishes, self._stack)
        built_in = {"ping": lambda: "pong", "status": self._status, "quit": lambda: None, "restart": check_restart}
        self._plans = Plans(self.component, self._handlers, built_in)
        self._orders = Orders()
        self._pool = Pool("handlers", configuration.workers, partial(self._orders.give, "idle"))
        self._command_pool = Pool("commands", 1, partial(self._orders.give, "idle"))
        self._server: RpcServer | None = None
        self._answers: deque[Tracker] = deque(maxlen=ANSWERS_WAITED_FOR)
        self._deadline = 0.0

    def run(self, on_ready: Callable[[], object] = lambda: None) -> Order:
        """Run it until it is told to end, and return how; `on_ready` is called when it gets messages.

        Raises what goes wrong, at the start or later.
        """
        with ExitStack() as running:
            running.callback(logger.info, "%s has ended", self._configuration.name)
            running.callback(self._orders.close)
            self._start(running)
            self._state = "running"
            on_ready()
            logger.info("%s is ready", self._configuration.name)
            return self._drain(running)

    def stop(self, order: Order = "quit") -> None:
        """Have `run` return when the handlers have; at once when told again. From anywhere, signal handlers too."""
        self._orders.give(order)

    def _start(self, running: ExitStack) -> None:
        """Start all; what is started last is stopped first."""
        configuration, component = self._configuration, self.component
        component.messenger = messenger = open_messenger(configuration)
        messenger.on_message(self._receive)
        self._begin(running, "messages", messenger.run, messenger.stop)
        running.callback(self._say_goodbye)
        component.start()
        running.callback(component.stop)
        for pool in (self._pool, self._command_pool):
            running.callback(pool.close)
            pool.start()
        self._server = open_server(messenger, component, self._handlers, self._stack, configuration.request_workers)
        running.callback(self._stop_server)
        if subscriber := open_subscriber(configuration, self._wishes.topics):
            self._begin(running, "component", partial(self._read, subscriber), subscriber.stop)

    def _begin(self, running: ExitStack, role: str, target: Callable[[], object], wake: Callable[[], None]) -> None:
        """Do something in a thread; if it fails, all ends, and what was the matter is raised."""

        def run(_: Worker) -> None:
            try:
                target()
            except Exception:
                self.stop("failed")
                raise

        running.callback(Worker(f"posttroll-{role}-{self._configuration.name}", run, wake=wake).start().stop)

    def _read(self, subscriber: Subscriber) -> None:
        """Take the next message only when there is a thread for it: another worker may have one before."""
        messages = subscriber.recv()
        while self._pool.wait_for_room() and (message := next(messages, None)) is not None:
            self._pool.submit(partial(self._work.handle, message, subscriber))

    def _receive(self, message: Message) -> None:
        """Do what a message asks for that was addressed to this component; never waits."""
        if message.type != Command.type:
            self._pool.submit(partial(self._work.handle, message, self.component.messenger))
        elif self._plans.has_own_handler(message):
            self._command_pool.submit(lambda _: self._carry_out(message))
        else:
            self._carry_out(message)

    def _carry_out(self, message: Message) -> None:
        """Carry out a command, answer it, and settle it before it ends the program: the next one is not to get it."""
        result = carry_out(self._plans.make(message), self._stack, message)
        try:
            self._answer(message, result)
        except PosttrollError as error:
            logger.warning("the result of %s cannot be sent: %s", result.command, error)
            with suppress(PosttrollError):
                self._answer(message, Result.exception(error, result.command))
        self.component.messenger.accept(message)
        if (order := order_of(message, result)) is not None:
            self.stop(order)

    def _answer(self, message: Message, result: Result) -> None:
        answer = result.message(self.component.fingerprint)
        self._answers.append(self.component.messenger.reply(message, answer, ttl=ANSWER_TIME))

    def _status(self) -> dict[str, Any]:
        messenger = self.component.messenger
        calls = 0 if self._server is None else self._server.active
        return self._tell_status(self._pool.in_hand, calls, messenger.outgoing, messenger.peers)

    def _drain(self, running: ExitStack) -> Order:
        """Wait for an order, and for handlers to come to their end unless another one comes; return the last one."""
        order = self._orders.take()
        assert order is not None
        logger.info("%s is ending: %s", self._configuration.name, order)
        self._state = "ending"
        if order != "restart":
            notify("STOPPING=1")
        self._deadline = time.monotonic() + self._configuration.drain_timeout
        pools = self._pool, self._command_pool
        for pool in pools:
            pool.close()
        calls = Worker(f"posttroll-last-calls-{self._configuration.name}", self._end_calls).start()
        running.callback(lambda: calls.stop(self._time_left()))
        for _ in (*pools, calls):
            news = self._orders.take(self._time_left())
            if news is None:
                logger.warning("handlers are still at work after %g s", self._configuration.drain_timeout)
                return order
            if news != "idle":
                logger.warning("%s is told again, and ends at once", self._configuration.name)
                self._deadline = time.monotonic()
                return news
        return order

    def _end_calls(self, _: Worker) -> None:
        try:
            self._stop_server()
        finally:
            self._orders.give("idle")

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.stop(self._time_left())

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _say_goodbye(self) -> None:
        """Wait a moment for the last answers to arrive."""
        deadline = time.monotonic() + FAREWELL_TIME
        with suppress(TimedOut, Interrupted):
            for answer in self._answers:
                answer.wait(max(0.0, deadline - time.monotonic()))
