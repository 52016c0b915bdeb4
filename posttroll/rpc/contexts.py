"""Calls that are being handled, as their handlers see them."""

from __future__ import annotations

import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from posttroll.errors import CallCancelled, ConfigurationError, LocalProtocolError
from posttroll.message import Message
from posttroll.protocol.calls import Request
from posttroll.protocol.properties import Properties

if TYPE_CHECKING:
    from posttroll.messenger.trackers import BaseTracker

__all__ = ["BaseCallContext", "CallContext", "check_messenger", "current_call", "handled_call", "properties_of"]

_MOST_ON_THEIR_WAY = 1000

handled_call: ContextVar[Any] = ContextVar("current_call")
"""The context of the call that is being handled."""


def check_messenger(user: object, messenger: object, *, is_awaited: bool) -> None:
    """Raise `ConfigurationError` if somebody is given a messenger of the other kind, blocking or awaited."""
    if inspect.iscoroutinefunction(getattr(messenger, "put", None)) != is_awaited:
        own, given = type(user), type(messenger)
        raise ConfigurationError(
            f"{own.__module__}.{own.__name__} does not work on a {given.__module__}.{given.__name__}: "
            f"both have to be from posttroll.asyncio, or neither"
        )


def properties_of(message: Message) -> Properties:
    """Return what each message from a target has."""
    assert message.properties is not None
    return message.properties


def current_call() -> CallContext:
    """Return the call that is being handled; `LocalProtocolError` if there is none."""
    call: CallContext | None = handled_call.get(None)
    if call is None:
        raise LocalProtocolError("nothing that another program called is being handled here")
    return call


class BaseCallContext(ABC):
    """Knows who calls, for how long, and what was sent on the way to the result."""

    def __init__(self, message: Message, request: Request) -> None:
        properties, delivery = properties_of(message), message.delivery
        self.id = properties.id
        self.peer = properties.source
        self.key = delivery.key if delivery else ""
        self.deadline = time.monotonic() + request.timeout
        self._request = request
        self._may_have_begun = request.repeated or (delivery is not None and delivery.redelivered)
        self._messages = [message]
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._is_stopped = False
        self._sent = 0
        self._arrived = 0
        self._sendable = request.window

    @abstractmethod
    def _wake(self) -> None:
        """Wake the handler if it waits; the lock is held."""

    @property
    def remaining(self) -> float:
        """The seconds until the deadline, 0 beyond it."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller is no longer interested, so that the handler may as well end."""
        return self._is_cancelled or self.remaining == 0

    def _may_go_on(self) -> bool:
        return self._has_room or self._is_cancelled

    @property
    def _has_room(self) -> bool:
        return self._sent < min(self._sendable, self._arrived + _MOST_ON_THEIR_WAY)

    def _take_number(self) -> int | None:
        """Return the number of the next value, None if there is no room for one; `CallCancelled`."""
        if self.cancelled:
            raise CallCancelled("the caller is no longer interested")
        if not self._has_room:
            return None
        self._sent += 1
        return self._sent - 1

    def _note_arrival(self, tracker: BaseTracker[Any]) -> None:
        """Take note that a value is with the caller, or never will be."""
        with self._lock:
            self._arrived += 1
            self._wake()

    def _give_room(self, taken: int) -> None:
        with self._lock:
            self._sendable = max(self._sendable, taken + self._request.window)
            self._wake()

    def _cancel(self, *, is_stopped: bool = False) -> None:
        with self._lock:
            self._is_cancelled = True
            self._is_stopped = is_stopped
            self._wake()


class CallContext(BaseCallContext):
    """A call that is being handled, as its handler sees it.

    `id` is the same at both ends; `peer` is the name of who calls, and `key` its public key, "" if it has none;
    `deadline` is when the caller gives up at the latest, by the monotonic clock.
    """

    def __init__(self, message: Message, request: Request, tell: Callable[[CallContext, int, Any], object]) -> None:
        super().__init__(message, request)
        self._tell = tell
        self._news = threading.Condition(self._lock)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the caller is no longer interested, for at most `timeout` seconds; return whether it is so."""
        longest = self.remaining if timeout is None else min(timeout, self.remaining)
        with self._news:
            self._news.wait_for(lambda: self._is_cancelled, longest)
        return self.cancelled

    def progress(self, value: object) -> None:
        """Tell a caller that looks at the progress how far it is; it may miss some if it looks seldom.

        Raises `CallCancelled` if the caller is no longer interested.
        """
        self._send(value, waits=False)

    def _send(self, value: object, *, waits: bool) -> None:
        with self._news:
            if waits:
                self._news.wait_for(self._may_go_on, self.remaining)
            number = self._take_number()
        if number is not None:
            self._tell(self, number, value)

    def _wake(self) -> None:
        self._news.notify_all()
