"""Write the numbers that are sent to this program into a file, one a line. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.messenger import Messenger


def receive_numbers(path: Path, name: str) -> None:
    """Write until the process is told to end; a number is accepted when it is in the file."""
    with path.open("a", buffering=1) as file, Messenger(name) as messenger:

        @messenger.on_message
        def write(message: Message) -> None:
            print(message.data["sequence"], file=file)

        print("writing", flush=True)
        messenger.run()


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description="Write the numbers that are sent to this program into a file.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", default="listmaker", help="name of this program (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        receive_numbers(options.path, options.name)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
