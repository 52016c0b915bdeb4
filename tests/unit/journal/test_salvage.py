"""Saving what is readable of a damaged journal."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from posttroll.errors import JournalCorrupt, JournalError, JournalInUse
from posttroll.journal.salvage import main, salvage
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome

TOPIC = "pytroll://1b/hrit"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of 3,000 messages, the first set aside, the second accepted."""
    journal = SqliteJournal(tmp_path / "old")
    source = journal.open_source("viewer", [], "new", wall=0.0)
    for number in range(1, 3001):
        journal.append(TOPIC, b"%d " % number * 100, wall=float(number))
    for state in ("rejected", "accepted"):
        taken = source.take(wall=0.0)
        assert taken is not None
        source.settle(taken[0].sequence, Outcome(state))
    source.save()
    journal.commit()
    journal.close()
    return tmp_path / "old"


def files(directory: Path) -> set[str]:
    return {one.name for one in directory.iterdir()}


def test_a_whole_journal_is_saved_whole(path: Path, tmp_path: Path) -> None:
    saved = salvage(path, tmp_path / "new")

    journal = SqliteJournal(tmp_path / "new")
    source = journal.open_source("viewer", [], "new", wall=0.0)

    assert (saved.messages, saved.unreadable, saved.consumers, saved.set_aside) == (3000, 0, 1, 1)
    assert source.take(wall=0.0) == ((3, b"3 " * 100, None), 1)
    assert journal.append(TOPIC, b"", wall=0.0) == 3001
    journal.close()


def test_a_hole_in_the_middle_costs_what_was_in_it(path: Path, tmp_path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096 * 3)

    saved = salvage(path, tmp_path / "new")

    journal = SqliteJournal(tmp_path / "new")
    assert 2900 < saved.messages < 3000
    assert saved.messages + saved.unreadable == 3000
    assert len(journal.replay(limit=5000)) == saved.messages
    assert all(entry.payload == b"%d " % entry.sequence * 100 for entry in journal.replay(limit=5000))
    journal.close()


def test_of_a_truncated_file_the_beginning_is_saved_and_no_number_given_twice(path: Path, tmp_path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    before = path.read_bytes()
    with pytest.raises(JournalCorrupt):
        SqliteJournal(path)

    saved = salvage(path, tmp_path / "new")

    journal = SqliteJournal(tmp_path / "new")
    assert saved.messages > 1000
    assert journal.last >= saved.messages
    assert path.read_bytes() == before
    journal.close()


def test_rows_of_which_nothing_is_left_do_no_harm_wherever_a_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "old"
    with contextlib.closing(SqliteJournal(path)) as journal:
        for number in range(1, 19):
            journal.append(TOPIC, b"%d " % number * 300, wall=float(number))
    content = path.read_bytes()

    for size in range(len(content) - 100, len(content) - 6 * 4096, -3000):
        path.write_bytes(content[:size])

        found = 0
        with contextlib.suppress(JournalCorrupt):
            found = salvage(path, tmp_path / str(size)).messages

        assert (tmp_path / str(size)).exists() == (found > 0)
        with contextlib.closing(SqliteJournal(tmp_path / str(size))) as journal:
            assert len(journal.replay(topics=[TOPIC])) == found


def test_what_was_not_folded_is_saved_too(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal(path)
    for number in range(1, 10):
        journal.append(TOPIC, b"%d" % number, wall=0.0)
    crashed = tmp_path / "crashed"
    for rest in ("", "-wal", ".tail"):
        shutil.copy(f"{path}{rest}", f"{crashed}{rest}")
    journal.close()
    tail = Path(f"{crashed}.tail")
    content = bytearray(tail.read_bytes())
    content[len(content) // 2] ^= 1
    tail.write_bytes(content)
    with pytest.raises(JournalCorrupt, match=r"crashed\.tail, which has the newest messages .* is damaged"):
        SqliteJournal(crashed)

    saved = salvage(crashed, tmp_path / "new")

    assert (saved.messages, saved.unreadable) == (3008, 1)
    with contextlib.closing(SqliteJournal(tmp_path / "new")) as new:
        assert new.last == 3009
        assert new.replay(after=3000)[-1].payload == b"9"


def test_the_saved_one_is_another_journal(path: Path, tmp_path: Path) -> None:
    salvage(path, tmp_path / "new")

    old, new = SqliteJournal(path), SqliteJournal(tmp_path / "new")

    assert old.identity != new.identity
    old.close()
    new.close()


def test_nothing_is_overwritten(path: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"mine")

    with pytest.raises(JournalError, match="new is there already"):
        salvage(path, tmp_path / "new")

    assert (tmp_path / "new").read_bytes() == b"mine"


def test_a_journal_in_use_is_not_saved(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal(path)

    with pytest.raises(JournalInUse):
        salvage(path, tmp_path / "new")

    journal.close()


def test_of_what_is_no_journal_nothing_is_saved(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"my notes\n" * 1000)

    with pytest.raises(JournalCorrupt, match=r"nothing of .*old is readable: its beginning is destroyed \(.*\)$"):
        salvage(tmp_path / "old", tmp_path / "new")

    assert files(tmp_path) == {"old"}


def test_of_an_empty_file_nothing_is_saved(tmp_path: Path) -> None:
    (tmp_path / "old").touch()

    with pytest.raises(JournalCorrupt, match=r"nothing of .*old is readable: it is empty"):
        salvage(tmp_path / "old", tmp_path / "new")

    assert files(tmp_path) == {"old"}


def test_where_no_message_is_left_that_is_a_failure_and_nothing_is_made(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(path, 4096)
    Path(f"{path}.lock").unlink()

    status = main([str(path), str(tmp_path / "new")])

    assert status == 1
    assert capsys.readouterr().err == f"saved 0 messages of {path}: none is readable\n"
    assert files(tmp_path) == {"old"}


def test_a_journal_that_has_no_messages_is_saved_without(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "old").close()

    saved = salvage(tmp_path / "old", tmp_path / "new")

    assert saved.messages == 0
    assert (tmp_path / "new").exists()


def test_a_journal_that_is_missing_is_told_to_be(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot save .*elsewhere/old: it is missing"):
        salvage(tmp_path / "elsewhere" / "old", tmp_path / "new")

    assert files(tmp_path) == set()


@pytest.mark.parametrize("rest", ["new-wal", "new.tail"])
def test_nothing_is_saved_beside_the_rest_of_another_journal(path: Path, tmp_path: Path, rest: str) -> None:
    (tmp_path / rest).write_bytes(b"the rest")

    with pytest.raises(JournalError, match=f"{rest} is there already; choose another path"):
        salvage(path, tmp_path / "new")

    assert files(tmp_path) == {"old", "old.lock", rest}


def test_it_can_be_done_from_the_command_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(path), str(tmp_path / "new")]

    statuses = [main(arguments), main(arguments)]

    captured = capsys.readouterr()
    assert statuses == [0, 1]
    told, advice = captured.out.splitlines()
    assert told == "saved 3000 messages (0 unreadable), 1 consumers, 1 messages set aside"
    assert advice.startswith(f"before {tmp_path / 'new'} takes the place of {path}, move all of {path}* away together")
    assert captured.err.startswith("cannot save ")
