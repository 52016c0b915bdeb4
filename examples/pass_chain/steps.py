"""The steps of a chain: files of granules that land become passes, passes become products, products are told of.

Each step is a component with a YAML file beside this one: `python -m posttroll.components steps:Maker maker.yaml`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from watchdog.events import FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from posttroll.components import Component, on
from posttroll.message import Message


class Watcher(Component, FileSystemEventHandler):
    """Publishes a message for each file that gets its final name in a directory."""

    def start(self) -> None:
        """Begin to watch."""
        directory = Path(self.settings["directory"]).resolve(strict=True)
        self._observer = Observer()
        self._observer.schedule(self, str(directory), event_filter=[FileMovedEvent])
        self._observer.start()

    def stop(self) -> None:
        """End it."""
        self._observer.stop()
        self._observer.join()

    def on_moved(self, event: FileSystemEvent) -> None:
        """Publish; called by watchdog, in its thread."""
        path = Path(str(event.dest_path)).resolve()
        dataset, platform, granule, orbit = path.stem.split("_")
        data = {"uri": str(path), "uid": path.name, "dataset": dataset, "platform": platform, "granule": granule}
        self.publish(Message("/1b/viirs", "file", data | {"orbit_number": int(orbit)}))


class Collector(Component):
    """Tells when all granules of a pass are there; what it keeps in mind for that are the files themselves."""

    def __init__(self) -> None:
        self._complete: set[int] = set()

    @on("file", "/1b/viirs", publish_type="dataset", publish_topic="/pass/viirs")
    def collect(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return a pass once it is complete."""
        orbit = data["orbit_number"]
        granules = sorted(Path(data["uri"]).parent.glob(f"*_{orbit}.h5"))
        if orbit in self._complete or len(granules) < self.settings["granules"]:
            return None
        self._complete.add(orbit)
        dataset = [{"uri": str(granule), "uid": granule.name} for granule in granules]
        return {"platform": data["platform"], "orbit_number": orbit, "dataset": dataset}


class Maker(Component):
    """Makes products of passes. Several of them share the work."""

    @on("dataset", "/pass/viirs", publish_type="file", publish_topic="/product/composite")
    def make(self, data: dict[str, Any]) -> dict[str, Any]:
        """Write a product, under another name until it is complete, and return what it is."""
        product = Path(self.settings["products"], f"composite_{data['orbit_number']}.txt").resolve()
        unfinished = product.with_name(f".{self.name}_{product.name}")
        with unfinished.open("w") as file:
            for granule in data["dataset"]:
                time.sleep(self.settings["seconds"])
                print(f"{granule['uid']}, by {self.name}", file=file)
        unfinished.replace(product)
        return {"uri": str(product), "uid": product.name, "platform": data["platform"], "maker": self.name}


class Notifier(Component):
    """Tells of products."""

    @on("file", "/product")
    def notify(self, data: dict[str, Any]) -> None:
        """Print what there is."""
        print(f"{data['uid']} of {data['platform']} is ready, made by {data['maker']}", flush=True)
