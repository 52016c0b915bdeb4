"""Waiting for news, in any number of threads."""

from __future__ import annotations

import select
import time

from posttroll.threads import Bell

__all__ = ["News"]

_LONGEST_POLL = 86_400.0


class _Bell(Bell):
    """A bell to sleep by."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    def wait(self, timeout: float | None) -> None:
        """Wait until it rings, so many seconds or a day at most; it may have been rung before, which does no harm."""
        with self.rung_by_signals():
            rung = self._poll.poll(None if timeout is None else min(timeout, _LONGEST_POLL) * 1000)
        if rung:
            self.silence()


class News:
    """Wakes all who wait when there is news, which any thread or signal handler may tell.

    Who waits notes the `count`, looks, and then waits for other news than it has looked at.
    """

    def __init__(self) -> None:
        self.count = 0
        """Another number whenever there is news."""
        self._bells: list[_Bell] = []
        self._spare: list[_Bell] = []
        self._is_closed = False

    def open(self) -> None:
        """Let bells be kept for the next one who waits."""
        self._is_closed = False

    def tell(self) -> None:
        """Wake all who wait."""
        self.count += 1
        if self._bells:
            for bell in tuple(self._bells):
                bell.ring()

    def wait(self, since: int, deadline: float | None) -> bool:
        """Wait for news since a count, until the deadline, if any; return whether there is some."""
        bell = self._take_bell()
        try:
            self._bells.append(bell)
            while self.count == since:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                bell.wait(left)
            return True
        finally:
            self._bells.remove(bell)
            self._spare.append(bell)
            if self._is_closed:
                self.close()

    def _take_bell(self) -> _Bell:
        try:
            return self._spare.pop()
        except IndexError:
            return _Bell()

    def close(self) -> None:
        """Keep no bells from now on."""
        self._is_closed = True
        while self._spare:
            self._spare.pop().close()
