"""Publish numbered messages with what every version has, until standard input ends: ``publish_plainly.py NAME``."""

import itertools
import select
import sys

import posttroll.publisher
from posttroll.message import Message

# Released versions ask the routing table for the address to announce, which must not be any but loopback here.
posttroll.publisher.get_own_ip = lambda: "127.0.0.1"

with posttroll.publisher.Publish(sys.argv[1]) as publisher:
    for number in itertools.count(1):
        publisher.send(str(Message("/numbered", "info", {"number": number, "life": "0"})))
        if select.select([sys.stdin], [], [], 0.02)[0]:
            break
