"""How many messages a second get from one publisher to one subscriber without loss."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Child, Contender, Goal, Measurement, Plan
from bench.lines import connected, highest_rate

__all__ = ["MEASUREMENT"]

_METRICS = {"text": "text, 150 B", "file": "file, 1 KB"}


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the highest lossless rate for each kind of message."""
    return {metric: _rate(contender, kind, plan) for kind, metric in _METRICS.items()}


def _rate(contender: Contender, kind: str, plan: Plan) -> float:
    if contender.name == who.MEMORY:
        with Child(contender, "alone") as child:
            return float(child.call("rate", kind=kind, seconds=plan.seconds))
    with connected(contender, kind) as line:
        return highest_rate(line, plan)


MEASUREMENT = Measurement(
    name="rates",
    units=dict.fromkeys(_METRICS.values(), "1/s"),
    contenders=(
        who.OURS,
        who.SECURE,
        who.MEMORY,
        who.RELEASED,
        who.RELEASED_SECURE,
        who.ORJSON,
        who.POLLED,
        who.RAW,
        *who.PEERS,
    ),
    measure=measure,
    goals=(
        Goal("text, 150 B", over=who.RELEASED, at_least=40),
        Goal("file, 1 KB", over=who.RELEASED, at_least=22),
        Goal("text, 150 B", over=who.POLLED, at_least=1),
        Goal("file, 1 KB", over=who.POLLED, at_least=0.55),
        *(Goal(metric, over=peer, at_least=1) for peer in who.BROKERS for metric in _METRICS.values()),
        Goal("file, 1 KB", over=who.ZENOH, at_least=1),
    ),
    explanation=(
        "Highest lossless rate from one publisher to one subscriber in another process, over TCP on loopback. The "
        "sender sends what it encoded beforehand, and the receiver decodes each message; nobody does for bare pyzmq. "
        "A sender that can wait for its receivers, does (`XPUB_NODROP`, `when_full`); for others the rate is searched. "
        "Polled: in the loop of ZeroMQ's guide, which can watch several sockets and has a timeout, as subscribers "
        f"have. `{who.MEMORY}` is both ends in one process."
    ),
)
