"""Room in a journal for one more message: within its greatest size, and on its disk."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

from posttroll.errors import JournalError, JournalFull
from posttroll.journal import tables
from posttroll.journal.database import PAGE_BYTES, is_full, transaction
from posttroll.journal.disk import Disk, is_still_there, look
from posttroll.journal.tail import Tail

__all__ = ["STEP", "Room"]

# How many are dropped in one transaction, which others have to wait for: a few milliseconds.
STEP = 1000
# When the journal has its greatest size, this part of it is dropped at once.
_PARTS = 64
# What a message may need beside its bytes.
_MARGIN = 4 * PAGE_BYTES

_OLDEST_POSITIONS = "SELECT sequence, position FROM messages WHERE sequence <= ? ORDER BY sequence LIMIT ?"


class Room:
    """What the messages of a journal take up, and how room is made for more.

    `tail`: where the newest of them are; `end`: how many bytes of messages there ever were; `aside`: how many bytes are
    set aside.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, tail: Tail, max_size: int | None) -> None:
        self._path = path
        self._opened = os.stat(path)
        self._writer = writer
        self.tail = tail
        self._max_size = max_size
        self._until_look = 0
        self.load()

    def load(self) -> None:
        """Read again what there is."""
        query = "SELECT position + length(frame) FROM messages ORDER BY sequence DESC LIMIT 1"
        folded: tuple[int] = self._writer.execute(query).fetchone() or (0,)
        rows = self.tail.newest.rows
        self.end = rows[-1][3] + len(rows[-1][5]) if rows else folded[0]
        self._begin = self._find_begin()
        self.aside = tables.aside_size(self._writer)
        self.doubt()

    def _find_begin(self) -> int:
        query = "SELECT position FROM messages ORDER BY sequence LIMIT 1"
        oldest: tuple[int] | None = self._writer.execute(query).fetchone()
        rows = self.tail.newest.rows
        return oldest[0] if oldest else rows[0][3] if rows else self.end

    @property
    def _size(self) -> int:
        return self.end - self._begin + self.aside

    def doubt(self) -> None:
        """Look at the disk before the next message, because it turned out to be full."""
        self._until_look = 0

    def check_files(self) -> None:
        """Raise `JournalError` if what is kept goes to files that nobody will find."""
        is_there = is_still_there(self._path, self._opened)
        if is_there and self.tail.is_still_there:
            return
        self.doubt()
        missing = self.tail.path if is_there else self._path
        raise JournalError(
            f"{missing} was moved, removed or replaced while the journal {self._path} is open, so that no more is kept "
            f"in it. What was kept before is lost only with the files: stop the publisher, put them back where they "
            f"were, all of {self._path.name}* together, and start it again; or start it without any, with a new journal"
        )

    def make(self, size: int) -> None:
        """See to it that there is room for a message, if need be by dropping what all have settled.

        `JournalFull`; `JournalError` if its files are no longer where they were.
        """
        if self._max_size is not None:
            self._keep_within(self._max_size - size)
        self._until_look -= size + PAGE_BYTES
        if self._until_look < 0:
            self._until_look = self._look(size)

    def _keep_within(self, limit: int) -> None:
        while (excess := self._size - limit) > 0:
            if not self.drop_settled(excess + (self._max_size or 0) // _PARTS):
                raise self._full(f"the journal {self._path} is full: {self._size} of {self._max_size} bytes")

    def _look(self, size: int) -> int:
        """Return how much may be appended until one has to look again."""
        self.check_files()
        disk = look(self._path)
        if disk.free >= disk.reserve + 2 * size:  # it goes to the log first, then to the file
            return disk.step
        # What is folded takes whole pages.
        while (free := self._free_in_file()) < (needed := size + 2 * self.tail.size + _MARGIN):
            if not self.drop_settled(needed - free + disk.step):
                raise self._no_room("append to", disk)
        if size > disk.log:
            raise self._no_room("append to", disk)
        return min(disk.step, free - needed)

    def set_aside(self, size: int) -> None:
        """Raise `JournalFull` if what is being set aside leaves too little of the reserve to settle and to drop."""
        disk = look(self._path)
        left = disk.free - 2 * size
        if size > 0 and left < disk.reserve - disk.log and (size > disk.log or not self._free_in_file()):
            raise self._no_room("commit to", disk)

    def _free_in_file(self) -> int:
        (pages,) = self._writer.execute("PRAGMA freelist_count").fetchone()
        return int(pages * PAGE_BYTES)

    def drop_settled(self, size: int) -> bool:
        """Drop the oldest messages that all have settled, about `size` bytes of them; return whether there are any."""
        self._fold()
        enough = self._begin + size
        while True:
            settled_to = "SELECT coalesce(min(cursor), ?) FROM consumers"
            (up_to,) = self._writer.execute(settled_to, [self.tail.newest.folded]).fetchone()
            oldest = self._writer.execute(_OLDEST_POSITIONS, (up_to, STEP)).fetchall()
            droppable = [sequence for sequence, position in oldest if position < enough]
            if droppable:
                self.drop(droppable[-1])
                return True
            if not self._pass_over():
                return False

    def _fold(self) -> None:
        """Have all that could be dropped in the database, unless it is the room for that which is missing."""
        try:
            self.tail.fold()
        except (sqlite3.Error, OSError) as error:
            if not is_full(error):
                raise

    def _pass_over(self) -> bool:
        """Move those who are farthest behind on to what they have yet to settle; return whether that is farther."""
        has_moved = False
        folded = self.tail.newest.folded
        behind = "SELECT name, cursor, topics FROM consumers WHERE cursor = (SELECT min(cursor) FROM consumers)"
        with transaction(self._writer):
            for name, cursor, topics in self._writer.execute(behind).fetchall():
                first = tables.first_pending(self._writer, name, cursor, json.loads(topics)) or folded + 1
                if first - 1 > cursor:
                    self._writer.execute("UPDATE consumers SET cursor = ? WHERE name = ?", (first - 1, name))
                    has_moved = True
        return has_moved

    def drop(self, up_to: int) -> None:
        """Drop the messages up to a number."""
        with transaction(self._writer):
            self._writer.execute("DELETE FROM messages WHERE sequence <= ?", [up_to])
            self._writer.execute("UPDATE journal SET used_to = max(used_to, ?)", [up_to])
        self._begin = self._find_begin()

    def _no_room(self, what: str, disk: Disk) -> JournalFull:
        file_system = next(place for place in self._path.parents if os.path.ismount(place))
        return self._full(
            f"cannot {what}: no room is left for the journal {self._path}: {file_system} has {disk.free} bytes "
            f"free or in its log, {disk.reserve} are kept for what consumers note; make room there, or have the "
            f"consumers settle more"
        )

    def _full(self, text: str) -> JournalFull:
        late = self._writer.execute("SELECT name, cursor FROM consumers ORDER BY cursor LIMIT 1").fetchone()
        last = self.tail.newest.last
        if late and late[1] < last:
            text += f"; consumer {late[0]!r} has yet to settle {last - late[1]} numbers"
        if self.aside:
            text += f"; {self.aside} bytes are set aside"
        return JournalFull(text)
