"""Note each numbered message when it is handled: ``consume.py SERVICE RECORD [--durable NAME] …``.

A line of the file RECORD is ``<sequence> <number> <redelivered> <count> <publisher's life> <own life>``; the sequence
of a plain message is 0. Released versions run this too, as plain subscribers.
"""

import argparse
import json
import logging
import signal
import sys
import threading

from posttroll.subscriber import Subscribe

parser = argparse.ArgumentParser()
parser.add_argument("service")
parser.add_argument("record")
parser.add_argument("--durable", help="the name of the consumer; without it, messages are received plainly")
parser.add_argument("--start-at", default="first")
parser.add_argument("--acknowledge", default="auto")
parser.add_argument("--nameserver", default="localhost")
parser.add_argument("--timeout", type=float, default=2.0, help="seconds to look for the service at first")
parser.add_argument("--addresses", help="a list in JSON")
parser.add_argument("--life", default="0", help="what tells this run from the others")
parser.add_argument("--handle", type=float, default=0.0, help="seconds that a message takes")
parser.add_argument("--hold", type=int, help="the number of the message that is handled when standard input says so")
options = parser.parse_args()

signal.signal(signal.SIGTERM, signal.default_int_handler)
logging.basicConfig(level=logging.WARNING)


def handle(message):
    """Take the time that it takes, and note it."""
    if message.data["number"] == options.hold:
        print("holding", getattr(getattr(message, "delivery", None), "sequence", 0), flush=True)
        sys.stdin.readline()
    elif options.handle:
        threading.Event().wait(options.handle)
    delivery = getattr(message, "delivery", None)
    of_delivery = (delivery.sequence, int(delivery.redelivered), delivery.count) if delivery else (0, 0, 0)
    sequence, redelivered, count = of_delivery
    record.write(f"{sequence} {message.data['number']} {redelivered} {count} {message.data['life']} {options.life}\n")


def tell_key(message):
    """Print whose key a durable message came with, when it is a new one."""
    key = getattr(getattr(message, "delivery", None), "key", "")
    if key not in seen_keys:
        seen_keys.add(key)
        print("key", key, flush=True)


def settle(message):
    """Accept it where that is asked for, and tell whether it was this subscriber's to accept."""
    is_settled = subscriber.accept(message) if options.acknowledge == "manual" else None
    if message.data["number"] == options.hold:
        print("settled", is_settled, flush=True)


durable = {"durable": options.durable, "start_at": options.start_at, "acknowledge": options.acknowledge}
try:
    with (
        open(options.record, "a", buffering=1) as record,
        Subscribe(
            options.service,
            "/numbered",
            addr_listener=True,
            addresses=json.loads(options.addresses) if options.addresses else None,
            timeout=options.timeout,
            nameserver=False if options.nameserver == "none" else options.nameserver,
            **(durable if options.durable else {}),
        ) as subscriber,
    ):
        print("ready", flush=True)
        seen_keys = set()
        for message in subscriber.recv(1):
            if message is not None:
                tell_key(message)
                handle(message)
                settle(message)
except (KeyboardInterrupt, BrokenPipeError):
    sys.exit(0)
