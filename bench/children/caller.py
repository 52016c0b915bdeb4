"""The process that calls; its arguments are the module in `children.calls`, and the address of who is called."""

import importlib
import sys
import time
from collections import deque

from children import messages
from children.serving import serve

ARGUMENTS = {"number": 70821, "1 KB": messages.DATA["file"]}
_UNDER_WAY = 100


class Caller:
    """A calling end with a stopwatch; all times are of a clock that all processes of a host share."""

    def __init__(self, ends, address):
        self._end = importlib.import_module(f"children.calls.{ends}").Caller(address)

    def call_for(self, kind, seconds):
        """Call again and again; return when that began and ended, and how many seconds each call took."""
        call, argument, now, delays = self._end.call, self._end.prepared(ARGUMENTS[kind]), time.monotonic, []
        started = before = now()
        while before < started + seconds:
            call(argument)
            after = now()
            delays.append(after - before)
            before = after
        return started, before, delays

    def call_from_threads(self, kind, seconds, threads):
        """Call from several threads at a time; return when that began and ended, and how many calls there were."""
        ends = [self._end, *(self._end.alike() for _ in range(threads - 1))]
        argument, now, counts = self._end.prepared(ARGUMENTS[kind]), time.monotonic, []
        for end in ends:
            end.call(argument)
        started = now()

        def work(call):
            count = 0
            while now() < started + seconds:
                call(argument)
                count += 1
            counts.append(count)

        self._end.concurrently([lambda call=end.call: work(call) for end in ends])
        ended = now()
        if len(counts) < threads:
            raise RuntimeError("not all threads could call")
        for end in ends[1:]:
            if end is not self._end:
                end.close()
        return started, ended, sum(counts)

    def call_pipelined(self, kind, seconds):
        """Call from one thread that waits for the eldest of many calls; return as for threads."""
        begin, argument, now, under_way, count = (
            self._end.begin,
            self._end.prepared(ARGUMENTS[kind]),
            time.monotonic,
            deque(),
            0,
        )
        started = now()
        while now() < started + seconds:
            under_way.append(begin(argument))
            count += 1
            if len(under_way) == _UNDER_WAY:
                under_way.popleft()()
        while under_way:
            under_way.popleft()()
        return started, now(), count

    def close(self):
        """Close the end."""
        self._end.close()


if __name__ == "__main__":
    serve(Caller(*sys.argv[1:]))
