"""Journals: where a sender keeps its messages until all consumers have settled them.

That in a file, `posttroll.journal.sqlite`, is loaded when one is opened.
"""

from posttroll.journal.base import Consumer, Journal, SetAside
from posttroll.journal.memory import MemoryJournal
from posttroll.journal.opening import Wish, journal_opener, open_journal

__all__ = ["Consumer", "Journal", "MemoryJournal", "SetAside", "Wish", "journal_opener", "open_journal"]
