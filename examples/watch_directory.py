"""Publish a message for each file that lands in a directory.

A file must be complete when it gets its name: write it elsewhere on the same file system, or under a name that begins
with a dot, and rename it. Ends at SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import queue
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from watchdog.events import FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.publisher import Publish

HEARTBEAT_INTERVAL = 30.0
VIIRS_FILE = re.compile(
    r"(?P<dataset>SV[A-Z]\w{2}|G[A-Z]{4})_npp_d(?P<day>\d{8})_t(?P<start>\d{6})\d_e(?P<end>\d{6})\d_b(?P<orbit>\d+)_.*\.h5"
)


class Arrivals(FileSystemEventHandler):
    """Puts each file that appears under its final name into a queue."""

    def __init__(self) -> None:
        self.files: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take note of a file; called by watchdog, in its thread."""
        path = Path(str(event.dest_path or event.src_path))
        if not event.is_directory and not path.name.startswith("."):
            self.files.put(path)


@contextmanager
def watching(directory: Path) -> Iterator[queue.SimpleQueue[Path]]:
    """Give the queue that each file which lands in the directory is put into."""
    arrivals = Arrivals()
    observer = Observer()
    observer.schedule(arrivals, str(directory), event_filter=[FileCreatedEvent, FileMovedEvent])
    observer.start()
    try:
        yield arrivals.files
    finally:
        observer.stop()
        observer.join()


def describe(path: Path) -> dict[str, Any]:
    """Return what a message says about a file, and more if its name tells it."""
    data: dict[str, Any] = {"uri": str(path), "uid": path.name}
    if name := VIIRS_FILE.fullmatch(path.name):
        start, end = (datetime.strptime(name["day"] + name[moment], "%Y%m%d%H%M%S") for moment in ("start", "end"))
        data |= {
            "platform_name": "Suomi-NPP",
            "sensor": "viirs",
            "format": "SDR",
            "dataset": name["dataset"],
            "orbit_number": int(name["orbit"]),
            "start_time": start,
            "end_time": end if end > start else end + timedelta(days=1),
        }
    return data


def publish_arrivals(directory: Path, name: str, subject: str) -> None:
    """Publish until the process is told to end."""
    with watching(directory) as arrivals, Publish(name) as publisher:
        print(f"watching {directory}", flush=True)
        if publisher.journal is None and publisher.wait_for_subscriber(subject, timeout=10):
            print("somebody is listening", flush=True)
        while True:
            publisher.heartbeat(HEARTBEAT_INTERVAL)
            try:
                path = arrivals.get(timeout=HEARTBEAT_INTERVAL)
            except queue.Empty:
                continue
            publisher.send(Message(subject, "file", describe(path)))
            print(f"published {path.name}", flush=True)


def main() -> None:
    """Read the command line and publish."""
    parser = argparse.ArgumentParser(description="Publish a message for each file that lands in a directory.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", default="viirs_files", help="name of the service (default: %(default)s)")
    parser.add_argument("--subject", default="/1b/viirs", help="subject of the messages (default: %(default)s)")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is no directory")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        publish_arrivals(options.directory.resolve(), options.name, options.subject)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
