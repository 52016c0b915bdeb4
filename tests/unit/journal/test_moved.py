"""A journal whose files are moved, removed or replaced while it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from posttroll.errors import JournalError
from posttroll.journal.sqlite import SqliteJournal

TOPIC = "pytroll://1b/hrit"
SOON = 200
"""How many messages there are at most until it is noticed."""


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace(path: Path) -> None:
    move(path)
    path.write_bytes(path.with_name("moved").read_bytes())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(tmp_path / "journal")) as journal:
        append(journal, 3)
        yield journal


def append(journal: SqliteJournal, count: int) -> None:
    for _ in range(count):
        journal.append(TOPIC, b"frame", wall=0.0)


@pytest.mark.parametrize("change", [remove, move, replace])
@pytest.mark.parametrize("suffix", ["", ".tail"])
def test_appending_says_so_soon_and_again(journal: SqliteJournal, suffix: str, change: Callable[[Path], None]) -> None:
    file = Path(f"{journal.path}{suffix}")
    change(file)

    with pytest.raises(JournalError, match=f"{file} was moved, removed or replaced while the journal"):
        append(journal, SOON)

    with pytest.raises(JournalError, match=r"put them back where they were, all of journal\* together"):
        append(journal, 1)


@pytest.mark.parametrize("change", [remove, move, replace])
@pytest.mark.parametrize("suffix", ["", ".tail"])
def test_expiring_says_so_and_then_the_next_append_does(
    journal: SqliteJournal, suffix: str, change: Callable[[Path], None]
) -> None:
    append(journal, 1)
    change(Path(f"{journal.path}{suffix}"))

    with pytest.raises(JournalError, match="was moved, removed or replaced"):
        journal.expire(wall=0.0, now=0.0)

    with pytest.raises(JournalError, match="was moved, removed or replaced"):
        append(journal, 1)


def test_files_that_are_put_back_are_the_journal_again(journal: SqliteJournal) -> None:
    moved = journal.path.with_name("moved")
    journal.path.rename(moved)
    with pytest.raises(JournalError):
        append(journal, SOON)

    moved.rename(journal.path)
    append(journal, 1)

    last = journal.last
    journal.close()
    with closing(SqliteJournal(journal.path)) as again:
        assert (again.last, len(again.replay(limit=2 * SOON))) == (last, last)


def test_the_tail_of_another_journal_that_came_in_its_place_is_not_removed_at_the_end(journal: SqliteJournal) -> None:
    tail = Path(f"{journal.path}.tail")
    tail.unlink()
    tail.write_bytes(b"of another journal")

    journal.close()

    assert tail.read_bytes() == b"of another journal"
