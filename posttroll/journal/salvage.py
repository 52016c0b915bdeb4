"""Saving what is readable of a damaged journal."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttroll.errors import JournalCorrupt, JournalError
from posttroll.journal.database import check, connect, create, tail_path, transaction, translated_errors
from posttroll.journal.lock import FileLock
from posttroll.journal.tables import Row
from posttroll.journal.tail import save_tail

__all__ = ["Salvaged", "main", "salvage"]

_AT_ONCE = 1000
_LONGEST_GAP = 10_000
_Row = tuple[Any, ...]


@dataclass(frozen=True)
class Salvaged:
    """How much was saved; `unreadable`: how many numbers between the first and the last message were not there."""

    messages: int
    unreadable: int
    consumers: int
    set_aside: int


def salvage(path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> Salvaged:
    """Copy what is readable of a journal that nobody has open to a new one, which has an identity of its own.

    The old file stays as it is. Consumers go on where they were, their unsettled deliveries are delivered again.
    `JournalError` if the old one is missing, or the new one or a rest of one is there already; `JournalCorrupt` if no
    message is readable, though there may have been some. Then there is no new one.
    """
    old, new = Path(path).absolute(), Path(new_path).absolute()
    if not old.is_file():
        raise JournalError(f"cannot save {old}: it is missing, or no file")
    for rest in (new, Path(f"{new}-wal"), tail_path(new)):
        if rest.exists():
            raise JournalError(f"cannot save {old} to {new}: {rest} is there already; choose another path")
    new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with translated_errors("salvage", old), _locked(old), _locked(new), _opened(old) as reader, _made(new) as writer:
        with transaction(writer):
            saved = _copy(reader, writer, list(save_tail(tail_path(old))))
        if not saved.messages and not _is_readable(reader):
            raise JournalCorrupt(f"saved 0 messages of {old}: none is readable")
        return saved


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others away; if what follows fails, no lock is left behind that was not there."""
    lock_path = Path(f"{path}.lock")
    is_new = not lock_path.exists()
    lock = FileLock(lock_path, path)
    try:
        yield
    except BaseException:
        if is_new:
            lock_path.unlink(missing_ok=True)
        raise
    finally:
        lock.release()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.stat().st_size:
        raise JournalCorrupt(f"nothing of {path} is readable: it is empty")
    with contextlib.ExitStack() as stack:
        for rest in (Path(f"{path}-wal"), Path(f"{path}-shm")):
            if not rest.exists():
                stack.callback(rest.unlink, missing_ok=True)  # which SQLite makes even to read
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        stack.callback(reader.close)
        # Has SQLite read files too that are shorter than they should be.
        reader.execute("PRAGMA writable_schema = ON")
        try:
            check(reader, path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # which is about access, not about what is in it
                raise
            raise JournalCorrupt(f"nothing of {path} is readable: its beginning is destroyed ({error})") from error
        yield reader


@contextlib.contextmanager
def _made(path: Path) -> Iterator[sqlite3.Connection]:
    """Give an empty journal; if what follows fails, nothing of it is left behind."""
    try:
        create(path)
        with contextlib.closing(connect(path)) as writer:
            yield writer
    except BaseException:
        for suffix in ("", "-wal", "-shm", ".new"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        raise


def _is_readable(reader: sqlite3.Connection) -> bool:
    """Return whether a table without messages is not just one of which nothing is left."""
    with contextlib.suppress(sqlite3.DatabaseError):
        return not reader.execute("SELECT count(*) FROM messages").fetchone()[0]
    return False


def _copy(reader: sqlite3.Connection, writer: sqlite3.Connection, tail: Sequence[Row]) -> Salvaged:
    counts = {table: _copy_table(reader, writer, table) for table in ("consumers", "settled", "counts", "set_aside")}
    marks = [
        *_numbers(reader, "SELECT used_to FROM journal"),
        *_numbers(writer, "SELECT max(handed_out) FROM consumers"),
    ]
    used_to = max(marks, default=0)
    first = min(_numbers(reader, "SELECT min(sequence) FROM messages"), default=tail[0][0] if tail else 1)
    last = max(_numbers(reader, "SELECT max(sequence) FROM messages"), default=None)
    saved = position = newest = 0
    beyond = ((sequence, time, expires, topic, frame) for sequence, time, expires, _, topic, frame in tail)
    for sequence, *fields, topic, frame in itertools.chain(_messages(reader, first, last), beyond):
        if sequence > newest:
            writer.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", (sequence, *fields, position, topic, frame)
            )
            newest = sequence
            position += len(frame)
            saved += 1
    writer.execute("UPDATE journal SET used_to = ?", [max(used_to, newest)])
    return Salvaged(saved, newest - first + 1 - saved if saved else 0, counts["consumers"], counts["set_aside"])


def _messages(reader: sqlite3.Connection, first: int, last: int | None) -> Iterator[_Row]:
    """Read all messages; where the last one is unknown, until a gap is found that is longer than all before it."""
    newest = start = first
    while start <= (2 * newest + _LONGEST_GAP if last is None else last):
        for row in _range(reader, start, start + _AT_ONCE):
            newest = row[0]
            if _is_whole(*row):
                yield row
        start += _AT_ONCE


def _is_whole(sequence: object, time: object, expires: object, topic: object, frame: object) -> bool:
    """Return whether a row can be one: SQLite takes what is in a torn page for what it may be."""
    return isinstance(time, float) and isinstance(topic, str) and isinstance(frame, bytes)


def _range(reader: sqlite3.Connection, start: int, end: int) -> list[_Row]:
    """Read the messages from `start` until before `end`, in halves where it cannot be done at once."""
    query = "SELECT sequence, time, expires, topic, frame FROM messages WHERE sequence >= ? AND sequence < ?"
    try:
        return reader.execute(f"{query} ORDER BY sequence", (start, end)).fetchall()
    except sqlite3.DatabaseError:
        if end - start == 1:
            return []
    middle = (start + end) // 2
    return _range(reader, start, middle) + _range(reader, middle, end)


def _copy_table(reader: sqlite3.Connection, writer: sqlite3.Connection, table: str) -> int:
    copied = 0
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in reader.execute(f"SELECT * FROM {table}"):
            with contextlib.suppress(sqlite3.IntegrityError):  # of a consumer that is unreadable itself
                writer.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
                copied += 1
    return copied


def _numbers(connection: sqlite3.Connection, query: str) -> list[int]:
    with contextlib.suppress(sqlite3.DatabaseError):
        return [number for (number,) in connection.execute(query).fetchall() if isinstance(number, int)]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Salvage a journal from the command line."""
    parser = argparse.ArgumentParser(
        "python -m posttroll.journal.salvage", description="Copy what is readable of a damaged journal to a new one."
    )
    parser.add_argument("path", help="the damaged journal, which stays as it is")
    parser.add_argument("new_path", help="the new one, which must not be there yet")
    given = parser.parse_args(arguments)
    try:
        saved = salvage(given.path, given.new_path)
    except JournalError as error:
        print(error, file=sys.stderr)
        return 1
    old, new = Path(given.path), Path(given.new_path)
    print(
        f"saved {saved.messages} messages ({saved.unreadable} unreadable), {saved.consumers} consumers, "
        f"{saved.set_aside} messages set aside\n"
        f"before {new} takes the place of {old}, move all of {old}* away together: what is left of "
        f"{old.name}-wal or {old.name}.tail there would be taken for a part of it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
