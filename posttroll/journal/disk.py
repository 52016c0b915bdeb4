"""The file system that a journal is on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Disk", "is_still_there", "look"]

_LARGEST_RESERVE = 32 * 2**20
_PARTS = 64


class Disk(NamedTuple):
    """How many bytes are free for a journal, its log included, and how many are kept for what consumers note."""

    free: int
    reserve: int

    @property
    def log(self) -> int:
        """How long SQLite's log gets: as much again has yet to go from it to the file, and half of the reserve is left.

        A compromise at its largest: fewer syncs of the disk than with half of it, a shorter wait for one than with
        twice as much (25 ms).
        """
        return self.reserve // 4

    @property
    def tail(self) -> int:
        """How long the tail of a journal gets: little of the reserve, into which its messages may have to be folded."""
        return self.reserve // 32

    @property
    def step(self) -> int:
        """How much may be written until one should look again."""
        return self.reserve // _PARTS


def is_still_there(path: Path, opened: os.stat_result) -> bool:
    """Return whether a file that was opened is still what its path names."""
    try:
        return os.path.samestat(os.stat(path), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False


def look(path: Path) -> Disk:
    """Return how much room there is for a journal; a lot where the file system does not tell."""
    found = os.statvfs(path)
    if not found.f_blocks:
        return Disk(2**63, _LARGEST_RESERVE)
    free = found.f_bavail * found.f_frsize
    with suppress(FileNotFoundError):
        free += os.path.getsize(f"{path}-wal")  # which is written again and again
    return Disk(free, min(_LARGEST_RESERVE, found.f_blocks * found.f_frsize // 4))
