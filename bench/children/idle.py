"""Something that has nothing to do but what it does by itself."""

import threading

from children.serving import serve
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.subscriber import Subscribe


class Idle:
    """What can be called."""

    def __init__(self):
        self._things = []

    def publish(self):
        """Be a publisher that announces itself."""
        publisher = NoisyPublisher("idle")
        publisher.start()
        self._things.append(publisher)

    def publish_silently(self):
        """Be a publisher that does not announce itself."""
        publisher = Publisher("tcp://*:0", "idle")
        publisher.start()
        self._things.append(publisher)

    def subscribe(self):
        """Be a subscriber of what nobody publishes, that follows the nameserver's address feed."""
        subscriber = Subscribe("nothing", addr_listener=True, timeout=0.1)
        self._things.append(subscriber)
        threading.Thread(target=_receive, args=(subscriber,), daemon=True).start()


def _receive(subscriber):
    with subscriber as receiver:
        for _ in receiver.recv():
            pass


if __name__ == "__main__":
    serve(Idle())
