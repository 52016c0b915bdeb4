"""SQLite files that are journals: made, opened, checked, their errors translated."""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from posttroll.errors import JournalCorrupt, JournalError, JournalFull
from posttroll.journal.disk import look

__all__ = [
    "MESSAGES",
    "PAGE_BYTES",
    "check",
    "connect",
    "create",
    "is_full",
    "matching",
    "relax",
    "sync_directory",
    "tail_path",
    "transaction",
    "translated",
    "translated_errors",
]

MESSAGES = "SELECT sequence, frame, expires FROM messages"
PAGE_BYTES = 4096

_APPLICATION = 0x50545231
_VERSION = 1
_PATIENCE = 5.0

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def is_full(error: Exception) -> bool:
    """Return whether an error says that there is no room."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _FULL or isinstance(error, JournalFull) or getattr(error, "errno", None) in _NO_ROOM


def translated(error: Exception, what: str, path: Path) -> JournalError:
    """Return an error as what it means for a journal, saying what was tried."""
    if is_full(error):
        return JournalFull(f"cannot {what}: no room is left for the journal {path} ({error})")
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
        return JournalCorrupt(
            f"cannot {what}: the journal {path} is damaged ({error}); move it away to start anew, "
            f"`python -m posttroll.journal.salvage` copies what is readable of it to a new one"
        )
    return JournalError(f"cannot {what} the journal {path}: {error}{_hint(error, path)}")


def _hint(error: Exception, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in _NO_ACCESS and getattr(error, "errno", None) not in _NOT_WRITABLE:
        return ""
    return (
        f"; this user has to be able to read and write {path.parent} and all of {path.name}* there; "
        f"choose a path that can be written, or have its owner allow that"
    )


@contextlib.contextmanager
def translated_errors(what: str, path: Path) -> Iterator[None]:
    """Raise SQLite's and the system's errors as `JournalError`; who may use a consumer is not the system's affair."""
    try:
        yield
    except JournalError:
        raise
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, PermissionError) and error.errno is None:
            raise
        raise translated(error, what, path) from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of it or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def matching(topics: Sequence[str]) -> tuple[str, list[object]]:
    """Return the condition in SQL for messages of these topics, and its parameters."""
    by_length: dict[int, list[str]] = {}
    for topic in topics:
        by_length.setdefault(len(topic), []).append(topic)
    terms = [f"substr(topic, 1, ?) IN ({', '.join('?' * len(same))})" for same in by_length.values()]
    values: list[object] = [value for length, same in by_length.items() for value in (length, *same)]
    return _either(terms) if terms else "TRUE", values


def _either(terms: list[str]) -> str:
    # As a tree, because SQLite limits the depth of what it parses.
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return f"({_either(terms[:middle])} OR {_either(terms[middle:])})"


def tail_path(path: Path) -> Path:
    """Return where the newest messages of a journal are."""
    return Path(f"{path}.tail")


def create(path: Path) -> None:
    """Make an empty journal, whole or not at all, that only its owner may read."""
    for rest in (Path(f"{path}-wal"), tail_path(path)):
        if rest.exists():
            raise JournalCorrupt(f"the journal {path} is missing, but its {rest.name} is there; move that away")
    draft = Path(f"{path}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    schema = importlib.resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.executescript(f"BEGIN; {schema} COMMIT;")
        connection.execute("INSERT INTO journal VALUES (?, 0, 0, NULL)", [uuid.uuid4().hex])
    draft.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Have what was made or renamed in a directory outlive the loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a journal that is there; `JournalCorrupt` or `JournalError` if it is not one that this release knows.

    What is committed outlives the loss of power.
    """
    mode = "ro" if read_only else "rw"
    if path.stat().st_size == 0:
        raise JournalCorrupt(f"the journal {path} is empty, which no journal ever is; move it away to start anew")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        check(connection, path)
        if not read_only:
            _set_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalError` if that is not a journal that this release knows."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise JournalError(f"{path} is a database, but no journal; choose another path")
    if version != _VERSION:
        age = "newer" if version > _VERSION else "older"
        raise JournalError(
            f"the journal {path} is of an {age} format ({version}; this release knows {_VERSION}); "
            f"use the release that wrote it, or choose another path"
        )


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(f"the journal {path} needs a local file system (SQLite offers {mode} there, not WAL)")
    log = look(path).log
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {log // PAGE_BYTES}")
    connection.execute(f"PRAGMA journal_size_limit = {log}")
    # Debian's SQLite writes zeros over what is deleted, so that dropping messages would take room in the log.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA foreign_keys = ON")


def relax(connection: sqlite3.Connection) -> None:
    """Sync commits no more: at the loss of power, the last ones may be lost that no other connection has synced."""
    connection.execute("PRAGMA synchronous = NORMAL")
