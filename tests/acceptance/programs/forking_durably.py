"""Fork with a durable publisher and subscriber open, and print what either process can do with them."""

import os
import sys
import time
from collections.abc import Callable

from posttroll.message import Message
from posttroll.publisher import Publisher
from posttroll.subscriber import Subscriber


def tell(who: str, what: str, outcome: object) -> None:
    """Print a line."""
    print(who, what, outcome, flush=True)


def outcome_of(call: Callable[[], object]) -> str:
    """Return the name of the error that the call raises, or what it returned."""
    try:
        return str(call())
    except Exception as error:
        return type(error).__name__


def send(number: int) -> None:
    """Send a numbered message."""
    publisher.send(Message("/fork", "info", {"number": number}))


publisher = Publisher("tcp://127.0.0.1:0", "forked", journal=sys.argv[1]).start()
address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}", "link": publisher.link_address}
subscriber = Subscriber([address], "/fork", durable="forked", start_at="first")
received = subscriber.recv(1)
messages = filter(None, received)
for number in range(1, 51):
    send(number)
tell("parent", "first", next(messages).data["number"])

child = os.fork()
if child == 0:
    journal = publisher.journal
    for name, call in {
        "send": lambda: send(1000),
        "receive": lambda: next(subscriber.recv(1)),
        "journal": lambda: journal.consumers(),
        "stop_subscriber": subscriber.stop,
        "stop_publisher": publisher.stop,
    }.items():
        tell("child", name, outcome_of(call))
    sys.exit(7)

_, status = os.waitpid(child, 0)
tell("parent", "child_status", os.waitstatus_to_exitcode(status))
for number in range(51, 101):
    send(number)
tell("parent", "numbers", ",".join(str(next(messages).data["number"]) for _ in range(99)))
assert next(received) is None
deadline = time.monotonic() + 10
while any(consumer.pending for consumer in publisher.journal.consumers()) and time.monotonic() < deadline:
    time.sleep(0.01)
tell("parent", "pending", [consumer.pending for consumer in publisher.journal.consumers()])
subscriber.stop()
publisher.stop()
