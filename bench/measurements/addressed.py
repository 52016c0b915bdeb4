"""How many messages a second get from one program to another that it names, and are acknowledged."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping

from bench import contenders as who
from bench.harness import Contender, Goal, Measurement, Plan
from bench.lines import complete_rate, connected

__all__ = ["MEASUREMENT"]

_TRANSIENT = "transient"
_PERSISTENT = "persistent"

_ENDS = {"posttroll": "messenger", "rabbitmq": "rabbitmq_durable"}
_KIND = "file"


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the rate of messages that are lost with a process, and of those that are kept."""
    ways = [_PERSISTENT] if contender.name == who.SYNCED else [_TRANSIENT, _PERSISTENT]
    return {way: _rate(contender, plan, is_persistent=way == _PERSISTENT) for way in ways}


def _rate(contender: Contender, plan: Plan, is_persistent: bool) -> float:
    with _addressing(contender, is_persistent) as addressing, connected(addressing, _KIND) as line:
        return complete_rate(line, plan)


@contextlib.contextmanager
def _addressing(contender: Contender, is_persistent: bool) -> Iterator[Contender]:
    """Give the contender with its addressing ends, which keep their messages where it is empty yet."""
    with tempfile.TemporaryDirectory(prefix="posttroll-bench-") as directory:
        if contender.server:
            options = {"pipelined": True, "persistent": is_persistent}
        else:
            options = {"journal": directory} if is_persistent else {}
        yield dataclasses.replace(
            contender,
            ends=_ENDS.get(contender.ends, contender.ends),
            options={**contender.options, **options},
        )


MEASUREMENT = Measurement(
    name="addressed",
    units=dict.fromkeys((_TRANSIENT, _PERSISTENT), "1/s"),
    contenders=(who.OURS, who.SYNCED, who.RABBITMQ),
    measure=measure,
    goals=(
        *(Goal(way, over=who.RABBITMQ, at_least=1) for way in (_TRANSIENT, _PERSISTENT)),
        Goal(_PERSISTENT, over=who.RABBITMQ, at_least=1, contender=who.SYNCED, slack=15),
    ),
    explanation=(
        "Messages of 1 KB a second to one receiver that accepts each, from the first that is sent to the last that "
        "arrives. The sender is told of each what became of it: between messengers by the receiver, which has "
        "connected to the sender; with RabbitMQ by the server, when the queue has it, and up to 1000 are on their way "
        "to that. Persistent messages survive the end of the process that keeps them, which is the sender or the "
        f"server, and with `{who.SYNCED}` (`journal_sync` full) and RabbitMQ the loss of power. A messenger encodes "
        "each message when it is put, while RabbitMQ's client is given the same text again and again."
    ),
)
