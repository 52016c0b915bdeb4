"""A publisher and a subscriber in one process, which take turns."""

import time

from children import messages
from children.serving import serve
from posttroll.publisher import Publisher
from posttroll.subscriber import Subscriber

_BATCH = 100


class Alone:
    """Both ends."""

    def __init__(self):
        self._publisher = Publisher("tcp://127.0.0.1:9000", "bench")
        self._publisher.start()
        self._subscriber = Subscriber(["tcp://127.0.0.1:9000"], messages.SUBJECT)

    def rate(self, kind, seconds):
        """Return how many messages a second are sent and received."""
        text, send, received = messages.as_message(kind), self._publisher.send, self._subscriber.recv()
        started, count = time.monotonic(), 0
        while (passed := time.monotonic() - started) < seconds:
            for _ in range(_BATCH):
                send(text)
            for _ in range(_BATCH):
                next(received)
            count += _BATCH
        return count / passed

    def close(self):
        """Close both."""
        self._subscriber.close()
        self._publisher.stop()


if __name__ == "__main__":
    serve(Alone())
