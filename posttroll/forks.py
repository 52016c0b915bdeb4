"""Which process this is: what one process opened is of no use in its child."""

from __future__ import annotations

import os

from posttroll.errors import UsedAfterFork

__all__ = ["check_process", "is_this_process"]

_this_process = os.getpid()  # kept, as a system call for each message would be 5 % of its cost


def is_this_process(pid: int) -> bool:
    """Return whether this is the process of that number."""
    return _this_process == pid


def check_process(pid: int, what: str = "it") -> None:
    """Raise `UsedAfterFork` in any other process than that, which opened it."""
    if _this_process != pid:
        child = _this_process
        raise UsedAfterFork(
            f"{what} was opened by process {pid} and cannot be used in its child {child}; open one there"
        )


def _note_process() -> None:
    global _this_process
    _this_process = os.getpid()


os.register_at_fork(after_in_child=_note_process)
