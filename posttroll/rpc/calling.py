"""What clients need that wait in whatever way: what is asked for, what comes back, and what became of a call."""

from __future__ import annotations

import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import msgspec

from posttroll.errors import (
    CallCancelled,
    ConfigurationError,
    RemoteError,
    RemoteProtocolError,
    RequestTimeout,
    TimedOut,
)
from posttroll.forks import is_this_process
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.calls import Encoder, Encoders, Failure, Flow, Progress, Request, Result
from posttroll.protocol.frames import ACCEPTED
from posttroll.rpc.contexts import check_messenger

if TYPE_CHECKING:
    from posttroll.messenger.base import BaseMessenger
    from posttroll.messenger.targets import BaseTarget
    from posttroll.messenger.trackers import BaseTracker

__all__ = ["WINDOW", "BaseCall", "BaseClient", "BaseMethod", "BaseProxy", "Options"]

WINDOW = 100
"""How many values on the way to a result are sent ahead of the caller that iterates over them."""
_MOST_KEPT = 1000

AnyMessenger = TypeVar("AnyMessenger", bound="BaseMessenger[Any, Any]")
AnyTracker = TypeVar("AnyTracker", bound="BaseTracker[Any]")


@dataclass(frozen=True)
class Options:
    """How something is called."""

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

    def __init__(self, messenger: BaseMessenger[Any, Any]) -> None:
        self.calls: WeakValueDictionary[str, BaseCall[Any]] = WeakValueDictionary()
        self._process = os.getpid()
        self._target: BaseTarget = messenger.open_target("replies", self._take, on_close=self._end_all)

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
            self._target.settle_soon(message.delivery, ACCEPTED)

    def request_concluded(self, tracker: BaseTracker[Any]) -> None:
        """Take note of what became of a request, which has the id of its call."""
        call = self.calls.get(tracker.id)
        if call is not None and tracker.state == "rejected":
            call._end(RemoteError(f"the call was refused: {tracker.reason}"))


_replies: WeakKeyDictionary[BaseMessenger[Any, Any], _Replies] = WeakKeyDictionary()
_replies_lock = threading.Lock()


def _replies_to(messenger: BaseMessenger[Any, Any]) -> _Replies:
    """Return what all clients of a messenger share, as what comes back to it can be taken once only."""
    with _replies_lock:
        if messenger not in _replies:
            _replies[messenger] = _Replies(messenger)
        return _replies[messenger]


class BaseClient(Generic[AnyMessenger]):
    """Knows the calls that are under way, and writes requests."""

    _is_awaited = False

    def __init__(
        self,
        messenger: AnyMessenger,
        *,
        timeout: float = 30.0,
        max_retries: int = 0,
        idempotent: bool = False,
        encoder: str = "json",
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        check_messenger(self, messenger, is_awaited=self._is_awaited)
        self._messenger = messenger
        self._encoders = Encoders(encoders)
        self._options = Options(timeout, max_retries, idempotent, None, encoder)
        self._replies = _replies_to(messenger)
        self._calls: WeakSet[BaseCall[Any]] = WeakSet()
        self._process = os.getpid()

    def _cancel_all(self) -> None:
        if is_this_process(self._process):
            for call in list(self._calls):
                call.cancel()

    def _follow(self, call: BaseCall[Any]) -> None:
        self._calls.add(call)
        self._replies.calls[call.id] = call

    def _request(
        self, method: BaseMethod, arguments: tuple[Any, ...], keywords: dict[str, Any], **more: Any
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


class BaseProxy:
    """Knows what is called, where and how."""

    def __init__(self, client: BaseClient[Any], peer: str, name: str, options: Options) -> None:
        self._client = client
        self._peer = peer
        self._object = name
        self._options = options

    def _checked(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(f"{name} is private")
        return name

    def __repr__(self) -> str:
        return f"<proxy of {self._object or 'the functions'} at {self._peer}>"

    def options(self, **changes: Any) -> Self:
        """Return a proxy with another `timeout`, `max_retries`, `idempotent`, `encoder`, or `ttl` of signals."""
        try:
            options = replace(self._options, **changes)
        except TypeError as error:
            raise ConfigurationError(f"the options {changes} are wrong: {error}") from None
        if options.encoder not in self._client._encoders.names:
            known = ", ".join(self._client._encoders.names)
            raise ConfigurationError(f"unknown encoder {options.encoder!r}; known: {known}")
        return type(self)(self._client, self._peer, self._object, options)


class BaseMethod:
    """Knows what is called."""

    def __init__(self, client: BaseClient[Any], peer: str, object_name: str, name: str, options: Options) -> None:
        self._client = client
        self._peer = peer
        self._object = object_name
        self._name = name
        self._options = options

    def __repr__(self) -> str:
        return f"<method {self} at {self._peer}>"

    def __str__(self) -> str:
        return f"{self._object}.{self._name}" if self._object else self._name


class BaseCall(ABC, Generic[AnyTracker]):
    """Knows what a call was told, and when to ask again."""

    def __init__(self, client: BaseClient[Any], method: BaseMethod, request: Request) -> None:
        self.id = secrets.token_hex(16)
        self._client = client
        self._method = method
        self._request = request
        self._trackers: list[AnyTracker] = []
        self._retries_left = method._options.max_retries
        self._began = time.monotonic()
        self._attempt_ends = self._began + method._options.timeout
        self._lock = threading.RLock()
        self._outcome: Result | Failure | Exception | None = None
        self._progress: deque[Any] = deque(maxlen=_MOST_KEPT)
        self._next_number = 0
        self._taken = 0
        self._told = 0
        """How many values its handler was told to be taken."""

    def __repr__(self) -> str:
        return f"<call {self.id} of {self._method} at {self._method._peer}>"

    def cancel(self) -> bool:
        """End it, and tell its handler that it may end; return False if it has ended already."""
        if not self._end(CallCancelled("the call was cancelled")):
            return False
        self._withdraw()
        return True

    @abstractmethod
    def _wake(self) -> None:
        """Wake who waits for progress or for the end; the lock is held."""

    @abstractmethod
    def _withdraw(self) -> None:
        """Take the requests back; have the handler told of the end if one of them is on its way."""

    @abstractmethod
    def _tell(self, content: calls.Content) -> None:
        """Have the handler told something, if that can be done."""

    @property
    def _time_left(self) -> float:
        return max(self._request.timeout - (time.monotonic() - self._began), 0.001)

    def _has_asked(self, tracker: AnyTracker) -> None:
        self._trackers.append(tracker)
        tracker.add_done_callback(self._client._replies.request_concluded)

    def _take_all(self) -> None:
        """Have the handler wait no more for a caller who wants the result only."""
        if self._request.window and self._told < calls.UNLIMITED and not self._has_ended():
            self._tell_taken(calls.UNLIMITED)

    def _has_news(self) -> bool:
        return bool(self._progress) or self._has_ended()

    def _take_progress(self) -> tuple[Any] | None:
        """Return the next value, None if there is none."""
        with self._lock:
            if not self._progress:
                return None
            packed = self._progress.popleft()
            self._taken += 1
        if self._taken >= self._told + WINDOW // 2:
            self._tell_taken(self._taken)
        return (self._unpack(packed),)

    def _tell_taken(self, count: int) -> None:
        self._told = count
        self._tell(Flow(count))

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
        with self._lock:
            if progress.number >= self._next_number:
                self._next_number = progress.number + 1
                self._progress.append(progress.value)
                self._wake()

    def _end(self, outcome: Result | Failure | Exception) -> bool:
        with self._lock:
            if self._outcome is not None:
                return False
            self._outcome = outcome
            self._wake()
            return True

    def _has_ended(self) -> bool:
        return self._outcome is not None

    def _value(self) -> Any:
        """Return the result of what has ended, or raise what was raised there."""
        if isinstance(self._outcome, Result):
            return self._unpack(self._outcome.value)
        if isinstance(self._outcome, Failure):
            raise calls.rebuild(self._outcome)
        assert self._outcome is not None
        raise self._outcome

    def _late(self, timeout: float | None) -> TimedOut:
        return TimedOut(f"{self._method._peer} has not answered {self._method} after {timeout:g} s")

    def _unpack(self, packed: Any) -> Any:
        return self._client._encoders.unpack(self._request.encoder, packed)

    def _end_attempt(self, ends: float) -> bool:
        """Note that the time of an attempt is over; return whether to ask again."""
        with self._lock:
            if self._attempt_ends != ends or self._outcome is not None:  # another thread was faster
                return False
            is_last = self._retries_left == 0
            self._retries_left -= 1
            self._attempt_ends += self._method._options.timeout
        if is_last:
            self._give_up()
        elif not self._trackers[-1].buffered:
            self._request = msgspec.structs.replace(self._request, repeated=True)
            return True
        return False

    def _give_up(self) -> None:
        peer, time_taken = self._method._peer, self._method._options.total
        text = f"{peer} did not answer {self._method} within {time_taken:g} s"
        if all(tracker.buffered for tracker in self._trackers):
            text += ", it was not reached"
        if self._end(RequestTimeout(text)):
            self._withdraw()
