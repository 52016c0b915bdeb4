"""The process that calls from tasks; its arguments are the module in `children.calls`, and the address to call."""

import asyncio
import importlib
import sys
import time

from children.caller import ARGUMENTS
from children.serving import serve


class Caller:
    """A calling end on an event loop, with a stopwatch; what it returns is as of `children.caller`."""

    def __init__(self, ends, address):
        self._loop = asyncio.new_event_loop()
        self._end = importlib.import_module(f"children.calls.{ends}").Caller()
        self._do(self._end.open(address))

    def _do(self, work):
        return self._loop.run_until_complete(work)

    def call_for(self, kind, seconds):
        """Call again and again; return when that began and ended, and how many seconds each call took."""
        started = time.monotonic()
        delays = self._do(self._call(ARGUMENTS[kind], started + seconds))
        return started, time.monotonic(), delays

    def call_from_tasks(self, kind, seconds, tasks):
        """Call from several tasks at a time; return when that began and ended, and how many calls there were."""
        started = time.monotonic()
        delays = self._do(self._call_concurrently(ARGUMENTS[kind], started + seconds, tasks))
        return started, time.monotonic(), sum(map(len, delays))

    async def _call_concurrently(self, argument, until, tasks):
        return await asyncio.gather(*(self._call(argument, until) for _ in range(tasks)))

    async def _call(self, argument, until):
        call, now, delays = self._end.call, time.monotonic, []
        before = now()
        while before < until:
            await call(argument)
            after = now()
            delays.append(after - before)
            before = after
        return delays

    def close(self):
        """Close the end."""
        self._do(self._end.close())
        self._loop.close()


if __name__ == "__main__":
    serve(Caller(*sys.argv[1:]))
