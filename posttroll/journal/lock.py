"""One process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from posttroll.errors import JournalInUse

__all__ = ["FileLock"]


class FileLock:
    """Held from its making until it is released or the process ends; `JournalInUse`, which names the holder."""

    def __init__(self, path: Path, what: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise JournalInUse(
                f"the journal {what} is in use by process {holder}; end that, or choose another path"
            ) from None
        except BaseException:
            self.release()
            raise
        with contextlib.suppress(OSError):  # a full disk has no room for the number
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others have it; in the child of a fork: leave it to the parent alone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
