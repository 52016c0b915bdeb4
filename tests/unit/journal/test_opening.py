"""Opening a publisher's journal as the settings say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posttroll.errors import ConfigurationError, JournalError, JournalFull, JournalInUse
from posttroll.journal import open_journal
from posttroll.journal.sqlite import SqliteJournal
from posttroll.settings import config
from tests.fixtures.waiting import UNIT

TOPIC = "pytroll://1b/hrit"

Open = Callable[..., SqliteJournal]


@pytest.fixture
def open_one(tmp_path: Path) -> Iterator[Open]:
    """Open journals as a publisher does, in a directory of the test's own."""
    opened: list[SqliteJournal] = []

    def open_one(wish: bool | str | os.PathLike[str] | None = True, name: str = "viewer") -> SqliteJournal:
        journal = open_journal(wish, name)
        assert isinstance(journal, SqliteJournal)
        opened.append(journal)
        return journal

    with config.set(journal_directory=str(tmp_path)):
        yield open_one
    for journal in opened:
        journal.close()


def test_by_default_there_is_none() -> None:
    assert open_journal(None, "viewer") is None
    assert open_journal(False, "viewer") is None


def test_the_setting_counts_where_nothing_else_is_said(open_one: Open, tmp_path: Path) -> None:
    with config.set(journal=True):
        assert open_one(None).path == tmp_path / "viewer.journal"
        assert open_journal(False, "viewer") is None
    with config.set(journal=str(tmp_path / "mine")):
        assert open_one(None).path == tmp_path / "mine"


def test_a_journal_has_the_name_of_its_publisher(open_one: Open, tmp_path: Path) -> None:
    assert open_one(name="viewer").path == tmp_path / "viewer.journal"


@pytest.mark.parametrize("name", ["a/b", "../a", "..", "a b", "a%2Fb", "\0", "é" * 200, "é" * 201, "x" * 300])
def test_any_name_gives_a_file_of_its_own_in_the_directory(open_one: Open, tmp_path: Path, name: str) -> None:
    paths = {open_one(name=one).path for one in (name, f"{name}x", "a", "x" * 299)}

    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path}


def test_a_publisher_without_a_name_has_to_say_where(open_one: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the journal a path"):
        open_one(name="")

    assert open_one(tmp_path / "mine", name="").path == tmp_path / "mine"


def test_a_path_may_begin_at_home(open_one: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert open_one("~/mine").path == tmp_path / "home" / "mine"
    with config.set(journal_directory="~/journals"):
        assert open_one().path == tmp_path / "home" / "journals" / "viewer.journal"


@pytest.mark.parametrize(
    ("state", "directory"),
    [
        ("/state", "/state/posttroll"),
        ("", "/home/.local/state/posttroll"),
        ("relative", "/home/.local/state/posttroll"),
    ],
)
def test_the_directory_is_that_of_the_users_state(
    open_one: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, directory: str
) -> None:
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}{state}" if state.startswith("/") else state)

    with config.set(journal_directory=None):
        assert open_one().path == Path(f"{tmp_path}{directory}/viewer.journal")


def test_the_limits_are_those_of_the_settings(open_one: Open) -> None:
    with config.set(journal_max_size=10, journal_max_age=1):
        journal = open_one()
    journal.open_source("viewer", [], "new", wall=0.0)
    journal.append(TOPIC, b"12345678", wall=0.0)

    with pytest.raises(JournalFull, match="8 of 10 bytes"):
        journal.append(TOPIC, b"12345678", wall=0.0)
    assert journal.expire(wall=5.0, now=0.0) == {"viewer": 1}


def test_a_limit_of_zero_is_none(open_one: Open) -> None:
    with config.set(journal_max_size=0, journal_max_age=0):
        journal = open_one()

    journal.append(TOPIC, b"12345678", wall=0.0)

    assert journal.expire(wall=1e12, now=0.0) == {}
    assert len(journal.replay()) == 1


def test_a_wrong_setting_is_told(open_one: Open, tmp_path: Path) -> None:
    with config.set(journal_sync="half"), pytest.raises(ConfigurationError, match="journal_sync"):
        open_one()

    assert list(tmp_path.iterdir()) == []


def test_one_that_is_open_already_is_told_with_its_process(open_one: Open, tmp_path: Path) -> None:
    open_one()

    with pytest.raises(JournalInUse, match=f"{tmp_path}/viewer.journal is in use by process {os.getpid()}"):
        open_one()


def test_a_directory_is_no_journal(open_one: Open, tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()

    with pytest.raises(JournalError, match=r"journals: .* that is a directory.*; choose a path that can be written"):
        open_one(tmp_path / "journals")

    assert [one.name for one in tmp_path.iterdir()] == ["journals"]


def test_a_place_where_nothing_can_be_made_is_told(open_one: Open, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(JournalError, match=r"cannot open the journal .*/file/mine: .*; choose a path that can be"):
        open_one(tmp_path / "file" / "mine")
    with pytest.raises(JournalError, match="cannot open the journal /proc/mine: "):
        open_one("/proc/mine")


def test_sqlite_is_not_loaded_before_a_journal_is_opened() -> None:
    program = (
        "import sys; before = set(sys.modules); import posttroll.publisher; "
        "from posttroll.journal import open_journal; open_journal(False, 'viewer'); "
        "sys.exit('sqlite3' in sys.modules.keys() - before)"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=20 * UNIT).returncode == 0


def test_what_is_no_journal_is_told() -> None:
    with pytest.raises(ConfigurationError, match="journal is 3, but must be true, false, a path or a journal"):
        open_journal(3, "viewer")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["on", "none", "viewer.journal"])
def test_a_word_that_is_no_path_is_a_mistyped_setting(value: str) -> None:
    with config.set(journal=value), pytest.raises(ConfigurationError, match="true, false or a path with a / in it"):
        open_journal(None, "viewer")
