"""Programs in the background: the pid file they hold, starting and stopping them, and telling a service manager."""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from posttroll.errors import ConfigurationError, TimedOut

__all__ = [
    "PidFile",
    "complaint",
    "log_file",
    "notify",
    "reopen",
    "silence_stderr",
    "start_detached",
    "stop_holder",
]

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0
_LOCK_TIMEOUT = 1.0
_PAUSE = 0.02


class PidFile:
    """A file that a running program keeps locked, so that a stale one is never mistaken for a living process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the file for this process; `ConfigurationError` if another one does."""
        with self._opened(os.O_RDWR | os.O_CREAT) as descriptor:
            # Somebody who asks for the status holds a lock for a moment.
            if not _comes_true(lambda: _lock(descriptor, fcntl.LOCK_EX), _LOCK_TIMEOUT):
                raise ConfigurationError(f"already running (pid {_read_pid(descriptor)}, in {self.path})")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)

    def holder(self) -> int | None:
        """Return the id of the process that holds the file, None if there is none."""
        try:
            with self._opened(os.O_RDONLY) as descriptor:
                return None if _lock(descriptor, fcntl.LOCK_SH) else _read_pid(descriptor)
        except FileNotFoundError:
            return None

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """Open the file; the default place is one where others may have prepared something."""
        descriptor = os.open(self.path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise ConfigurationError(f"pid file {self.path} is not a file of this user; name another one")
            yield descriptor
        finally:
            os.close(descriptor)


def start_detached(command: Sequence[str]) -> None:
    """Start a program in the background, and wait until it calls ``notify("READY=1")``.

    Raises `ConfigurationError` with what it wrote to its standard error if it ends before, `TimedOut` if it does
    neither.
    """
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        address = os.path.join(directory, "notices")
        notices.bind(address)
        process = _spawn(command, address)
        assert process.stderr is not None
        with process.stderr as errors:
            outcome = _await_ready(notices, errors.fileno())
    if outcome is None:
        process.terminate()
        process.wait(_STOP_TIMEOUT)
        raise TimedOut(f"it was not ready within {_START_TIMEOUT:g} s")
    if outcome:
        process.wait(_STOP_TIMEOUT)
        raise ConfigurationError(outcome)


def stop_holder(pid_file: PidFile) -> bool:
    """End the program that holds the file, and wait for it; return False if there was none, `TimedOut`."""
    pid = pid_file.holder()
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _comes_true(lambda: pid_file.holder() != pid, _STOP_TIMEOUT):
        raise TimedOut(f"process {pid} did not end within {_STOP_TIMEOUT:g} s")
    return True


def complaint(error: Exception) -> str:
    """Return the line that tells an operator what is wrong."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot open {error.filename}: {error.strerror}"
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join((text or str(error)).split())


def log_file(path: str) -> logging.Handler:
    """Return what logs to a file that is rotated at midnight and kept for seven days; `OSError`."""
    return logging.handlers.TimedRotatingFileHandler(path, "midnight", backupCount=7, errors="backslashreplace")


def reopen(handler: logging.Handler) -> None:
    """Let a log file be opened anew at its next line, as somebody may have moved it away."""
    handler.close()


def notify(state: str) -> None:
    """Tell whoever manages the program, if it wants to know, as systemd does: ``READY=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    abstract = address.startswith("@")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.sendto(state.encode(), "\0" + address[1:] if abstract else address)


def silence_stderr() -> None:
    """Send what is written to standard error from now on nowhere, as nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _spawn(command: Sequence[str], notify_socket: str) -> subprocess.Popen[bytes]:
    places = [os.path.abspath(place) for place in sys.path if os.path.exists(place or os.curdir)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={**os.environ, "NOTIFY_SOCKET": notify_socket, "PYTHONPATH": os.pathsep.join(places)},
    )


def _await_ready(notices: socket.socket, errors: int) -> str | None:
    """Return "" when the program is ready, its last words when it has ended, None after too long a time."""
    words = b""
    deadline = time.monotonic() + _START_TIMEOUT
    with selectors.DefaultSelector() as selector:
        selector.register(notices, selectors.EVENT_READ)
        selector.register(errors, selectors.EVENT_READ)
        while ready := selector.select(max(0.0, deadline - time.monotonic())):
            sources = [key.fileobj for key, _ in ready]
            if notices in sources and b"READY=1" in notices.recv(4096):
                return ""
            if errors in sources:
                piece = os.read(errors, 65536)
                if not piece:
                    return words.decode(errors="replace").strip() or "it ended without a word"
                words += piece
    return None


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _comes_true(claim: Callable[[], bool], timeout: float) -> bool:
    """Wait for what nobody can wake this process about."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not claim():
        if time.monotonic() >= deadline:
            return False
        pause.wait(_PAUSE)
    return True
