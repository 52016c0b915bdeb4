"""The loop that something belongs to."""

from __future__ import annotations

import asyncio

from posttroll.errors import LocalProtocolError

__all__ = ["Home"]


class Home:
    """The loop that something is used in first, and in no other one; errors call it by the name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop; None before the first use."""
        return self._loop

    def check(self) -> asyncio.AbstractEventLoop:
        """Return the running loop; `LocalProtocolError` if it is another one."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise LocalProtocolError(f"{self._name} is used in another event loop already; make one in each loop")
        return loop
