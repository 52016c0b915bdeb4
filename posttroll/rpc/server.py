"""The called side."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from posttroll.errors import PosttrollError
from posttroll.forks import is_this_process
from posttroll.message import Message
from posttroll.protocol.calls import Request
from posttroll.protocol.frames import ACCEPTED
from posttroll.rpc.contexts import CallContext, current_call, properties_of
from posttroll.rpc.serving import BaseServer, public
from posttroll.threads import Handover, Worker

if TYPE_CHECKING:
    from posttroll.messenger import Messenger, Tracker

__all__ = ["CallContext", "RpcServer", "current_call", "public"]

logger = logging.getLogger(__name__)

_END_TIMEOUT = 1.0


class RpcServer(BaseServer["Messenger", CallContext]):
    """Has other programs call methods and functions of this one: those declared to be public, and no others.

    Up to `workers` calls are handled at a time, each in a thread; the peers have their turns. `transfer_exceptions`:
    whether callers are told what was raised; `transfer_tracebacks`: where, too. `encoders`: what may be used in place
    of JSON, by name.
    """

    _messenger: Messenger
    _given: Handover[Message | None]
    _workers: Sequence[Worker] = ()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Begin to handle calls, as soon as there is something to be called; harmless when started.

        What is registered later than something else may not be found by the first to call. `LocalProtocolError` if the
        messenger has another server.
        """
        with self._turn:
            if self._is_serving:
                return self
            self._begin_serving()
            self._given = Handover()
            self._workers = [
                Worker(
                    f"posttroll-handlers-{number}", self._work, wake=functools.partial(self._given.put, None)
                ).start()
                for number in range(1, self._most_busy + 1)
            ]
        self._take_notices()
        self._hand_out()
        return self

    def stop(self, drain: float = 5.0) -> None:
        """Take no more calls; wait up to `drain` seconds until those under way are answered. Harmless when stopped."""
        if not is_this_process(self._process):  # where nobody gives the lock back, if it was held
            return
        with self._turn:
            self._is_serving = False
            workers, self._workers = self._workers, ()
            own = any(worker.thread is threading.current_thread() for worker in workers)
            self._turn.wait_for(functools.partial(self._is_idle, own), drain)
            self._give_up_all()
        for worker in workers:
            worker.stop(timeout=0.0)
        for worker in workers:
            worker.stop(_END_TIMEOUT)

    def _wake(self) -> None:
        self._turn.notify_all()

    def _hand_out(self) -> None:
        while (message := self._next_request()) is not None:
            self._given.put(message)

    def _work(self, worker: Worker) -> None:
        message: Message | None = None
        while not worker.stopping:
            message = message or self._given.get()
            if message is None:
                continue
            try:
                self._handle(message)
            except Exception:
                logger.exception("a call from %s was not handled", properties_of(message).source)
            message = self._take_another()

    def _take_another(self) -> Message | None:
        """Return the next request for a worker that has done one: as it is awake, no other one has to be woken."""
        with self._turn:
            message = self._requests.take() if self._requests is not None and self._is_serving else None
            if message is None:
                self._busy -= 1
                self._wake()
            return message

    def _context(self, message: Message, request: Request) -> CallContext:
        return CallContext(message, request, self._tell_progress)

    def _handle(self, message: Message) -> None:
        if (call := self._admit(message)) is not None:
            self._reply(call, self._carry_out(call))

    def _reply(self, call: CallContext, answer: Message) -> None:
        """Answer a caller that is still interested."""
        outcome = self._verdict(call)
        if outcome is None:
            try:
                tracker = self._put(call, answer)
            except PosttrollError as error:
                outcome = self._cannot_answer(call, error)
            else:
                tracker.add_done_callback(functools.partial(self._replied, call, answer.type))
                return
        self._settle(call, outcome)

    def _replied(self, call: CallContext, kind: str, tracker: Tracker) -> None:
        if (other := self._answer_after(kind, tracker)) is not None:
            self._reply(call, other)
        else:
            self._settle(call, ACCEPTED)

    def _tell_progress(self, call: CallContext, number: int, value: object) -> None:
        self._put(call, self._progress(call, number, value)).add_done_callback(call._note_arrival)

    def _put(self, call: CallContext, message: Message) -> Tracker:
        return self._messenger.put(call.peer, message, **self._envelope(call))
