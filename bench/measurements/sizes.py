"""How many bytes a second get from one publisher to one subscriber, in messages of several sizes."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Contender, Measurement, Plan
from bench.lines import connected

__all__ = ["MEASUREMENT"]

_SIZES = {"1 kB": 10**3, "10 kB": 10**4, "100 kB": 10**5, "1 MB": 10**6, "10 MB": 10**7, "50 MB": 5 * 10**7}
_BYTES_PER_SECOND = 4 * 10**8
_MOST_MESSAGES = 20_000
_LEAST_MESSAGES = 4


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the megabytes received in a second for each size of message."""
    rates = {}
    for label, size in _SIZES.items():
        with connected(contender, str(size)) as line:
            wanted = int(plan.seconds * _BYTES_PER_SECOND) // size
            transfer = line.transfer(min(max(wanted, _LEAST_MESSAGES), _MOST_MESSAGES))
        if not transfer.lost:
            rates[label] = transfer.rate * size / 1e6
    return rates


MEASUREMENT = Measurement(
    name="sizes",
    units=dict.fromkeys(_SIZES, "MB/s"),
    contenders=(who.OURS, who.RAW),
    measure=measure,
    explanation="Messages of text, with so many bytes of it.",
)
