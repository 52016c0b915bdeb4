"""Following what was sent until it is settled."""

from __future__ import annotations

from collections.abc import Awaitable, Generator

from posttroll.asyncio.messenger.calls import Call
from posttroll.messenger.trackers import BaseTracker, Outgoing

__all__ = ["Tracker"]


class Tracker(BaseTracker[Awaitable[None]]):
    """Follows one message; to await it is to wait until the message is settled.

    Its `state` is "pending", "accepted", "rejected" (why is in `reason`), "expired", or "released", which is to be sent
    again, unless it was cancelled. `buffered` tells that it was not handed to the transport yet.
    """

    __slots__ = ("_call",)

    def __init__(self, id: str, to: str, peer: str, keeper: Outgoing[Awaitable[None]], call: Call) -> None:
        super().__init__(id, to, peer, keeper)
        self._call = call

    async def wait(self, timeout: float | None = None) -> str:
        """Wait until the message is settled and return its state; `TimedOut`, `Interrupted`.

        If the messenger is stopped meanwhile, the state may not be the final one.
        """
        await self._wait(timeout)
        return self.state

    def __await__(self) -> Generator[object, None, str]:
        return self.wait().__await__()

    async def cancel(self) -> bool:
        """Take the message back; return False if it is on its way already, or settled."""
        return await self._call(self._keeper.cancel, self)
