"""Note each numbered message that comes to a name: ``receive_addressed.py NAME RECORD …``.

A line of the file RECORD is ``<sequence> <number> <redelivered> <count> <sender's life> <own life>``. Who is there and
who has gone is printed.
"""

import argparse
import logging
import signal
import sys

from posttroll.message import Message
from posttroll.messenger import Messenger

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("record")
parser.add_argument("--link-port", type=int, default=0)
parser.add_argument("--behind-nat", action="store_true", help="only connect, as nobody can connect to this program")
parser.add_argument("--connect", help="whom to be connected to")
parser.add_argument("--greet", help="whom to send the message 0 at first")
parser.add_argument("--nameservers", nargs="*")
parser.add_argument("--silence", type=float, default=10.0)
parser.add_argument("--hold", type=int, help="the number of the message that is handled when standard input says so")
parser.add_argument("--life", default="0", help="what tells this run from the others")
options = parser.parse_args()

signal.signal(signal.SIGTERM, signal.default_int_handler)
logging.basicConfig(level=logging.WARNING)

messenger = Messenger(
    options.name,
    link_port=options.link_port,
    listen=not options.behind_nat,
    nameservers=options.nameservers,
    silence=options.silence,
)


@messenger.on_message
def handle(message):
    """Note a message."""
    number, delivery = message.data["number"], message.delivery
    if number == options.hold:
        print(f"holding {number}\n", end="", flush=True)
        sys.stdin.readline()
    of_delivery = f"{delivery.sequence} {number} {int(delivery.redelivered)} {delivery.count}"
    record.write(f"{of_delivery} {message.data['life']} {options.life}\n")
    who = f"from {message.properties.source} {delivery.key}"
    if who not in told:
        told.add(who)
        print(f"{who}\n", end="", flush=True)


@messenger.on_connect
def tell_presence(peer):
    """Tell who is there."""
    print(f"connected {peer.name} {peer.key}\n", end="", flush=True)


@messenger.on_disconnect
def tell_absence(peer, reason):
    """Tell who has gone."""
    print(f"disconnected {peer.name} {reason}\n", end="", flush=True)


told = set()
with open(options.record, "a", buffering=1) as record, messenger:
    if options.connect:
        messenger.connect(options.connect)
    if options.greet:
        messenger.put(options.greet, Message("/numbered", "info", {"number": 0, "life": options.life}))
    print(f"ready {messenger.address}\n", end="", flush=True)
    messenger.run()
