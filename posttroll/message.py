"""Messages: subject, type and data, signed with who sent them and when."""

from __future__ import annotations

import functools
import os
import pwd
import socket
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from posttroll.errors import EncodeError, MessageError
from posttroll.protocol import codec
from posttroll.settings import read

if TYPE_CHECKING:
    from posttroll.protocol.link import Delivery
    from posttroll.protocol.properties import Properties

__all__ = [
    "CURRENT_MESSAGE_VERSION",
    "Message",
    "MessageError",
    "create_datetime_encoder_for_version",
    "create_datetime_json_encoder_for_version",
    "datetime_decoder",
    "datetime_encoder",
    "is_valid_data",
    "is_valid_sender",
    "is_valid_subject",
    "is_valid_type",
    "render_version",
    "version_needed",
]

CURRENT_MESSAGE_VERSION = codec.NEWEST_VERSION
_MAGICK = codec.MAGIC


class Message:
    """One message.

    Made from a subject, a type and data (text, anything JSON can hold, datetimes, bytes), or by `decode` from what was
    received. All attributes can be changed. `version` is None until one is asked for: the message is then written in
    the version of the setting ``message_version``, or the lowest that its data need.
    """

    subject: str
    type: str
    sender: str
    time: datetime
    data: Any
    binary: bool
    version: str | None
    delivery: Delivery | None = None
    """What a durable subscriber or a messenger has to settle; None for a message that came otherwise."""
    properties: Properties | None = None
    """To whom and from whom an addressed message is; None for others."""

    def __init__(
        self,
        subject: str = "",
        atype: str = "",
        data: Any = "",
        binary: bool = False,
        rawstr: str | bytes | None = None,
        version: str | None = None,
    ) -> None:
        if rawstr:
            warnings.warn(
                "Message(rawstr=...) is deprecated, use Message.decode(...)", PendingDeprecationWarning, stacklevel=2
            )
            self.__setstate__(rawstr)
            return
        self.subject = subject
        self.type = atype
        self.sender = _sender(int(time.monotonic()), socket.gethostname, os.getuid)
        self.time = datetime.now(UTC)
        self.data = data
        self.binary = binary
        self.version = version
        if not codec.is_good(subject, atype, self.sender, version, data, binary):
            self.encode()

    @classmethod
    def decode(cls, rawstr: str | bytes, max_size: int = codec.MAX_SIZE) -> Self:
        """Return the message that a text or bytes of at most `max_size` hold; `MessageError` if they hold none."""
        message = cls.__new__(cls)
        (
            message.subject,
            message.type,
            message.sender,
            message.time,
            message.version,
            message.data,
            message.binary,
        ) = codec.read(rawstr, max_size)
        return message

    @classmethod
    def from_string(cls, rawstr: str | bytes) -> Self:
        """Do the same as `decode`."""
        return cls.decode(rawstr)

    @property
    def user(self) -> str:
        """The sender's login name, "" if there is none."""
        return self.sender.partition("@")[0] if "@" in self.sender else ""

    @property
    def host(self) -> str:
        """The sender's host, "" if there is none."""
        return self.sender.partition("@")[2]

    @property
    def head(self) -> str:
        """The message as text, without its data."""
        version, _ = codec.encode_body(self._version_to_write(), self.data, self.binary)
        return codec.encode_head(self.subject, self.type, self.sender, self.time, version)

    def encode(self) -> str:
        """Return the message as text; `MessageError` if it cannot be written."""
        return codec.encode(
            self.subject, self.type, self.sender, self.time, self._version_to_write(), self.data, self.binary
        )

    __str__ = __repr__ = encode

    def __getstate__(self) -> str:
        return self.encode()

    def __setstate__(self, state: str | bytes) -> None:
        self.__dict__.update(vars(Message.decode(state)))

    def _version_to_write(self) -> str | None:
        return self.version or read("message_version") or None


def is_valid_subject(obj: object) -> bool:
    """Return whether `obj` can be a subject: non-empty text without white space."""
    return codec.is_word(obj)


def is_valid_type(obj: object) -> bool:
    """Return whether `obj` can be a type: non-empty text without white space."""
    return codec.is_word(obj)


def is_valid_sender(obj: object) -> bool:
    """Return whether `obj` can be a sender: non-empty text without white space."""
    return codec.is_word(obj)


def is_valid_data(obj: object, version: str | None = CURRENT_MESSAGE_VERSION, binary: bool = False) -> bool:
    """Return whether `obj` can be the data of a message of that version."""
    try:
        codec.encode_body(version, obj, binary)
    except EncodeError:
        return False
    return True


def version_needed(data: Any, binary: bool = False) -> str:
    """Return the lowest version that can hold the data; `EncodeError`."""
    return codec.encode_body(None, data, binary)[0]


def render_version(version: str | None, data: Any, binary: bool = False) -> str:
    """Return the version to write: the one asked for, else the one configured, else the lowest needed."""
    return version or read("message_version") or version_needed(data, binary)


def datetime_decoder(dct: Any) -> Any:
    """Turn, at any depth of a dict or list, the texts that `datetime.isoformat` wrote into datetimes; return it."""
    if isinstance(dct, dict | list):
        codec.revive_moments(dct)
    return dct


def datetime_encoder(obj: Any, encoder: Callable[[Any], str]) -> str:
    """Return what `encoder` makes of a date or time; `TypeError` if `obj` is none."""
    try:
        return encoder(obj)
    except AttributeError:
        raise TypeError(f"{obj!r} is not JSON serializable") from None


def create_datetime_encoder_for_version(version: str = CURRENT_MESSAGE_VERSION) -> Callable[[Any], str]:
    """Return a function that writes a date or time in the way of a message version."""
    return codec.moment_writer(version)


def create_datetime_json_encoder_for_version(version: str = CURRENT_MESSAGE_VERSION) -> Callable[[Any], str]:
    """Return a function for the `default` of `json.dumps` that writes dates and times in the way of a version."""
    return functools.partial(datetime_encoder, encoder=create_datetime_encoder_for_version(version))


@functools.lru_cache(maxsize=1)
def _sender(second: int, host_name: Callable[[], str], user_id: Callable[[], int]) -> str:
    """Return who signs, in this second: the host may get its name while the process runs, and the user change.

    The functions are given so that others put in their place, as tests do, count at once.
    """
    host = "_".join(host_name().split()) or "localhost"
    return f"{_login_name(user_id())}@{host}"


@functools.cache
def _login_name(user_id: int) -> str:
    """Return the login name, or the number where a container runs under one that nobody has."""
    try:
        return "_".join(pwd.getpwuid(user_id).pw_name.split()) or str(user_id)
    except KeyError:
        return str(user_id)
