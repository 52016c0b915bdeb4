"""The highest lossless rate between this package and a released one, and into a listener's queue."""

from __future__ import annotations

from bench import contenders as who
from bench.harness import Measurement
from bench.measurements import rates

__all__ = ["MEASUREMENT"]

MEASUREMENT = Measurement(
    name="mixed",
    units=rates.MEASUREMENT.units,
    contenders=(
        who.RELEASED,
        who.FROM_RELEASED,
        who.TO_RELEASED,
        who.FED_RAW,
        who.LISTENER,
        who.RELEASED_LISTENER,
    ),
    measure=rates.MEASUREMENT.measure,
    explanation=(
        "Highest lossless rate in chains in which only some have changed to this package: who sends, to who receives; "
        "and the rate at which messages come from the queue of a ListenerContainer."
    ),
)
