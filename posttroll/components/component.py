"""What a class of handlers derives from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

    name: str
    """As in the configuration."""
    settings: Mapping[str, Any]
    """What the configuration has for the handlers."""
    fingerprint: Fingerprint
    """Who it is."""
    messenger: Messenger
    """For messages to others by their names."""

    def start(self) -> None:
        """Prepare for the first message; what is raised here ends the program."""

    def stop(self) -> None:
        """Clean up after the last message; publishing is still possible."""

    def publish(self, message: Message) -> None:
        """Publish a message; `NotStarted` before `start` and after `stop`."""
        if self.messenger.publisher is None:
            raise NotStarted(f"{self.name} is not running")
        self.messenger.publisher.send(message)
