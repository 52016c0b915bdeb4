"""Publishers and subscribers that look for each other, and tell when they began and when they had success."""

import threading
import time

import posttroll.publisher
from children.serving import serve
from posttroll.message import Message
from posttroll.ns import get_pub_address
from posttroll.publisher import NoisyPublisher
from posttroll.subscriber import Subscribe

_TICK = 0.001
_POLL_INTERVAL = 0.002
_JOIN_TIMEOUT = 5


class _Receiver:
    """A subscriber in a thread, up to its first message."""

    def __init__(self, service, timeout):
        self._service = service
        self._timeout = timeout
        self.began = None
        self.received = None
        self.is_ready = threading.Event()
        self.is_done = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._has_begun.wait()

    def _run(self):
        self.began = time.monotonic()
        self._has_begun.set()
        try:
            with Subscribe(self._service, addr_listener=True, timeout=self._timeout) as subscriber:
                self.is_ready.set()
                next(filter(None, subscriber.recv()))
                self.received = time.monotonic()
                self.is_done.set()
        finally:  # also if no nameserver answers
            self.is_ready.set()
            self.is_done.set()

    def close(self):
        self._thread.join(_JOIN_TIMEOUT)


class _Sender:
    """A publisher that sends a message each millisecond from its start on."""

    def __init__(self, service, nameservers, sends):
        self.began = time.monotonic()
        self._publisher = NoisyPublisher(service, nameservers=nameservers)
        self._publisher.start()
        self._text = Message(f"/{service}", "info", "here I am").encode()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if sends:
            self._thread.start()

    def _run(self):
        while not self._stopping.is_set():
            self._publisher.send(self._text)
            self._stopping.wait(_TICK)

    def close(self):
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT)
        self._publisher.stop()


class Discovery:
    """What can be called; instants are those of the monotonic clock, which all processes share."""

    def __init__(self):
        self._receivers = {}
        self._senders = {}

    def subscribe(self, service, patience):
        """Begin to subscribe in the background; return when that began."""
        receiver = self._receivers[service] = _Receiver(service, patience)
        return receiver.began

    def await_ready(self, service):
        """Wait until the subscriber has been made."""
        self._receivers[service].is_ready.wait()

    def await_message(self, service, patience):
        """Return when the first message came, None if there was none."""
        receiver = self._receivers.pop(service)
        receiver.is_done.wait(patience)
        if receiver.received is not None:
            receiver.close()
        return receiver.received

    def publish(self, services, nameservers=None, sends=True):
        """Start publishers; return when the first one of them began to be made."""
        senders = [_Sender(service, nameservers, sends) for service in services]
        self._senders.update(zip(services, senders, strict=True))
        return senders[0].began

    def stop_publishing(self, service):
        """Stop a publisher."""
        self._senders.pop(service).close()

    def await_known(self, services, patience):
        """Return when a nameserver was found to know all of the services, None if it did not in time."""
        deadline = time.monotonic() + patience
        for service in services:
            while not _is_known(service):
                if time.monotonic() > deadline:
                    return None
                time.sleep(_POLL_INTERVAL)
        return time.monotonic()

    def close(self):
        """Stop all publishers."""
        for sender in self._senders.values():
            sender.close()


def _is_known(service):
    try:
        return bool(get_pub_address(service, timeout=1))
    except TimeoutError:
        return False


if __name__ == "__main__":
    # Releases ask the routing table for the address to announce, which must not be any but loopback here.
    posttroll.publisher.get_own_ip = lambda: "127.0.0.1"
    serve(Discovery())
