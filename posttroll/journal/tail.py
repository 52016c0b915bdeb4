"""The tail of a journal: its newest messages, in a file of their own until they are folded into the database.

One write to the end of a file costs a tenth of what a transaction does. The file is a line that names the journal,
and a record for each message; in "full", zeros follow, so that to sync a record need not sync the length of the file.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from posttroll.errors import JournalCorrupt
from posttroll.journal import tables
from posttroll.journal.database import sync_directory, transaction
from posttroll.journal.disk import is_still_there
from posttroll.journal.tables import Row

__all__ = ["Newest", "Tail", "read_tail", "save_tail"]

_MOST_MESSAGES = 1000
# A message that is larger than this part of the tail goes to the database at once.
_PARTS = 8

_MARK = b"\xf6msg"
# The mark, sequence, time, expires (nan: never), position, the lengths of topic and frame, their checksum.
_HEAD = struct.Struct("<4sqddqIII")
_CHECKSUM = struct.Struct("<I")
_HEAD_LENGTH = _HEAD.size + _CHECKSUM.size
# Tells the end of a record from the zeros that may follow.
_END = b"\n"

_sync_data = getattr(os, "fdatasync", os.fsync)

_INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)"


class Newest(NamedTuple):
    """The messages that are not in the database, which ends with number `folded`; others may read while they grow."""

    folded: int
    rows: list[Row]

    @property
    def last(self) -> int:
        """The number of the newest message."""
        return self.rows[-1][0] if self.rows else self.folded

    def after(self, sequence: int) -> Sequence[Row]:
        """Return the messages after a number."""
        return self.rows[max(0, sequence + 1 - self.rows[0][0]) :] if self.rows else ()


class Tail:
    """The tail of a journal that is open for writing; if `is_synced`, what is appended outlives the loss of power.

    What `writer` commits has to outlive what the tail does. If the machine stopped while the journal was open
    (`is_cut_off`), what cannot be read is taken to have been lost with that; else it is `JournalCorrupt`.
    """

    def __init__(
        self,
        path: Path,
        identity: str,
        writer: sqlite3.Connection,
        most_bytes: int,
        *,
        is_synced: bool = False,
        is_cut_off: bool = False,
    ) -> None:
        self.path = path
        self._first_line = _first_line(identity)
        self._writer = writer
        self._most_bytes = most_bytes
        self._is_synced = is_synced
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.load(is_cut_off=is_cut_off)
            if is_synced:
                sync_directory(path.parent)
        except BaseException:
            self.release()
            raise

    def load(self, *, is_cut_off: bool = False) -> None:
        """Read again what there is."""
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).rstrip(b"\0")
        if self._first_line.startswith(content):
            os.pwrite(self._descriptor, self._first_line, 0)
            content = self._first_line
        elif not content.startswith(self._first_line):
            raise JournalCorrupt(f"{self.path} does not belong to the journal beside it; move it away")
        rows, end = _sound(content, len(self._first_line))
        if not (is_cut_off or _is_unfinished(content, end)):
            raise JournalCorrupt(
                f"{self.path}, which has the newest messages of the journal beside it, is damaged after {end} bytes; "
                f"move both away to start anew, `python -m posttroll.journal.salvage` copies what is readable"
            )
        folded = tables.last(self._writer)
        newest = [row for row in rows if row[0] > folded]
        self._cut(end if newest else len(self._first_line))
        self.newest = Newest(folded, newest)

    def _cut(self, end: int) -> None:
        os.ftruncate(self._descriptor, end)
        self._end = end
        if self._is_synced and hasattr(os, "posix_fallocate"):
            with suppress(OSError):  # only to be faster
                os.posix_fallocate(self._descriptor, 0, self._most_bytes)

    @property
    def size(self) -> int:
        """How many bytes of messages are yet to be folded."""
        return self._end - len(self._first_line)

    def append(self, row: Row) -> None:
        """Keep a message; if there is no room to fold what is there before it, or for itself, it is not kept."""
        if len(row[-1]) > self._most_bytes // _PARTS:
            self.fold(row)
            return
        record = _record(row)
        if len(self.newest.rows) >= _MOST_MESSAGES or self._end + len(record) > self._most_bytes:
            self.fold()
        try:
            if os.pwrite(self._descriptor, record, self._end) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if self._is_synced:
                _sync_data(self._descriptor)
        except OSError:
            self._cut(self._end)
            raise
        self._end += len(record)
        self.newest.rows.append(row)

    def fold(self, *more: Row) -> None:
        """Put all, and what comes after it, into the database, or nothing."""
        rows = [*self.newest.rows, *more]
        if not rows:
            return
        try:
            with transaction(self._writer):
                self._writer.executemany(_INSERT, rows)
            # Before it is cut: what is appended if that fails goes behind what is folded, which reading passes over.
            self.newest = Newest(rows[-1][0], [])
            self._cut(len(self._first_line))
        except BaseException:
            self.load()  # a signal's exception may have come before or after any of that
            raise

    @property
    def is_still_there(self) -> bool:
        """Whether the file that was opened is still what its path names."""
        return is_still_there(self.path, os.fstat(self._descriptor))

    def remove(self) -> None:
        """Remove the file, if all is folded and it is still there."""
        if not self.newest.rows and self.is_still_there:
            self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Close the file; in the child of a fork: leave it to the parent alone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_tail(path: Path, identity: str) -> list[Row]:
    """Return the messages of a tail that another process may be writing."""
    content, first_line = _content(path), _first_line(identity)
    return _sound(content, len(first_line))[0] if content.startswith(first_line) else []


def save_tail(path: Path) -> Iterator[Row]:
    """Return the messages of a damaged tail that are readable."""
    content = _content(path)
    start = content.find(_MARK)
    while start >= 0:
        rows, end = _sound(content, start)
        yield from rows
        start = content.find(_MARK, max(end, start + 1))


def _first_line(identity: str) -> bytes:
    return f"posttroll tail 1 {identity}\n".encode()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\0")
    except FileNotFoundError:
        return b""


def _record(row: Row) -> bytes:
    sequence, time, expires, position, topic, frame = row
    name = topic.encode()
    checksum = crc32(frame, crc32(name))
    never = math.nan if expires is None else expires
    head = _HEAD.pack(_MARK, sequence, time, never, position, len(name), len(frame), checksum)
    return b"".join((head, _CHECKSUM.pack(crc32(head)), name, frame, _END))


def _sound(content: bytes, start: int) -> tuple[list[Row], int]:
    """Return the messages from `start` up to where there is something else, and where that is."""
    rows = []
    while (end := _record_end(content, start)) is not None and content[end - 1 : end] == _END:
        _, sequence, time, expires, position, topic_length, _, checksum = _HEAD.unpack_from(content, start)
        body = content[start + _HEAD_LENGTH : end - 1]
        if crc32(body) != checksum:
            break
        topic, frame = body[:topic_length].decode(), body[topic_length:]
        rows.append((sequence, time, None if math.isnan(expires) else expires, position, topic, frame))
        start = end
    return rows, start


def _record_end(content: bytes, start: int) -> int | None:
    """Return where the record ends that starts there, None if its head is not whole."""
    head = content[start : start + _HEAD_LENGTH]
    if len(head) < _HEAD_LENGTH or crc32(head[: _HEAD.size]) != _CHECKSUM.unpack_from(head, _HEAD.size)[0]:
        return None
    *_, topic_length, frame_length, _ = _HEAD.unpack_from(head)
    return start + _HEAD_LENGTH + int(topic_length + frame_length) + len(_END)


def _is_unfinished(content: bytes, start: int) -> bool:
    """Return whether what is there is the beginning of a record, of which the rest was never written."""
    end = _record_end(content, start)
    return len(content) < (start + _HEAD_LENGTH if end is None else end)
