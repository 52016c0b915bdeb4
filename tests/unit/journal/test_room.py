"""Room on the disk: a part of it is kept, so that consumers go on, and with that the journal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttroll.errors import JournalFull
from posttroll.journal.disk import look
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome
from posttroll.protocol.source import Source
from tests.fixtures.waiting import UNIT

TOPIC = "pytroll://1b/hrit"
MEBIBYTE = 2**20
PAGE = 4096


class FakeDisk:
    """What the system says of the disk: 100 MiB in all, so that 25 are kept."""

    def __init__(self) -> None:
        self.pages = 100 * MEBIBYTE // PAGE
        self.free = 50 * MEBIBYTE
        self.looks = 0

    def statvfs(self, path: object) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(f_blocks=self.pages, f_bavail=self.free // PAGE, f_frsize=PAGE)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    disk = FakeDisk()
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def journal(disk: FakeDisk, tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal", max_age=100.0)
    yield journal
    journal.close()


def fill(journal: SqliteJournal, count: int, size: int = 10_000) -> None:
    for _ in range(count):
        journal.append(TOPIC, b"x" * size, wall=0.0)


def settle(journal: SqliteJournal, source: Source, state: str = "accepted", count: int = 10_000) -> int:
    settled = 0
    while settled < count and (one := source.take(wall=0.0)) is not None:
        source.settle(one[0].sequence, Outcome(state))  # type: ignore[arg-type]
        settled += 1
    source.save()
    journal.commit()
    return settled


@pytest.mark.parametrize(("size", "reserve"), [(2 * MEBIBYTE, MEBIBYTE // 2), (2**40, 32 * MEBIBYTE)])
def test_a_quarter_is_kept_of_a_small_disk_and_32_mebibytes_of_a_large_one(
    disk: FakeDisk, size: int, reserve: int
) -> None:
    disk.pages = size // PAGE

    assert look(Path("journal")).reserve == reserve


def test_a_file_system_that_tells_nothing_is_taken_to_have_room(disk: FakeDisk, journal: SqliteJournal) -> None:
    disk.pages = disk.free = 0

    fill(journal, 100)

    assert journal.last == 100


def test_a_disk_that_is_short_is_told_with_what_is_kept_and_who_is_late(disk: FakeDisk, journal: SqliteJournal) -> None:
    journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 100)
    disk.free = 20 * MEBIBYTE

    with pytest.raises(JournalFull) as caught:
        fill(journal, 100)

    text = str(caught.value)
    assert f"cannot append to: no room is left for the journal {journal.path}: /" in text
    assert f" bytes free or in its log, {25 * MEBIBYTE} are kept for what consumers note; make room there" in text
    assert "consumer 'viewer' has yet to settle" in text


def test_when_there_is_room_again_appending_goes_on(disk: FakeDisk, journal: SqliteJournal) -> None:
    journal.open_source("viewer", [], "new", wall=0.0)
    disk.free = 20 * MEBIBYTE
    with pytest.raises(JournalFull):
        fill(journal, 100)

    disk.free = 50 * MEBIBYTE
    fill(journal, 1)

    assert journal.last == 1


def test_on_a_short_disk_messages_come_in_place_of_settled_ones(disk: FakeDisk, journal: SqliteJournal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 1000)
    journal.expire(wall=0.0, now=0.0)
    disk.free = 15 * MEBIBYTE
    with pytest.raises(JournalFull):
        fill(journal, 1000)
    reached = journal.last
    journal.expire(wall=0.0, now=0.0)
    size = journal.path.stat().st_size

    assert settle(journal, source) == reached
    fill(journal, 900)

    journal.expire(wall=0.0, now=0.0)
    assert journal.path.stat().st_size <= size + 32 * PAGE
    assert settle(journal, source) == 900


def test_what_nobody_has_settled_is_never_dropped_for_room(disk: FakeDisk, journal: SqliteJournal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 100)
    settle(journal, source, count=50)
    disk.free = 0

    with pytest.raises(JournalFull):
        fill(journal, 1000)

    kept = [entry.sequence for entry in journal.replay(limit=10_000)]
    assert kept == list(range(51, journal.last + 1))


def test_expiry_makes_room_on_a_short_disk(disk: FakeDisk, journal: SqliteJournal) -> None:
    journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 100)
    disk.free = 20 * MEBIBYTE
    with pytest.raises(JournalFull):
        fill(journal, 1000)
    reached = journal.last

    lost = journal.expire(wall=101.0, now=0.0)
    fill(journal, 50)

    assert lost == {"viewer": reached}
    assert journal.last == reached + 50


def test_a_message_for_which_the_log_would_grow_is_refused_on_a_short_disk(
    disk: FakeDisk, journal: SqliteJournal
) -> None:
    fill(journal, 1000)
    disk.free = 20 * MEBIBYTE

    with pytest.raises(JournalFull):
        fill(journal, 1, size=7 * MEBIBYTE)

    fill(journal, 1, size=MEBIBYTE)
    assert journal.last == 1001


def test_a_message_too_large_for_what_is_free_is_refused(disk: FakeDisk, journal: SqliteJournal) -> None:
    disk.free = 30 * MEBIBYTE

    with pytest.raises(JournalFull):
        fill(journal, 1, size=3 * MEBIBYTE)

    fill(journal, 1, size=2 * MEBIBYTE)


def test_the_disk_is_looked_at_once_in_many_messages(disk: FakeDisk, journal: SqliteJournal) -> None:
    before = disk.looks

    fill(journal, 1000, size=100)

    assert disk.looks - before < 20


def test_a_disk_that_turns_out_to_be_full_is_looked_at_again(disk: FakeDisk, journal: SqliteJournal) -> None:
    fill(journal, 3000, size=1000)
    with journal._write("limit") as writer:
        writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalFull, match="database or disk is full"):
        fill(journal, 1000, size=1000)
    reached = journal.last
    disk.free = 0

    fill(journal, 100, size=1000)

    assert journal.last == reached + 100
    assert journal.replay()[0].sequence > 1


def test_one_who_sets_much_aside_leaves_room_for_the_notes_of_others(disk: FakeDisk, journal: SqliteJournal) -> None:
    picky = journal.open_source("picky", [], "new", wall=0.0)
    other = journal.open_source("other", [], "new", wall=0.0)
    fill(journal, 100)
    disk.free = 12 * MEBIBYTE
    for source, state in ((picky, "rejected"), (other, "accepted")):
        taken = source.take(wall=0.0)
        assert taken is not None
        source.settle(taken[0].sequence, Outcome(state))  # type: ignore[arg-type]
        source.save()

    with pytest.raises(JournalFull, match="cannot commit to: no room is left"):
        journal.commit()
    cursors = {one.name: one.cursor for one in journal.consumers()}
    disk.free = 19 * MEBIBYTE
    journal.commit()

    assert cursors == {"picky": 0, "other": 1}
    assert [(one.consumer, one.sequence) for one in journal.set_aside()] == [("picky", 1)]
    assert {one.cursor for one in journal.consumers()} == {1}


def test_one_who_sets_much_aside_does_it_in_place_of_settled_messages(disk: FakeDisk, journal: SqliteJournal) -> None:
    picky = journal.open_source("picky", [], "new", wall=0.0)
    fill(journal, 100)
    settle(journal, picky, count=50)
    disk.free = 12 * MEBIBYTE

    settle(journal, picky, "rejected", count=1)

    assert [one.sequence for one in journal.set_aside()] == [51]
    assert journal.replay()[0].sequence > 1


def on_small_disk(directory: Path, program: str) -> list[str]:
    """Return what a program prints that has a file system of 2 MiB for itself."""
    if shutil.which("unshare") is None:
        pytest.skip("the command unshare is not there")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(directory)]
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, *mount], capture_output=True, timeout=10 * UNIT).returncode:
        pytest.skip("no right to mount a small disk")
    command = [*alone, "sh", "-ec", '"$@" && exec "$PYTHON" -c "$PROGRAM" "$DISK"', "sh", *mount]
    environment = {**os.environ, "PYTHON": sys.executable, "PROGRAM": program, "DISK": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * UNIT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BEGINNING = """
import os, sys
from posttroll.errors import JournalFull
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome

directory = sys.argv[1]

def opened():
    return SqliteJournal(directory + "/journal", max_age=1e6)

def fill():
    try:
        while True:
            journal.append("pytroll://1b/hrit", b"x" * 1000, float(journal.last))
    except JournalFull as error:
        return str(error)

def handle(source, most, state="accepted"):
    handled = []
    while len(handled) < most and (one := source.take(0.0)) is not None:
        source.settle(one[0].sequence, Outcome(state))
        handled.append(one[0].sequence)
        if len(handled) % 100 == 0:
            source.save()
            journal.commit()
    source.save()
    journal.commit()
    return handled

def is_all(handled):
    return handled == list(range(1, len(handled) + 1))

journal = opened()
"""

FILLED_BY_ITSELF = f"""{BEGINNING}
journal.open_source("one", [], "new", 0.0)
print("kept for notes:", "kept for what consumers note" in fill())
first = journal.last
journal.close()
journal = opened()
sources = [journal.open_source(name, [], "first", 1.0) for name in ("one", "other")]
handled = [[], []]
for number in range(10):
    for its, source in zip(handled, sources):
        its += handle(source, 300)
    fill()
journal.commit()
print("appended:", journal.last > 3 * first > 1000)
for its, source in zip(handled, sources):
    its += handle(source, 10_000)
print("nothing lost:", *(is_all(its) and len(its) == journal.last for its in handled))
print("room:", journal.append("pytroll://1b/hrit", b"x", 0.0) == len(handled[0]) + 1)
journal.close()
"""


def test_a_disk_that_the_journal_has_filled_is_freed_by_its_consumers(tmp_path: Path) -> None:
    assert on_small_disk(tmp_path, FILLED_BY_ITSELF) == [
        "kept for notes: True",
        "appended: True",
        "nothing lost: True True",
        "room: True",
    ]


FILLED_BY_OTHERS = f"""{BEGINNING}
source = journal.open_source("viewer", [], "new", 0.0)
for number in range(400):
    journal.append("pytroll://1b/hrit", b"x" * 1000, 0.0)
ballast = open(directory + "/ballast", "wb", buffering=0)
try:
    while ballast.write(bytes(4096)):
        pass
except OSError:
    ballast.close()
print("told:", "no room is left" in fill())
kept = journal.last
print("readable:", len(journal.replay(limit=10_000)) == kept)
try:
    handled = handle(source, kept, "rejected")
except JournalFull as error:
    print(error)
os.unlink(directory + "/ballast")
journal.commit()
aside = [one.sequence for one in journal.set_aside()]
print("committed:", is_all(aside) and len(aside) >= 100)
print("the rest:", is_all([*aside, *handle(source, kept)]))
print("appended:", journal.append("pytroll://1b/hrit", b"x", 0.0) == kept + 1)
journal.close()
journal = opened()
print("opened again:", journal.last == kept + 1, [one.cursor for one in journal.consumers()] == [kept])
journal.close()
"""


def test_a_disk_that_others_have_filled_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    told, readable, full, *rest = on_small_disk(tmp_path, FILLED_BY_OTHERS)

    assert (told, readable) == ("told: True", "readable: True")
    assert full.startswith(f"cannot commit to: no room is left for the journal {tmp_path}/journal")
    assert rest == ["committed: True", "the rest: True", "appended: True", "opened again: True True"]
