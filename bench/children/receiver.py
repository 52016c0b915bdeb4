"""The process of a receiving end; its arguments are the module in `children.ends` and the addresses to connect to."""

import importlib
import json
import sys
import time

from children.serving import serve


class Receiver:
    """A receiving end with a stopwatch."""

    def __init__(self, ends, addresses):
        self._end = importlib.import_module(f"children.ends.{ends}").Receiver(addresses)
        self._delays = []

    def prepare(self, count):
        """Expect so many messages."""
        self._end.prepare(count)

    def prepare_delays(self, count):
        """Expect so many messages, and note how long each has been on its way."""
        self._delays.clear()
        note, moment, now = self._delays.append, self._end.moment, time.monotonic_ns
        self._end.prepare(count, lambda message: note(now() - moment(message)))

    def keep(self):
        """Acknowledge nothing of what comes from now on."""
        self._end.keeps = True

    def receive(self, silence, patience):
        """Return how many messages came until nothing came any more, and when the last did."""
        return self._end.receive(silence, patience)

    def delays(self):
        """Return the delays noted, in microseconds, the shortest first."""
        return sorted(delay / 1000 for delay in self._delays)

    def close(self):
        """Close the end."""
        self._end.close()


if __name__ == "__main__":
    serve(Receiver(sys.argv[1], json.loads(sys.argv[2])))
