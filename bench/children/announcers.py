"""Many publishers as their announcements: datagrams like those of the package, from several addresses of loopback."""

import os
import socket
import struct
import threading
import time

import posttroll.publisher
from children.serving import serve
from posttroll.publisher import NoisyPublisher

_GROUP = "225.0.0.212"
_INTERFACE = socket.inet_aton("127.0.0.1")
_PER_SOURCE = 5000
_FIRST_PORT = 20_000
_PAUSE = 0.002
_CAPTURE_TIMEOUT = 10
_NAME = "template"


class Announcers:
    """What can be called."""

    def __init__(self):
        self._rate = 0.0
        self._datagrams = []
        self._sockets = []
        self._stopping = threading.Event()
        self._thread = None

    def announce(self, count, interval, port):
        """Begin to announce so many publishers, each every `interval` seconds; return the length of an announcement."""
        template, publisher_port = _capture()
        sources = [_sender(number) for number in range(1 + (count - 1) // _PER_SOURCE)]
        texts = [_instance(template, publisher_port, number) for number in range(count)]
        pairs = [(sources[number // _PER_SOURCE], text) for number, text in enumerate(texts)]
        self._thread = threading.Thread(target=self._run, args=(pairs, count / interval, (_GROUP, port)), daemon=True)
        self._thread.start()
        return len(texts[0])

    def _run(self, pairs, rate, target):
        start, sent = time.monotonic(), 0
        while not self._stopping.is_set():
            due = int((time.monotonic() - start) * rate)
            for number in range(sent, due):
                source, text = pairs[number % len(pairs)]
                source.sendto(text, target)
            sent = due
            time.sleep(_PAUSE)

    def announce_others(self, first, count, seconds, port):
        """Announce publishers with numbers from `first` on, once each, spread over the seconds."""
        template, publisher_port = _capture()
        with _sender(first // _PER_SOURCE) as source:
            for number in range(first, first + count):
                source.sendto(_instance(template, publisher_port, number), (_GROUP, port))
                time.sleep(seconds / count)

    def close(self):
        """End announcing."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()


def _instance(template, publisher_port, number):
    text = template.replace(_NAME, service_name(number)).replace(f":{publisher_port}", f":{_FIRST_PORT + number}")
    return text.encode()


def service_name(number):
    """Return the service of one of the publishers."""
    return f"service_{number:05}"


def _capture():
    """Return the announcement that a publisher of the package sends to the configured port, and its own port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("", int(os.environ["POSTTROLL_BROADCAST_PORT"])))
        membership = struct.pack("=4s4s", socket.inet_aton(_GROUP), _INTERFACE)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        receiver.settimeout(_CAPTURE_TIMEOUT)
        publisher = NoisyPublisher(_NAME)
        publisher.start()
        try:
            return receiver.recv(65_535).decode(), publisher.port_number
        finally:
            publisher.stop()


def _sender(number):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind((f"127.0.0.{number + 1}", 0))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _INTERFACE)
    return sender


if __name__ == "__main__":
    posttroll.publisher.get_own_ip = lambda: "127.0.0.1"
    serve(Announcers())
