"""What the system keeps an account of for each process: processor time, memory, and how often it woke up."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from bench.harness import Unavailable

__all__ = ["cpu_seconds", "memory_megabytes", "session_megabytes", "share_of_a_core", "wake_ups"]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that the threads of a process have taken so far; `Unavailable`."""
    return sum(int(_read(pid, f"task/{thread}/schedstat").split()[0]) for thread in _threads(pid)) / 1e9


def share_of_a_core(pid: int, seconds: float) -> float:
    """Watch a process for a while; return the share of a core that it takes, in per cent."""
    started, before = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - started)


def memory_megabytes(pid: int) -> float:
    """Return the resident memory of a process; `Unavailable`."""
    return int(_item("VmRSS", _read(pid, "status"))) / 1024


def session_megabytes(session: int) -> float:
    """Return the resident memory of all processes of a session."""
    total = 0.0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError, Unavailable):  # those that have ended
            if os.getsid(int(name)) == session:
                total += memory_megabytes(int(name))
    return total


def wake_ups(pid: int) -> int:
    """Return how often the threads of a process have waited for something so far; `Unavailable`."""
    statuses = (_read(pid, f"task/{thread}/status") for thread in _threads(pid))
    return sum(int(_item("voluntary_ctxt_switches", status)) for status in statuses)


def _threads(pid: int) -> list[str]:
    path = Path("/proc", str(pid), "task")
    try:
        return os.listdir(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error


def _read(pid: int, name: str) -> str:
    path = Path("/proc", str(pid), name)
    try:
        return path.read_text()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error


def _item(name: str, text: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    if not found:
        raise Unavailable(f"a process that has ended has no {name}")
    return found.group(1)
