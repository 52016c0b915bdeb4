"""Publish numbered messages durably: ``publish_durably.py NAME COUNT RECORD [--journal PATH] …``.

Each number whose sending returned goes to the file RECORD, and a later run goes on after the last one there. When all
are sent, ``done`` is printed; the end of standard input is the end of the program.
"""

import argparse
import itertools
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from posttroll.errors import JournalFull
from posttroll.message import Message
from posttroll.publisher import Publish
from tests.acceptance.transfers import last_line, real_messages

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("count", type=int)
parser.add_argument("record", type=Path)
parser.add_argument("--journal")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--link-port", type=int, default=0)
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--period", type=float, default=0.0, help="seconds between messages")
parser.add_argument("--burst", type=int, default=1, help="how many are sent at a time")
parser.add_argument("--life", default="0", help="what tells this run from the others")
parser.add_argument("--await-subscriber", action="store_true", help="send nothing before somebody has subscribed")
options = parser.parse_args()


def paced(numbers: range) -> Iterator[int]:
    """Give the numbers in bursts, one `period` a number on the whole, until standard input ends."""
    start = time.monotonic()
    for index, number in enumerate(numbers):
        if index % options.burst == 0:
            due = start + index * options.period
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                return
        yield number


def send_when_there_is_room(message: Message) -> None:
    """Try until the journal has room; print ``full`` and its reason, and ``room`` once it has again."""
    for attempt in itertools.count():
        try:
            publisher.send(message)
        except JournalFull as error:
            if attempt == 0:
                print("full", error, flush=True)
            threading.Event().wait(0.05)
        else:
            if attempt:
                print("room", flush=True)
            return


texts = real_messages()
first = int((last_line(options.record) or ["0"])[0]) + 1
with (
    Publish(
        options.name,
        options.port,
        nameservers=options.nameservers,
        journal=options.journal,
        link_port=options.link_port,
    ) as publisher,
    options.record.open("a", buffering=1) as record,
):
    print("ready", publisher.port_number, publisher.link_address, flush=True)
    if options.await_subscriber:
        publisher.wait_for_subscriber("/numbered", 10)
    for number in paced(range(first, options.count + 1)):
        original = texts[number % len(texts)]
        data = {**original.data, "number": number, "life": options.life}
        send_when_there_is_room(Message(f"/numbered/{original.subject.lstrip('/')}", original.type, data))
        record.write(f"{number} {options.life}\n")
    print("done", flush=True)
    sys.stdin.read()
