"""The called side."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self, TypeVar

from posttroll.errors import (
    CallCancelled,
    CallInterrupted,
    ConfigurationError,
    LocalProtocolError,
    MethodNotFound,
    PosttrollError,
    RemoteError,
    RemoteProtocolError,
)
from posttroll.forks import is_this_process
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.calls import Cancel, Encoder, Encoders, Flow, Progress, Request, Result
from posttroll.protocol.drops import Drops
from posttroll.protocol.properties import Properties
from posttroll.threads import Handover, Worker

if TYPE_CHECKING:
    from posttroll.messenger import Messenger
    from posttroll.messenger.targets import Target
    from posttroll.messenger.trackers import Tracker

__all__ = ["CallContext", "RpcServer", "current_call", "public"]

logger = logging.getLogger(__name__)

Method = Callable[..., Any]
Function = TypeVar("Function", bound=Method)
Key = tuple[str, str]

_PUBLIC = "_posttroll_is_public"
_MOST_EARLY = 1000
# How long an answer waits for a caller that is gone, however long that wanted to wait for it.
_LONGEST_ANSWER = 300.0
_MOST_ON_THEIR_WAY = 1000
_LONGEST_NAME = 200
_END_TIMEOUT = 1.0

_current: ContextVar[CallContext] = ContextVar("current_call")


def public(function: Function) -> Function:
    """Mark a method as one that other programs may call."""
    setattr(function, _PUBLIC, True)
    return function


def current_call() -> CallContext:
    """Return the call that is being handled; `LocalProtocolError` if there is none."""
    call = _current.get(None)
    if call is None:
        raise LocalProtocolError("nothing that another program called is being handled here")
    return call


class CallContext:
    """A call that is being handled, as its handler sees it.

    `id` is the same at both ends; `peer` is the name of who calls, and `key` its public key, "" if it has none;
    `deadline` is when the caller gives up at the latest, by the monotonic clock.
    """

    def __init__(self, message: Message, request: Request, tell: Callable[[CallContext, int, Any], Tracker]) -> None:
        properties, delivery = _properties_of(message), message.delivery
        self.id = properties.id
        self.peer = properties.source
        self.key = delivery.key if delivery else ""
        self.deadline = time.monotonic() + request.timeout
        self._request = request
        self._may_have_begun = request.repeated or (delivery is not None and delivery.redelivered)
        self._tell = tell
        self._messages = [message]
        self._news = threading.Condition(threading.Lock())
        self._is_cancelled = False
        self._is_stopped = False
        self._sent = 0
        self._arrived = 0
        self._sendable = request.window

    @property
    def remaining(self) -> float:
        """The seconds until the deadline, 0 beyond it."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller is no longer interested, so that the handler may as well end."""
        return self._is_cancelled or self.remaining == 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the caller is no longer interested, for at most `timeout` seconds; return whether it is so."""
        longest = self.remaining if timeout is None else min(timeout, self.remaining)
        with self._news:
            self._news.wait_for(lambda: self._is_cancelled, longest)
        return self.cancelled

    def progress(self, value: object) -> None:
        """Tell a caller that looks at the progress how far it is; it may miss some if it looks seldom.

        Raises `CallCancelled` if the caller is no longer interested.
        """
        self._send(value, waits=False)

    def _send(self, value: object, *, waits: bool) -> None:
        with self._news:
            if waits:
                self._news.wait_for(lambda: self._has_room or self._is_cancelled, self.remaining)
            if self.cancelled:
                raise CallCancelled("the caller is no longer interested")
            if not self._has_room:
                return
            number = self._sent
            self._sent += 1
        self._tell(self, number, value).add_done_callback(self._note_arrival)

    @property
    def _has_room(self) -> bool:
        return self._sent < min(self._sendable, self._arrived + _MOST_ON_THEIR_WAY)

    def _note_arrival(self, tracker: Tracker) -> None:
        with self._news:
            self._arrived += 1
            self._news.notify_all()

    def _give_room(self, taken: int) -> None:
        with self._news:
            self._sendable = max(self._sendable, taken + self._request.window)
            self._news.notify_all()

    def _cancel(self, *, is_stopped: bool = False) -> None:
        with self._news:
            self._is_cancelled = True
            self._is_stopped = is_stopped
            self._news.notify_all()


class _Refusal(Exception):
    """A request is not carried out."""

    def __init__(self, kind: str, error: Exception) -> None:
        super().__init__(kind)
        self.kind = kind
        self.error = error


class RpcServer:
    """Has other programs call methods and functions of this one: those declared to be public, and no others.

    Up to `workers` calls are handled at a time, each in a thread; the peers have their turns. `transfer_exceptions`:
    whether callers are told what was raised; `transfer_tracebacks`: where, too. `encoders`: what may be used in place
    of JSON, by name.
    """

    def __init__(
        self,
        messenger: Messenger,
        *,
        workers: int = 4,
        transfer_exceptions: bool = True,
        transfer_tracebacks: bool = True,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigurationError(f"workers is {workers!r}, but must be 1 or more")
        self._messenger = messenger
        self._most_busy = workers
        self._transfer_exceptions = transfer_exceptions
        self._transfer_tracebacks = transfer_tracebacks
        self._encoders = Encoders(encoders)
        self._methods: dict[Key, Method] = {}
        self._drops = Drops()
        self._turn = threading.Condition()
        self._busy = 0
        self._is_serving = False
        self._process = os.getpid()
        self._calls: dict[Key, CallContext] = {}
        self._early: OrderedDict[Key, Cancel | Flow] = OrderedDict()
        """What was said of calls that are not under way: their requests may still come."""
        self._given: Handover[Message | None] = Handover()
        self._workers: list[Worker] = []
        self._requests: Target | None = None
        self._notices: Target | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many requests were not carried out, by reason."""
        return self._drops.counts

    @property
    def active(self) -> int:
        """How many calls are under way, or their answers are."""
        return len(self._calls)

    def register(self, thing: object, name: str) -> None:
        """Offer the methods of an object that are marked as `public`, under its name; `ConfigurationError`."""
        if not name:
            raise ConfigurationError("an object has to have a name")
        methods = {
            method_name: getattr(thing, method_name)
            for method_name, member in inspect.getmembers_static(thing)
            if getattr(member, _PUBLIC, False) is True
        }
        if not methods:
            raise ConfigurationError(f"{thing!r} has no method that is marked as public")
        self._offer({(name, method_name): method for method_name, method in methods.items()})

    def register_function(self, function: Method, name: str | None = None) -> None:
        """Offer a function, under its own name unless given another one; `ConfigurationError`."""
        self._offer({("", name or function.__name__): function})

    def function(self, function: Function) -> Function:
        """Do the same as a decorator."""
        self.register_function(function)
        return function

    def _offer(self, methods: Mapping[Key, Method]) -> None:
        with self._turn:
            for thing, name in methods:
                if name.startswith("_") or max(len(thing), len(name)) > _LONGEST_NAME:
                    raise ConfigurationError(f"{name!r} cannot be offered: it is private, or has too long a name")
                if (thing, name) in self._methods:
                    raise ConfigurationError(f"{_path(thing, name)} is offered already")
            self._methods.update(methods)
        self._hand_out()

    def start(self) -> Self:
        """Begin to handle calls, as soon as there is something to be called; harmless when started.

        What is registered later than something else may not be found by the first to call. `LocalProtocolError` if the
        messenger has another server.
        """
        with self._turn:
            if self._is_serving:
                return self
            if self._requests is None or self._notices is None:
                self._notices = self._messenger.open_target("cancellations", self._take_notices)
                self._requests = self._messenger.open_target("requests", self._hand_out, on_close=self._forget_all)
            self._is_serving, self._process = True, os.getpid()
            self._workers = [
                Worker(f"posttroll-handlers-{number}", self._work, wake=lambda: self._given.put(None)).start()
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
            workers, self._workers = self._workers, []
            own = any(worker.thread is threading.current_thread() for worker in workers)
            self._turn.wait_for(lambda: max(self._busy, self._unanswered) <= own, drain)
            self._give_up_all()
        for worker in workers:
            worker.stop(timeout=0.0)
        for worker in workers:
            worker.stop(_END_TIMEOUT)

    def _forget_all(self) -> None:
        """Be done with all calls, as the messenger was stopped: their requests come again in another life of it."""
        if is_this_process(self._process):
            with self._turn:
                self._give_up_all()
                self._turn.notify_all()

    def _give_up_all(self) -> None:
        for call in self._calls.values():
            call._cancel(is_stopped=True)
        self._calls.clear()

    @property
    def _unanswered(self) -> int:
        """How many calls have no answer yet that are made by somebody who is there."""
        peers = self._messenger.peers
        return sum(call.peer in peers for call in self._calls.values())

    def _hand_out(self) -> None:
        """Give requests to workers that have nothing to do; more stay where each peer gets its turn."""
        with self._turn:
            while self._requests is not None and self._can_handle_more:
                message = self._requests.take()
                if message is None:
                    return
                self._busy += 1
                self._given.put(message)

    @property
    def _can_handle_more(self) -> bool:
        return self._is_serving and bool(self._methods) and self._busy < self._most_busy

    def _work(self, worker: Worker) -> None:
        message: Message | None = None
        while not worker.stopping:
            message = message or self._given.get()
            if message is None:
                continue
            try:
                self._handle(message)
            except Exception:
                logger.exception("a call from %s was not handled", _properties_of(message).source)
            message = self._take_another()

    def _take_another(self) -> Message | None:
        """Return the next request for a worker that has done one: as it is awake, no other one has to be woken."""
        with self._turn:
            message = self._requests.take() if self._requests is not None and self._is_serving else None
            if message is None:
                self._busy -= 1
                self._turn.notify_all()
            return message

    def _handle(self, message: Message) -> None:
        assert self._requests is not None
        try:
            request = calls.decode(message.type, message.data)
            if not isinstance(request, Request):
                raise RemoteProtocolError(f"a {message.type} is no request")
        except RemoteProtocolError as error:
            self._count("not a request", _properties_of(message).source, error)
            self._requests.reject(message, str(error))
            return
        call = CallContext(message, request, self._tell_progress)
        if self._admit(call, message):
            self._reply(call, self._carry_out(call))

    def _admit(self, call: CallContext, message: Message) -> bool:
        """Return whether the call is to be carried out: it is not if it is under way, or was cancelled."""
        assert self._requests is not None
        key = call.peer, call.id
        with self._turn:
            if (known := self._calls.get(key)) is not None:
                known._messages.append(message)
                return False
            notice = self._early.pop(key, None)
            if not isinstance(notice, Cancel):
                self._calls[key] = call
        if isinstance(notice, Cancel):
            self._requests.accept(message)
            return False
        if notice is not None:
            call._give_room(notice.taken)
        return True

    def _carry_out(self, call: CallContext) -> Message:
        """Return the answer."""
        request = call._request
        logger.debug("call %s of %s by %s", call.id, _path(request.object, request.method), call.peer)
        token = _current.set(call)
        try:
            method, arguments, keywords = self._prepare(call)
            value = method(*arguments, **keywords)
            if isinstance(value, Iterator):
                value = self._iterate(call, value)
            return _message(Result(self._encoders.pack(request.encoder, value)))
        except _Refusal as refusal:
            self._count(refusal.kind, call.peer, refusal.error)
            return _message(calls.describe(refusal.error, with_traceback=False))
        except BaseException as error:
            return self._failure(call, error)
        finally:
            _current.reset(token)

    def _prepare(self, call: CallContext) -> tuple[Method, list[Any], dict[str, Any]]:
        request = call._request
        path = _path(request.object, request.method)
        method = self._methods.get((request.object, request.method))
        if method is None:
            raise _Refusal("unknown method", MethodNotFound(f"there is no public {path}"))
        if call._may_have_begun and not request.idempotent:
            text = f"{path} was interrupted; nobody knows how far it came"
            raise _Refusal("interrupted", CallInterrupted(text))
        try:
            return method, *self._encoders.unpack_arguments(request)
        except PosttrollError as error:
            raise _Refusal("unreadable arguments", error) from None

    def _iterate(self, call: CallContext, values: Iterator[Any]) -> Any:
        """Give the caller each value, and return what a generator returns."""
        if not call._request.window:
            path = _path(call._request.object, call._request.method)
            raise _Refusal("not streamed", TypeError(f"{path} yields values: call it by stream or start"))
        try:
            while True:
                call._send(next(values), waits=True)
        except StopIteration as end:
            return end.value
        finally:
            if inspect.isgenerator(values):
                values.close()

    def _failure(self, call: CallContext, error: BaseException) -> Message:
        path = _path(call._request.object, call._request.method)
        is_told = self._transfer_exceptions and self._transfer_tracebacks and not call._request.signal
        text, details = (
            "call %s of %s by %s failed: %s: %.500s",
            (call.id, path, call.peer, type(error).__name__, error),
        )
        if is_told or call.cancelled:
            logger.info(text, *details)
        else:
            logger.error(text, *details, exc_info=error)
        return _message(
            calls.describe(error, in_full=self._transfer_exceptions, with_traceback=self._transfer_tracebacks)
        )

    def _tell_progress(self, call: CallContext, number: int, value: object) -> Tracker:
        return self._put(call, _message(Progress(number, self._encoders.pack(call._request.encoder, value))))

    def _put(self, call: CallContext, message: Message) -> Tracker:
        return self._messenger.put(
            call.peer,
            message,
            target="replies",
            correlation_id=call.id,
            ttl=min(max(call.remaining, 0.001), _LONGEST_ANSWER),
        )

    def _reply(self, call: CallContext, answer: Message) -> None:
        """Answer a caller that is still interested; the request has done its work when that has the answer."""
        assert self._requests is not None
        if call._is_stopped:
            self._settle(call, self._requests.release)
        elif call._request.signal or call.cancelled:
            self._settle(call, self._requests.accept)
        else:
            try:
                tracker = self._put(call, answer)
            except PosttrollError as error:
                self._count("not answered", call.peer, error)
                self._settle(call, functools.partial(self._requests.reject, reason=f"no answer: {error}"))
            else:
                tracker.add_done_callback(functools.partial(self._replied, call, answer.type))

    def _replied(self, call: CallContext, kind: str, tracker: Tracker) -> None:
        assert self._requests is not None
        if tracker.state == "rejected" and kind == "result":
            error = RemoteError(f"the result was refused: {tracker.reason}")
            self._reply(call, _message(calls.describe(error, with_traceback=False)))
        else:
            self._settle(call, self._requests.accept)

    def _settle(self, call: CallContext, settle: Callable[[Message], object]) -> None:
        """Be done with a call."""
        with self._turn:
            self._calls.pop((call.peer, call.id), None)
            self._turn.notify_all()
            messages = tuple(call._messages)
        for message in messages:
            settle(message)

    def _take_notices(self) -> None:
        """Take note of what callers say of calls under way."""
        while self._notices is not None and (message := self._notices.take()) is not None:
            try:
                self._note(message)
            except RemoteProtocolError as error:
                self._count("not a notice", _properties_of(message).source, error)
            self._notices.accept(message)

    def _note(self, message: Message) -> None:
        notice = calls.decode(message.type, message.data)
        if not isinstance(notice, Cancel | Flow):
            raise RemoteProtocolError(f"a {message.type} is no notice")
        properties = _properties_of(message)
        key = properties.source, properties.correlation_id
        with self._turn:
            call = self._calls.get(key)
            if call is None:
                self._keep_early(key, notice)
        if call is not None and isinstance(notice, Cancel):
            call._cancel()
        elif call is not None and isinstance(notice, Flow):
            call._give_room(notice.taken)

    def _keep_early(self, key: Key, notice: Cancel | Flow) -> None:
        self._early[key] = notice
        if len(self._early) > _MOST_EARLY:
            self._early.popitem(last=False)

    def _count(self, reason: str, peer: str, error: Exception) -> None:
        if self._drops.add(reason, time.monotonic()):
            count = self._drops.counts[reason]
            logger.warning("a call from %s was not carried out, %s: %s (%d so far)", peer, reason, error, count)


def _properties_of(message: Message) -> Properties:
    """Return what each message from a target has."""
    assert message.properties is not None
    return message.properties


def _message(content: calls.Content) -> Message:
    return Message(calls.SUBJECT, *calls.encode(content))


def _path(thing: str, name: str) -> str:
    return f"{thing}.{name}" if thing else name
