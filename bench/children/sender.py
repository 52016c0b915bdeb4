"""The process of a sending end; its arguments are the module in `children.ends`, its options, and how many of them."""

import importlib
import json
import sys
import time

from children.serving import serve

_TICK = 0.002
_BATCH = 100


class Sender:
    """Several ends of one kind, the first of which sends."""

    def __init__(self, ends, options, count):
        module = importlib.import_module(f"children.ends.{ends}")
        self._ends = [module.Sender(**options) for _ in range(count)]
        self._end = self._ends[0]

    def addresses(self):
        """Return the addresses of all ends."""
        return [end.address for end in self._ends]

    def prepare(self, kind):
        """Make the frame to send from now on, and return its size in bytes."""
        self._kind, self._frame = kind, self._end.frame(kind)
        return len(self._frame)

    def send(self, count):
        """Send so many messages as fast as possible; return when that began."""
        started = time.monotonic()
        self._end.send_many(self._frame, count)
        self._end.flush()
        return started

    def send_for(self, seconds):
        """Send as fast as possible for a while; return when that began, how many, and how often a loss was told."""
        started, sent, told = time.monotonic(), 0, self._end.told()
        while time.monotonic() < started + seconds:
            self._end.send_many(self._frame, _BATCH)
            sent += _BATCH
        self._end.flush()
        return started, sent, self._end.told() - told

    def send_paced(self, rate, count):
        """Send so many messages evenly, in small portions; return when that began."""
        started, sent = time.monotonic(), 0
        while sent < count:
            due = min(int((time.monotonic() - started) * rate) + 1, count)
            self._end.send_many(self._frame, due - sent)
            sent = due
            time.sleep(_TICK)
        self._end.flush()
        return started

    def send_moments(self, rate, count, composed):
        """Send messages with the moment in them, one by one; `composed`: make each from its data."""
        make = self._end.composed(self._kind) if composed else self._end.stamped(self._frame)
        send, started = self._end.send, time.monotonic()
        for number in range(count):
            time.sleep(max(started + number / rate - time.monotonic(), 0))
            send(make())

    def close(self):
        """Close all."""
        for end in self._ends:
            end.close()


if __name__ == "__main__":
    serve(Sender(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
