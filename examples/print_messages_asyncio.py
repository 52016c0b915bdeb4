"""Print the messages of a service as they come, on an event loop. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal

from posttroll.asyncio.subscriber import Subscribe


async def print_messages(service: str, topic: str, nameserver: str) -> None:
    """Print until the task is cancelled."""
    async with Subscribe(service, topic, addr_listener=True, nameserver=nameserver) as subscriber:
        print("listening", flush=True)
        async for message in subscriber:
            print(message, flush=True)


async def print_until_told_to_end(*arguments: str) -> None:
    """Print until a signal comes."""
    printing = asyncio.create_task(print_messages(*arguments))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, printing.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await printing


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description="Print the messages of a service.")
    parser.add_argument("service", nargs="?", default="", help="name of the service (default: all there are)")
    parser.add_argument("--topic", default="", help="beginning of the subjects to print (default: all)")
    parser.add_argument("--nameserver", default="localhost", help="host of the nameserver (default: %(default)s)")
    options = parser.parse_args()
    asyncio.run(print_until_told_to_end(options.service, options.topic, options.nameserver))


if __name__ == "__main__":
    main()
