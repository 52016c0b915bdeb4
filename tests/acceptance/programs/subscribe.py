"""Print ``<tag> <number>`` for each message of a counter, until it is ended: ``subscribe.py [--container] …``."""

import argparse
import queue
import signal
import sys
import threading
from collections.abc import Iterator

from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.subscriber import Subscribe

parser = argparse.ArgumentParser()
parser.add_argument("--container", action="store_true")
parser.add_argument("--service", default="counter")
parser.add_argument("--nameserver", nargs="+", default=["localhost"])
parser.add_argument("--addresses", nargs="*")
parser.add_argument("--timeout", type=float, default=2.0)
parser.add_argument("--handle", type=float, default=0.0, help="seconds that the handler of a message of tag slow takes")
options = parser.parse_args()

signal.signal(signal.SIGTERM, signal.default_int_handler)


def contained() -> Iterator[Message | None]:
    container = ListenerContainer(
        topics=["/counter"], services=options.service, nameserver=options.nameserver, addresses=options.addresses
    )
    print("ready", flush=True)
    try:
        while True:
            try:
                yield container.output_queue.get(True, 1)
            except queue.Empty:
                yield None
    finally:
        container.stop()


def subscribed() -> Iterator[Message | None]:
    nameserver = False if options.nameserver == ["none"] else options.nameserver
    with Subscribe(
        options.service,
        "/counter",
        addr_listener=True,
        addresses=options.addresses,
        timeout=options.timeout,
        nameserver=nameserver,
    ) as subscriber:
        print("ready", flush=True)
        yield from subscriber.recv(1)


try:
    for message in contained() if options.container else subscribed():
        if message is not None:
            print(message.data["tag"], message.data["number"], flush=True)
            if message.data["tag"] == "slow":
                threading.Event().wait(options.handle)
except (KeyboardInterrupt, BrokenPipeError):
    sys.exit(0)
