"""Publish a counter under a tag, until standard input ends: ``publish.py TAG [--port …] [--nameservers …]``."""

import argparse
import itertools
import select
import sys

from posttroll.message import Message
from posttroll.publisher import Publish

parser = argparse.ArgumentParser()
parser.add_argument("tag")
parser.add_argument("--name", default="counter")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--period", type=float, default=0.02)
parser.add_argument("--wait", action="store_true", help="send nothing before somebody has subscribed")
options = parser.parse_args()

with Publish(options.name, options.port, nameservers=options.nameservers) as publisher:
    print("ready", publisher.port_number, flush=True)
    if options.wait:
        print("awaited", publisher.wait_for_subscriber("/counter", 10), flush=True)
    for number in itertools.count(1):
        publisher.send(Message("/counter", "info", {"tag": options.tag, "number": number}))
        if select.select([sys.stdin], [], [], options.period)[0]:
            break
print("sent", number, flush=True)
