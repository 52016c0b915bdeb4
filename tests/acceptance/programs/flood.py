"""Send as much as possible to a messenger until killed: ``flood.py PORT KIND``."""

import itertools
import os
import random
import sys

import zmq

from posttroll.protocol.frames import Flow, Open
from tests.acceptance.strangers import Stranger, request_payload

port, kind = sys.argv[1:]
context = zmq.Context()


def connected(name=""):
    """Return a stranger that is connected."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(f"tcp://127.0.0.1:{port}")
    return Stranger(socket, name)


def calls():
    """Have the messenger called, more often than it can be, by one caller who takes no answer."""
    for _ in itertools.count():
        connected().give("requests", [request_payload("work", "flood", 0.01, timeout=60.0) for _ in range(200)])


def slow_calls():
    """Have all its workers busy."""
    stranger = connected()
    stranger.give("requests", [request_payload("work", "flood", 0.05, timeout=60.0) for _ in range(200)])
    for _ in itertools.count():
        stranger.hear(Open, 60)


def frames():
    """Tell it of links that there are not."""
    stranger = connected()
    stranger.open()
    for number in itertools.count():
        stranger.say(*[Flow(f"receiver{number}", number, "sender", number)] * 20)


def opens():
    """Open a conversation again and again, each time with other queues."""
    stranger = connected()
    for number in itertools.count():
        stranger.open({f"{stranger.name}/{number}/{index}": "requests" for index in range(100)})


def garbage():
    """Send what is no frame."""
    stranger = connected()
    rubbish = random.Random(3).randbytes(10**6)
    for _ in itertools.count():
        stranger.send(rubbish)


os.nice(19)  # as if it were on another host, and took no time from others
print("flooding", flush=True)
{"calls": calls, "slow_calls": slow_calls, "frames": frames, "opens": opens, "garbage": garbage}[kind]()
