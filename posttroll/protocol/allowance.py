"""How many bytes may be sent now, so that a rate is kept."""

from __future__ import annotations

import math

from posttroll.errors import ConfigurationError

__all__ = ["Allowance"]

_BURST = 0.1


class Allowance:
    """Lets `rate` bytes/s through, and what a tenth of a second allows at once after a pause.

    Who has anything left may send: a message larger than that makes a debt, which takes its time to be paid.
    `ConfigurationError` if the rate is not a positive number.
    """

    def __init__(self, rate: float, now: float) -> None:
        if not 0 < rate < math.inf:
            raise ConfigurationError(f"a rate has to be a positive number of bytes/s, not {rate!r}")
        self._rate = rate
        self._most = rate * _BURST
        self._level = self._most
        self._refreshed_at = now

    @property
    def level(self) -> float:
        """How many bytes may be sent, as of the last `refresh`; negative is a debt."""
        return self._level

    def refresh(self, now: float) -> float:
        """Add what the time has brought; return the level."""
        earned = self._rate * max(0.0, now - self._refreshed_at)
        self._refreshed_at = max(self._refreshed_at, now)
        self._level = min(self._most, self._level + earned)
        return self._level

    def spend(self, size: float) -> None:
        """Take off what is sent, in bytes, whether or not there is as much."""
        self._level -= size

    def next_timeout(self) -> float | None:
        """Return the moment from which something may be sent again; None if it may be now."""
        if self._level > 0:
            return None
        # A byte more than nothing: rounding must not have the caller come too early, again and again.
        return self._refreshed_at + (1 - self._level) / self._rate
