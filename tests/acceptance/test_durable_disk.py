"""Disks without room: the publisher is told, and what is in the journal is delivered."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.processes import Process, Site, opened
from tests.acceptance.transfers import DELIVERED_WITHIN, Transfer, gaps

SIZE = 3 * 2**20
BALLAST = 2 * 2**20
COUNT = 300
# Long enough for a consumer to attach before the disk is full.
PERIOD = "0.02"

pytestmark = pytest.mark.timeout(180)


class SmallDisk:
    """A file system of its own for one program, with something on it that can be removed."""

    def __init__(self, site: Site, mountpoint: Path) -> None:
        mountpoint.mkdir()
        self.mountpoint = mountpoint
        mount = f"mount -t tmpfs -o size={SIZE} tmpfs {shlex.quote(str(mountpoint))}"
        fill = f"head -c {BALLAST} /dev/zero > {shlex.quote(str(mountpoint / 'ballast'))}"
        prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && {fill} && exec "$@"', "sh"]
        outcome = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=10, check=False)
        if outcome.returncode:
            pytest.skip(f"no mounts of one's own on this machine: {outcome.stderr.strip()}")
        self.site = Site(_made(mountpoint.parent / "on_small_disk"), site.settings, prefix)

    def make_room(self, user: Process) -> None:
        """Remove the ballast."""
        self._as_seen_by(user, "ballast").unlink()

    def fill(self, user: Process) -> None:
        """Leave no room at all."""
        with self._as_seen_by(user, "more").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass

    def _as_seen_by(self, user: Process, name: str) -> Path:
        return Path(f"/proc/{user.pid}/root{self.mountpoint}/{name}")


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.fixture
def disk(site: Site, tmp_path: Path) -> Iterator[SmallDisk]:
    """Give a small disk."""
    if shutil.which("unshare") is None:
        pytest.skip("the command unshare is not there")
    disk = SmallDisk(site, tmp_path / "small")
    with opened(disk.site):
        yield disk


@pytest.fixture
def transfer(site: Site, disk: SmallDisk) -> Transfer:
    """Give a transfer whose journal is on the small disk."""
    transfer = Transfer(site, disk.mountpoint / "journal")
    transfer.nameserver()
    return transfer


def test_a_full_disk_is_told_and_sending_goes_on_when_there_is_room(transfer: Transfer, disk: SmallDisk) -> None:
    transfer.plain("witness").expect_ready()
    consumer = transfer.durable("delivered", "--hold", "1")
    publisher = transfer.publisher(COUNT, "--await-subscriber", "--period", PERIOD, site=disk.site)
    consumer.expect_word("holding", DELIVERED_WITHIN)
    reason = " ".join(publisher.expect_word("full", DELIVERED_WITHIN))

    disk.make_room(publisher)
    publisher.expect_word("room", DELIVERED_WITHIN)
    consumer.tell("")

    publisher.expect_word("done", DELIVERED_WITHIN)
    transfer.await_handled(["delivered"], range(1, COUNT + 1))
    assert "no room" in reason
    assert str(transfer.journal) in reason
    assert gaps(transfer.handled("witness")) == []


def test_a_disk_that_the_journal_has_filled_is_freed_by_its_consumer(transfer: Transfer, disk: SmallDisk) -> None:
    consumer = transfer.durable("delivered", "--hold", "1")
    publisher = transfer.publisher(COUNT, "--period", PERIOD, site=disk.site)
    consumer.expect_word("holding", DELIVERED_WITHIN)
    reason = " ".join(publisher.expect_word("full", DELIVERED_WITHIN))

    consumer.tell("")

    publisher.expect_word("room", DELIVERED_WITHIN)
    publisher.expect_word("done", DELIVERED_WITHIN)
    transfer.await_handled(["delivered"], range(1, COUNT + 1))
    assert "consumer 'delivered' has yet to settle" in reason


def test_a_consumer_goes_on_getting_messages_when_its_acceptances_cannot_be_kept(
    transfer: Transfer, disk: SmallDisk
) -> None:
    consumer = transfer.durable("delivered", "--hold", "1")
    publisher = transfer.publisher(10, site=disk.site)
    publisher.expect_word("done")
    consumer.expect_word("holding", DELIVERED_WITHIN)

    disk.fill(publisher)
    consumer.tell("")

    transfer.await_handled(["delivered"], range(1, 11))


def test_a_journal_of_limited_size_refuses_until_its_consumers_have_settled(site: Site) -> None:
    transfer = Transfer(site)
    transfer.nameserver()
    beginning = transfer.publisher(10)
    consumer = transfer.durable("delivered", "--acknowledge", "manual", "--hold", "5")
    consumer.expect_word("holding", DELIVERED_WITHIN)
    beginning.close()
    publisher = transfer.publisher(3000, journal_max_size=500_000)
    reason = " ".join(publisher.expect_word("full", DELIVERED_WITHIN))

    consumer.tell("")

    publisher.expect_word("room", DELIVERED_WITHIN)
    publisher.expect_word("done", DELIVERED_WITHIN)
    assert "delivered" in reason
    transfer.await_handled(["delivered"], range(1, 3001))
    transfer.await_settled()
