"""What is stopped at the end of a block."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Stoppable"]


class Stoppable(ABC):
    """Is stopped at the end of an ``async with`` block."""

    @abstractmethod
    async def stop(self) -> None:
        """End; harmless when stopped."""

    async def close(self) -> None:
        """Do the same as `stop`."""
        await self.stop()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()
