"""The bare sockets with JSON behind the subject: what one would write without message objects."""

import orjson
import zmq

from children import messages
from children.ends import base, zmq_raw

__all__ = ["Receiver", "Sender", "decoded"]

_PREFIX = messages.SUBJECT.encode() + b" "


def decoded(frame):
    """Return what is behind the subject."""
    return orjson.loads(frame[len(_PREFIX) :])


class Sender(base.JSONSender, zmq_raw.Sender):
    """A publishing socket for JSON."""

    def __init__(self, **options):
        base.JSONSender.__init__(self)
        zmq_raw.Sender.__init__(self, **options)

    def frame(self, kind):
        return _PREFIX + super().frame(kind)

    def composed(self, kind):
        compose = super().composed(kind)
        return lambda: _PREFIX + compose()


class Receiver(zmq_raw.Receiver):
    """A subscribing socket that waits in its one call for each message."""

    prefix = messages.SUBJECT

    def messages(self, silence):
        self._socket.setsockopt(zmq.RCVTIMEO, int(silence * 1000))
        receive = self._socket.recv
        while True:
            try:
                yield decoded(receive())
            except zmq.Again:
                yield None

    moment = base.IteratingReceiver.moment
