"""The calling side."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import msgspec

from posttroll.errors import (
    CallCancelled,
    ConfigurationError,
    PosttrollError,
    RemoteError,
    RemoteProtocolError,
    RequestTimeout,
    TimedOut,
)
from posttroll.forks import is_this_process
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.calls import Cancel, Encoder, Encoders, Failure, Flow, Progress, Request, Result

if TYPE_CHECKING:
    from posttroll.messenger import Messenger, Tracker

__all__ = ["Call", "Proxy", "RemoteMethod", "RpcClient"]

_WINDOW = 100
"""How many values on the way to a result are sent ahead of the caller that iterates over them."""
_MOST_KEPT = 1000


@dataclass(frozen=True)
class _Options:
    timeout: float
    max_retries: int
    idempotent: bool
    ttl: float | None
    encoder: str

    def __post_init__(self) -> None:
        for name, seconds in (("timeout", self.timeout), ("ttl", self.ttl)):
            if seconds is not None and not 0 < seconds <= calls.LONGEST_TIME:
                raise ConfigurationError(f"{name} is {seconds!r}, but must be a number of seconds above 0")
        if self.max_retries < 0:
            raise ConfigurationError(f"max_retries is {self.max_retries!r}, but must be 0 or more")

    @property
    def total(self) -> float:
        """The seconds that all attempts may take."""
        return min(self.timeout * (self.max_retries + 1), calls.LONGEST_TIME)


class _Replies:
    """What comes back to a messenger, for all the clients that use it."""

    def __init__(self, messenger: Messenger) -> None:
        self.calls: WeakValueDictionary[str, Call] = WeakValueDictionary()
        self._process = os.getpid()
        self._target = messenger.open_target("replies", self._take, on_close=self._end_all)

    def _end_all(self) -> None:
        """Have nobody wait for what cannot come any more."""
        if is_this_process(self._process):
            for call in list(self.calls.values()):
                call._end(CallCancelled("the messenger was stopped"))

    def _take(self) -> None:
        while (message := self._target.take()) is not None:
            call = self.calls.get(message.properties.correlation_id) if message.properties else None
            if call is not None:
                call._receive(message)
            self._target.accept(message)

    def request_concluded(self, tracker: Tracker) -> None:
        """Take note of what became of a request, which has the id of its call."""
        call = self.calls.get(tracker.id)
        if call is not None and tracker.state == "rejected":
            call._end(RemoteError(f"the call was refused: {tracker.reason}"))


_replies: WeakKeyDictionary[Messenger, _Replies] = WeakKeyDictionary()
_replies_lock = threading.Lock()


def _replies_to(messenger: Messenger) -> _Replies:
    """Return what all clients of a messenger share, as what comes back to it can be taken once only."""
    with _replies_lock:
        if messenger not in _replies:
            _replies[messenger] = _Replies(messenger)
        return _replies[messenger]


class RpcClient:
    """Calls what other programs offer, from any thread.

    A call takes at most `timeout` seconds, in which the peer may have to appear, too. Up to `max_retries` times the
    peer is asked again for the same call, for `timeout` seconds more; it does not begin anew what it has begun. If the
    peer went down meanwhile, an `idempotent` call is run again; any other one then ends with `CallInterrupted`.
    `encoder` is what to use, "json" or one of `encoders`, by its name; the peer has to know it, too.
    """

    def __init__(
        self,
        messenger: Messenger,
        *,
        timeout: float = 30.0,
        max_retries: int = 0,
        idempotent: bool = False,
        encoder: str = "json",
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        self._messenger = messenger
        self._encoders = Encoders(encoders)
        self._options = _Options(timeout, max_retries, idempotent, None, encoder)
        self._replies = _replies_to(messenger)
        self._calls: WeakSet[Call] = WeakSet()
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def proxy(self, peer: str, name: str = "", **options: Any) -> Proxy:
        """Return what stands for the object of that name at a peer, or without a name for its functions.

        `peer` is a name or an address; `options` are those of `Proxy.options`.
        """
        return Proxy(self, peer, name, self._options).options(**options)

    def stop(self) -> None:
        """Have all calls that are under way end with `CallCancelled`."""
        if is_this_process(self._process):
            for call in list(self._calls):
                call.cancel()

    def _begin(self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any], window: int) -> Call:
        request = self._request(method, arguments, keywords, window=window)
        call = Call(self, method, request)
        self._calls.add(call)
        self._replies.calls[call.id] = call
        call._ask()
        return call

    def _request(
        self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any], **more: Any
    ) -> Request:
        options = method._options
        packed, named = self._encoders.pack_arguments(options.encoder, arguments, keywords)
        return Request(
            method._object,
            method._name,
            packed,
            named,
            **{"timeout": options.total, "idempotent": options.idempotent, "encoder": options.encoder, **more},
        )

    def _signal(self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        request = self._request(method, arguments, keywords, timeout=calls.LONGEST_TIME, signal=True)
        self._put(method, request, "requests", ttl=method._options.ttl or method._options.timeout)

    def _put(self, method: RemoteMethod, content: calls.Content, target: str, **properties: Any) -> Tracker:
        message = Message(calls.SUBJECT, *calls.encode(content))
        return self._messenger.put(method._peer, message, target=target, **properties)


class Proxy:
    """Stands for an object of another program: what is called on it, is called there."""

    def __init__(self, client: RpcClient, peer: str, name: str, options: _Options) -> None:
        self._client = client
        self._peer = peer
        self._object = name
        self._options = options

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("_"):
            raise AttributeError(f"{name} is private")
        return RemoteMethod(self._client, self._peer, self._object, name, self._options)

    def __repr__(self) -> str:
        return f"<proxy of {self._object or 'the functions'} at {self._peer}>"

    def options(self, **changes: Any) -> Proxy:
        """Return a proxy with another `timeout`, `max_retries`, `idempotent`, `encoder`, or `ttl` of signals."""
        try:
            options = replace(self._options, **changes)
        except TypeError as error:
            raise ConfigurationError(f"the options {changes} are wrong: {error}") from None
        if options.encoder not in self._client._encoders.names:
            known = ", ".join(self._client._encoders.names)
            raise ConfigurationError(f"unknown encoder {options.encoder!r}; known: {known}")
        return Proxy(self._client, self._peer, self._object, options)


class RemoteMethod:
    """A method or function of another program."""

    def __init__(self, client: RpcClient, peer: str, object_name: str, name: str, options: _Options) -> None:
        self._client = client
        self._peer = peer
        self._object = object_name
        self._name = name
        self._options = options

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        """Call it and return its result.

        Raises what was raised there if that is a built-in exception, else `RemoteError`; `RequestTimeout`.
        """
        call = self._client._begin(self, arguments, keywords, window=0)
        try:
            return call.result()
        finally:
            call.cancel()

    def __repr__(self) -> str:
        return f"<method {self} at {self._peer}>"

    def __str__(self) -> str:
        return f"{self._object}.{self._name}" if self._object else self._name

    def signal(self, /, *arguments: Any, **keywords: Any) -> None:
        """Have it called, if it gets there within `ttl` seconds, `timeout` unless told; wait for nothing."""
        self._client._signal(self, arguments, keywords)

    def start(self, /, *arguments: Any, **keywords: Any) -> Call:
        """Call it, but do not wait."""
        return self._client._begin(self, arguments, keywords, window=_WINDOW)

    def stream(self, /, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Call it; yield what it yields, or tells of its progress. It is cancelled when the iteration is left."""
        return _stream(self.start(*arguments, **keywords))


def _stream(call: Call) -> Iterator[Any]:
    try:
        yield from call.progress()
        call.result()
    finally:
        call.cancel()


class Call:
    """A call under way. The call is forgotten when nobody holds this."""

    def __init__(self, client: RpcClient, method: RemoteMethod, request: Request) -> None:
        self.id = secrets.token_hex(16)
        self._client = client
        self._method = method
        self._request = request
        self._trackers: list[Tracker] = []
        self._retries_left = method._options.max_retries
        self._began = time.monotonic()
        self._attempt_ends = self._began + method._options.timeout
        self._news = threading.Condition()
        self._end_awaited = threading.Lock()  # who waits for it is woken up once; by a condition it would be twice
        self._end_awaited.acquire()
        self._outcome: Result | Failure | Exception | None = None
        self._progress: deque[Any] = deque(maxlen=_MOST_KEPT)
        self._next_number = 0
        self._taken = 0
        self._told = 0
        """How many values its handler was told to be taken."""

    def __repr__(self) -> str:
        return f"<call {self.id} of {self._method} at {self._method._peer}>"

    def done(self) -> bool:
        """Return whether it has ended, in whatever way."""
        with suppress(TimedOut):
            self._wait(self._wait_for_end, 0.0)
        return self._has_ended()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what was raised there; `TimedOut` if it is not there after `timeout` seconds.

        What it still has to tell of its progress is then no longer waited for.
        """
        if self._request.window and self._told < calls.UNLIMITED and not self._has_ended():
            self._tell_taken(calls.UNLIMITED)
        self._wait(self._wait_for_end, timeout)
        return self._value_of(self._outcome)

    def progress(self) -> Iterator[Any]:
        """Yield what it yields, or tells of its progress, until it ends; `result` then tells how."""
        while True:
            self._wait(self._wait_for_progress, None)
            with self._news:
                if not self._progress:
                    return
                packed = self._progress.popleft()
                self._taken += 1
            if self._taken >= self._told + _WINDOW // 2:
                self._tell_taken(self._taken)
            yield self._unpack(packed)

    def cancel(self) -> bool:
        """End it, and tell its handler that it may end; return False if it has ended already."""
        if not self._end(CallCancelled("the call was cancelled")):
            return False
        self._withdraw()
        return True

    def _ask(self) -> None:
        left = self._request.timeout - (time.monotonic() - self._began)
        tracker = self._client._put(self._method, self._request, "requests", ttl=max(left, 0.001), id=self.id)
        self._trackers.append(tracker)
        tracker.add_done_callback(self._client._replies.request_concluded)

    def _tell_taken(self, count: int) -> None:
        self._told = count
        self._tell(Flow(count))

    def _tell(self, content: Cancel | Flow) -> None:
        with suppress(PosttrollError):
            ttl = self._method._options.timeout
            self._client._put(self._method, content, "cancellations", ttl=ttl, correlation_id=self.id)

    def _receive(self, message: Message) -> None:
        try:
            content = calls.decode(message.type, message.data)
        except RemoteProtocolError as error:
            self._end(error)
            return
        if isinstance(content, Progress):
            self._add(content)
        elif isinstance(content, Result | Failure):
            self._end(content)
        else:
            self._end(RemoteProtocolError(f"{self._method._peer} has replied by a {message.type}"))

    def _add(self, progress: Progress) -> None:
        """Keep a value that was not told before: a call that is run again begins from its start."""
        if progress.number == 0 and self._told:
            self._tell(Flow(self._told))
        with self._news:
            if progress.number >= self._next_number:
                self._next_number = progress.number + 1
                self._progress.append(progress.value)
                self._news.notify_all()

    def _end(self, outcome: Result | Failure | Exception) -> bool:
        with self._news:
            if self._outcome is not None:
                return False
            self._outcome = outcome
            self._news.notify_all()
        self._end_awaited.release()
        return True

    def _has_ended(self) -> bool:
        return self._outcome is not None

    def _value_of(self, outcome: Result | Failure | Exception | None) -> Any:
        if isinstance(outcome, Result):
            return self._unpack(outcome.value)
        if isinstance(outcome, Failure):
            raise calls.rebuild(outcome)
        assert outcome is not None
        raise outcome

    def _unpack(self, packed: Any) -> Any:
        return self._client._encoders.unpack(self._request.encoder, packed)

    def _wait_for_end(self, seconds: float) -> bool:
        if not self._has_ended() and self._end_awaited.acquire(timeout=seconds):
            self._end_awaited.release()
        return self._has_ended()

    def _wait_for_progress(self, seconds: float) -> bool:
        with self._news:
            return self._news.wait_for(lambda: bool(self._progress) or self._has_ended(), seconds)

    def _wait(self, wait: Callable[[float], bool], timeout: float | None) -> None:
        """Wait, by a function that waits so many seconds, and ask again when it is time to; `TimedOut`."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            ends = self._attempt_ends
            moment = ends if limit is None else min(limit, ends)
            if wait(max(0.0, moment - time.monotonic())):
                return
            if moment == ends:
                self._end_attempt(ends)
            else:
                raise TimedOut(f"{self._method._peer} has not answered {self._method} after {timeout:g} s")

    def _end_attempt(self, ends: float) -> None:
        with self._news:
            if self._attempt_ends != ends or self._outcome is not None:  # another thread was faster
                return
            is_last = self._retries_left == 0
            self._retries_left -= 1
            self._attempt_ends += self._method._options.timeout
        if is_last:
            self._give_up()
        elif not self._trackers[-1].buffered:
            self._request = msgspec.structs.replace(self._request, repeated=True)
            self._ask()

    def _give_up(self) -> None:
        peer, time_taken = self._method._peer, self._method._options.total
        text = f"{peer} did not answer {self._method} within {time_taken:g} s"
        if all(tracker.buffered for tracker in self._trackers):
            text += ", it was not reached"
        if self._end(RequestTimeout(text)):
            self._withdraw()

    def _withdraw(self) -> None:
        taken_back = [tracker.cancel() for tracker in self._trackers]
        if not all(taken_back):
            self._tell(Cancel())
