"""What was thrown away, by reason, and when it is time to say so again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["Drops"]


class Drops:
    """Counts by reason. Reasons are few and fixed: details belong into the log line."""

    def __init__(self, report_interval: float = 60.0) -> None:
        self._counts: Counter[str] = Counter()
        self._reported: dict[str, float] = {}
        self._report_interval = report_interval

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each reason occurred; a view."""
        return MappingProxyType(self._counts)

    def add(self, reason: str, now: float) -> bool:
        """Count; return whether this reason has not been reported within the interval, and so should be now."""
        self._counts[reason] += 1
        last = self._reported.get(reason)
        if last is not None and now - last < self._report_interval:
            return False
        self._reported[reason] = now
        return True

    def total(self) -> int:
        """Return how many were dropped for any reason."""
        return self._counts.total()
