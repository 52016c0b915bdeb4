"""What others have sent to a messenger: what is there to be taken, and what was taken and is not settled."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from posttroll.errors import MessageError, RemoteProtocolError
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.protocol.drops import Drops
from posttroll.protocol.frames import ACCEPTED, RELEASED, Outcome, rejected
from posttroll.protocol.link import Delivery
from posttroll.protocol.properties import decode_payload
from posttroll.settings import read

__all__ = ["BaseTarget", "Incoming", "Link", "Target"]

logger = logging.getLogger(__name__)


class Link(Protocol):
    """By what a target gets what is there for it."""

    def open_target(self, target: str, on_arrival: Callable[[], None], credit: int = 200, *, is_prompt: bool) -> None:
        """Take in what others have for a target, and tell that there is something to take."""

    def take(self, target: str) -> tuple[Delivery, str] | None:
        """Return the next delivery and the name of who sent it; None if there is none."""


class BaseTarget:
    """Gives what came for a target; those who derive from it have it settled by others."""

    def __init__(
        self,
        name: str,
        on_arrival: Callable[[], None],
        credit: int,
        drops: Drops,
        *,
        is_prompt: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._on_arrival = on_arrival
        self._credit = credit
        self._is_prompt = is_prompt
        self._drops = drops
        self._on_close = on_close
        self._max_size = read("max_message_size")
        self._link: Link | None = None

    def open(self, link: Link) -> None:
        """Take what comes over a link from now on."""
        self._link = link
        link.open_target(self.name, self._on_arrival, self._credit, is_prompt=self._is_prompt)

    def close(self) -> None:
        """Take no more."""
        self._link = None
        self._on_close()

    def take(self) -> Message | None:
        """Return the next message, in turn from each peer, None if there is none now.

        What is no message is rejected, and counted.
        """
        while self._link is not None and (taken := self._link.take(self.name)) is not None:
            delivery, source = taken
            try:
                return self._read(delivery, source)
            except (MessageError, RemoteProtocolError) as error:
                self.settle_soon(delivery, rejected(f"no message: {error}"))
                if self._drops.add("not a message", time.monotonic()):
                    logger.warning("what came from %s for %s is rejected: %s", source, self.name, error)
        return None

    def _read(self, delivery: Delivery, source: str) -> Message:
        line, properties = decode_payload(delivery.payload, source)
        message = Message.decode(line, self._max_size)
        message.properties, message.delivery = properties, delivery
        return message

    def settle(self, delivery: Delivery | None, outcome: Outcome) -> bool:
        """Tell the sender what became of a message; return False if it is no longer ours to settle. May wait."""
        raise NotImplementedError

    def settle_soon(self, delivery: Delivery | None, outcome: Outcome) -> None:
        """Have that done, by another thread if it might wait."""
        self.settle(delivery, outcome)


class Target(BaseTarget):
    """Gives what came for a target; each message has to be settled.

    `on_arrival` is called, in the thread that talks with the peers, when there is something to take. `credit`: how many
    messages of each peer may be unsettled. `is_prompt`: whether senders are told what became of their messages as soon
    as there is nothing more to take, and not a little later. `on_close` is called when nothing more will come.
    """

    _link: LinkPeer | None

    def settle(self, delivery: Delivery | None, outcome: Outcome) -> bool:
        """Tell the sender what became of a message; return False if it is no longer ours to settle."""
        return delivery is not None and (link := self._link) is not None and link.settle(delivery, outcome)

    def accept(self, message: Message) -> bool:
        """Tell the sender that the message has done its work; return False if it is no longer ours to settle."""
        return self.settle(message.delivery, ACCEPTED)

    def release(self, message: Message) -> bool:
        """Have the message come again, to this program or another one of its name; return as `accept` does."""
        return self.settle(message.delivery, RELEASED)

    def reject(self, message: Message, reason: str = "") -> bool:
        """Tell the sender that the message is of no use, and why; return as `accept` does."""
        return self.settle(message.delivery, rejected(reason))


class Incoming:
    """The messages taken from a target for the application, and those that it has got and has not settled.

    With a `window`, so many of the latter are left alone, beyond which the eldest is accepted; without one they are
    accepted as soon as another one is asked for. None: they are never accepted unless told to.
    """

    def __init__(self, target: BaseTarget, window: int | None) -> None:
        self._target = target
        self._window = window
        self._queue: deque[Message] = deque()
        self._got: dict[int, Message] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def take_in(self, most: int) -> int:
        """Queue so many messages of the target, all there are if that is negative; return how many that were."""
        taken = 0
        while taken != most and (message := self._target.take()) is not None:
            self._queue.append(message)
            taken += 1
        return taken

    def take(self) -> Message | None:
        """Return the next message, which was not queued, None if there is none now."""
        return self._target.take()

    def append(self, message: Message) -> None:
        """Queue a message that was taken."""
        self._queue.append(message)

    def pop(self) -> Message | None:
        """Return the eldest message of the queue, else the next one as `take` does."""
        with contextlib.suppress(IndexError):  # as another thread may do the same
            return self._queue.popleft()
        return self.take()

    def begin(self, message: Message) -> Message:
        """Note that the application has got a message, and return it."""
        self._got[id(message)] = message
        if self._window and self._window < len(self._got):
            self.settle_soon(ACCEPTED, next(iter(list(self._got.values()))))
        return message

    def settle_former(self) -> None:
        """Accept what the application has got, unless there is a window."""
        if self._window == 0:
            self.settle_soon(ACCEPTED)

    def settle_soon(self, outcome: Outcome, message: Message | None = None) -> None:
        """Have a message that was got settled, or all, by another thread if it might wait."""
        for one in self._take_got(message, cumulative=False):
            self._target.settle_soon(one.delivery, outcome)

    def settle(self, outcome: Outcome, message: Message | None = None, cumulative: bool = False) -> bool:
        """Settle a message that was got, all up to that one, or all; return False if one was settled already."""
        if message is not None and message.delivery is None:
            return True
        taken = self._take_got(message, cumulative)
        settled = [self._target.settle(one.delivery, outcome) for one in taken]
        return all(settled) and (message is None or message in taken)

    def _take_got(self, message: Message | None, cumulative: bool) -> list[Message]:
        """Return the messages that are meant; other threads may settle some meanwhile."""
        if message is None or cumulative:
            meant = list(self._got.values())
            if message is not None:
                meant = meant[: meant.index(message) + 1] if message in meant else []
        else:
            meant = [message]
        return [one for one in meant if self._got.pop(id(one), None) is not None]

    def clear(self) -> None:
        """Forget all, as it comes again to whoever is there next."""
        self._queue.clear()
        self._got.clear()
