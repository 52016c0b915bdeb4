"""A component that downloads files, in name only, many at a time on an event loop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from posttroll.asyncio.components import Component, on, request, run


class Downloader(Component):
    """Gets each file that is somewhere else."""

    async def start(self) -> None:
        """Begin with nothing."""
        self._under_way = self._most = 0

    @on("file", "/remote", publish_topic="/local")
    async def download(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return what there is now; it is published."""
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        await asyncio.sleep(0.5)  # as it takes time
        self._under_way -= 1
        return {"uid": Path(data["uri"]).name}

    @request("most_at_a_time")
    async def most_at_a_time(self) -> int:
        """Return how many downloads were under way at a time."""
        return self._most


if __name__ == "__main__":
    sys.exit(run(Downloader, Path(__file__).with_suffix(".yaml")))
