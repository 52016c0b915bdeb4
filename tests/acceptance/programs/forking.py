"""Fork with everything open, and print what parent and child can do with it, one ``<who> <what> <outcome>`` a line."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

from posttroll.listener import ListenerContainer
from posttroll.lookup import NameserverClient, get_pub_address
from posttroll.message import Message
from posttroll.ns import NameServer
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.subscriber import NSSubscriber, Subscriber


def tell(who: str, what: str, outcome: object) -> None:
    """Print a line."""
    print(who, what, outcome, flush=True)


def outcome_of(call: Callable[[], object]) -> str:
    """Return the name of the error that the call raises, or what it returned."""
    try:
        return str(call())
    except Exception as error:
        return type(error).__name__


def exchange(publisher: Publisher | NoisyPublisher, subscriber: Subscriber) -> bool:
    """Return whether a message gets from one to the other."""
    assert publisher.wait_for_subscriber("/fork", 5)
    publisher.send(Message("/fork", "info", "hello"))
    return next(subscriber.recv(5)) is not None


ready = threading.Event()
nameserver = NameServer()
server = threading.Thread(target=nameserver.run, kwargs={"on_ready": ready.set})
server.start()
assert ready.wait(5)

noisy = NoisyPublisher("forked").start()
silent = Publisher("tcp://127.0.0.1:0").start()
subscriber = Subscriber(f"tcp://127.0.0.1:{silent.port_number}", "/fork")
finder = NSSubscriber("forked", "/fork", addr_listener=True, timeout=5)
found = finder.start()
container = ListenerContainer(topics=["/fork"], services="forked")
client = NameserverClient()
assert exchange(silent, subscriber)
assert exchange(noisy, found)
container.output_queue.get(True, 5)

child = os.fork()
if child == 0:
    start = time.monotonic()
    for name, call in {
        "send": lambda: silent.send("text"),
        "noisy_send": lambda: noisy.send("text"),
        "wait": lambda: silent.wait_for_subscriber("", 1),
        "receive": lambda: next(subscriber.recv(1)),
        "receive_found": lambda: next(found.recv(1)),
        "connect": lambda: subscriber.add("tcp://127.0.0.1:1"),
        "ask": lambda: client.ask("forked", 1),
    }.items():
        tell("child", name, outcome_of(call))
    for name, stop in {
        "stop_publisher": silent.stop,
        "stop_noisy": noisy.stop,
        "stop_subscriber": subscriber.stop,
        "stop_finder": finder.stop,
        "stop_container": container.stop,
        "stop_nameserver": nameserver.stop,
        "stop_client": client.close,
    }.items():
        tell("child", name, outcome_of(stop))
    with closing(Publisher("tcp://127.0.0.1:0")) as own, closing(NSSubscriber("forked", "/fork")) as own_finder:
        own.start()
        with closing(Subscriber(f"tcp://127.0.0.1:{own.port_number}", "/fork")) as own_subscriber:
            tell("child", "own", exchange(own, own_subscriber))
        tell("child", "own_finder", len(own_finder.start().addresses))
    tell("child", "duration", time.monotonic() - start)
    sys.exit(7)

_, status = os.waitpid(child, 0)
tell("parent", "child_status", os.waitstatus_to_exitcode(status))
tell("parent", "silent", exchange(silent, subscriber))
tell("parent", "noisy", exchange(noisy, found))
tell("parent", "container", container.output_queue.get(True, 5) is not None)
tell("parent", "known", len(get_pub_address("forked", 5)))
tell("parent", "asks", len(client.ask("forked", 5)))
for thing in (container, finder, subscriber, noisy, silent, nameserver):
    thing.stop()
client.close()
server.join()
