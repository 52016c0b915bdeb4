"""Opening a publisher's journal as the settings say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from posttroll.errors import ConfigurationError
from posttroll.journal.base import Journal
from posttroll.settings import read

__all__ = ["Wish", "file_name", "journal_opener", "open_journal"]

Wish = bool | str | os.PathLike[str] | Journal | None

_LONGEST_NAME = 150


def journal_opener(wish: Wish, name: str) -> Callable[[], Journal]:
    """Return what opens the journal of the publisher `name`, made if it is not there.

    `wish`: True, or its file, or a journal that is open already. Settings are read here: `ConfigurationError`.
    `JournalError` tells why it cannot be opened.
    """
    if wish is not True and not isinstance(wish, str | os.PathLike):
        if wish is None or isinstance(wish, bool) or not hasattr(wish, "append"):
            raise ConfigurationError(f"journal is {wish!r}, but must be true, false, a path or a journal")
        journal = wish
        return lambda: journal
    path = _directory() / _own_file(name) if wish is True else Path(wish).expanduser()
    max_age, max_size, sync = read("journal_max_age"), read("journal_max_size"), read("journal_sync")

    def open_file() -> Journal:
        # Imported for those who want one: SQLite takes 4 ms to load.
        from posttroll.journal.sqlite import SqliteJournal

        return SqliteJournal(path, max_age=max_age or None, max_size=max_size or None, sync=sync)

    return open_file


def open_journal(wish: Wish, name: str) -> Journal | None:
    """Open the journal that is wished for, None if it is False; with None, as the setting ``journal`` says."""
    wish = read("journal") if wish is None else wish
    return None if wish is False else journal_opener(wish, name)()


def _directory() -> Path:
    given = read("journal_directory")
    if given:
        return Path(given).expanduser()
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "posttroll"


def _own_file(publisher: str) -> str:
    if not publisher:
        raise ConfigurationError("a publisher without a name has no journal of its own; give the journal a path")
    return file_name(publisher)


def file_name(name: str) -> str:
    """Return what to call the file of something that has a name; no other name has the same."""
    # Imported for those who want a journal, as above.
    from hashlib import sha256
    from urllib.parse import quote

    quoted = quote(name, safe="")
    if len(quoted) > _LONGEST_NAME:
        quoted = f"{quoted[:_LONGEST_NAME]}-{sha256(name.encode()).hexdigest()}"
    return f"{quoted}.journal"
