"""What components tell each other beside their work: commands, statuses and results, as the data of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import msgspec

from posttroll.components.fingerprint import Fingerprint
from posttroll.errors import DecodeError
from posttroll.message import Message

__all__ = ["Command", "Result", "Status"]


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    """The data of messages of one type; what they hold beyond its fields is ignored."""

    type: ClassVar[str]
    fingerprint: Mapping[str, Any] = {}

    def message(self, fingerprint: Fingerprint | Mapping[str, Any] | None = None, subject: str = "") -> Message:
        """Return the message, signed with a fingerprint, if one is given, under the item ``fingerprint``."""
        signature = fingerprint.as_dict() if isinstance(fingerprint, Fingerprint) else fingerprint or self.fingerprint
        data = {**msgspec.structs.asdict(self), "fingerprint": dict(signature)}
        return Message(subject or f"/{self.type}", self.type, data)

    @classmethod
    def read(cls, message: Message) -> Self:
        """Return what a message holds; `DecodeError` if it is of another type or its data are not as they should."""
        if message.type != cls.type:
            raise DecodeError(f"a message of type {message.type} is not a {cls.type}")
        try:
            return msgspec.convert(message.data, cls)
        except msgspec.ValidationError as error:
            raise DecodeError(f"not a {cls.type}: {error}") from None


class Command(_Content, frozen=True):
    """Asks a component to do what it has declared under the name `command`."""

    type: ClassVar[str] = "command"
    command: str
    parameters: Mapping[str, Any] = {}


class Status(_Content, frozen=True):
    """Tells how a component is, in any words."""

    type: ClassVar[str] = "status"
    status: Any


class Result(_Content, frozen=True):
    """Tells what became of a command.

    A "success" has a value. An "error" says in its `text` why it was not done. An "exception" is what nobody foresaw:
    its type as `value` and its text.
    """

    type: ClassVar[str] = "result"
    state: Literal["success", "error", "exception"]
    value: Any = None
    text: str = ""
    command: str = ""

    @classmethod
    def success(cls, value: Any = None, command: str = "") -> Self:
        """Return the result of what was done."""
        return cls(state="success", value=value, command=command)

    @classmethod
    def error(cls, text: str, command: str = "") -> Self:
        """Return the result of what was refused."""
        return cls(state="error", text=text, command=command)

    @classmethod
    def exception(cls, error: BaseException, command: str = "") -> Self:
        """Return the result of what failed."""
        return cls(state="exception", value=type(error).__name__, text=str(error), command=command)
