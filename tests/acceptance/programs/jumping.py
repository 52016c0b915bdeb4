"""Run a program whose wall clock jumps: ``jumping.py SECONDS PROGRAM …``.

SIGUSR1 sets the clock to so many seconds ahead, SIGUSR2 to so many behind; SECONDS of 0 lets it swing by an hour all
the time. The monotonic clock is left alone, as the kernel does when the time is set.
"""

import datetime
import itertools
import runpy
import signal
import sys
import time

_real_time = time.time
_real_datetime = datetime.datetime
_swing = itertools.cycle([3600.0, -3600.0])
_offset = 0.0


def _now() -> float:
    return _real_time() + (next(_swing) if step == 0 else _offset)


class JumpingDatetime(_real_datetime):
    """A datetime that reads the jumping clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "JumpingDatetime":
        """Return the time of the jumping clock."""
        return cls.fromtimestamp(_now(), tz)

    @classmethod
    def utcnow(cls) -> "JumpingDatetime":
        """Return the time of the jumping clock, in UTC."""
        return cls.fromtimestamp(_now(), datetime.UTC).replace(tzinfo=None)


def _jump(number: int, frame: object) -> None:
    global _offset
    _offset = step if number == signal.SIGUSR1 else -step


step = float(sys.argv[1])
signal.signal(signal.SIGUSR1, _jump)
signal.signal(signal.SIGUSR2, _jump)
time.time = _now
datetime.datetime = JumpingDatetime  # type: ignore[misc]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
