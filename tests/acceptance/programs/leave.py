"""Open one thing or all, use it, and end in some way: ``leave.py THING HOW``.

What is published goes to ``/leave``; the last message before the end is number 99.
"""

import logging
import sys
import threading
import time

from posttroll.listener import ListenerContainer
from posttroll.logger import Logger, PytrollHandler
from posttroll.message import Message
from posttroll.ns import NameServer
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.subscriber import NSSubscriber, Subscriber

thing, how = sys.argv[1:]


def publish(publisher: Publisher | NoisyPublisher) -> Publisher | NoisyPublisher:
    """Send a hundred messages as soon as somebody listens."""
    print("ready", publisher.port_number, flush=True)
    assert publisher.wait_for_subscriber("/leave", 10)
    for number in range(100):
        publisher.send(Message("/leave", "info", {"number": number, "ballast": "x" * 10_000}))
    return publisher


def log() -> PytrollHandler:
    """Log through a handler."""
    handler = PytrollHandler("leaving")
    logging.getLogger().addHandler(handler)
    logging.warning("leaving")
    return handler


def serve() -> NameServer:
    """Run a nameserver in a thread that dies with the program."""
    ready = threading.Event()
    nameserver = NameServer()
    threading.Thread(target=nameserver.run, kwargs={"on_ready": ready.set}, daemon=True).start()
    assert ready.wait(10)
    return nameserver


def receive() -> Subscriber:
    """Wait in a thread that dies with the program."""
    subscriber = Subscriber("tcp://127.0.0.1:1")
    threading.Thread(target=lambda: list(subscriber.recv()), daemon=True).start()
    return subscriber


THINGS = {
    "publisher": lambda: publish(Publisher("tcp://127.0.0.1:0").start()),
    "noisy": lambda: publish(NoisyPublisher("leaving").start()),
    "designated": lambda: publish(NoisyPublisher("leaving", nameservers=["127.0.0.1:1"]).start()),
    "nameserver": serve,
    "subscriber": receive,
    "finder": lambda: NSSubscriber("leaving", addr_listener=True, timeout=0.1).start(),
    "container": lambda: ListenerContainer(topics=["/a"], addresses=["tcp://127.0.0.1:1"], nameserver=False),
    "handler": log,
    "logger": lambda: Logger().start(),
}

if thing == "all":
    opened = [THINGS[name]() for name in reversed(THINGS) if name not in ("publisher", "noisy")]
else:
    opened = [THINGS[thing]()]
print("leaving", time.monotonic(), flush=True)
if how == "stop":
    opened[0].stop()
elif how == "exit":
    sys.exit(3)
elif how == "raise":
    raise RuntimeError("on purpose")
elif how == "drop":
    del opened
