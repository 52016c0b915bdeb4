"""Copy the files that a service tells of into a directory, also those that land while this program is away.

The publisher has to have a journal. It sets the messages aside whose files are gone. Ends at SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path

from posttroll.errors import PosttrollError
from posttroll.subscriber import Subscribe


def archive_files(service: str, directory: Path, nameserver: str) -> None:
    """Copy until the process is told to end."""
    with Subscribe(service, durable="archive", start_at="first", nameserver=nameserver) as subscriber:
        print(f"archiving in {directory}", flush=True)
        for message in subscriber.recv():
            if not Path(message.data["uri"]).exists():
                subscriber.reject(message, "the file is gone")
                print(f"no longer there: {message.data['uid']}", flush=True)
                continue
            shutil.copy2(message.data["uri"], directory)
            print(f"archived {message.data['uid']}", flush=True)


def main() -> None:
    """Read the command line and copy."""
    parser = argparse.ArgumentParser(description="Copy the files that a service tells of.")
    parser.add_argument("service", help="name of the service")
    parser.add_argument("directory", type=Path, help="where to copy them to")
    parser.add_argument("--nameserver", default="localhost", help="host of the nameserver (default: %(default)s)")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is no directory")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        archive_files(options.service, options.directory, options.nameserver)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
