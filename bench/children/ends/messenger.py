"""This package: a messenger that puts, and one that connects to it, gets, and accepts each message."""

from children import messages
from children.ends import base
from posttroll.message import Message
from posttroll.messenger import Messenger

__all__ = ["Receiver", "Sender"]

_PEER = "bench-receiver"
_WINDOW = 100


class Sender(base.Sender):
    """A messenger that listens; `journal`: where it keeps what it sends until that is accepted."""

    def __init__(self, journal=None):
        self._options = {"persistent": journal is not None}
        self._messenger = Messenger("bench-sender", nameservers=False, journal=journal).start()
        self.address = self._messenger.address.replace("*", "127.0.0.1")

    def frame(self, kind):
        text = messages.as_message(kind)
        self._message = Message.decode(text)
        return text

    def send_many(self, frame, count):
        put, message = self._messenger.put, self._message
        for _ in range(count):
            put(_PEER, message, **self._options)

    def close(self):
        self._messenger.stop()


class Receiver(base.IteratingReceiver):
    """A messenger that connects to the sender's."""

    def __init__(self, addresses):
        self._messenger = Messenger(_PEER, listen=False, nameservers=False, incoming_window=_WINDOW).start()
        for address in addresses:
            self._messenger.connect(address)

    def messages(self, silence):
        get, accept = self._messenger.get, self._messenger.accept
        while True:
            if (message := get(silence)) is not None and not self.keeps:
                accept(message)
            yield message

    def close(self):
        self._messenger.stop()
