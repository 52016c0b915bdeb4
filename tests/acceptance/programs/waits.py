"""Print how long each wait took that should take half a second: ``waits.py SILENT_PORT NAMESERVER_PORT``."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from posttroll.message_broadcaster import DesignatedReceiversSender
from posttroll.ns import get_pub_address, get_pub_addresses
from posttroll.publisher import Publisher
from posttroll.subscriber import Subscriber

HALF_A_SECOND = 0.5
silent, nameserver = (f"tcp://127.0.0.1:{port}" for port in sys.argv[1:])


def heartbeats() -> None:
    """Beat as often as possible until the second beat."""
    with closing(Publisher("tcp://127.0.0.1:0", "beater")) as publisher:
        publisher.start()
        with closing(Subscriber(f"tcp://127.0.0.1:{publisher.port_number}", "/heartbeat")) as subscriber:
            assert publisher.wait_for_subscriber("/heartbeat", 5)
            publisher.heartbeat(HALF_A_SECOND)
            received = 0
            for message in subscriber.recv(0.01):
                received += message is not None
                if received == 2:
                    return
                publisher.heartbeat(HALF_A_SECOND)


def receive() -> None:
    """Wait for a message that does not come."""
    with closing(Subscriber("tcp://127.0.0.1:1")) as subscriber:
        assert next(subscriber.recv(HALF_A_SECOND)) is None


def wait_for_subscriber() -> None:
    """Wait for a subscriber that does not come."""
    with closing(Publisher("tcp://127.0.0.1:0")) as publisher:
        publisher.start()
        assert not publisher.wait_for_subscriber("", HALF_A_SECOND)


def look_up_at_silent_nameserver() -> None:
    """Ask who does not answer."""
    with suppress(TimeoutError):
        get_pub_address("nobody", HALF_A_SECOND, silent)
        raise AssertionError("it answered")


def look_up_unknown_service() -> None:
    """Ask for who is not there."""
    assert get_pub_addresses("nobody", HALF_A_SECOND, nameserver) == []


def register_at_silent_nameserver() -> None:
    """Register where nobody answers."""
    with closing(DesignatedReceiversSender(1, [silent], timeout=HALF_A_SECOND)) as sender:
        sender("announcement")


waits: list[Callable[[], None]] = [
    heartbeats,
    receive,
    wait_for_subscriber,
    look_up_at_silent_nameserver,
    look_up_unknown_service,
    register_at_silent_nameserver,
]


def measure(wait: Callable[[], None]) -> None:
    """Print how long it took."""
    start = time.monotonic()
    wait()
    print(wait.__name__, time.monotonic() - start, flush=True)


threads = [threading.Thread(target=measure, args=[wait]) for wait in waits]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
