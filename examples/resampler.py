"""A component that resamples files, in name only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from posttroll.components import Component, command, on, request, run


class Resampler(Component):
    """Puts each granule of VIIRS on an area."""

    def start(self) -> None:
        """Begin with the area of the configuration."""
        self._area: str = self.settings["area"]

    @on("file", "/1b/viirs", publish_topic="/2a/viirs")
    def resample(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return what there is now; it is published."""
        return {"uid": f"{self._area}_{data['uid']}", "area": self._area}

    @command("change_area")
    def change_area(self, area: str) -> None:
        """Resample to another area from now on."""
        self._area = area

    @request("area")
    def area(self) -> str:
        """Return which area that is."""
        return self._area


if __name__ == "__main__":
    sys.exit(run(Resampler, Path(__file__).with_suffix(".yaml")))
