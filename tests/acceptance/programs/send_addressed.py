"""Send numbered messages to a name: ``send_addressed.py NAME PEER COUNT RECORD …``.

Each number that was put goes to the file RECORD, and a later run goes on after the last one there. When all are put,
``done`` is printed, and ``settled`` when all are settled; who is there and who has gone is printed too.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from posttroll.message import Message
from posttroll.messenger import Messenger
from tests.acceptance.transfers import last_line

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("peer")
parser.add_argument("count", type=int)
parser.add_argument("record", type=Path)
parser.add_argument("--journal", help="where to keep the messages, which are persistent then")
parser.add_argument("--link-port", type=int, default=0)
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--period", type=float, default=0.0, help="seconds between messages")
parser.add_argument("--burst", type=int, help="how many are put before all of them have to be settled")
parser.add_argument("--silence", type=float, default=10.0)
parser.add_argument(
    "--publish", action="store_true", help="publish each message, too, from when somebody has subscribed"
)
parser.add_argument("--life", default="0", help="what tells this run from the others")
options = parser.parse_args()

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
logging.basicConfig(level=logging.WARNING)

messenger = Messenger(
    options.name,
    link_port=options.link_port,
    nameservers=options.nameservers,
    journal=options.journal,
    silence=options.silence,
)


@messenger.on_connect
def tell_presence(peer):
    """Tell who is there."""
    print(f"connected {peer.name} {peer.key}\n", end="", flush=True)


@messenger.on_disconnect
def tell_absence(peer, reason):
    """Tell who has gone."""
    print(f"disconnected {peer.name} {reason}\n", end="", flush=True)


@messenger.on_drop
def tell_drop(tracker, reason):
    """Tell what was in vain."""
    print(f"dropped {tracker.id} {reason}\n", end="", flush=True)


first = int((last_line(options.record) or ["0"])[0]) + 1
with messenger, options.record.open("a", buffering=1) as record:
    print(f"ready {messenger.address}\n", end="", flush=True)
    if options.publish:
        messenger.publisher.wait_for_subscriber("/numbered", 20)
    for number in range(first, options.count + 1):
        message = Message("/numbered", "info", {"number": number, "life": options.life})
        messenger.put(options.peer, message, id=str(number), persistent=options.journal is not None)
        record.write(f"{number} {options.life}\n")
        if options.publish:
            messenger.publisher.send(message)
        if options.burst and number % options.burst == 0:
            messenger.send()
        if options.period:
            messenger.run(runtime=options.period)
    print("done", flush=True)
    while messenger.outgoing:
        messenger.work(0.1)
    print("settled", flush=True)
    messenger.run()
