"""What a class of handlers derives from that runs in an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING

from posttroll.components import component
from posttroll.message import Message

if TYPE_CHECKING:
    from posttroll.asyncio.messenger import Messenger

__all__ = ["Component"]


class Component(component.Component):
    """A class of handlers, of which some may be coroutines; `start` and `stop`, too.

    A class derived from the blocking twin runs in an event loop just as well; this one only says what it has there.
    """

    needs_loop = True
    messenger: Messenger  # type: ignore[assignment]
    """For messages to others by their names; for coroutines alone."""

    def publish(self, message: Message) -> Awaitable[None]:
        """Publish a message; `NotStarted` before `start` and after `stop`.

        In a coroutine what this returns is to be awaited: it waits for room, and raises what goes wrong; the message is
        sent even if it is not awaited. In the thread of a plain handler it is sent when this returns.
        """
        return super().publish(message) or _DONE


class _Done:
    """Can be awaited, and takes no time."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE = _Done()
