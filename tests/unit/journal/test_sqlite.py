"""What only a journal in a file promises: it outlives processes, and damage to it is told."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from posttroll.errors import (
    ConfigurationError,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalInUse,
    UsedAfterFork,
)
from posttroll.journal.database import connect, translated, translated_errors
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome
from posttroll.protocol.source import Source
from tests.fixtures.waiting import UNIT

ACCEPTED, RELEASED = Outcome("accepted"), Outcome("released")
REJECTED = Outcome("rejected", "cannot be read")
TOPIC = "pytroll://1b/hrit"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "publisher"


def fill(journal: SqliteJournal, count: int, size: int = 10) -> None:
    for _ in range(count):
        journal.append(TOPIC, b"x" * size, wall=float(journal.last + 1))


def take(source: Source, count: int = 1) -> list[tuple[int, int]]:
    found = [source.take(wall=0.0) for _ in range(count)]
    return [(one[0].sequence, one[1]) for one in found if one is not None]


def crash_and_reopen(journal: SqliteJournal) -> SqliteJournal:
    journal.close()
    return SqliteJournal(journal.path)


def test_a_journal_is_what_it_was_when_it_is_opened_again(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 3)
    identity = journal.identity
    journal.close()

    again = SqliteJournal(path)

    assert (again.identity, again.last) == (identity, 3)
    assert len(again.replay()) == 3
    again.close()


def test_the_place_of_the_journal_is_its_owners_alone(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 1)

    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(modes) == {"publisher", "publisher-wal", "publisher-shm", "publisher.tail", "publisher.lock"}
    assert set(modes.values()) == {0o600}
    journal.close()


def test_a_journal_that_was_closed_is_one_file_and_its_lock(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 3)

    journal.close()

    assert {one.name for one in path.parent.iterdir()} == {"publisher", "publisher.lock"}


def test_a_consumer_goes_on_after_what_it_had_settled(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 5)
    take(source, 4)
    for sequence in (1, 3):
        source.settle(sequence, ACCEPTED)
    source.settle(4, RELEASED)
    source.save()
    journal.commit()

    again = crash_and_reopen(journal)
    source = again.open_source("viewer", [], "first", wall=0.0)

    assert take(source, 5) == [(2, 2), (4, 2), (5, 1)]
    again.close()


def test_what_was_not_committed_is_lost(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)
    take(source, 2)
    source.settle(1, ACCEPTED)
    source.save()
    journal.commit()
    source.settle(2, ACCEPTED)
    source.save()

    again = crash_and_reopen(journal)

    assert take(again.open_source("viewer", [], "first", wall=0.0)) == [(2, 2)]
    again.close()


def test_notes_of_what_is_passed_are_not_kept(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 3)
    take(source, 3)
    source.settle(2, ACCEPTED)
    source.settle(3, RELEASED)
    source.save()
    journal.commit()
    take(source)
    source.settle(1, ACCEPTED)
    source.settle(3, ACCEPTED)
    source.save()
    journal.commit()

    with sqlite3.connect(path) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("settled", "counts")]
    connection.close()

    assert counts == [(0,), (0,)]
    journal.close()


def test_what_was_resent_is_still_to_be_settled_after_a_restart(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)
    take(source)
    source.settle(1, REJECTED)
    source.save()
    journal.commit()
    journal.resend("viewer", 1)

    again = crash_and_reopen(journal)
    source = again.open_source("viewer", [], "new", wall=0.0)
    again.commit()

    assert take(source, 3) == [(1, 2), (2, 1)]
    again.close()


def test_numbers_are_not_given_twice_though_all_was_dropped(path: Path) -> None:
    journal = SqliteJournal(path, max_age=1.0)
    fill(journal, 3)
    journal.expire(wall=100.0, now=0.0)

    again = crash_and_reopen(journal)

    assert again.append(TOPIC, b"", wall=0.0) == 4
    again.close()


def test_the_port_of_the_links_is_known_after_a_restart(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.link_port = 9001

    again = crash_and_reopen(journal)

    assert again.link_port == 9001
    again.close()


def test_the_size_is_known_after_a_restart(path: Path) -> None:
    journal = SqliteJournal(path, max_size=30)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)
    take(source)
    source.settle(1, REJECTED)
    source.save()
    journal.commit()
    journal.close()

    again = SqliteJournal(path, max_size=30)
    fill(again, 1)

    with pytest.raises(JournalFull, match=r"consumer 'viewer' has yet to settle 2 numbers; 10 bytes are set aside"):
        fill(again, 1)
    again.close()


def test_many_old_ones_go_in_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttroll.journal.sqlite.STEP", 3)
    journal = SqliteJournal(path, max_age=1.0)
    journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 10)

    assert journal.expire(wall=9.5, now=0.0) == {"viewer": 8}
    assert [entry.sequence for entry in journal.replay()] == [9, 10]
    journal.close()


def test_a_second_opening_names_who_has_it(path: Path) -> None:
    journal = SqliteJournal(path)

    with pytest.raises(JournalInUse, match=f"{path} is in use by process {os.getpid()}"):
        SqliteJournal(path)

    journal.close()
    SqliteJournal(path).close()


def test_another_process_may_read_only(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)

    reader = SqliteJournal(path, read_only=True)

    assert (reader.identity, reader.last) == (journal.identity, 2)
    assert [one.pending for one in reader.consumers()] == [2]
    assert len(reader.replay()) == 2
    with pytest.raises(JournalError, match="opened for reading only"):
        fill(reader, 1)
    with pytest.raises(JournalError, match="opened for reading only"):
        reader.forget("viewer")
    reader.close()
    journal.close()


def test_reading_a_journal_that_is_not_there_makes_none(path: Path) -> None:
    with pytest.raises(JournalError, match=f"cannot open the journal {path}"):
        SqliteJournal(path, read_only=True)

    assert not path.parent.exists()


def test_a_sync_level_that_is_none_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no journal_sync 'half'; known: normal, full"):
        SqliteJournal(path, sync="half")


def test_what_is_synced_at_each_append_is_kept_too(path: Path) -> None:
    journal = SqliteJournal(path, sync="full")
    fill(journal, 3)

    again = crash_and_reopen(journal)

    assert again.last == 3
    again.close()


def test_an_append_that_fails_halfway_leaves_the_numbers_right(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 1)

    with pytest.raises(TypeError):
        journal.append(TOPIC, 5, wall=0.0)  # type: ignore[arg-type]

    assert journal.append(TOPIC, b"", wall=0.0) == journal.replay()[-1].sequence
    journal.close()


def interrupted(write: Callable[[int, bytes, int], int], after: bool) -> Callable[[int, bytes, int], int]:
    """Return a write that a signal interrupts before or after it is done."""

    def interrupted_write(file: int, data: bytes, offset: int) -> int:
        if after:
            write(file, data, offset)
        raise KeyboardInterrupt

    return interrupted_write


@pytest.mark.parametrize("after", [False, True])
def test_an_append_that_is_interrupted_is_kept_once_or_not(
    path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    journal = SqliteJournal(path)
    fill(journal, 1)
    with monkeypatch.context() as signal:
        signal.setattr(os, "pwrite", interrupted(os.pwrite, after))
        with pytest.raises(KeyboardInterrupt):
            journal.append(TOPIC, b"interrupted", wall=0.0)

    sequence = journal.append(TOPIC, b"next", wall=0.0)

    kept = [b"x" * 10, *[b"interrupted"] * after, b"next"]
    assert [entry.payload for entry in journal.replay()] == kept
    assert sequence == len(kept)
    again = crash_and_reopen(journal)
    assert [entry.payload for entry in again.replay()] == kept
    again.close()


def copy(journal: SqliteJournal, directory: Path) -> Path:
    """Return a copy of the files as they are now, which is what a crash leaves."""
    directory.mkdir()
    for file in journal.path.parent.glob(f"{journal.path.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, directory)
    return directory / journal.path.name


def test_after_a_crash_at_any_moment_all_is_there_and_numbers_go_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttroll.journal.tail._MOST_MESSAGES", 3)
    journal = SqliteJournal(path, max_age=6.0)
    source = journal.open_source("viewer", [], "new", wall=0.0)

    for number in range(1, 12):
        fill(journal, 1)
        if number % 4 == 0:
            journal.expire(wall=float(number), now=float(number))
        take(source)
        source.settle(number, REJECTED if number % 5 == 0 else ACCEPTED)
        source.save()
        journal.commit()
        kept = [entry.sequence for entry in journal.replay()]
        crashed = SqliteJournal(copy(journal, tmp_path / f"crash{number}"))
        assert [entry.sequence for entry in crashed.replay()] == kept
        assert crashed.consumers() == journal.consumers()
        assert crashed.set_aside() == journal.set_aside()
        assert crashed.append(TOPIC, b"", wall=0.0) == number + 1
        crashed.close()

    journal.close()


def test_a_consumer_gets_all_in_order_while_another_thread_appends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttroll.journal.tail._MOST_MESSAGES", 7)
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", ["pytroll://1b/h"], "new", wall=0.0)
    appending = threading.Thread(target=fill, args=[journal, 3000])
    taken: list[int] = []

    appending.start()
    while appending.is_alive():
        taken += [sequence for sequence, _ in take(source, 50)]
    taken += [sequence for sequence, _ in take(source, 3000)]

    assert taken == list(range(1, 3001))
    journal.close()


def test_what_is_read_in_parts_is_the_same_wherever_it_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttroll.journal.tail._MOST_MESSAGES", 5)
    journal = SqliteJournal(path)
    for number in range(1, 9):
        journal.append(TOPIC if number % 2 else "pytroll://2", b"%d" % number, wall=float(number))
    reader = SqliteJournal(path, read_only=True)

    for one in (journal, reader):
        assert [entry.payload for entry in one.replay(limit=6)] == [b"%d" % number for number in range(1, 7)]
        assert [entry.sequence for entry in one.replay(topics=[TOPIC], after=3)] == [5, 7]
        assert [entry.sequence for entry in one.replay(since=4.0, until=8.0)] == [4, 5, 6, 7]
        assert [entry.sequence for entry in one.replay(after=7)] == [8]

    reader.close()
    journal.close()


@pytest.mark.parametrize("name", ["publisher-wal", "publisher.tail"])
def test_the_rest_of_a_journal_that_is_missing_is_told(path: Path, name: str) -> None:
    path.parent.mkdir()
    path.with_name(name).write_bytes(b"the rest")

    with pytest.raises(JournalCorrupt, match=f"is missing, but its {name} is there; move that away"):
        SqliteJournal(path)


def test_closing_with_no_room_leaves_the_newest_where_they_are(path: Path) -> None:
    journal = SqliteJournal(path)
    limit_pages(journal, 1)
    fill(journal, 100, size=1000)

    again = crash_and_reopen(journal)

    assert len(again.replay()) == again.last == 100
    again.close()


APPENDING = """
import sys
import posttroll.journal.tail
from posttroll.journal.sqlite import SqliteJournal
posttroll.journal.tail._MOST_MESSAGES = int(sys.argv[2])
journal = SqliteJournal(sys.argv[1])
while True:
    print(journal.append("pytroll://1b/hrit", b"x" * 1000, 0.0), flush=True)
"""


@pytest.mark.parametrize("fold_after", ["1000", "7"])
def test_nothing_is_lost_of_a_process_that_is_killed(path: Path, fold_after: str) -> None:
    program = [sys.executable, "-c", APPENDING, str(path), fold_after]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for _ in range(500):
            process.stdout.readline()
        with pytest.raises(JournalInUse, match=f"process {process.pid}"):
            SqliteJournal(path)
        process.kill()
        rest = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    finally:
        process.kill()
        process.wait(10 * UNIT)
        process.stdout.close()

    journal = SqliteJournal(path)

    assert journal.last >= (int(rest[-1]) if rest else 500)
    assert len(journal.replay(limit=journal.last)) == journal.last
    assert {entry.payload for entry in journal.replay(limit=journal.last)} == {b"x" * 1000}
    journal.close()


def in_child(use: Callable[[], object]) -> int:
    """Return 0 if that raised `UsedAfterFork` in a child."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            use()
        except UsedAfterFork:
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_has_to_open_its_own(path: Path) -> None:
    journal = SqliteJournal(path)

    assert in_child(lambda: fill(journal, 1)) == 0
    assert in_child(journal.replay) == 0
    assert in_child(journal.commit) == 0
    assert in_child(journal.close) == 1

    fill(journal, 1)
    assert journal.last == 1
    journal.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_does_not_keep_the_journal_locked(path: Path) -> None:
    journal = SqliteJournal(path)
    (reading, writing), (is_ready, make_ready) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        del journal
        gc.collect()
        os.write(make_ready, b"1")
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    os.read(is_ready, 1)

    fill(journal, 1)
    again = crash_and_reopen(journal)

    assert again.last == 1
    again.close()
    for descriptor in (writing, is_ready, make_ready):
        os.close(descriptor)
    os.waitpid(pid, 0)


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"my notes\n" * 1000)

    with pytest.raises(JournalCorrupt, match=f"{path} is damaged"):
        SqliteJournal(path)

    assert path.read_bytes() == b"my notes\n" * 1000


def test_an_empty_file_is_no_journal(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    with pytest.raises(JournalCorrupt, match=f"{path} is empty"):
        SqliteJournal(path)


def test_a_log_without_its_journal_is_not_taken_for_that_of_a_new_one(path: Path) -> None:
    path.parent.mkdir()
    Path(f"{path}-wal").write_bytes(b"log")

    with pytest.raises(JournalCorrupt, match="is missing, but its publisher-wal is there"):
        SqliteJournal(path)

    assert not path.exists()


def test_another_database_is_no_journal(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()

    with pytest.raises(JournalError, match="is a database, but no journal"):
        SqliteJournal(path)


@pytest.mark.parametrize(("version", "age"), [(2, "newer"), (0, "older")])
def test_another_format_is_told(path: Path, version: int, age: str) -> None:
    SqliteJournal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

    with pytest.raises(JournalError, match=f"of an? {age} format \\({version}; this release knows 1\\)"):
        SqliteJournal(path)


def test_a_draft_left_by_a_crash_is_no_trouble(path: Path) -> None:
    path.parent.mkdir()
    Path(f"{path}.new").write_bytes(b"half")

    SqliteJournal(path).close()

    assert not Path(f"{path}.new").exists()


def test_a_truncated_file_is_told_at_the_opening(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 100, size=1000)
    journal.close()
    os.truncate(path, path.stat().st_size // 2)
    size = path.stat().st_size

    with pytest.raises(JournalCorrupt, match="salvage` copies what is readable"):
        SqliteJournal(path)

    assert path.stat().st_size == size


def test_damage_met_later_is_told(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 100, size=1000)
    journal.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    journal = SqliteJournal(path)

    with pytest.raises(JournalCorrupt, match=f"cannot replay: the journal {path} is damaged"):
        journal.replay(limit=100)
    with pytest.raises(JournalCorrupt, match="cannot read"):
        take(journal.open_source("viewer", [], "first", wall=0.0))

    journal.close()


def limit_pages(journal: SqliteJournal, pages: int) -> None:
    assert journal._writer is not None
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_told_and_all_goes_on_when_there_is_room(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    limit_pages(journal, 20)

    with pytest.raises(JournalFull, match="cannot append to: no room is left for the journal"):
        fill(journal, 1000, size=1000)
    kept = journal.last
    limit_pages(journal, 10_000)
    fill(journal, 2, size=1000)

    assert kept > 10
    assert [sequence for sequence, _ in take(source, kept + 10)] == list(range(1, kept + 3))
    journal.close()


def test_notes_that_found_no_room_are_kept_by_a_later_commit(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    journal.append(TOPIC, b"x" * 50_000, wall=0.0)
    journal.append(TOPIC, b"x", wall=0.0)
    take(source, 2)
    source.settle(1, REJECTED)
    source.settle(2, ACCEPTED)
    source.save()
    limit_pages(journal, 20)

    with pytest.raises(JournalFull, match="cannot commit to"):
        journal.commit()
    limit_pages(journal, 1000)
    journal.commit()

    assert [one.sequence for one in journal.set_aside()] == [1]
    assert journal.consumers()[0].cursor == 2
    journal.close()


IDLE_CONSUMER = """
import re, sys
from posttroll.journal.sqlite import SqliteJournal

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

journal = SqliteJournal(sys.argv[1], max_age=1e6, max_size=10**9)
source = journal.open_source("viewer", [], "new", 0.0)
before = peak()
for number in range(30_000):
    journal.append("pytroll://1b/hrit", b"x" * 1000, float(number))
    if number == 1000:
        source.take(0.0)
print(peak() - before)
journal.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its memory is told by Linux only")
def test_one_who_is_away_costs_disk_and_no_memory(path: Path) -> None:
    program = [sys.executable, "-c", IDLE_CONSUMER, str(path)]

    done = subprocess.run(program, capture_output=True, text=True, timeout=60 * UNIT, check=True)

    kilobytes = int(done.stdout)
    assert kilobytes < 20_000
    assert path.stat().st_size > 30_000_000


def test_the_log_does_not_grow_with_what_is_appended(path: Path) -> None:
    journal = SqliteJournal(path)

    fill(journal, 2000, size=10_000)

    assert Path(f"{path}-wal").stat().st_size < 10_000_000
    journal.close()


def test_what_was_kept_before_an_expiry_is_in_the_synced_file(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 3)

    journal.expire(wall=0.0, now=0.0)
    shutil.copy(path, tmp_path / "without_log")

    copied = SqliteJournal(tmp_path / "without_log")
    assert copied.last == 3
    copied.close()
    journal.close()


def test_listing_consumers_makes_nobody_wait(path: Path) -> None:
    journal = SqliteJournal(path)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 3)

    with journal._browse("list the consumers of"):
        reading = threading.Thread(target=source.take, args=[0.0])
        reading.start()
        reading.join(10 * UNIT)

    assert not reading.is_alive()
    journal.close()


def test_what_is_set_aside_is_counted_as_it_comes_and_goes(path: Path) -> None:
    journal = SqliteJournal(path, max_size=100)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 4)
    for sequence, state in [(1, REJECTED), (2, REJECTED), (3, ACCEPTED), (4, RELEASED)]:
        take(source)
        source.settle(sequence, state)
    source.save()
    journal.commit()
    journal.resend("viewer", 1)
    journal.commit()
    take(source)
    source.settle(1, ACCEPTED)
    journal.commit()

    counted = journal._room.aside
    again = crash_and_reopen(journal)

    assert counted == again._room.aside == 10
    again.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), JournalFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), JournalFull),
        (OSError(errno.EACCES, "Permission denied"), JournalError),
        (sqlite3.OperationalError("locked"), JournalError),
    ],
)
def test_errors_of_the_system_are_told_as_what_they_mean(error: Exception, kind: type[JournalError]) -> None:
    assert type(translated(error, "append to", Path("journal"))) is kind


def test_who_has_no_access_to_a_file_is_told_which_it_is_and_what_is_needed() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/state/x.journal.lock")

    with (
        pytest.raises(JournalError, match=r"'/state/x.journal.lock'; this user .* read and write /state and all of x"),
        translated_errors("open", Path("/state/x.journal")),
    ):
        raise refused


def test_who_has_no_access_to_a_consumer_is_told_just_that() -> None:
    with pytest.raises(PermissionError, match="another key"), translated_errors("open", Path("journal")):
        raise PermissionError("it belongs to another key")


def test_a_database_that_cannot_be_written_is_told_as_what_is_needed(path: Path) -> None:
    SqliteJournal(path).close()

    with (
        connect(path, read_only=True) as reader,
        pytest.raises(JournalError, match=r"attempt to write a readonly database; this user has to be able to"),
        translated_errors("write to", path),
    ):
        reader.execute("DELETE FROM messages")
    reader.close()


def test_what_a_sender_would_have_to_wait_for_is_done_by_who_tidies(path: Path) -> None:
    journal = SqliteJournal(path)
    was_untidy = journal.is_untidy
    fill(journal, 50, size=100_000)
    before = path.stat().st_size

    is_untidy = journal.is_untidy
    journal.tidy()

    assert (was_untidy, is_untidy, journal.is_untidy) == (False, True, False)
    assert path.stat().st_size > before + 4_000_000
    journal.close()


def test_tidying_waits_for_nobody_who_writes_and_they_not_for_it(path: Path) -> None:
    journal = SqliteJournal(path)
    fill(journal, 50, size=100_000)

    with journal._write("write to"):
        tidying = threading.Thread(target=journal.tidy)
        tidying.start()
        tidying.join(10 * UNIT)

    assert not tidying.is_alive()
    assert not journal.is_untidy
    journal.close()


def test_the_log_stays_within_its_size_when_it_is_tidied_all_the_time(path: Path) -> None:
    journal = SqliteJournal(path)

    for _ in range(200):
        fill(journal, 10, size=10_000)
        journal.tidy()

    assert Path(f"{path}-wal").stat().st_size < 5_000_000
    journal.close()
