"""What others have sent to a messenger, by target."""

from __future__ import annotations

from collections.abc import Callable

from posttroll.asyncio.driving import LoopPeer
from posttroll.asyncio.messenger.calls import Call
from posttroll.message import Message
from posttroll.messenger.targets import BaseTarget
from posttroll.protocol.drops import Drops
from posttroll.protocol.frames import ACCEPTED, RELEASED, Outcome, rejected
from posttroll.protocol.link import Delivery

__all__ = ["Target"]


class Target(BaseTarget):
    """Gives what came for a target; each message has to be settled.

    `on_arrival` is called, in the loop, when there is something to take; `take` never waits. `credit`: how many
    messages of each peer may be unsettled. `is_prompt`: whether senders are told what became of their messages as soon
    as there is nothing more to take, and not a little later. `on_close` is called when nothing more will come.
    """

    _link: LoopPeer | None

    def __init__(
        self,
        name: str,
        on_arrival: Callable[[], None],
        credit: int,
        drops: Drops,
        call: Call,
        *,
        is_prompt: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name, on_arrival, credit, drops, is_prompt=is_prompt, on_close=on_close)
        self._call = call

    def settle(self, delivery: Delivery | None, outcome: Outcome) -> bool:
        """Tell the sender what became of a message; return False if it is no longer ours to settle. May wait."""
        return delivery is not None and (link := self._link) is not None and link.link.settle(delivery, outcome)

    def settle_soon(self, delivery: Delivery | None, outcome: Outcome) -> None:
        """Have that done, without waiting for it."""
        if delivery is not None and (link := self._link) is not None:
            link.call_soon(link.link.settle, delivery, outcome)

    async def accept(self, message: Message) -> bool:
        """Tell the sender that the message has done its work; return False if it is no longer ours to settle."""
        return await self._call(self.settle, message.delivery, ACCEPTED)

    async def release(self, message: Message) -> bool:
        """Have the message come again, to this program or another one of its name; return as `accept` does."""
        return await self._call(self.settle, message.delivery, RELEASED)

    async def reject(self, message: Message, reason: str = "") -> bool:
        """Tell the sender that the message is of no use, and why; return as `accept` does."""
        return await self._call(self.settle, message.delivery, rejected(reason))
