"""This package, or a released version."""

from children import messages
from children.ends import base
from posttroll.message import Message
from posttroll.publisher import Publisher
from posttroll.subscriber import Subscriber

__all__ = ["Receiver", "Sender"]


class Sender(base.Sender):
    """A `Publisher`, which takes text."""

    def __init__(self, **options):
        self._publisher = Publisher("tcp://*:0", "bench", **options)
        self._publisher.start()
        self.address = f"tcp://127.0.0.1:{self._publisher.port_number}"
        self.send = self._publisher.send

    def frame(self, kind):
        return messages.as_message(kind)

    def composed(self, kind):
        data, atype = messages.DATA[kind], messages.TYPES[kind]

        def compose():
            moment = messages.stamp()
            stamped = data[: -len(moment)] + moment if isinstance(data, str) else {**data, "sent": moment}
            return Message(messages.SUBJECT, atype, stamped).encode()

        return compose

    def told(self):
        return getattr(self._publisher, "overruns", 0)

    def close(self):
        self._publisher.stop()


class Receiver(base.IteratingReceiver):
    """A `Subscriber`."""

    def __init__(self, addresses):
        self._subscriber = Subscriber(addresses, messages.SUBJECT)
        self.messages = self._subscriber.recv

    def moment(self, message):
        return messages.moment_in(message.data)

    def close(self):
        self._subscriber.close()
