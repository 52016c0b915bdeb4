"""Asking a nameserver, and following its address feed."""

import random
import threading
import time

import zmq

from children.serving import serve
from posttroll.ns import get_pub_address

_TIMEOUT = 10
_POLL_MILLISECONDS = 100


class Queries:
    """What can be called."""

    def __init__(self):
        self._context = zmq.Context()
        self._stopping = threading.Event()
        self._thread = None
        self._messages = self._bytes = 0

    def count_known(self):
        """Return how many addresses the nameserver knows."""
        return len(get_pub_address("", timeout=_TIMEOUT))

    def look_up(self, publishers, count):
        """Return the seconds that each of so many look-ups took, of services taken at random."""
        return [self._timed(f"service_{random.randrange(publishers):05}") for _ in range(count)]

    def list_all(self, count):
        """Return the seconds that each of so many look-ups of everything took."""
        return [self._timed("") for _ in range(count)]

    def _timed(self, service):
        start = time.perf_counter()
        entries = get_pub_address(service, timeout=_TIMEOUT)
        elapsed = time.perf_counter() - start
        if not entries:
            raise LookupError(f"{service} is not known")
        return elapsed

    def follow(self, count, address):
        """Connect so many followers of the address feed, as address listeners do."""
        sockets = [self._context.socket(zmq.SUB) for _ in range(count)]
        for socket in sockets:
            socket.subscribe(b"pytroll://address")
            socket.connect(address)
        self._thread = threading.Thread(target=self._run, args=(sockets,), daemon=True)
        self._thread.start()

    def _run(self, sockets):
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        while not self._stopping.is_set():
            for socket, _ in poller.poll(_POLL_MILLISECONDS):
                self._bytes += len(socket.recv())
                self._messages += 1
        for socket in sockets:
            socket.close(linger=0)

    def received(self):
        """Return how many messages and bytes the followers have received."""
        return self._messages, self._bytes

    def close(self):
        """Disconnect."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._context.term()


if __name__ == "__main__":
    serve(Queries())
