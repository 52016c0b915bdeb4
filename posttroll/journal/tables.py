"""What the tables of a journal say, and how a consumer's notes are written to them."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path

from posttroll.journal.base import Notes
from posttroll.journal.database import matching, transaction

__all__ = [
    "Row",
    "aside_size",
    "first_pending",
    "identity",
    "is_cut_off",
    "last",
    "note_closing",
    "note_opening",
    "pending",
    "write_notes",
]

Row = tuple[int, float, float | None, int, str, bytes]
"""Sequence, time, expires, position, topic and frame of a message."""

_MOST = 2**63 - 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def note_opening(writer: sqlite3.Connection) -> None:
    """Note that the journal is open from now on.

    If it was not closed before the machine stopped, notes may have been lost: then all there is may have been handed
    out before. Messages may have been lost, too, so that their numbers are given to others: it is another journal then,
    lest who holds a lost one settles what has its number now. Where the system does not tell when it was started, it is
    taken to have been since.
    """
    boot = _boot()
    (former,) = writer.execute("SELECT boot FROM journal").fetchone()
    if boot == former:
        return
    with transaction(writer):
        if former is not None:
            # What the latest notes are about may be lost, though they are not.
            noted = "SELECT max(max(cursor, handed_out)) FROM consumers"
            writer.execute(f"UPDATE journal SET used_to = max(used_to, coalesce(({noted}), 0))")
            writer.execute("UPDATE consumers SET handed_out = ?", [last(writer)])
            writer.execute("UPDATE journal SET identity = ?", [uuid.uuid4().hex])
        writer.execute("UPDATE journal SET boot = ?", [boot])


def is_cut_off(connection: sqlite3.Connection) -> bool:
    """Return whether the machine stopped while the journal was open."""
    (former,) = connection.execute("SELECT boot FROM journal").fetchone()
    return former not in (None, _boot())


def _boot() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return uuid.uuid4().hex


def note_closing(writer: sqlite3.Connection) -> None:
    """Note that no notes can be lost any more."""
    writer.execute("UPDATE journal SET boot = NULL")


def identity(connection: sqlite3.Connection) -> str:
    """Return the name that no other journal has."""
    name: str = connection.execute("SELECT identity FROM journal").fetchone()[0]
    return name


def last(connection: sqlite3.Connection) -> int:
    """Return the highest number that was ever given."""
    query = "SELECT max(used_to, coalesce((SELECT max(sequence) FROM messages), 0)) FROM journal"
    number: int = connection.execute(query).fetchone()[0]
    return number


def aside_size(connection: sqlite3.Connection) -> int:
    """Return how many bytes of messages are set aside."""
    size: int = connection.execute("SELECT coalesce(sum(length(frame)), 0) FROM set_aside").fetchone()[0]
    return size


def pending(
    connection: sqlite3.Connection,
    consumer: str,
    cursor: int,
    topics: list[str],
    up_to: int = _MOST,
    newest: Sequence[Row] = (),
) -> int:
    """Return how many messages after the cursor and up to `up_to` a consumer has yet to settle.

    `newest`: those that were not in the database a moment ago.
    """
    # Two selects, because SQLite would read all of the table for both at once.
    ends = "SELECT (SELECT min(sequence) FROM messages), (SELECT max(sequence) FROM messages)"
    oldest, folded = connection.execute(ends).fetchone()
    unfolded = [row for row in newest if row[0] > (folded or 0)]
    if oldest is None and not unfolded:
        return 0
    first, final = oldest or unfolded[0][0], unfolded[-1][0] if unfolded else folded
    begin, end = max(cursor, first - 1), max(cursor, min(up_to, final))
    if topics:
        condition, values = matching(topics)
        query = f"SELECT count(*) FROM messages WHERE sequence > ? AND sequence <= ? AND {condition}"
        (count,) = connection.execute(query, (begin, min(end, folded or 0), *values)).fetchone()
        count += sum(begin < row[0] <= end and row[4].startswith(tuple(topics)) for row in unfolded)
    else:
        count = end - begin  # a million of them take a second to count
    beyond = "SELECT count(*) FROM settled WHERE consumer = ? AND sequence > ? AND sequence <= ?"
    (settled,) = connection.execute(beyond, (consumer, begin, end)).fetchone()
    return int(count - settled)


def first_pending(connection: sqlite3.Connection, consumer: str, cursor: int, topics: list[str]) -> int | None:
    """Return the first message after the cursor that a consumer has yet to settle."""
    condition, values = matching(topics)
    settled = "SELECT 1 FROM settled WHERE consumer = ? AND settled.sequence = messages.sequence"
    query = f"SELECT min(sequence) FROM messages WHERE sequence > ? AND {condition} AND NOT EXISTS ({settled})"
    (first,) = connection.execute(query, (cursor, *values, consumer)).fetchone()
    return None if first is None else int(first)


def write_notes(writer: sqlite3.Connection, consumer: str, notes: Notes) -> int:
    """Write what a consumer noted; return by how many bytes what is set aside has grown."""
    if notes.is_forgotten:
        return 0
    grown = 0
    for sequence, (count, reason) in notes.aside.items():
        again = "UPDATE set_aside SET is_resent = 0, count = ?, reason = ? WHERE consumer = ? AND sequence = ?"
        if not writer.execute(again, (count, reason, consumer, sequence)).rowcount:
            writer.execute(
                "INSERT INTO set_aside SELECT ?, sequence, ?, ?, 0, time, expires, topic, frame FROM messages"
                " WHERE sequence = ?",
                (consumer, count, reason, sequence),
            )
            grown += _length_aside(writer, consumer, sequence)
    for sequence in (notes.settled & notes.resent) - notes.aside.keys():
        grown -= _length_aside(writer, consumer, sequence)
        writer.execute("DELETE FROM set_aside WHERE consumer = ? AND sequence = ?", (consumer, sequence))
    if notes.settled:
        beyond = [(consumer, sequence) for sequence in notes.settled if sequence > notes.cursor]
        writer.executemany("INSERT OR IGNORE INTO settled VALUES (?, ?)", beyond)
    if notes.counts:
        resent = [(notes.counts[sequence], consumer, sequence) for sequence in notes.counts.keys() & notes.resent]
        writer.executemany("UPDATE set_aside SET count = ? WHERE consumer = ? AND sequence = ? AND is_resent", resent)
        beyond_counts = [(consumer, *noted) for noted in notes.counts.items() if noted[0] > notes.cursor]
        writer.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", beyond_counts)
    if notes.position:
        writer.execute("UPDATE consumers SET cursor = ?, handed_out = ? WHERE name = ?", (*notes.position, consumer))
        for table in ("settled", "counts"):
            writer.execute(f"DELETE FROM {table} WHERE consumer = ? AND sequence <= ?", (consumer, notes.cursor))
    return grown


def _length_aside(connection: sqlite3.Connection, consumer: str, sequence: int) -> int:
    query = "SELECT length(frame) FROM set_aside WHERE consumer = ? AND sequence = ?"
    found: tuple[int] | None = connection.execute(query, (consumer, sequence)).fetchone()
    return found[0] if found else 0
