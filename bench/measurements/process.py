"""What a process costs that does nothing yet: imports, starts and stops, memory, and wake-ups."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from bench import contenders as who
from bench.accounts import memory_megabytes, wake_ups
from bench.harness import Child, Contender, Goal, Measurement, Plan
from bench.network import Network, start_nameserver

__all__ = ["MEASUREMENT"]

_IMPORTS = 10
_LIFETIMES = 5
_QUICK_COUNT = 3
_SETTLED = 3.0
_QUICK_SETTLED = 1.0
_WATCHED = 10.0
_QUICK_WATCHED = 2.0
_OBJECTS = (
    "Publisher",
    "NoisyPublisher",
    "Subscriber",
    "NSSubscriber",
    "ListenerContainer",
    "AddressServiceBroadcaster",
    "AddressReceiver",
    "Logger",
    "NameServer",
)
_NEEDS_FREE_PORTS = ("AddressReceiver", "NameServer")
_ROLES = {
    "publisher": "publish_silently",
    "announcing publisher": "publish",
    "subscriber": "subscribe",
}
_IMPORT = "import"
_MEMORY = "memory of an idle {}"
_WAKE_UPS = "wake-ups of an idle {}"
_START = "start of {}"
_STOP = "stop of {}"


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the times of imports, starts and stops, and what idle processes take meanwhile."""
    network = Network.free()
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(start_nameserver(contender, network))
        # One of its own, as announcements would wake it up.
        idle = {"nameserver": enter(start_nameserver(contender, Network.free())).pid}
        for role, method in _ROLES.items():
            child = enter(Child(contender, "idle", **network.settings()))
            child.call(method)
            idle[role] = child.pid
        time.sleep(_QUICK_SETTLED if plan.quick else _SETTLED)
        before, started = _wake_ups(idle), time.monotonic()
        # Being busy meanwhile does not change how often the others wake up.
        values = _busy(contender, plan)
        left = (_QUICK_WATCHED if plan.quick else _WATCHED) - (time.monotonic() - started)
        time.sleep(max(left, 0.0))
        elapsed = time.monotonic() - started
        for role, count in _wake_ups(idle).items():
            values[_WAKE_UPS.format(role)] = (count - before[role]) / elapsed
            values[_MEMORY.format(role)] = memory_megabytes(idle[role])
        return values


def _wake_ups(pids: Mapping[str, int]) -> dict[str, int]:
    return {role: wake_ups(pid) for role, pid in pids.items()}


def _busy(contender: Contender, plan: Plan) -> dict[str, float]:
    count = _QUICK_COUNT if plan.quick else _LIFETIMES
    network, values = Network.free(), {}
    with (
        start_nameserver(contender, network),
        Child(contender, "lifetimes", **network.settings()) as child,
        Child(contender, "lifetimes", **Network.free().settings()) as apart,
    ):
        values[_IMPORT] = child.call("import_milliseconds", count=_QUICK_COUNT if plan.quick else _IMPORTS)
        child.call("publish")
        for name in _OBJECTS:
            start, stop = (apart if name in _NEEDS_FREE_PORTS else child).call("milliseconds", name=name, count=count)
            values |= {_START.format(name): start, _STOP.format(name): stop}
    return values


_IDLE = ("nameserver", *_ROLES)

MEASUREMENT = Measurement(
    name="process",
    units={
        _IMPORT: "ms",
        **{_MEMORY.format(role): "MB" for role in _IDLE},
        **{_WAKE_UPS.format(role): "1/s" for role in _IDLE},
        **{text.format(name): "ms" for name in _OBJECTS for text in (_START, _STOP)},
    },
    contenders=(who.OURS, who.RELEASED),
    measure=measure,
    goals=(
        Goal(_IMPORT, at_most=60.0),
        Goal(_IMPORT, over=who.RELEASED, at_most=0.5),
        Goal(_MEMORY.format("publisher"), over=who.RELEASED, at_most=0.75),
        *(Goal(_WAKE_UPS.format(role), at_most=1.0) for role in ("nameserver", "publisher", "subscriber")),
        *(Goal(text.format(name), at_most=5.0) for name in _OBJECTS for text in (_START, _STOP)),
    ),
    explanation=(
        "Importing posttroll.publisher and posttroll.subscriber in a new process; making and starting public objects "
        "in a process that runs already, with a nameserver and a publisher around, and stopping them; processes that "
        "do nothing: their resident memory, and how often one of their threads wakes up, ZeroMQ's among them."
    ),
)
