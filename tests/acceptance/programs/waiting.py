"""A component whose handlers are coroutines, with a line for what it does; for ``python -m posttroll.components``."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from posttroll.asyncio.components import Component, on, request


class Worker(Component):
    """Does jobs; those of type ``long`` take as many seconds as the settings say."""

    async def start(self) -> None:
        say("ready")

    async def stop(self) -> None:
        say("stopped")

    @on("file", "/1b")
    async def work(self, data: Any) -> dict[str, Any]:
        publisher = self.messenger.publisher
        assert publisher is not None
        assert await publisher.wait_for_subscriber("/2a", 10)
        return {"number": data["number"], "by": self.name}

    @on("dataset", "/1b")
    async def split(self, data: Any) -> AsyncIterator[int]:
        for number in data["numbers"]:
            yield number

    @on("plain", "/1b")
    def work_beside(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    @on("long", "/1b")
    async def work_long(self, data: Any) -> None:
        say("began", data["number"])
        await asyncio.sleep(self.settings["seconds"])
        say("done", data["number"])

    @request("double")
    async def double(self, number: int) -> int:
        return number * 2


def say(*words: object) -> None:
    print(f"{' '.join(map(str, words))}\n", end="", flush=True)
