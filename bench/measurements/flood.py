"""What becomes of messages when a publisher sends them faster than its subscriber can take them."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Contender, Goal, Measurement, Plan
from bench.lines import connected

__all__ = ["MEASUREMENT"]

_KINDS = {"text": "text", "file": "1 KB"}
_SECONDS = 1.0
_UNITS = {"sent": "1/s", "received": "1/s", "lost": "%", "told": "times", "lost untold": "%"}


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return what was sent, received and lost in a second, and how often that was told."""
    values = {}
    for kind, label in _KINDS.items():
        with connected(contender, kind) as line:
            flood = line.flood(_SECONDS)
        lost = 100 * flood.lost / flood.sent
        for name, value in {
            "sent": flood.sent / _SECONDS,
            "received": flood.rate,
            "lost": lost,
            "told": flood.told,
            "lost untold": 0.0 if flood.told else lost,
        }.items():
            values[f"{label} {name}"] = value
    return values


MEASUREMENT = Measurement(
    name="flood",
    units={f"{label} {name}": unit for label in _KINDS.values() for name, unit in _UNITS.items()},
    contenders=(who.OURS, who.DROPPING, who.FED_RAW, who.RELEASED, who.RAW_DROPPING),
    measure=measure,
    goals=(
        *(Goal(f"{label} lost", at_most=0) for label in _KINDS.values()),
        *(Goal(f"{label} lost untold", at_most=0, contender=who.DROPPING) for label in _KINDS.values()),
        *(Goal(f"{label} received", over=who.FED_RAW, at_least=0.95) for label in _KINDS.values()),
    ),
    explanation=(
        f"A second of sending as fast as possible. `{who.OURS}` is told to block when a subscriber's queue is full, "
        f"`{who.DROPPING}` is what happens by default; told: how often the publisher was told that a queue was full. "
        f"`{who.FED_RAW}` is the highest rate that the subscriber takes from anybody; 5 % below it is within the noise."
    ),
)
