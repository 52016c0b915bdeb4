"""Send numbered messages to a program by its name; end when it has accepted all of them."""

from __future__ import annotations

import argparse
import sys

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.messenger import Messenger


def send_numbers(count: int, name: str, bandwidth: float | None, timeout: float) -> None:
    """Send them all, however often the other program goes away meanwhile; `TimedOut`."""
    with Messenger("counter", outgoing_window=count, bandwidth=bandwidth) as messenger:
        connections = 0

        @messenger.on_connect
        def count_connection(_: object) -> None:
            nonlocal connections
            connections += 1

        for number in range(count):
            messenger.put(name, Message("/numbers", "info", {"sequence": number}))
        while messenger.outgoing > count / 2:
            messenger.work(timeout=0.1)
        print("half of them are accepted", flush=True)
        messenger.send(timeout=timeout)
        messenger.work(0)
        print(f"all {count} are accepted, on {connections} connections")


def main() -> None:
    """Read the command line and send."""
    parser = argparse.ArgumentParser(description="Send numbered messages until all are accepted.")
    parser.add_argument("count", type=int)
    parser.add_argument("--name", default="listmaker", help="name of the receiving program (default: %(default)s)")
    parser.add_argument("--bandwidth", type=float, help="bytes a second to send at most (default: no limit)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds it may take at most (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        send_numbers(options.count, options.name, options.bandwidth, options.timeout)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
