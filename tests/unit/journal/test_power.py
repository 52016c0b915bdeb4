"""What is left of a journal in a file when the power is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome
from posttroll.protocol.source import Source

TOPIC = "pytroll://1b/hrit"
FLAGGED = [(1, 2), (2, 2), (3, 2)]


def take(source: Source) -> list[tuple[int, int]]:
    found = [source.take(wall=0.0) for _ in range(4)]
    return [(one[0].sequence, one[1]) for one in found if one is not None]


def boot(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system say that it was started anew."""
    file = directory / name
    file.write_text(f"{name}\n", "ascii")
    monkeypatch.setattr("posttroll.journal.tables._BOOT_ID", file)


class Host:
    """Has a journal of three messages; that the first was settled and the second begun was noted last."""

    def __init__(self, directory: Path) -> None:
        self.journal = SqliteJournal(directory / "journal", sync="full")
        self.log = Path(f"{self.journal.path}-wal")
        source = self.journal.open_source("viewer", [], "new", wall=0.0)
        for _ in range(3):
            self.journal.append(TOPIC, b"frame", wall=0.0)
        self.synced = self.log.stat().st_size
        source.take(wall=0.0)
        source.take(wall=0.0)
        source.settle(1, Outcome("accepted"))
        source.save()
        self.journal.commit()

    def copy(self, directory: Path, log_size: int | None = None) -> Path:
        """Return a copy of the journal as it is in the midst of all, with that much of its log."""
        copied = directory / "copied"
        shutil.copy(self.journal.path, copied)
        Path(f"{copied}-wal").write_bytes(self.log.read_bytes()[:log_size])
        shutil.copy(f"{self.journal.path}.tail", f"{copied}.tail")
        return copied


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    boot("monday", tmp_path, monkeypatch)
    host = Host(tmp_path)
    with closing(host.journal):
        yield host


def given_after_opening(path: Path) -> list[tuple[int, int]]:
    with closing(SqliteJournal(path)) as journal:
        return take(journal.open_source("viewer", [], "new", wall=0.0))


def test_what_comes_again_because_notes_were_lost_is_flagged(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)

    boot("tuesday", tmp_path, monkeypatch)

    assert given_after_opening(path) == FLAGGED


def test_where_the_system_does_not_tell_of_its_start_all_that_comes_again_is_flagged(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)

    monkeypatch.setattr("posttroll.journal.tables._BOOT_ID", tmp_path / "nowhere")

    assert given_after_opening(path) == FLAGGED


def test_after_the_end_of_the_process_alone_only_that_is_flagged_which_was_given_out(
    host: Host, tmp_path: Path
) -> None:
    assert given_after_opening(host.copy(tmp_path)) == [(2, 2), (3, 1)]


def test_a_journal_that_was_closed_has_lost_nothing_when_the_machine_stops(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.journal.close()

    boot("tuesday", tmp_path, monkeypatch)

    assert given_after_opening(host.journal.path) == [(2, 2), (3, 1)]


def test_what_is_published_after_the_loss_is_not_flagged(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)
    boot("tuesday", tmp_path, monkeypatch)

    with closing(SqliteJournal(path)) as journal:
        journal.append(TOPIC, b"frame", wall=0.0)
        given = take(journal.open_source("viewer", [], "new", wall=0.0))

    assert given == [*FLAGGED, (4, 1)]


def test_numbers_of_lost_messages_that_are_noted_are_not_given_again(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path)
    Path(f"{path}.tail").unlink()
    boot("tuesday", tmp_path, monkeypatch)

    with closing(SqliteJournal(path)) as journal:
        journal.append(TOPIC, b"frame", wall=0.0)
        given = take(journal.open_source("viewer", [], "new", wall=0.0))

    assert given == [(3, 1)]


def test_of_a_tail_that_the_loss_has_torn_the_beginning_is_there(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)
    tail = Path(f"{path}.tail")
    content = tail.read_bytes()
    middle = content.rindex(b"frame") - 50
    tail.write_bytes(content[:middle] + bytes(8) + content[middle + 8 :])
    boot("tuesday", tmp_path, monkeypatch)

    assert given_after_opening(path) == FLAGGED[:2]


@pytest.mark.parametrize(("sync", "levels"), [("normal", {1}), ("full", {1, 2})])
def test_only_where_it_is_wished_does_anything_wait_for_the_disk_and_notes_never_do(
    tmp_path: Path, sync: str, levels: set[int]
) -> None:
    with closing(SqliteJournal(tmp_path / "journal", sync=sync)) as journal:
        with journal._write("write to") as writer:
            (written,) = writer.execute("PRAGMA synchronous").fetchone()
        with journal._note("note in") as noter:
            (noted,) = noter.execute("PRAGMA synchronous").fetchone()

    assert noted == 1
    assert {written, noted} == levels


def test_after_the_loss_it_is_another_journal_so_that_no_number_means_two_messages(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)
    boot("tuesday", tmp_path, monkeypatch)

    with closing(SqliteJournal(path)) as journal:
        journal.append(TOPIC, b"after", wall=0.0)
        shutil.copy(f"{path}.tail", f"{tmp_path}/tail")
        identity = journal.identity
    shutil.copy(tmp_path / "tail", f"{path}.tail")

    assert identity != host.journal.identity
    with closing(SqliteJournal(path)) as again:
        assert (again.identity, again.last) == (identity, 4)


@pytest.mark.parametrize("is_closed", [False, True])
def test_where_nothing_can_be_lost_it_stays_the_same_journal(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    path = host.copy(tmp_path)
    if is_closed:
        host.journal.close()
        path = host.journal.path
        boot("tuesday", tmp_path, monkeypatch)

    with closing(SqliteJournal(path)) as journal:
        assert journal.identity == host.journal.identity


def test_an_opening_that_ends_before_there_is_a_new_tail_is_made_good_by_the_next(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.copy(tmp_path, host.synced)
    boot("tuesday", tmp_path, monkeypatch)
    with monkeypatch.context() as failing:
        failing.setattr("posttroll.journal.tables.uuid.uuid4", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            SqliteJournal(path)

    assert not Path(f"{path}.tail").exists()
    assert given_after_opening(path) == FLAGGED
