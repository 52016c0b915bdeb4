"""How many messages a second get from one to many, and from one of many to one."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Contender, Goal, Measurement, Plan
from bench.lines import connected, highest_rate

__all__ = ["MEASUREMENT"]

_OUT = "1 to 8, 1 KB"
_IN = "50 to 1, one active, text"


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the highest lossless rates, counting what is delivered."""
    rates = {}
    with connected(contender, "file", receivers=8) as line:
        rates[_OUT] = highest_rate(line, plan)
    if contender.name not in who.PEERS:
        with connected(contender, "text", senders=50) as line:
            rates[_IN] = highest_rate(line, plan)
    return rates


MEASUREMENT = Measurement(
    name="fan",
    units={_OUT: "1/s", _IN: "1/s"},
    contenders=(who.OURS, who.RELEASED, who.RAW, *who.PEERS),
    measure=measure,
    goals=(
        Goal(_OUT, over=who.RELEASED, at_least=15),
        Goal(_OUT, over="NATS", at_least=1),
        Goal(_IN, over=who.RELEASED, at_least=40),
    ),
    explanation=(
        "Highest lossless rate, of messages delivered: from one publisher to eight subscribers, each a process of its "
        "own, and from one of fifty publishers that a subscriber is connected to."
    ),
)
