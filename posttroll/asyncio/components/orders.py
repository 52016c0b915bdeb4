"""What a running component waits for."""

from __future__ import annotations

from collections import deque

from posttroll.asyncio.news import News
from posttroll.components.orders import Order

__all__ = ["Orders"]


class Orders:
    """Orders in a queue, given from anywhere, also before there is a loop, and taken by one task."""

    def __init__(self) -> None:
        self._given: deque[Order] = deque()
        self._news = News("a runner")

    def give(self, order: Order) -> None:
        """Add an order; from any thread and from signal handlers."""
        self._given.append(order)
        self._news.tell_from_outside()

    async def take(self) -> Order:
        """Wait for an order, and return the eldest."""
        while True:
            since = self._news.count
            if self._given:
                return self._given.popleft()
            await self._news.wait(since)
