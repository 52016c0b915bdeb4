"""What the two sides of a call say to each other: the types and data of their messages, read with limits.

========  ==========================================================
type      data
========  ==========================================================
request   what to call and how; its message's id is the call's
progress  a value on the way to the result
result    the value that was returned
error     what was raised
cancel    the caller is no longer interested
flow      how many values on the way the caller has taken
========  ==========================================================

All but the request have its id as their ``correlation_id``. Values are JSON as in any message, or the base64 text of
what another encoder made of them. Nothing that was received chooses what is imported or run.
"""

from __future__ import annotations

import base64
import binascii
import traceback
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from posttroll.errors import (
    CallCancelled,
    CallInterrupted,
    DecodeError,
    EncodeError,
    MethodNotFound,
    RemoteError,
    RemoteProtocolError,
)

__all__ = [
    "BUILT_IN_ERRORS",
    "LONGEST_TIME",
    "SUBJECT",
    "UNLIMITED",
    "Cancel",
    "Content",
    "Encoder",
    "Encoders",
    "Failure",
    "Flow",
    "Progress",
    "Request",
    "Result",
    "decode",
    "describe",
    "encode",
    "rebuild",
]

SUBJECT = "/rpc"
LONGEST_TIME = 1e9
"""The most seconds that can be told."""
UNLIMITED = 2**53
"""How many values a caller takes that does not look at them."""
_MOST_ARGUMENTS = 1000
_MOST_ERROR_ARGUMENTS = 10
_LONGEST_TEXT = 10_000
_LONGEST_TRACEBACK = 50_000
_LARGEST_INTEGER = 2**63
_BARE = "the call failed"

_Name = Annotated[str, Meta(max_length=200)]
_Positional = Annotated[list[Any], Meta(max_length=_MOST_ARGUMENTS)]
_Named = Annotated[dict[str, Any], Meta(max_length=_MOST_ARGUMENTS)]
_Arguments = tuple[_Positional, _Named]
_Count = Annotated[int, Meta(ge=0, le=UNLIMITED)]
_Seconds = Annotated[float, Meta(gt=0, le=LONGEST_TIME)]


class Request(Struct, frozen=True):
    """The wish to have a method called; with an encoder other than JSON, `arguments` has all of them as text."""

    object: _Name
    method: _Name
    arguments: _Positional | str
    keywords: _Named
    timeout: _Seconds
    """How long the caller is interested at most, all attempts together."""
    idempotent: bool = False
    signal: bool = False
    """Whether no answer is expected."""
    window: _Count = 0
    """How many values on the way to the result the caller has room for; 0: it does not want any."""
    repeated: bool = False
    """Whether a request of this id may have arrived before."""
    encoder: _Name = "json"


class Progress(Struct, frozen=True):
    """A value on the way to the result; the first one has the number 0."""

    number: _Count
    value: Any = None


class Result(Struct, frozen=True):
    """The end of a call that did what it should."""

    value: Any = None


class Failure(Struct, frozen=True):
    """The end of a call that did not; `text` begins with the name of the error, as in a traceback."""

    text: Annotated[str, Meta(max_length=2 * _LONGEST_TEXT)]
    error: _Name = ""
    arguments: Annotated[list[Any], Meta(max_length=_MOST_ERROR_ARGUMENTS)] = []
    traceback: Annotated[str, Meta(max_length=2 * _LONGEST_TRACEBACK)] = ""


class Cancel(Struct, frozen=True):
    """The end of the caller's interest."""


class Flow(Struct, frozen=True):
    """How many values on the way the caller has taken so far."""

    taken: _Count


Content = Request | Progress | Result | Failure | Cancel | Flow

_KINDS: dict[str, type[Content]] = {
    "request": Request,
    "progress": Progress,
    "result": Result,
    "error": Failure,
    "cancel": Cancel,
    "flow": Flow,
}
_NAMES = {content: kind for kind, content in _KINDS.items()}


def encode(content: Content) -> tuple[str, dict[str, Any]]:
    """Return type and data of a message."""
    return _NAMES[type(content)], msgspec.structs.asdict(content)


def decode(kind: str, data: Any) -> Content:
    """Return what a message of this type with these data says; `RemoteProtocolError`."""
    try:
        return msgspec.convert(data, _KINDS[kind])
    except KeyError:
        raise RemoteProtocolError(f"nothing about calls is said in messages of type {kind[:50]!r}") from None
    except (msgspec.ValidationError, RecursionError) as error:
        raise RemoteProtocolError(f"not a valid {kind}: {error}") from None


class Encoder(Protocol):
    """Writes arguments and results, and reads what a stranger may have written: it must run nothing it finds there."""

    def encode(self, value: Any, /) -> bytes:
        """Return a value as bytes; any exception if it cannot be written."""

    def decode(self, data: bytes, /) -> Any:
        """Return the value that bytes hold; any exception if they hold none."""


class Encoders:
    """JSON, and `others` by their names."""

    def __init__(self, others: Mapping[str, Encoder] | None = None) -> None:
        self._others = dict(others or {})
        self.names = ("json", *self._others)

    def pack(self, name: str, value: Any) -> Any:
        """Return what to put into a message's data for a value; `EncodeError`."""
        if name == "json":
            return value
        try:
            return base64.b64encode(self._others[name].encode(value)).decode()
        except Exception as error:
            raise EncodeError(f"{name} cannot write {type(value).__name__}: {error}") from error

    def unpack(self, name: str, packed: Any) -> Any:
        """Return the value that a message's data hold; `DecodeError`."""
        if name == "json":
            return packed
        if name not in self._others:
            raise DecodeError(f"unknown encoder {name!r}; known: {', '.join(self.names)}")
        try:
            return self._others[name].decode(base64.b64decode(packed, validate=True))
        except (binascii.Error, TypeError) as error:
            raise DecodeError(f"not base64: {error}") from None
        except Exception as error:
            raise DecodeError(f"{name} cannot read what came: {error}") from error

    def pack_arguments(
        self, name: str, arguments: Sequence[Any], keywords: dict[str, Any]
    ) -> tuple[list[Any] | str, dict[str, Any]]:
        """Return the `arguments` and `keywords` of a request; `EncodeError`."""
        if name == "json":
            return list(arguments), keywords
        return self.pack(name, [list(arguments), keywords]), {}

    def unpack_arguments(self, request: Request) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call; `DecodeError`."""
        if request.encoder == "json":
            both: Any = request.arguments, request.keywords
        else:
            both = self.unpack(request.encoder, request.arguments)
        try:
            positional, named = msgspec.convert(both, _Arguments)
        except (msgspec.ValidationError, RecursionError) as error:
            raise DecodeError(f"no arguments: {error}") from None
        return positional, named


BUILT_IN_ERRORS: Mapping[str, type[Exception]] = {
    error.__name__: error
    for error in (
        ArithmeticError,
        AssertionError,
        AttributeError,
        BlockingIOError,
        BrokenPipeError,
        BufferError,
        ChildProcessError,
        ConnectionAbortedError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionResetError,
        EOFError,
        Exception,
        FileExistsError,
        FileNotFoundError,
        FloatingPointError,
        ImportError,
        IndexError,
        InterruptedError,
        IsADirectoryError,
        KeyError,
        LookupError,
        MemoryError,
        ModuleNotFoundError,
        NameError,
        NotADirectoryError,
        NotImplementedError,
        OSError,
        OverflowError,
        PermissionError,
        ProcessLookupError,
        RecursionError,
        ReferenceError,
        RuntimeError,
        SystemError,
        TimeoutError,
        TypeError,
        UnboundLocalError,
        ValueError,
        ZeroDivisionError,
    )
}
"""What arrives as it was raised. An exception of a class derived from one of these does not."""

_OWN_ERRORS: Mapping[str, type[RemoteError]] = {
    error.__name__: error for error in (CallCancelled, CallInterrupted, MethodNotFound)
}


def describe(error: BaseException, *, in_full: bool = True, with_traceback: bool = True) -> Failure:
    """Return what the caller is told of an exception; unless `in_full`, only that there was one."""
    if not in_full:
        return Failure(_BARE)
    name = type(error).__name__[:200]
    where = "".join(traceback.format_exception(error))[-_LONGEST_TRACEBACK:] if with_traceback else ""
    arguments = [_reduce(argument) for argument in _arguments_of(error)[:_MOST_ERROR_ARGUMENTS]]
    return Failure(f"{name}: {_text_of(error)}", name, arguments, _writable(where))


def rebuild(failure: Failure) -> Exception:
    """Return the exception to raise for what the other side told."""
    built_in = BUILT_IN_ERRORS.get(failure.error)
    error: Any = built_in(*failure.arguments) if built_in else _rebuild_own(failure)
    error.remote_traceback = failure.traceback
    if failure.traceback:
        error.add_note(f"On the other side: {failure.traceback}")
    return error  # type: ignore[no-any-return]


def _rebuild_own(failure: Failure) -> RemoteError:
    error = _OWN_ERRORS.get(failure.error)
    if error is None:
        return RemoteError(failure.text, failure.error)
    return error(failure.text.removeprefix(f"{failure.error}: "), failure.error)


def _arguments_of(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename
    return error.args


def _reduce(argument: Any) -> Any:
    """Return something that JSON can say."""
    if argument is None or isinstance(argument, bool | float):
        return argument
    if isinstance(argument, int) and -_LARGEST_INTEGER <= argument < _LARGEST_INTEGER:
        return int(argument)
    return _text_of(argument)


def _text_of(value: object) -> str:
    try:
        return _writable(str(value)[:_LONGEST_TEXT])
    except Exception:
        return f"an unprintable {type(value).__name__}"


def _writable(text: str) -> str:
    """Return a text in which all can be written in UTF-8."""
    return text.encode(errors="replace").decode()
