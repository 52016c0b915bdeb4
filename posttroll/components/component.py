"""What a class of handlers derives from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from posttroll.components.fingerprint import Fingerprint
from posttroll.errors import NotStarted
from posttroll.message import Message
from posttroll.version import __version__

if TYPE_CHECKING:
    from posttroll.messenger import Messenger

__all__ = ["Component"]


class Component:
    """A class of handlers; the runner gives it its attributes, then starts it."""

    version: str = __version__
    """For the fingerprint; a class may have its own."""
    needs_loop: ClassVar[bool] = False
    """Whether only an event loop can run it, even if nothing in it is a coroutine."""

    name: str
    """As in the configuration."""
    settings: Mapping[str, Any]
    """What the configuration has for the handlers."""
    fingerprint: Fingerprint
    """Who it is."""
    messenger: Messenger
    """For messages to others by their names."""
    outlet: Callable[[Message], Awaitable[None] | None] | None = None
    """What publishes for it, from anywhere, while it runs in an event loop."""

    def start(self) -> Awaitable[None] | None:
        """Prepare for the first message; what is raised here ends the program."""

    def stop(self) -> Awaitable[None] | None:
        """Clean up after the last message; publishing is still possible."""

    def publish(self, message: Message) -> Awaitable[None] | None:
        """Publish a message; `NotStarted` before `start` and after `stop`.

        It is sent when this returns, but not in an event loop: there await what this returns.
        """
        if self.messenger.publisher is None:
            raise NotStarted(f"{self.name} is not running")
        if self.outlet is not None:
            return self.outlet(message)
        self.messenger.publisher.send(message)
        return None
