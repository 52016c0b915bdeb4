"""A journal in a file, by SQLite."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from posttroll.errors import ConfigurationError, JournalError, JournalFull
from posttroll.forks import check_process, is_this_process
from posttroll.journal import tables
from posttroll.journal.base import (
    Consumer,
    Notes,
    SetAside,
    SteadyClock,
    open_replay,
    refuse_more_consumers,
    shortest,
    starting_time,
)
from posttroll.journal.database import (
    MESSAGES,
    connect,
    create,
    is_full,
    matching,
    relax,
    sync_directory,
    tail_path,
    transaction,
    translated,
    translated_errors,
)
from posttroll.journal.disk import look
from posttroll.journal.lock import FileLock
from posttroll.journal.room import STEP, Room
from posttroll.journal.tail import Newest, Tail, read_tail
from posttroll.protocol.source import Entry, Position, Source

__all__ = ["SqliteJournal"]

_SYNC_LEVELS = ("normal", "full")
# In how many steps old messages go at a time, so that consumers need not wait for more than a fraction of a second.
_MOST_STEPS = 20
# With this part of the log's greatest length, it is tidied up, lest a transaction has to wait for all of it.
_TIDY_PART = 4

_OLDEST = "SELECT sequence FROM messages WHERE"
_ASIDE = "WHERE consumer = ? AND sequence = ? AND NOT is_resent"


class SqliteJournal:
    """A `Journal` that outlives its process.

    What was appended last is in a file beside it, its tail, until it is folded into the database, the file itself: with
    a thousand other messages, every `expire`, and by closing.

    At the loss of power, the file stays whole. With `sync` "normal", what was appended since the last `expire` may be
    lost; with "full", each `append` returns when its message outlives that, too. With both, the last commits may be
    lost: what they settled comes again, flagged as redelivered, as does all else that comes then.

    Of its file system, 32 MiB are kept free for what consumers note, or a quarter if that is less: with less than that,
    messages are appended only in place of those that all consumers have settled.

    The file is made if it is not there. One process may have it open, others may only read (`read_only`), and a child
    after a fork may do neither: `JournalInUse`, `UsedAfterFork`. Damaged files are left as they are: `JournalCorrupt`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_age: float | None = None,
        max_size: int | None = None,
        sync: str = "normal",
        read_only: bool = False,
    ) -> None:
        if sync not in _SYNC_LEVELS:
            raise ConfigurationError(f"no journal_sync {sync!r}; known: {', '.join(_SYNC_LEVELS)}")
        self.path = Path(path).absolute()
        self._max_age = max_age
        self._name = f"the journal {self.path}"
        self._process = os.getpid()
        self._is_closed = False
        self._clock = SteadyClock()
        self._lost: Counter[str] = Counter()
        # A signal handler may close what it interrupts.
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        self._tidying = threading.RLock()  # nobody waits for another lock who holds it
        self._sources: dict[str, tuple[Source, Notes]] = {}
        self._resent: deque[tuple[str, Entry]] = deque()
        self._lock: FileLock | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        # For what may be lost with the power: in "full", its commits need not wait for the disk.
        self._noter: sqlite3.Connection | None = None
        # Writes what is in the log to the file while others go on.
        self._tidier: sqlite3.Connection | None = None
        self._tail: Tail | None = None
        with translated_errors("open", self.path):
            self._open(sync, read_only, max_size)
        _open_ones.add(self)

    def _open(self, sync: str, read_only: bool, max_size: int | None) -> None:
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "that is a directory", str(self.path))
            if not read_only:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = FileLock(Path(f"{self.path}.lock"), self.path)
                if not self.path.exists():
                    create(self.path)
                self._writer = connect(self.path)
                self._tail = self._open_tail(self._writer, is_synced=sync == "full")
                self._noter = connect(self.path) if sync == "full" else self._writer
                relax(self._noter)
                self._tidier = connect(self.path)
                self._room = Room(self.path, self._noter, self._tail, max_size)
                self._tidy_after = look(self.path).log // _TIDY_PART
                self._tidy_at = self._room.end + self._tidy_after
            self._reader = connect(self.path, read_only=True)
            self._identity = tables.identity(self._reader)
        except BaseException:
            self._give_back()
            raise

    def _open_tail(self, writer: sqlite3.Connection, *, is_synced: bool) -> Tail:
        is_cut_off = tables.is_cut_off(writer)
        if is_cut_off:
            self._fold_former_tail(writer)
            tables.note_opening(writer)
        path = tail_path(self.path)
        tail = Tail(path, tables.identity(writer), writer, look(self.path).tail, is_synced=is_synced)
        try:
            if not is_cut_off:
                tables.note_opening(writer)
        except BaseException:
            tail.release()
            raise
        return tail

    def _fold_former_tail(self, writer: sqlite3.Connection) -> None:
        """Leave no tail that does not belong to what the journal is from now on."""
        path = tail_path(self.path)
        tail = Tail(path, tables.identity(writer), writer, look(self.path).tail, is_cut_off=True)
        try:
            tail.fold()
            tail.remove()
            sync_directory(path.parent)
        finally:
            tail.release()

    @property
    def identity(self) -> str:
        """A name that no other journal has, given to it when it was made, and anew after a loss of power."""
        return self._identity

    @property
    def last(self) -> int:
        """The number of the newest message, 0 before the first."""
        return self._newest().last

    def _newest(self) -> Newest:
        """Return what is not in the database; what is folded meanwhile may be in both."""
        if self._tail is not None:
            return self._tail.newest
        rows = read_tail(tail_path(self.path), self._identity)
        with self._read("read") as reader:
            folded = tables.last(reader)
        return Newest(folded, [row for row in rows if row[0] > folded])

    @contextmanager
    def _read(self, what: str) -> Iterator[sqlite3.Connection]:
        self._check_process()
        with self._reading, translated_errors(what, self.path):
            self._check_open()
            assert self._reader is not None
            yield self._reader

    @contextmanager
    def _browse(self, what: str) -> Iterator[sqlite3.Connection]:
        """Read what takes long, without having others wait for it."""
        self._check_process()
        self._check_open()
        with translated_errors(what, self.path), closing(connect(self.path, read_only=True)) as reader:
            yield reader

    @contextmanager
    def _hold(self, what: str) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
        self._check_process()
        with self._writing, translated_errors(what, self.path):
            yield self._check_writable()

    @contextmanager
    def _write(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._hold(what) as (writer, _), transaction(writer):
            yield writer

    @contextmanager
    def _note(self, what: str) -> Iterator[sqlite3.Connection]:
        """Write what only makes messages come again if it is lost."""
        with self._hold(what) as (_, noter), transaction(noter):
            yield noter

    def _check_process(self) -> None:
        check_process(self._process, self._name)

    def _check_open(self) -> None:
        if self._is_closed:
            raise JournalError(f"the journal {self.path} is closed")

    def _check_writable(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        self._check_open()
        if self._writer is None or self._noter is None:
            raise JournalError(f"the journal {self.path} was opened for reading only")
        return self._writer, self._noter

    @property
    def link_port(self) -> int:
        """The port where the links were served last, to be taken again after a restart; 0 at first."""
        with self._read("read") as reader:
            port: int = reader.execute("SELECT link_port FROM journal").fetchone()[0]
            return port

    @link_port.setter
    def link_port(self, port: int) -> None:
        with self._write("note a port in") as writer:
            writer.execute("UPDATE journal SET link_port = ?", [port])

    def append(self, topic: str, frame: bytes, wall: float, expires: float | None = None) -> int:
        """Keep a message and return its number; `topic` is what `frame` begins with, up to its first space."""
        self._check_process()
        with self._writing:
            self._check_writable()
            room, tail = self._room, self._room.tail
            try:
                room.make(len(frame))
                sequence = tail.newest.last + 1
                tail.append((sequence, wall, expires, room.end, topic, frame))
                room.end += len(frame)
            except JournalError:
                raise
            except (sqlite3.Error, OSError) as error:
                room.doubt()
                raise translated(error, "append to", self.path) from error
            except BaseException:
                tail.load()  # a signal's exception may have come before or after it was kept
                room.load()
                raise
            return sequence

    def open_source(
        self, consumer: str, topics: Iterable[str], start_at: str, wall: float, key: str = "", max_deliveries: int = 10
    ) -> Source:
        """Return what gives out a consumer's messages; while the journal is open it is always the same one.

        `PermissionError` if it belongs to another key or there are too many, `ValueError` if `start_at` is no start.
        """
        kept = shortest(topics)
        # That there is a new one is not lost with the power: it would miss what comes until it attaches again.
        write = self._note if consumer in self._sources else self._write
        with write("open a source of") as writer:
            known = writer.execute("SELECT key FROM consumers WHERE name = ?", [consumer]).fetchone()
            if known is None:
                refuse_more_consumers(writer.execute("SELECT count(*) FROM consumers").fetchone()[0])
                cursor = self._cursor_at(writer, start_at)
                writer.execute("INSERT INTO consumers VALUES (?, ?, '[]', 0, ?, ?)", (consumer, key, cursor, cursor))
            elif known[0] != key:
                raise PermissionError(f"the consumer {consumer!r} belongs to another key")
            change = "UPDATE consumers SET topics = ?, seen = ? WHERE name = ?"
            writer.execute(change, (json.dumps(kept), wall, consumer))
            source, notes = self._sources.get(consumer) or self._source(writer, consumer, max_deliveries)
        self._sources[consumer] = source, notes
        notes.topics = kept
        source.max_deliveries = max_deliveries
        return source

    def open_replay(self, topics: Iterable[str] = (), since: str = "", until: str = "", after: int = 0) -> Source:
        """Return what gives out once more what is kept now; `ValueError` if `since` or `until` is no time."""
        return open_replay(self, topics, since, until, after)

    def _cursor_at(self, writer: sqlite3.Connection, start_at: str) -> int:
        since = starting_time(start_at)
        newest = self._newest()
        if since is None:
            return newest.last
        found = writer.execute(f"{_OLDEST} time >= ? ORDER BY sequence LIMIT 1", [since]).fetchone()
        first: int = found[0] if found else next((row[0] for row in newest.rows if row[1] >= since), newest.last + 1)
        return first - 1

    def _source(self, writer: sqlite3.Connection, consumer: str, max_deliveries: int) -> tuple[Source, Notes]:
        where = "WHERE consumer = ?"
        reached = "SELECT cursor, handed_out FROM consumers WHERE name = ?"
        cursor, handed_out = writer.execute(reached, [consumer]).fetchone()
        settled = writer.execute(f"SELECT sequence FROM settled {where}", [consumer]).fetchall()
        counts = writer.execute(f"SELECT sequence, count FROM counts {where}", [consumer]).fetchall()
        position = Position(cursor, handed_out, frozenset(sequence for (sequence,) in settled), dict(counts))
        notes = Notes(self._read_on, cursor)
        source = Source(notes, position, max_deliveries)
        resent = f"SELECT sequence, frame, expires, count FROM set_aside {where} AND is_resent ORDER BY sequence"
        for *entry, count in writer.execute(resent, [consumer]).fetchall():
            _offer(source, notes, Entry(*entry), count)
        return source, notes

    def _read_on(self, topics: Sequence[str], after: int, limit: int) -> tuple[list[Entry], int]:
        return self._page("read", topics, after, limit)

    def _page(
        self,
        what: str,
        topics: Sequence[str],
        after: int,
        limit: int,
        since: float = -math.inf,
        until: float = math.inf,
    ) -> tuple[list[Entry], int]:
        """Return messages, and the number up to which all have been looked at: first those folded, then the newest."""
        self._check_process()
        self._check_open()
        newest = self._newest()
        entries: list[Entry] = []
        if after < newest.folded:
            condition, values = matching(topics)
            with self._read(what) as reader:
                found = reader.execute(
                    f"{MESSAGES} WHERE sequence > ? AND sequence <= ? AND time >= ? AND time < ? AND {condition}"
                    " ORDER BY sequence LIMIT ?",
                    (after, newest.folded, since, until, *values, limit),
                )
                entries = [Entry(*row) for row in found.fetchall()]
        rows = newest.after(after)
        beginnings = tuple(topics) or ""
        matching_rows = (row for row in rows if since <= row[1] < until and row[4].startswith(beginnings))
        entries += [Entry(row[0], row[5], row[2]) for row in itertools.islice(matching_rows, limit - len(entries))]
        last = rows[-1][0] if rows else newest.folded
        return entries, entries[-1].sequence if len(entries) == limit else max(after, last)

    def commit(self) -> None:
        """Keep for good what the sources noted, and hand them what was resent."""
        self._check_process()
        noted = [(consumer, notes) for consumer, (_, notes) in list(self._sources.items()) if notes]
        if noted:
            self._keep_all(noted)
        while self._resent:
            consumer, entry = self._resent.popleft()
            if consumer in self._sources:
                _offer(*self._sources[consumer], entry)

    def _keep_all(self, noted: Sequence[tuple[str, Notes]]) -> None:
        try:
            self._keep(noted)
        except JournalFull:
            if len(noted) == 1:
                raise
            # What one of them has set aside is not to keep the others from settling.
            for one in sorted(noted, key=lambda one: len(one[1].aside)):
                self._keep([one])

    def _keep(self, noted: Sequence[tuple[str, Notes]]) -> None:
        """Write notes, and if the disk is full, write them where messages were that all have settled."""
        with self._hold("commit to") as (_, noter):
            while True:
                try:
                    if any(notes.aside for _, notes in noted):
                        self._room.tail.fold()
                    with transaction(noter):
                        grown = sum(tables.write_notes(noter, consumer, notes) for consumer, notes in noted)
                        self._room.set_aside(grown)
                    break
                except (sqlite3.Error, OSError) as error:
                    if not is_full(error) or not self._room.drop_settled(look(self.path).step):
                        raise
            self._room.aside += grown
        for _, notes in noted:
            notes.clear()

    def replay(
        self,
        since: float | None = None,
        until: float | None = None,
        topics: Iterable[str] = (),
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Return a page of what is kept, settled or not, published from `since` until before `until`."""
        begin, end = -math.inf if since is None else since, math.inf if until is None else until
        return self._page("replay", shortest(topics), after, limit, begin, end)[0]

    def set_aside(self) -> list[SetAside]:
        """Return what was set aside, which is kept until it is resent or discarded."""
        query = "SELECT consumer, sequence, topic, count, reason, time FROM set_aside WHERE NOT is_resent"
        with self._browse("list what was set aside in") as reader:
            return [SetAside(*row) for row in reader.execute(f"{query} ORDER BY consumer, sequence").fetchall()]

    def resend(self, consumer: str, sequence: int) -> None:
        """Give its consumer a message again, at the latest after the next commit."""
        query = f"SELECT sequence, frame, expires FROM set_aside {_ASIDE}"
        with self._write("resend from") as writer:
            found = writer.execute(query, (consumer, sequence)).fetchone()
            if found is None:
                raise self._nothing_aside(consumer, sequence)
            writer.execute(f"UPDATE set_aside SET is_resent = 1, count = 1 {_ASIDE}", (consumer, sequence))
        self._resent.append((consumer, Entry(*found)))

    def discard(self, consumer: str, sequence: int) -> None:
        """Keep a message no longer that was set aside."""
        with self._write("discard from") as writer:
            if not writer.execute(f"DELETE FROM set_aside {_ASIDE}", (consumer, sequence)).rowcount:
                raise self._nothing_aside(consumer, sequence)
            self._room.aside = tables.aside_size(writer)

    def _nothing_aside(self, consumer: str, sequence: int) -> JournalError:
        return JournalError(f"the journal {self.path} has no message {sequence} set aside for {consumer!r}")

    def consumers(self) -> list[Consumer]:
        """Return how far everyone is."""
        newest = self._newest().after(0)
        with self._browse("list the consumers of") as reader:
            rows = reader.execute("SELECT name, cursor, key, seen, topics FROM consumers ORDER BY name").fetchall()
            return [
                Consumer(
                    name, cursor, tables.pending(reader, name, cursor, json.loads(topics), newest=newest), key, seen
                )
                for name, cursor, key, seen, topics in rows
            ]

    def forget(self, consumer: str) -> None:
        """Keep nothing more for a consumer; its source reads nothing more."""
        with self._write("forget a consumer of") as writer:
            if not writer.execute("DELETE FROM consumers WHERE name = ?", [consumer]).rowcount:
                raise JournalError(f"the journal {self.path} knows no consumer {consumer!r}")
            _, notes = self._sources.pop(consumer, (None, None))
            if notes is not None:
                notes.is_forgotten = True
            self._room.aside = tables.aside_size(writer)

    def expire(self, wall: float, now: float) -> Mapping[str, int]:
        """Drop messages that are too old; return how many each consumer had not settled, if any."""
        with self._hold("look at"):
            self._room.check_files()
        with suppress(JournalFull):  # what is dropped may be the room that is missing
            self.commit()
        with suppress(JournalFull), self._hold("fold the tail of"):
            self._room.tail.fold()
        believed = self._clock.believed(wall, now)
        for _ in range(_MOST_STEPS):
            if self._max_age is None or not self._expire_some(believed - self._max_age):
                break
        with suppress(JournalFull):
            self._sync()
        lost, self._lost = self._lost, Counter()
        return lost

    def _sync(self) -> None:
        """Have all outlive the loss of power that is in the log now."""
        if not self._checkpoint():
            with self._hold("sync") as (_, noter):
                noter.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @property
    def is_untidy(self) -> bool:
        """Whether there is something to `tidy`."""
        return self._tail is not None and self._tidy_at < self._room.end

    def tidy(self) -> None:
        """Write to the file what is in the log; if that is not done in time, a transaction does it before it ends."""
        if self.is_untidy:
            with suppress(JournalFull):
                self._checkpoint()

    def _checkpoint(self) -> bool:
        """Write what is in the log to the file; return whether that is all of it."""
        self._check_process()
        with self._tidying, translated_errors("sync", self.path):
            self._check_writable()
            assert self._tidier is not None
            self._tidy_at = self._room.end + self._tidy_after
            is_busy, in_log, written = self._tidier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return not is_busy and in_log == written

    def _expire_some(self, limit: float) -> bool:
        with self._hold("drop old messages from") as (_, noter):
            oldest = noter.execute("SELECT sequence, time FROM messages ORDER BY sequence LIMIT ?", [STEP]).fetchall()
            old = [sequence for sequence, _ in itertools.takewhile(lambda row: row[1] < limit, oldest)]
            if not old:
                return False
            consumers = noter.execute("SELECT name, cursor, topics FROM consumers").fetchall()
            lost = Counter(
                {
                    name: tables.pending(noter, name, cursor, json.loads(topics), up_to=old[-1])
                    for name, cursor, topics in consumers
                }
            )
            self._room.drop(old[-1])
            self._lost += lost
        return len(old) == STEP

    def close(self) -> None:
        """Give the journal back, without what was not committed; harmless when closed."""
        if is_this_process(self._process):
            with self._tidying, self._writing, self._reading:
                if not self._is_closed:
                    with suppress(sqlite3.Error, OSError):
                        self._keep_for_good(*self._check_writable())
                self._is_closed = True
                self._give_back()

    def _keep_for_good(self, writer: sqlite3.Connection, noter: sqlite3.Connection) -> None:
        tail = self._room.tail
        writer.rollback()
        noter.rollback()
        tail.load()  # a signal's handler may have come before an append had noted what it wrote
        tail.fold()
        tables.note_closing(noter)
        tail.remove()

    @property
    def _connections(self) -> list[sqlite3.Connection]:
        # The reader comes first, because it may not write back what is in the log.
        return [one for one in (self._reader, self._tidier, self._noter, self._writer) if one is not None]

    def _give_back(self) -> None:
        for connection in self._connections:
            connection.close()
        for held in (self._tail, self._lock):
            if held is not None:
                held.release()

    def _leave_to_parent(self) -> None:
        _never_closed.extend(self._connections)
        for held in (self._tail, self._lock):
            if held is not None:
                held.release()


def _offer(source: Source, notes: Notes, entry: Entry, count: int = 1) -> None:
    notes.resent.add(entry.sequence)
    source.offer(entry, count)


_open_ones: WeakSet[SqliteJournal] = WeakSet()
_never_closed: list[sqlite3.Connection] = []


def _leave_all_to_parent() -> None:
    """In the child of a fork: SQLite forbids even to close what the parent opened."""
    for journal in list(_open_ones):
        journal._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
