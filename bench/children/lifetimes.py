"""Making public objects and starting them, and stopping them again, on the clock; and importing the package."""

import os
import socket
import statistics
import subprocess
import sys
import threading
import time

from children.serving import serve
from posttroll.address_receiver import AddressReceiver
from posttroll.listener import ListenerContainer
from posttroll.logger import Logger
from posttroll.message_broadcaster import AddressServiceBroadcaster
from posttroll.ns import NameServer, get_pub_address
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.subscriber import NSSubscriber, Subscriber

_SERVICE = "lifetimes"
_TIMEOUT = 10
_IMPORT = """
import time
started = time.perf_counter()
import posttroll.publisher, posttroll.subscriber
print(time.perf_counter() - started)
"""


def _start_publisher(address):
    publisher = Publisher("tcp://*:0", "silent")
    publisher.start()
    return publisher.stop


def _start_noisy_publisher(address):
    publisher = NoisyPublisher("noisy")
    publisher.start()
    return publisher.stop


def _start_subscriber(address):
    return Subscriber([address]).close


def _start_nameserved_subscriber(address):
    subscriber = NSSubscriber(_SERVICE, addr_listener=True)
    subscriber.start()
    return subscriber.stop


def _start_listener_container(address):
    return ListenerContainer([""], services=_SERVICE).stop


def _start_broadcaster(address):
    broadcaster = AddressServiceBroadcaster("elsewhere", "tcp://127.0.0.1:9", ["elsewhere"])
    broadcaster.start()
    return broadcaster.stop


def _start_address_receiver(address):
    receiver = AddressReceiver(port=0, do_heartbeat=False)
    receiver.start()
    return receiver.stop


def _start_logger(address):
    logger = Logger()
    logger.start()
    return logger.stop


def _start_nameserver(address):
    nameserver = NameServer()
    thread = threading.Thread(target=nameserver.run, daemon=True)
    thread.start()
    _await_listener(int(os.environ["POSTTROLL_NAMESERVER_PORT"]))

    def stop():
        nameserver.stop()
        thread.join(_TIMEOUT)

    return stop


def _await_listener(port):
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.0001)


_STARTERS = {
    "Publisher": _start_publisher,
    "NoisyPublisher": _start_noisy_publisher,
    "Subscriber": _start_subscriber,
    "NSSubscriber": _start_nameserved_subscriber,
    "ListenerContainer": _start_listener_container,
    "AddressServiceBroadcaster": _start_broadcaster,
    "AddressReceiver": _start_address_receiver,
    "Logger": _start_logger,
    "NameServer": _start_nameserver,
}


class Lifetimes:
    """What can be called."""

    def __init__(self):
        self._publisher = NoisyPublisher(_SERVICE)
        self._address = ""

    def publish(self):
        """Be somebody to connect to."""
        self._publisher.start()
        self._address = f"tcp://127.0.0.1:{self._publisher.port_number}"
        deadline = time.monotonic() + _TIMEOUT
        while not get_pub_address(_SERVICE, timeout=_TIMEOUT) and time.monotonic() < deadline:
            time.sleep(0.01)

    def milliseconds(self, name, count):
        """Return the medians of the times that making and starting an object, and stopping it, took."""
        start = _STARTERS[name]
        lifetimes = [_lifetime(start, self._address) for _ in range(count)]
        return [1000 * statistics.median(times) for times in zip(*lifetimes, strict=True)]

    def import_milliseconds(self, count):
        """Return the median of the times that importing publishers and subscribers took in processes of their own."""
        command = [sys.executable, "-P", "-c", _IMPORT]
        seconds = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(count + 1)]
        return 1000 * statistics.median(seconds[1:])

    def close(self):
        """Stop publishing."""
        self._publisher.stop()


def _lifetime(start, address):
    began = time.perf_counter()
    stop = start(address)
    started = time.perf_counter()
    time.sleep(0.02)  # what it has begun in the background gets under way
    stopped = time.perf_counter()
    stop()
    return started - began, time.perf_counter() - stopped


if __name__ == "__main__":
    serve(Lifetimes())
