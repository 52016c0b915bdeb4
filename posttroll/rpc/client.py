"""The calling side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from posttroll.errors import PosttrollError, TimedOut
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.calls import Cancel, Failure, Request, Result
from posttroll.rpc.calling import WINDOW, BaseCall, BaseClient, BaseMethod, BaseProxy

if TYPE_CHECKING:
    from posttroll.messenger import Messenger, Tracker

__all__ = ["Call", "Proxy", "RemoteMethod", "RpcClient"]


class RpcClient(BaseClient["Messenger"]):
    """Calls what other programs offer, from any thread.

    A call takes at most `timeout` seconds, in which the peer may have to appear, too. Up to `max_retries` times the
    peer is asked again for the same call, for `timeout` seconds more; it does not begin anew what it has begun. If the
    peer went down meanwhile, an `idempotent` call is run again; any other one then ends with `CallInterrupted`.
    `encoder` is what to use, "json" or one of `encoders`, by its name; the peer has to know it, too.
    """

    _messenger: Messenger

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
        self._cancel_all()

    def _begin(self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any], window: int) -> Call:
        call = Call(self, method, self._request(method, arguments, keywords, window=window))
        self._follow(call)
        call._ask()
        return call

    def _signal(self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        request = self._request(method, arguments, keywords, timeout=calls.LONGEST_TIME, signal=True)
        self._put(method, request, "requests", ttl=method._options.ttl or method._options.timeout)

    def _put(self, method: BaseMethod, content: calls.Content, target: str, **properties: Any) -> Tracker:
        message = Message(calls.SUBJECT, *calls.encode(content))
        return self._messenger.put(method._peer, message, target=target, **properties)


class Proxy(BaseProxy):
    """Stands for an object of another program: what is called on it, is called there."""

    def __getattr__(self, name: str) -> RemoteMethod:
        return RemoteMethod(self._client, self._peer, self._object, self._checked(name), self._options)


class RemoteMethod(BaseMethod):
    """A method or function of another program."""

    _client: RpcClient

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        """Call it and return its result.

        Raises what was raised there if that is a built-in exception, else `RemoteError`; `RequestTimeout`.
        """
        call = self._client._begin(self, arguments, keywords, window=0)
        try:
            return call.result()
        finally:
            call.cancel()

    def signal(self, /, *arguments: Any, **keywords: Any) -> None:
        """Have it called, if it gets there within `ttl` seconds, `timeout` unless told; wait for nothing."""
        self._client._signal(self, arguments, keywords)

    def start(self, /, *arguments: Any, **keywords: Any) -> Call:
        """Call it, but do not wait."""
        return self._client._begin(self, arguments, keywords, window=WINDOW)

    def stream(self, /, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Call it; yield what it yields, or tells of its progress. It is cancelled when the iteration is left."""
        return _stream(self.start(*arguments, **keywords))


def _stream(call: Call) -> Iterator[Any]:
    try:
        yield from call.progress()
        call.result()
    finally:
        call.cancel()


class Call(BaseCall["Tracker"]):
    """A call under way. The call is forgotten when nobody holds this."""

    _client: RpcClient

    def __init__(self, client: RpcClient, method: RemoteMethod, request: Request) -> None:
        super().__init__(client, method, request)
        self._news = threading.Condition(self._lock)
        self._end_awaited = threading.Lock()  # who waits for it is woken up once; by a condition it would be twice
        self._end_awaited.acquire()

    def done(self) -> bool:
        """Return whether it has ended, in whatever way."""
        with suppress(TimedOut):
            self._wait(self._wait_for_end, 0.0)
        return self._has_ended()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what was raised there; `TimedOut` if it is not there after `timeout` seconds.

        What it still has to tell of its progress is then no longer waited for.
        """
        self._take_all()
        self._wait(self._wait_for_end, timeout)
        return self._value()

    def progress(self) -> Iterator[Any]:
        """Yield what it yields, or tells of its progress, until it ends; `result` then tells how."""
        while True:
            self._wait(self._wait_for_progress, None)
            taken = self._take_progress()
            if taken is None:
                return
            yield from taken

    def _ask(self) -> None:
        self._has_asked(self._client._put(self._method, self._request, "requests", ttl=self._time_left, id=self.id))

    def _tell(self, content: calls.Content) -> None:
        with suppress(PosttrollError):
            ttl = self._method._options.timeout
            self._client._put(self._method, content, "cancellations", ttl=ttl, correlation_id=self.id)

    def _withdraw(self) -> None:
        taken_back = [tracker.cancel() for tracker in self._trackers]
        if not all(taken_back):
            self._tell(Cancel())

    def _wake(self) -> None:
        self._news.notify_all()

    def _end(self, outcome: Result | Failure | Exception) -> bool:
        is_first = super()._end(outcome)
        if is_first:
            self._end_awaited.release()
        return is_first

    def _wait_for_end(self, seconds: float) -> bool:
        if not self._has_ended() and self._end_awaited.acquire(timeout=seconds):
            self._end_awaited.release()
        return self._has_ended()

    def _wait_for_progress(self, seconds: float) -> bool:
        with self._news:
            return self._news.wait_for(self._has_news, seconds)

    def _wait(self, wait: Callable[[float], bool], timeout: float | None) -> None:
        """Wait, by a function that waits so many seconds, and ask again when it is time to; `TimedOut`."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            ends = self._attempt_ends
            moment = ends if limit is None else min(limit, ends)
            if wait(max(0.0, moment - time.monotonic())):
                return
            if moment != ends:
                raise self._late(timeout)
            if self._end_attempt(ends):
                self._ask()
