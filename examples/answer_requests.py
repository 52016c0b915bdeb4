"""Answer requests: each text comes back in upper case. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.messenger import Messenger


def answer_requests(name: str) -> None:
    """Answer until the process is told to end."""
    with Messenger(name) as messenger:

        @messenger.on_message
        def answer(request: Message) -> None:
            messenger.reply(request, Message(request.subject, "answer", request.data.upper()))

        print(f"{name} answers", flush=True)
        messenger.run()


def main() -> None:
    """Read the command line and answer."""
    parser = argparse.ArgumentParser(description="Answer each text with the same in upper case.")
    parser.add_argument("--name", default="shouter", help="name of this program (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        answer_requests(options.name)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
