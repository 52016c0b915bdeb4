"""Not keeping a loop for oneself."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Turn"]

_LONGEST = 0.005


class Turn:
    """What some tasks do that always have something to do: 5 ms at a time in all, then others have their turns."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._count = 0

    def begin(self) -> None:
        """Note that others have just had their turns."""
        self._ends = time.monotonic() + _LONGEST

    @property
    def is_over(self) -> bool:
        """Whether this turn has taken long."""
        return time.monotonic() >= self._ends

    async def give_way(self) -> None:
        """Let others have their turns if this one has taken long."""
        while self.is_over:
            count = self._count
            await asyncio.sleep(0)
            if count == self._count:  # else another task has begun the turn, and may have used it up
                self._count += 1
                self.begin()
