"""What servers need that wait in whatever way: what is offered, what is under way, and what is answered."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from posttroll.errors import (
    CallCancelled,
    CallInterrupted,
    ConfigurationError,
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
from posttroll.protocol.frames import ACCEPTED, RELEASED, Outcome, rejected
from posttroll.rpc.contexts import BaseCallContext, CallContext, check_messenger, handled_call, properties_of

if TYPE_CHECKING:
    from posttroll.messenger.base import BaseMessenger
    from posttroll.messenger.targets import BaseTarget
    from posttroll.messenger.trackers import BaseTracker

__all__ = ["BaseServer", "Method", "public"]

logger = logging.getLogger(__name__)

Method = Callable[..., Any]
Function = TypeVar("Function", bound=Method)
Key = tuple[str, str]
AnyMessenger = TypeVar("AnyMessenger", bound="BaseMessenger[Any, Any]")
AnyContext = TypeVar("AnyContext", bound=BaseCallContext)

_PUBLIC = "_posttroll_is_public"
_MOST_EARLY = 1000
# How long an answer waits for a caller that is gone, however long that wanted to wait for it.
_LONGEST_ANSWER = 300.0
_LONGEST_NAME = 200


def public(function: Function) -> Function:
    """Mark a method as one that other programs may call."""
    setattr(function, _PUBLIC, True)
    return function


class _Refusal(Exception):
    """A request is not carried out."""

    def __init__(self, kind: str, error: Exception) -> None:
        super().__init__(kind)
        self.kind = kind
        self.error = error


class BaseServer(ABC, Generic[AnyMessenger, AnyContext]):
    """Knows what is offered and which calls are under way, and writes the answers."""

    _is_awaited = False

    def __init__(
        self,
        messenger: AnyMessenger,
        *,
        workers: int = 4,
        transfer_exceptions: bool = True,
        transfer_tracebacks: bool = True,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigurationError(f"workers is {workers!r}, but must be 1 or more")
        check_messenger(self, messenger, is_awaited=self._is_awaited)
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
        self._calls: dict[Key, AnyContext] = {}
        self._early: OrderedDict[Key, Cancel | Flow] = OrderedDict()
        """What was said of calls that are not under way: their requests may still come."""
        self._requests: BaseTarget | None = None
        self._notices: BaseTarget | None = None

    @abstractmethod
    def _hand_out(self) -> None:
        """Have requests handled, as many at a time as there are workers; more stay where each peer gets its turn."""

    @abstractmethod
    def _wake(self) -> None:
        """Wake who waits for calls to end; the lock is held."""

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

    def _forget_all(self) -> None:
        """Be done with all calls, as the messenger was stopped: their requests come again in another life of it."""
        if is_this_process(self._process):
            with self._turn:
                self._give_up_all()
                self._wake()

    def _give_up_all(self) -> None:
        for call in self._calls.values():
            call._cancel(is_stopped=True)
        self._calls.clear()

    def _is_idle(self, own: bool = False) -> bool:
        """Return whether no call is handled, but for an own one, and none unanswered whose caller is there."""
        peers = self._messenger.peers
        return max(self._busy, sum(call.peer in peers for call in self._calls.values())) <= own

    def _begin_serving(self) -> None:
        """Take in what callers put; `LocalProtocolError`."""
        if self._requests is None or self._notices is None:
            self._notices = self._messenger.open_target("cancellations", self._take_notices)
            self._requests = self._messenger.open_target("requests", self._hand_out, on_close=self._forget_all)
        self._is_serving, self._process = True, os.getpid()

    def _next_request(self) -> Message | None:
        """Return the request to handle beside those that are, None if there is none or too much to do."""
        with self._turn:
            can_handle = self._is_serving and self._methods and self._busy < self._most_busy
            message = self._requests.take() if can_handle and self._requests is not None else None
            self._busy += message is not None
            return message

    @abstractmethod
    def _context(self, message: Message, request: Request) -> AnyContext:
        """Return what a handler sees of a call."""

    def _admit(self, message: Message) -> AnyContext | None:
        """Return the call that a message asks for; None if it asks for none, or for one that is under way."""
        try:
            request = calls.decode(message.type, message.data)
            if not isinstance(request, Request):
                raise RemoteProtocolError(f"a {message.type} is no request")
        except RemoteProtocolError as error:
            self._count("not a request", properties_of(message).source, error)
            if self._requests is not None:
                self._requests.settle_soon(message.delivery, rejected(str(error)))
            return None
        call = self._context(message, request)
        key = call.peer, call.id
        with self._turn:
            if (known := self._calls.get(key)) is not None:
                known._messages.append(message)
                return None
            notice = self._early.pop(key, None)
            self._calls[key] = call
        if notice is not None:
            self._heed(call, notice)
        return call

    def _heed(self, call: BaseCallContext, notice: Cancel | Flow) -> None:
        if isinstance(notice, Cancel):
            call._cancel()
        else:
            call._give_room(notice.taken)

    def _carry_out(self, call: CallContext) -> Message:
        """Return the answer, which may take long."""
        token = handled_call.set(call)
        try:
            method, arguments, keywords = self._prepare(call)
            value = method(*arguments, **keywords)
            if isinstance(value, Iterator):
                value = self._iterate(call, value)
            return self._result(call, value)
        except BaseException as error:
            return self._failure(call, error)
        finally:
            handled_call.reset(token)

    def _iterate(self, call: CallContext, values: Iterator[Any]) -> Any:
        """Give the caller each value, and return what a generator returns."""
        self._insist_on_room(call)
        try:
            while True:
                call._send(next(values), waits=True)
        except StopIteration as end:
            return end.value
        finally:
            if inspect.isgenerator(values):
                values.close()

    def _prepare(self, call: BaseCallContext) -> tuple[Method, list[Any], dict[str, Any]]:
        request = call._request
        path = _path(request.object, request.method)
        if call._is_cancelled:
            raise CallCancelled("the caller is no longer interested")
        logger.debug("call %s of %s by %s", call.id, path, call.peer)
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

    def _insist_on_room(self, call: BaseCallContext) -> None:
        if not call._request.window:
            path = _path(call._request.object, call._request.method)
            raise _Refusal("not streamed", TypeError(f"{path} yields values: call it by stream or start"))

    def _result(self, call: BaseCallContext, value: object) -> Message:
        return _message(Result(self._encoders.pack(call._request.encoder, value)))

    def _progress(self, call: BaseCallContext, number: int, value: object) -> Message:
        return _message(Progress(number, self._encoders.pack(call._request.encoder, value)))

    def _failure(self, call: BaseCallContext, error: BaseException) -> Message:
        """Return what the caller is told of an exception, which is counted or logged."""
        if isinstance(error, _Refusal):
            self._count(error.kind, call.peer, error.error)
            return _message(calls.describe(error.error, with_traceback=False))
        path = _path(call._request.object, call._request.method)
        is_told = self._transfer_exceptions and self._transfer_tracebacks and not call._request.signal
        text = "call %s of %s by %s failed: %s: %.500s"
        details = call.id, path, call.peer, type(error).__name__, error
        if is_told or call.cancelled:
            logger.info(text, *details)
        else:
            logger.error(text, *details, exc_info=error)
        return _message(
            calls.describe(error, in_full=self._transfer_exceptions, with_traceback=self._transfer_tracebacks)
        )

    def _envelope(self, call: BaseCallContext) -> dict[str, Any]:
        """Return how to put what the caller is told."""
        return {
            "target": "replies",
            "correlation_id": call.id,
            "ttl": min(max(call.remaining, 0.001), _LONGEST_ANSWER),
        }

    def _verdict(self, call: BaseCallContext) -> Outcome | None:
        """Return how to settle a call that is not to be answered, None if it is."""
        if call._is_stopped:
            return RELEASED
        return ACCEPTED if call._request.signal or call.cancelled else None

    def _cannot_answer(self, call: BaseCallContext, error: PosttrollError) -> Outcome:
        self._count("not answered", call.peer, error)
        return rejected(f"no answer: {error}")

    def _answer_after(self, kind: str, tracker: BaseTracker[Any]) -> Message | None:
        """Return what else to answer, as the answer was refused; None if it was not, or if there is nothing else."""
        if tracker.state != "rejected" or kind != "result":
            return None
        error = RemoteError(f"the result was refused: {tracker.reason}")
        return _message(calls.describe(error, with_traceback=False))

    def _settle(self, call: BaseCallContext, outcome: Outcome) -> None:
        """Be done with a call; the request has done its work when the caller has the answer."""
        with self._turn:
            self._calls.pop((call.peer, call.id), None)
            self._wake()
            messages = tuple(call._messages)
        if self._requests is not None:
            for message in messages:
                self._requests.settle_soon(message.delivery, outcome)

    def _take_notices(self) -> None:
        """Take note of what callers say of calls."""
        while self._notices is not None and (message := self._notices.take()) is not None:
            self._note(message)
            self._notices.settle_soon(message.delivery, ACCEPTED)

    def _note(self, message: Message) -> None:
        try:
            notice = calls.decode(message.type, message.data)
            if not isinstance(notice, Cancel | Flow):
                raise RemoteProtocolError(f"a {message.type} is no notice")
        except RemoteProtocolError as error:
            self._count("not a notice", properties_of(message).source, error)
            return
        properties = properties_of(message)
        key = properties.source, properties.correlation_id
        with self._turn:
            call = self._calls.get(key)
            if call is None:
                self._keep_early(key, notice)
        if call is not None:
            self._heed(call, notice)

    def _keep_early(self, key: Key, notice: Cancel | Flow) -> None:
        self._early[key] = notice
        if len(self._early) > _MOST_EARLY:
            self._early.popitem(last=False)

    def _count(self, reason: str, peer: str, error: Exception) -> None:
        if self._drops.add(reason, time.monotonic()):
            count = self._drops.counts[reason]
            logger.warning("a call from %s was not carried out, %s: %s (%d so far)", peer, reason, error, count)


def _message(content: calls.Content) -> Message:
    return Message(calls.SUBJECT, *calls.encode(content))


def _path(thing: str, name: str) -> str:
    return f"{thing}.{name}" if thing else name
