"""The `ListenerContainer` of this package, or of a released version, fed by a `Publisher`."""

import queue

from children import messages
from children.ends import base
from children.ends.posttroll import Sender
from posttroll.listener import ListenerContainer

__all__ = ["Receiver", "Sender"]


class Receiver(base.IteratingReceiver):
    """What takes messages from the queue of a `ListenerContainer`."""

    def __init__(self, addresses):
        self._container = ListenerContainer(messages.SUBJECT, addresses=addresses, nameserver=False)

    def messages(self, silence):
        take = self._container.output_queue.get
        while True:
            try:
                yield take(timeout=silence)
            except queue.Empty:
                yield None

    def moment(self, message):
        return messages.moment_in(message.data)

    def close(self):
        self._container.stop()
