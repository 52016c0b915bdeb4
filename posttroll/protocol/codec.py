"""A message as one line of text, and back.

::

    pytroll:/<subject> <type> <sender> <time> <version>[ <mime type> <data>]

The parts are separated by white space; exactly one white-space character separates the data from its mime type, so
that the data keeps its own. Data are text, JSON, or binary. Bytes are written as text that any peer can read, and
the character before them says which text it is (`_BYTES_SEPARATORS`), so that this package gives bytes back.

JSON is written and read by fast libraries, which do it as the standard library does, and by that itself where they do
not. Two things differ: an enumeration's member is written as its value and a UUID as its text, which the standard
library refuses; and a number below 0.0001 may be written in another form (``1e-7``, not ``1e-07``).
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
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
    "is_good",
    "is_word",
    "moment_writer",
    "read",
    "revive_moments",
]

MAGIC = "pytroll:/"
OLDEST_VERSION = "v1.01"
NEWEST_VERSION = "v1.2"
MAX_SIZE = 64 * 2**20
"""Longest message read, in bytes or characters."""
MAX_DEPTH = 200
"""Deepest nesting of JSON data written and read."""

_PLAIN = "text/ascii "
_BYTES_SEPARATORS = {"\t": "utf-8", "\f": "iso-8859-1"}
_EXCERPT = 60

_find_moment = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}(?:\d{3})?)?(?:Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d{6})?)?)?", re.ASCII
).fullmatch
_find_clock_times = re.compile(r"T\d\d:\d\d:\d\d", re.ASCII).findall
_split_body = re.compile(r"(\S+)(\s)(.*)", re.DOTALL).fullmatch

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
_INSPECTION = _OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_INDENT_2
_DEEP_INDENTATION = b"\n" + b"  " * 20
"""What is nested deeper than `MAX_DEPTH` shows it in indented JSON, and little else does."""
_WORTH_A_SEARCH = 2000
"""Characters of JSON from which on it pays to count first what may be datetimes."""


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
    return isinstance(value, str) and value.split() == [value]


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


def is_good(subject: str, type: str, sender: str, version: str | None, data: Any, binary: bool = False) -> bool:
    """Return whether `encode` surely succeeds, at less than its cost; where it returns False, that may succeed, too."""
    if isinstance(data, str):
        is_writable = data.isascii()
    else:
        is_json = not binary and _dump(data, version or NEWEST_VERSION) is not None
        is_writable = is_json or isinstance(data, bytes | bytearray)
    try:
        return is_writable and _start(subject, type, sender, version or OLDEST_VERSION).isascii()
    except EncodeError:
        return False


def encode_head(subject: str, type: str, sender: str, time: datetime, version: str) -> str:
    """Return the message's text up to its version."""
    start = _start(subject, type, sender, version)
    if not isinstance(time, datetime):
        raise EncodeError(f"Invalid time: {time!r} is not a datetime")
    return f"{start}{_write_time(time, version)} {version}"


def _start(subject: str, type: str, sender: str, version: str) -> str:
    """Return the message's text up to its time."""
    try:
        return _write_start(subject, type, sender, version)
    except TypeError:  # what cannot be hashed is not kept
        return _write_start.__wrapped__(subject, type, sender, version)


@functools.lru_cache(maxsize=64, typed=True)
def _write_start(subject: str, type: str, sender: str, version: str) -> str:
    words = {"subject": subject, "type": type, "sender": sender, "version": version}
    for name, value in words.items():
        if not is_word(value):
            raise EncodeError(f"Invalid {name}: {value!r} is not a non-empty text without white space")
    return f"{MAGIC}{subject} {type} {sender} "


def _write_time(time: datetime, version: str) -> str:
    """Do what `moment_writer` does, in a third of the time for what nearly all messages have."""
    if time.tzinfo is UTC:
        try:
            return orjson.dumps(time)[1 : -len('+00:00"') if version <= OLDEST_VERSION else -1].decode()
        except TypeError:  # a subclass, as those that let tests set the clock
            pass
    return moment_writer(version)(time)


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
    dumped = _dump(data, version or NEWEST_VERSION)
    if dumped is None:
        return _write_json_slowly(version, data)
    raw, has_moments = dumped
    try:
        if has_moments:
            raw = orjson.dumps(data, None, _OPTIONS)
        text = str(msgspec.json.format(raw, indent=0), "utf-8")
    except (TypeError, ValueError):
        return _write_json_slowly(version, data)
    # The standard library escapes what is beyond ASCII, and null may have been a NaN; rfind is twice as fast as in.
    if text.isascii() and "\x7f" not in text and text.rfind("null") < 0:
        return version or (NEWEST_VERSION if has_moments else OLDEST_VERSION), text
    return _write_json_slowly(version, data)


def _dump(data: Any, version: str) -> tuple[bytes, bool] | None:
    """Return JSON with null for each datetime, and whether there are any; None if orjson does not do as `json` does."""
    special: list[Any] = []
    try:
        raw = orjson.dumps(data, special.append, _INSPECTION)
    except TypeError:
        return None
    zones = (None,) if version <= OLDEST_VERSION else (None, UTC)
    for value in special:
        if type(value) is not datetime or value.tzinfo not in zones:
            return None
    return (raw, bool(special)) if raw.rfind(_DEEP_INDENTATION) < 0 else None


def _write_json_slowly(version: str | None, data: Any) -> tuple[str, str]:
    special: list[Any] = []
    write = moment_writer(version or NEWEST_VERSION)

    def default(value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, UUID):
            return str(value)
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
    return _write_json_slowly(OLDEST_VERSION, data) if special else (OLDEST_VERSION, text)


def _depth(data: Any) -> int:
    depth, level = 0, [data]
    while level := [value for value in level if isinstance(value, dict | list | tuple)]:
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        depth += 1
    return depth


def decode(raw: str | bytes | bytearray | memoryview, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> Fields:
    """Return what the message says; `DecodeError` for anything that is not one. Bytes are UTF-8, else ISO-8859-1."""
    return Fields(*read(raw, max_size, max_depth))


def read(
    raw: str | bytes | bytearray | memoryview, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH
) -> tuple[str, str, str, datetime, str, Any, bool]:
    """Do as `decode` does, but give the fields as a plain tuple, which takes less time."""
    try:
        if len(raw) > max_size:
            raise DecodeError(f"message of {len(raw)} bytes is longer than the {max_size} allowed")
        text = raw if isinstance(raw, str) else str(raw, "utf-8")
    except UnicodeDecodeError:
        text = str(raw, "iso-8859-1")  # type: ignore[arg-type]  # for mypy it may be a text
    except TypeError:
        raise DecodeError(f"a message is text or bytes, not {type(raw).__name__}") from None
    try:
        beginning, kind, sender, time, version, body = text.split(None, 5)
    except ValueError:
        beginning, kind, sender, time, version, body = _split_head(text)
    if text[: len(MAGIC)] != MAGIC or beginning == MAGIC:
        raise _not_a_message(text)
    if version > NEWEST_VERSION:
        raise UnsupportedVersion(f"message is of version {_excerpt(version)}, the newest known is {NEWEST_VERSION}")
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise DecodeError(f"message has an invalid time: {_excerpt(time)}") from None
    data, binary = (body[len(_PLAIN) :], False) if body[: len(_PLAIN)] == _PLAIN else _read_body(body, max_depth)
    return beginning[len(MAGIC) :], kind, sender, moment, version, data, binary


def _split_head(text: str) -> list[str]:
    """Return the parts of a message that has nothing after its version."""
    parts = text.split()
    if len(parts) != 5 or not text.startswith(MAGIC):
        raise _not_a_message(text)
    return [*parts, text[text.rindex(parts[-1]) + len(parts[-1]) :]]


def _not_a_message(text: str) -> DecodeError:
    if text.startswith(MAGIC):
        return DecodeError(f"message is missing parts: {_excerpt(text)} lacks subject, type, sender, time or version")
    return DecodeError(f"not a message: {_excerpt(text)} does not begin with {MAGIC!r}")


def revive_moments(top: dict[Any, Any] | list[Any], max_depth: int = MAX_DEPTH) -> None:
    """Turn, in place and at any depth, each text that `datetime.isoformat` wrote into the datetime it was."""
    _revive_moments([top], max_depth, sys.maxsize)


def _revive_moments(level: list[Any], max_depth: int, most: int) -> None:
    """Do so in several containers, until `most` are found."""
    for _ in range(max_depth):
        deeper: list[Any] = []
        for container in level:
            for key, value in container.items() if type(container) is dict else enumerate(container):
                if type(value) is str:
                    if len(value) >= 19 and value[10] == "T" and _find_moment(value):
                        most -= 1
                        try:
                            container[key] = datetime.fromisoformat(value)
                        except ValueError:  # such as February 30th
                            continue
                        if most == 0:
                            return
                elif type(value) is dict or type(value) is list:
                    deeper.append(value)
        if not deeper:
            return
        level = deeper
    raise DecodeError(f"data are nested more than {max_depth} deep")


def _read_body(body: str, max_depth: int) -> tuple[Any, bool]:
    if not body:
        return "", False
    if body.isspace():
        raise DecodeError("message ends in white space after its version")
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
    if most := _most_moments(data, max_depth):
        if type(value) is dict:
            _revive_moments([value], max_depth, most)
        elif type(value) is list:
            _revive_in_dicts(value, max_depth)
    return value, False


def _most_moments(data: str, max_depth: int) -> int:
    """Return how many datetimes the JSON can hold, if that is quickly known and it cannot be too deep."""
    if len(data) < _WORTH_A_SEARCH or data.find("\\") >= 0 or data.count("{") + data.count("[") > max_depth:
        return sys.maxsize
    return len(_find_clock_times(data))


def _parse_json(data: str) -> Any:
    """Parse as the standard library does, but faster where it makes no difference."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return _parse_json_slowly(data)


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
        if dicts := [value for value in values if type(value) is dict]:
            _revive_moments(dicts, deeper, sys.maxsize)
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
