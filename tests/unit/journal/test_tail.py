"""The newest messages of a journal: whole wherever the process or the power ended, and damage to them is told."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from posttroll.errors import JournalCorrupt
from posttroll.journal import tables
from posttroll.journal.database import connect, create
from posttroll.journal.tail import Row, Tail, read_tail, save_tail

IDENTITY = "0123456789abcdef"
MOST = 4096


def row(sequence: int, size: int = 20, expires: float | None = None) -> Row:
    return (sequence, 1.5 * sequence, expires, 100 * sequence, "pytroll://1b/hrit", b"%d " % sequence * size)


def rows(first: int, last: int) -> list[Row]:
    return [row(sequence) for sequence in range(first, last + 1)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    create(tmp_path / "journal")
    with closing(connect(tmp_path / "journal")) as connection:
        yield connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.tail"


Open = Callable[..., Tail]


@pytest.fixture
def opened(database: sqlite3.Connection, path: Path) -> Iterator[Open]:
    """Opens the tail, again and again."""
    tails: list[Tail] = []

    def opened(is_cut_off: bool = False, is_synced: bool = False, identity: str = IDENTITY) -> Tail:
        tail = Tail(path, identity, database, MOST, is_cut_off=is_cut_off, is_synced=is_synced)
        tails.append(tail)
        return tail

    yield opened
    for tail in tails:
        tail.release()


def fill(tail: Tail, count: int) -> list[Row]:
    first = tail.newest.last + 1
    appended = rows(first, first + count - 1)
    for one in appended:
        tail.append(one)
    return appended


def folded(database: sqlite3.Connection) -> list[Row]:
    query = "SELECT sequence, time, expires, position, topic, frame FROM messages ORDER BY sequence"
    return [tuple(found) for found in database.execute(query).fetchall()]


@pytest.mark.parametrize("is_synced", [False, True])
def test_what_was_appended_is_there_when_it_is_opened_again(opened: Open, is_synced: bool) -> None:
    appended = [row(1), row(2, expires=7.5), row(3, size=0)]
    tail = opened(is_synced=is_synced)
    for one in appended:
        tail.append(one)

    again = opened(is_synced=is_synced)

    assert again.newest == (0, appended)
    assert again.newest.last == 3


def test_appending_goes_on_where_it_ended(opened: Open) -> None:
    appended = fill(opened(), 3)

    appended += fill(opened(), 3)

    assert opened().newest.rows == appended


@pytest.mark.parametrize(("after", "first"), [(0, 4), (3, 4), (4, 5), (5, 6), (6, None), (9, None)])
def test_the_messages_after_a_number_are_told(opened: Open, after: int, first: int | None) -> None:
    tail = opened()
    fill(tail, 3)
    tail.fold()
    fill(tail, 3)

    assert list(tail.newest.after(after)) == (rows(first, 6) if first else [])


def test_what_was_folded_is_in_the_database_alone(opened: Open, database: sqlite3.Connection, path: Path) -> None:
    tail = opened()
    empty = path.read_bytes()
    appended = fill(tail, 3)

    tail.fold()

    assert folded(database) == appended
    assert (tail.newest, tail.size) == ((3, []), 0)
    assert path.read_bytes() == empty


def test_a_tail_of_many_messages_is_folded_by_the_next(
    opened: Open, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttroll.journal.tail._MOST_MESSAGES", 3)
    tail = opened()

    fill(tail, 4)

    assert folded(database) == rows(1, 3)
    assert tail.newest == (3, [row(4)])


@pytest.mark.parametrize("is_synced", [False, True])
def test_the_file_stays_within_its_size(
    opened: Open, database: sqlite3.Connection, path: Path, is_synced: bool
) -> None:
    tail = opened(is_synced=is_synced)
    sizes = set()

    for number in range(1, 201):
        tail.append(row(number))
        sizes.add(path.stat().st_size)

    assert max(sizes) <= MOST
    assert [*folded(database), *tail.newest.rows] == rows(1, 200)


def test_a_large_message_goes_to_the_database_at_once(opened: Open, database: sqlite3.Connection) -> None:
    tail = opened()
    large = row(3, size=MOST)
    fill(tail, 2)

    tail.append(large)

    assert folded(database) == [*rows(1, 2), large]
    assert tail.newest == (3, [])


def test_a_message_that_finds_no_room_to_fold_those_before_is_not_kept(
    opened: Open, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttroll.journal.tail._MOST_MESSAGES", 3)
    tail = opened()
    fill(tail, 3)
    database.execute("CREATE TRIGGER full BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'full'); END")

    with pytest.raises(sqlite3.Error, match="full"):
        tail.append(row(4))

    assert opened().newest == tail.newest == (0, rows(1, 3))
    database.execute("DROP TRIGGER full")
    fill(tail, 1)
    assert [*folded(database), *tail.newest.rows] == rows(1, 4)


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("is_partly_written", [False, True])
def test_a_message_that_finds_no_room_itself_leaves_nothing_behind(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch, is_partly_written: bool
) -> None:
    tail = opened()
    fill(tail, 2)
    before, write = path.read_bytes(), os.pwrite
    with monkeypatch.context() as full:
        full.setattr(
            os, "pwrite", (lambda file, data, at: write(file, data[:70], at)) if is_partly_written else no_room
        )
        with pytest.raises(OSError, match="No space left on device"):
            tail.append(row(3))

    assert path.read_bytes() == before
    fill(tail, 1)
    assert opened().newest.rows == tail.newest.rows == rows(1, 3)


def test_a_message_that_cannot_be_synced_leaves_nothing_behind(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = opened(is_synced=True)
    fill(tail, 2)
    with monkeypatch.context() as full:
        full.setattr("posttroll.journal.tail._sync_data", no_room)
        with pytest.raises(OSError, match="No space left on device"):
            tail.append(row(3))

    assert read_tail(path, IDENTITY) == tail.newest.rows == rows(1, 2)


@pytest.mark.parametrize("zeros", [0, 5000])
def test_wherever_the_last_write_ended_all_before_it_is_there(opened: Open, path: Path, zeros: int) -> None:
    tail = opened()
    fill(tail, 2)
    start = path.stat().st_size
    fill(tail, 1)
    content = path.read_bytes()

    for end in range(start, len(content)):
        path.write_bytes(content[:end] + bytes(zeros))
        torn = opened()
        assert torn.newest.rows == rows(1, 2)
        torn.append(row(3))
        assert path.read_bytes() == content
        torn.release()


def test_wherever_the_making_ended_it_is_made_again(opened: Open, path: Path) -> None:
    opened()
    content = path.read_bytes()

    for end in range(len(content)):
        path.write_bytes(content[:end])
        fill(opened(), 1)
        assert read_tail(path, IDENTITY) == rows(1, 1)


def test_a_wrong_byte_is_told_wherever_it_is(opened: Open, path: Path) -> None:
    fill(opened(), 3)
    content = path.read_bytes()

    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(JournalCorrupt, match=str(path)):
            opened()

    assert len(path.read_bytes()) == len(content)


def test_rubbish_is_told(opened: Open, path: Path) -> None:
    fill(opened(), 3)
    with path.open("ab") as file:
        file.write(b"rubbish" * 20)

    with pytest.raises(JournalCorrupt, match="copies what is readable"):
        opened()


def test_after_the_loss_of_power_what_is_sound_is_kept(opened: Open, path: Path) -> None:
    tail = opened()
    fill(tail, 2)
    start = path.stat().st_size
    fill(tail, 2)
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(50) + content[start + 50 :])

    tail = opened(is_cut_off=True)
    fill(tail, 1)

    assert opened().newest.rows == rows(1, 3)


def test_the_tail_of_another_journal_is_left_as_it_is(opened: Open, path: Path) -> None:
    fill(opened(), 1)
    content = path.read_bytes()

    with pytest.raises(JournalCorrupt, match="does not belong to the journal beside it; move it away"):
        opened(identity="another")

    assert path.read_bytes() == content
    assert read_tail(path, "another") == []


def test_a_crash_after_folding_gives_nothing_twice(opened: Open, database: sqlite3.Connection, path: Path) -> None:
    tail = opened()
    fill(tail, 3)
    before = path.with_name("before")
    shutil.copy(path, before)
    tail.fold()
    tail.release()
    shutil.copy(before, path)

    again = opened()
    appended = fill(again, 2)
    again.fold()

    assert appended == rows(4, 5)
    assert folded(database) == rows(1, 5)


def test_an_exception_between_folding_and_cutting_does_no_harm(
    opened: Open, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = opened()
    fill(tail, 3)
    with monkeypatch.context() as interrupting:
        interrupting.setattr(os, "ftruncate", no_room)
        with pytest.raises(OSError, match="No space left on device"):
            tail.fold()

    fill(tail, 2)

    assert opened().newest == tail.newest == (3, rows(4, 5))
    assert folded(database) == rows(1, 3)


def test_numbers_that_were_dropped_are_passed_over(opened: Open, database: sqlite3.Connection) -> None:
    fill(opened(), 3)
    database.execute("UPDATE journal SET used_to = 2")

    assert opened().newest == (2, [row(3)])
    assert tables.last(database) == 2


def test_an_empty_tail_is_removed_and_another_one_is_not(opened: Open, path: Path) -> None:
    tail = opened()
    fill(tail, 1)

    tail.remove()
    assert path.exists()
    tail.fold()
    tail.remove()

    assert not path.exists()
    assert read_tail(path, IDENTITY) == []


def test_of_a_damaged_tail_all_is_saved_that_is_readable(opened: Open, path: Path) -> None:
    fill(opened(), 9)
    content = bytearray(path.read_bytes())
    content[: len(content) // 20] = b"?" * (len(content) // 20)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    saved = list(save_tail(path))

    assert len(saved) >= 7
    assert all(one in rows(1, 9) for one in saved)
    assert list(save_tail(path.with_name("nowhere"))) == []
