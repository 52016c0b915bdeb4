"""Send requests to a program by its name, and print its answers.

Nobody connects to this program, and it has no name of its own: the answers come on the connection that it makes, to
the name that it gets when it is started.
"""

from __future__ import annotations

import argparse
import sys

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.messenger import Messenger


def ask(name: str, questions: list[str], timeout: float) -> None:
    """Send the questions one by one, each when the one before is answered; `TimedOut`."""
    with Messenger(listen=False) as messenger:
        for question in questions:
            request = messenger.put(name, Message("/request", "question", question), ttl=timeout)
            messenger.recv(1, timeout=timeout)
            answer = messenger.get()
            assert answer.properties.correlation_id == request.id
            print(f"{question} -> {answer.data}", flush=True)


def main() -> None:
    """Read the command line and ask."""
    parser = argparse.ArgumentParser(description="Send requests, and print what is answered.")
    parser.add_argument("question", nargs="+")
    parser.add_argument("--name", default="shouter", help="name of the program to ask (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="seconds to wait for an answer (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        ask(options.name, options.question, options.timeout)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
