"""A message as one line of text, and back.

::

    pytroll:/<subject> <type> <sender> <time> <version>[ <mime type> <data>]

The parts are separated by white space; exactly one white-space character separates the data from its mime type, so
that the data keeps its own. Data are text, JSON, or binary. Bytes are written as text that any peer can read, and
the character before them says which text it is (`_BYTES_SEPARATORS`), so that this package gives bytes back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from posttroll.errors import DecodeError, EncodeError, UnsupportedVersion

__all__ = [
    "MAGIC",
    "MAX_DEPTH",
    "MAX_SIZE",
    "NEWEST_VERSION",
    "OLDEST_VERSION",
    "Fields",
    "decode",
    "encode",
    "encode_body",
    "encode_head",
    "is_word",
    "moment_writer",
    "revive_moments",
]

MAGIC = "pytroll:/"
OLDEST_VERSION = "v1.01"
NEWEST_VERSION = "v1.2"
MAX_SIZE = 64 * 2**20
"""Longest message read, in bytes or characters."""
MAX_DEPTH = 200
"""Deepest nesting of JSON data written and read."""

_BYTES_SEPARATORS = {"\t": "utf-8", "\f": "iso-8859-1"}
_EXCERPT = 60

_find_moment = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}(?:\d{3})?)?(?:Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d{6})?)?)?", re.ASCII
).fullmatch
_find_word = re.compile(r"\S+").fullmatch
_has_long_number = re.compile(r"\d{19}", re.ASCII).search
_split_body = re.compile(r"(\S+)(\s)(.*)", re.DOTALL).fullmatch


class Fields(NamedTuple):
    """What a message says."""

    subject: str
    type: str
    sender: str
    time: datetime
    version: str
    data: Any
    binary: bool


def is_word(value: object) -> bool:
    """Return whether `value` is a non-empty text without white space, as subject, type and sender must be."""
    return isinstance(value, str) and _find_word(value) is not None


def encode(
    subject: str, type: str, sender: str, time: datetime, version: str | None, data: Any, binary: bool = False
) -> str:
    """Return the message as text, in the lowest version that the data needs if `version` is None; `EncodeError`."""
    version, body = encode_body(version, data, binary)
    text = encode_head(subject, type, sender, time, version) + body
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"message cannot be written in UTF-8: {error}") from None
    return text


def encode_head(subject: str, type: str, sender: str, time: datetime, version: str) -> str:
    """Return the message's text up to its version."""
    for name, value in (("subject", subject), ("type", type), ("sender", sender), ("version", version)):
        if not is_word(value):
            raise EncodeError(f"Invalid {name}: {value!r} is not a non-empty text without white space")
    if not isinstance(time, datetime):
        raise EncodeError(f"Invalid time: {time!r} is not a datetime")
    return f"{MAGIC}{subject} {type} {sender} {moment_writer(version)(time)} {version}"


def encode_body(version: str | None, data: Any, binary: bool = False) -> tuple[str, str]:
    """Return the version to write, and the text that follows it: nothing, or a blank, the mime type and the data."""
    if isinstance(data, str):
        mime_type = "binary/octet-stream" if binary else "text/ascii"
        return version or OLDEST_VERSION, f" {mime_type} {data}" if data else ""
    if isinstance(data, bytes | bytearray):
        return version or OLDEST_VERSION, f" binary/octet-stream{_write_bytes(data)}"
    if binary:
        raise EncodeError(f"Invalid data: binary data must be bytes or text, not {type(data).__name__}")
    version, text = _write_json(version, data)
    return version, f" application/json {text}"


def moment_writer(version: str) -> Callable[[Any], str]:
    """Return what writes dates and times in `version`: the oldest has no time zones, they are left out."""
    if version <= OLDEST_VERSION:
        return lambda moment: str(moment.replace(tzinfo=None).isoformat())
    return lambda moment: str(moment.isoformat())


def _write_bytes(data: bytes | bytearray) -> str:
    try:
        return "\t" + data.decode("utf-8")
    except UnicodeDecodeError:
        return "\f" + data.decode("iso-8859-1")


def _write_json(version: str | None, data: Any) -> tuple[str, str]:
    special: list[Any] = []
    write = moment_writer(version or NEWEST_VERSION)

    def default(value: Any) -> str:
        special.append(value)
        return write(value)

    try:
        text = json.dumps(data, default=default)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EncodeError(f"Invalid data: data is not JSON serializable: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise EncodeError(f"Invalid data: nested more than {MAX_DEPTH} deep")
    if version is not None or any(isinstance(value, datetime) for value in special):
        return version or NEWEST_VERSION, text
    return _write_json(OLDEST_VERSION, data) if special else (OLDEST_VERSION, text)


def _depth(data: Any) -> int:
    depth, level = 0, [data]
    while level := [value for value in level if isinstance(value, dict | list | tuple)]:
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        depth += 1
    return depth


def decode(raw: str | bytes | bytearray | memoryview, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> Fields:
    """Return what the message says; `DecodeError` for anything that is not one. Bytes are UTF-8, else ISO-8859-1."""
    text = _read_text(raw, max_size)
    if not text.startswith(MAGIC):
        raise DecodeError(f"not a message: {_excerpt(text)} does not begin with {MAGIC!r}")
    parts = text[len(MAGIC) :].split(None, 5)
    if len(parts) < 5 or text[len(MAGIC)].isspace():
        raise DecodeError(f"message is missing parts: {_excerpt(text)} lacks subject, type, sender, time or version")
    subject, type, sender, time, version = parts[:5]
    if version > NEWEST_VERSION:
        raise UnsupportedVersion(f"message is of version {_excerpt(version)}, the newest known is {NEWEST_VERSION}")
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise DecodeError(f"message has an invalid time: {_excerpt(time)}") from None
    if len(parts) == 6:
        data, binary = _read_body(parts[5], max_depth)
    elif text[-1].isspace():
        raise DecodeError("message ends in white space after its version")
    else:
        data, binary = "", False
    return Fields(subject, type, sender, moment, version, data, binary)


def revive_moments(top: dict[Any, Any] | list[Any], max_depth: int = MAX_DEPTH) -> None:
    """Turn, in place and at any depth, each text that `datetime.isoformat` wrote into the datetime it was."""
    level: list[Any] = [top]
    for _ in range(max_depth):
        deeper: list[Any] = []
        for container in level:
            for key, value in container.items() if type(container) is dict else enumerate(container):
                kind = type(value)
                if kind is str:
                    if len(value) >= 19 and value[10] == "T" and _find_moment(value):
                        container[key] = _moment_or_text(value)
                elif kind is dict or kind is list:
                    deeper.append(value)
        if not deeper:
            return
        level = deeper
    raise DecodeError(f"data are nested more than {max_depth} deep")


def _moment_or_text(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def _read_text(raw: str | bytes | bytearray | memoryview, max_size: int) -> str:
    if not isinstance(raw, str | bytes | bytearray | memoryview):
        raise DecodeError(f"a message is text or bytes, not {type(raw).__name__}")
    if len(raw) > max_size:
        raise DecodeError(f"message of {len(raw)} bytes is longer than the {max_size} allowed")
    if isinstance(raw, str):
        return raw
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        return str(raw, "iso-8859-1")


def _read_body(body: str, max_depth: int) -> tuple[Any, bool]:
    mime_type, separator, data = body.partition(" ")
    read = _READERS.get(mime_type)
    if read is None or not separator:
        match = _split_body(body)
        if match is None:
            raise DecodeError(f"message has a mime type but no data: {_excerpt(body)}")
        mime_type, separator, data = match.groups()
        read = _READERS.get(mime_type.lower())
    if read is None:
        raise DecodeError(f"unknown mime type {_excerpt(mime_type)}; known: {', '.join(_READERS)}")
    return read(data, separator, max_depth)


def _read_plain(data: str, separator: str, max_depth: int) -> tuple[str, bool]:
    return data, False


def _read_binary(data: str, separator: str, max_depth: int) -> tuple[str | bytes, bool]:
    if (charset := _BYTES_SEPARATORS.get(separator)) is None:
        return data, True
    try:
        return data.encode(charset), True
    except UnicodeEncodeError as error:
        raise DecodeError(f"binary data are not {charset}: {error}") from None


def _read_json(data: str, separator: str, max_depth: int) -> tuple[Any, bool]:
    value = _parse_json(data)
    if type(value) is dict:
        revive_moments(value, max_depth)
    elif type(value) is list:
        _revive_in_dicts(value, max_depth)
    return value, False


def _parse_json(data: str) -> Any:
    """Parse as the standard library does, but faster where it makes no difference."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return _parse_json_slowly(data)
    # orjson turns integers of more than 64 bits into floats; so does nothing shorter than 19 digits.
    return _parse_json_slowly(data) if _has_long_number(data) else value


def _parse_json_slowly(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"data are not JSON: {error} in {_excerpt(data)}") from None


def _revive_in_dicts(top: list[Any], max_depth: int) -> None:
    """Do so in the dicts that lie in lists only, as texts in a list that is in no dict stay texts."""
    level = [top]
    for deeper in reversed(range(max_depth)):
        values = [value for container in level for value in container]
        for value in values:
            if type(value) is dict:
                revive_moments(value, deeper)
        level = [value for value in values if type(value) is list]
        if not level:
            return
    raise DecodeError(f"data are nested more than {max_depth} deep")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…")


_READERS: dict[str, Callable[[str, str, int], tuple[Any, bool]]] = {
    "application/json": _read_json,
    "text/ascii": _read_plain,
    "binary/octet-stream": _read_binary,
}
