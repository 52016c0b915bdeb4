"""How long a message is on its way when there is nothing to wait for."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Contender, Goal, Measurement, Plan
from bench.lines import connected

__all__ = ["MEASUREMENT"]

_RATE = 500.0
_WAYS = {"": False, ", with encoding": True}


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return how long the median message takes, and the slowest of a hundred."""
    times = {}
    count = max(int(2 * plan.seconds * _RATE), 100)
    with connected(contender, "file") as line:
        line.delays(count // 10, _RATE, composed=True)
        for way, composed in list(_WAYS.items())[: 1 if plan.quick else None]:
            delays = line.delays(count, _RATE, composed)
            times[f"p50{way}"] = delays[count // 2]
            times[f"p99{way}"] = delays[count * 99 // 100]
    return times


MEASUREMENT = Measurement(
    name="latency",
    units=dict.fromkeys((f"{share}{way}" for way in _WAYS for share in ("p50", "p99")), "µs"),
    contenders=(who.OURS, who.SECURE, who.RELEASED, who.ORJSON, who.RAW, *who.PEERS),
    measure=measure,
    goals=(
        Goal("p50", over=who.RAW, at_most=1.3),
        Goal("p99", over=who.RELEASED, at_most=0.5, slack=4),
    ),
    explanation=(
        "Time from before a message of 1 KB is sent to when its receiver has it decoded, at 500 messages a second; "
        "with encoding: from before it is made of its data. Nobody encodes or decodes for bare pyzmq."
    ),
)
