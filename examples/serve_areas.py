"""Offer calls to other programs: what areas there are, and to resample to one. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator

from posttroll.errors import PosttrollError
from posttroll.messenger import Messenger
from posttroll.rpc import RpcServer, public


class Areas:
    """The areas that products are made for."""

    def __init__(self) -> None:
        self._sizes = {"euro4": (1024, 1024), "baltic": (640, 960)}

    @public
    def size(self, area: str) -> tuple[int, int]:
        """Return the width and height of an area."""
        return self._sizes[area]

    @public
    def add(self, area: str, width: int, height: int) -> None:
        """Make an area known."""
        self._sizes[area] = (width, height)

    @public
    def resample(self, area: str) -> Iterator[str]:
        """Resample to an area; yield what is done."""
        width, height = self._sizes[area]
        for quarter in range(1, 5):
            yield f"{width * height * quarter // 4} pixels"


def serve_areas(name: str) -> None:
    """Serve until the process is told to end."""
    with Messenger(name) as messenger, RpcServer(messenger) as server:
        server.register(Areas(), "areas")
        print(f"{name} serves", flush=True)
        messenger.run()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Offer calls about areas.")
    parser.add_argument("--name", default="resampler", help="name of this program (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        serve_areas(options.name)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
