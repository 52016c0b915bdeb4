"""Print the messages of a service as they come, one a line. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys

from posttroll.subscriber import Subscribe


def print_messages(service: str, topic: str, nameserver: str) -> None:
    """Print until the process is told to end."""
    with Subscribe(service, topic, addr_listener=True, nameserver=nameserver) as subscriber:
        print("listening", flush=True)
        for message in subscriber.recv():
            print(message, flush=True)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description="Print the messages of a service.")
    parser.add_argument("service", nargs="?", default="", help="name of the service (default: all there are)")
    parser.add_argument("--topic", default="", help="beginning of the subjects to print (default: all)")
    parser.add_argument("--nameserver", default="localhost", help="host of the nameserver (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    print_messages(options.service, options.topic, options.nameserver)


if __name__ == "__main__":
    main()
