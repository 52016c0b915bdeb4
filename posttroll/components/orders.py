"""What a running component waits for."""

from __future__ import annotations

import time
from collections import deque
from typing import Literal

from posttroll.news import News

__all__ = ["Order", "Orders"]

Order = Literal["quit", "restart", "failed", "idle"]


class Orders:
    """Orders in a queue, given by any thread and by signal handlers, and taken by one thread.

    A signal may be told to another thread than the main one, which a plain queue would not be woken by.
    """

    def __init__(self) -> None:
        self._given: deque[Order] = deque()
        self._news = News()

    def give(self, order: Order) -> None:
        """Add an order."""
        self._given.append(order)
        self._news.tell()

    def take(self, timeout: float | None = None) -> Order | None:
        """Return the eldest order; None if there is none within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            since = self._news.count
            if self._given:
                return self._given.popleft()
            if not self._news.wait(since, deadline):
                return None

    def close(self) -> None:
        """Give back what waiting needs."""
        self._news.close()
