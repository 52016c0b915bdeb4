"""Looking for services until all are found or the time is over: what is still missing, and when to ask again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from posttroll.errors import RequestTimeout

__all__ = ["Entries", "Search", "merged", "no_answer"]

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

Entries = list[dict[str, Any]]
"""Addresses as nameservers give them."""


def no_answer(timeout: float, places: str) -> RequestTimeout:
    """Return the error that says that no nameserver at these places answered within so many seconds."""
    return RequestTimeout(f"Didn't get an address after {timeout:g} seconds. No nameserver answered at {places}.")


class Search:
    """A search for services (None: whatever there is) that begins `now` and takes `timeout` seconds at most."""

    def __init__(self, names: str | Iterable[str] | None, timeout: float, now: float) -> None:
        wanted = [""] if names is None else [names] if isinstance(names, str) else names
        self._found: dict[str, Entries] = {name: [] for name in wanted}
        self._timeout = timeout
        self._deadline = now + timeout
        self._is_answered = False
        self._pause, self._longest_pause = _FIRST_PAUSE, min(timeout / 20, _LONGEST_PAUSE)

    def missing(self) -> list[str]:
        """Return the services of which no address is known yet."""
        return [name for name, entries in self._found.items() if not entries]

    def left(self, now: float) -> float:
        """Return how many seconds are left."""
        return max(0.0, self._deadline - now)

    def answered(self, name: str, entries: Entries) -> None:
        """Take the answer to a question for a service."""
        self._is_answered = True
        self._found[name] = entries

    def unanswered(self, places: str) -> None:
        """Take note of a question without an answer; `RequestTimeout` if there never was any."""
        if not self._is_answered:
            raise no_answer(self._timeout, places)

    def is_over(self, now: float) -> bool:
        """Return whether all is found, or the time is over."""
        return now >= self._deadline or not self.missing()

    def next_round(self, now: float) -> float:
        """Return when to ask for what is missing again, if nothing is heard of it before."""
        self._pause = min(2 * self._pause, self._longest_pause)
        return min(now + self._pause, self._deadline)

    def concerns(self, news: bytes) -> bool:
        """Return whether the news of an address may be of a service that is missing."""
        return any(not name or json.dumps(name).encode() in news for name in self.missing())

    def entries(self) -> Entries:
        """Return what was found, each address once."""
        return merged(self._found.values())


def merged(answers: Iterable[Entries]) -> Entries:
    """Return the entries of several answers, one for each address: the last."""
    return list({entry["URI"]: entry for entries in answers for entry in entries}.values())
