"""Publishing for a component."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from posttroll.errors import NotStarted
from posttroll.message import Message

if TYPE_CHECKING:
    from posttroll.asyncio.messenger import Messenger

__all__ = ["Outlet"]


class Outlet:
    """Publishes what tasks of the running loop want to have published, and threads beside it.

    In the loop a message is sent by a task of its own, which may be awaited; in a thread it is waited for.
    """

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __call__(self, message: Message) -> Awaitable[None] | None:
        """Publish a message; `NotStarted` when closed."""
        if self._is_closed:
            raise self._refusal
        if _running_loop() is self._loop:
            return self._begin(message)
        try:
            asyncio.run_coroutine_threadsafe(self._send(message), self._loop).result()
        except concurrent.futures.CancelledError:
            raise self._refusal from None
        return None

    @property
    def _refusal(self) -> NotStarted:
        return NotStarted(f"{self._messenger.name} is not running")

    def _begin(self, message: Message) -> asyncio.Task[None]:
        task = self._loop.create_task(self._publish(message), name="posttroll-publishing")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _send(self, message: Message) -> None:
        if self._is_closed:
            raise self._refusal
        await self._begin(message)

    async def _publish(self, message: Message) -> None:
        if self._messenger.publisher is None:
            raise self._refusal
        await self._messenger.publisher.send(message)

    async def close(self, timeout: float) -> None:
        """Publish nothing any more; what waits for room is given up after `timeout` seconds."""
        self._is_closed = True
        try:
            if self._sending:
                await asyncio.wait(self._sending, timeout=timeout)
        finally:
            for task in self._sending:
                task.cancel()
            if self._sending:
                await asyncio.wait(self._sending)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
