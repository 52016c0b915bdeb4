"""This package, durable: a publisher with a journal, and a subscriber that accepts each message."""

from children import messages
from children.ends import posttroll
from posttroll.subscriber import Subscriber

__all__ = ["Receiver", "Sender"]

_CONSUMER = "bench"


class Sender(posttroll.Sender):
    """A `Publisher` with a journal, which tells both of its addresses."""

    def __init__(self, journal):
        super().__init__(journal=journal)
        self.address = {"URI": self.address, "link": self._publisher.link_address.replace("*", "127.0.0.1")}


class Receiver(posttroll.Receiver):
    """A durable `Subscriber`."""

    def __init__(self, addresses):
        self._subscriber = Subscriber(addresses, messages.SUBJECT, durable=_CONSUMER, acknowledge="manual")

    def messages(self, silence):
        accept = self._subscriber.accept
        # Held on to, since a loop that ends may give back what it had.
        self._received = self._subscriber.recv(silence)
        for message in self._received:
            if message is not None and not self.keeps:
                accept(message)
            yield message
