"""The calling side, on an event loop."""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any, Self

from posttroll.asyncio.messenger import Messenger, Tracker
from posttroll.asyncio.rpc.errands import Errands
from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.protocol import calls
from posttroll.protocol.calls import Cancel, Request
from posttroll.rpc.calling import WINDOW, BaseCall, BaseClient, BaseMethod, BaseProxy

__all__ = ["Call", "Proxy", "RemoteMethod", "RpcClient"]


class RpcClient(BaseClient[Messenger]):
    """Calls what other programs offer, from any task of one loop; the arguments are those of `posttroll.rpc.RpcClient`.

    A call is asked for again, and given up, in time, even if nobody waits for it.
    """

    _is_awaited = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def proxy(self, peer: str, name: str = "", **options: Any) -> Proxy:
        """Return what stands for the object of that name at a peer, or without a name for its functions.

        `peer` is a name or an address; `options` are those of `Proxy.options`.
        """
        return Proxy(self, peer, name, self._options).options(**options)

    async def stop(self) -> None:
        """Have all calls that are under way end with `CallCancelled`."""
        self._cancel_all()
        await self._errands.finish()

    @functools.cached_property
    def _errands(self) -> Errands:
        return Errands("posttroll-calls")

    async def _begin(
        self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any], window: int
    ) -> Call:
        call = Call(self, method, self._request(method, arguments, keywords, window=window))
        self._follow(call)
        await call._begin()
        return call

    async def _signal(self, method: RemoteMethod, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        request = self._request(method, arguments, keywords, timeout=calls.LONGEST_TIME, signal=True)
        await self._put(method, request, "requests", ttl=method._options.ttl or method._options.timeout)

    async def _put(self, method: BaseMethod, content: calls.Content, target: str, **properties: Any) -> Tracker:
        message = Message(calls.SUBJECT, *calls.encode(content))
        return await self._messenger.put(method._peer, message, target=target, **properties)


class Proxy(BaseProxy):
    """Stands for an object of another program: what is called on it, is called there."""

    def __getattr__(self, name: str) -> RemoteMethod:
        return RemoteMethod(self._client, self._peer, self._object, self._checked(name), self._options)


class RemoteMethod(BaseMethod):
    """A method or function of another program."""

    _client: RpcClient

    async def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        """Call it and return its result; cancelled, the call is.

        Raises what was raised there if that is a built-in exception, else `RemoteError`; `RequestTimeout`.
        """
        call = await self._client._begin(self, arguments, keywords, window=0)
        return await call.result()

    async def signal(self, /, *arguments: Any, **keywords: Any) -> None:
        """Have it called, if it gets there within `ttl` seconds, `timeout` unless told; wait for nothing."""
        await self._client._signal(self, arguments, keywords)

    async def start(self, /, *arguments: Any, **keywords: Any) -> Call:
        """Call it, but do not wait for the result."""
        return await self._client._begin(self, arguments, keywords, window=WINDOW)

    async def stream(self, /, *arguments: Any, **keywords: Any) -> AsyncGenerator[Any, None]:
        """Call it when the first value is asked for; yield what it yields, or tells of its progress.

        It is cancelled when the iteration is left, at once within `contextlib.aclosing`, or when waiting is cancelled.
        """
        call = await self.start(*arguments, **keywords)
        try:
            while (taken := await call._take_next()) is not None:
                yield taken[0]
            await call.result()
        finally:
            call.cancel()


class Call(BaseCall[Tracker]):
    """A call under way, whose result is got by awaiting it. The call is forgotten when nobody holds this."""

    _client: RpcClient

    def __init__(self, client: RpcClient, method: RemoteMethod, request: Request) -> None:
        super().__init__(client, method, request)
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Do as `result` does."""
        return self.result().__await__()

    def done(self) -> bool:
        """Return whether it has ended, in whatever way."""
        return self._has_ended()

    async def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what was raised there; `TimedOut` if it is not there after `timeout` seconds.

        What it still has to tell of its progress is then no longer waited for. Cancelled, the call is.
        """
        self._take_all()
        try:
            async with asyncio.timeout(timeout):
                while not self._has_ended():
                    await self._wait()
        except TimeoutError:
            raise self._late(timeout) from None
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._value()

    async def progress(self) -> AsyncGenerator[Any, None]:
        """Yield what it yields, or tells of its progress, until it ends; `result` then tells how.

        If waiting is cancelled, the call goes on, and its progress can be asked for again.
        """
        while (taken := await self._take_next()) is not None:
            yield taken[0]

    async def _take_next(self) -> tuple[Any] | None:
        while not self._has_news():
            await self._wait()
        return self._take_progress()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        if self._has_ended() and self._timer is not None:
            self._timer.cancel()

    async def _begin(self) -> None:
        try:
            await self._ask()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._set_timer()

    def _set_timer(self) -> None:
        """Have the attempt end in time, if anybody still holds this."""
        if not self._has_ended():
            seconds = max(0.0, self._attempt_ends - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(seconds, _end_attempt, weakref.ref(self))

    def _attempt_is_over(self) -> None:
        if self._end_attempt(self._attempt_ends):
            self._client._errands.run(self._ask_again)
        self._set_timer()

    async def _ask(self) -> None:
        ttl = self._time_left
        self._has_asked(await self._client._put(self._method, self._request, "requests", ttl=ttl, id=self.id))

    async def _ask_again(self) -> None:
        try:
            await self._ask()
        except PosttrollError as error:
            if self._end(error):
                self._withdraw()

    def _tell(self, content: calls.Content) -> None:
        self._client._errands.run(self._put_notice, content)

    def _withdraw(self) -> None:
        self._client._errands.run(self._take_back)

    async def _take_back(self) -> None:
        taken_back = [await tracker.cancel() for tracker in self._trackers]
        if not (taken_back and all(taken_back)):  # without a tracker, to put the request may have been cancelled
            await self._put_notice(Cancel())

    async def _put_notice(self, content: calls.Content) -> None:
        with suppress(PosttrollError):
            ttl = self._method._options.timeout
            await self._client._put(self._method, content, "cancellations", ttl=ttl, correlation_id=self.id)


def _end_attempt(reference: weakref.ref[Call]) -> None:
    call = reference()
    if call is not None:
        call._attempt_is_over()
