"""How long a call of what another process offers takes, and how many there are in a second."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from bench import contenders as who
from bench.harness import Child, Contender, Goal, Measurement, Plan

__all__ = ["MEASUREMENT"]

# Calls miss their goals by far, and the more so the busier the machine is.
_SLACK = 15.0
_NUMBER = "number"
_ARGUMENTS = (_NUMBER, "1 KB")
_MANY = 8
_ONE_AFTER_THE_OTHER = "one after the other"
_THREADS = f"{_MANY} threads"
_PIPELINED = "pipelined"
_PROCESSES = f"{_MANY} processes"
_RATES = (_ONE_AFTER_THE_OTHER, _THREADS, _PIPELINED, _PROCESSES)
_WARMING_UP = 0.1


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return how long the median call takes, and the slowest of a hundred, and the rates."""
    with contextlib.ExitStack() as stack:
        callee = stack.enter_context(Child(contender, "callee", contender.ends))
        address = callee.call("address")
        caller = _caller(stack, contender, address)
        values = _one_after_the_other(caller, plan)
        if not plan.quick:
            many = {"kind": _NUMBER, "seconds": plan.seconds}
            values[_THREADS] = _rate([caller.call("call_from_threads", **many, threads=_MANY)])
            values[_PIPELINED] = _rate([caller.call("call_pipelined", **many)])
            callers = [caller, *(_caller(stack, contender, address) for _ in range(_MANY - 1))]
            for each in callers:
                each.ask("call_for", **many)
            values[_PROCESSES] = _rate([_counted(*each.answer()) for each in callers])
        return values


def _caller(stack: contextlib.ExitStack, contender: Contender, address: Any) -> Child:
    """Return a process that has called already."""
    caller = stack.enter_context(Child(contender, "caller", contender.ends, address))
    caller.call("call_for", kind=_NUMBER, seconds=_WARMING_UP)
    return caller


def _one_after_the_other(caller: Child, plan: Plan) -> dict[str, float]:
    values = {}
    for kind in _ARGUMENTS:
        started, ended, times = caller.call("call_for", kind=kind, seconds=plan.seconds)
        times.sort()
        values[f"p50, {kind}"] = 1e6 * times[len(times) // 2]
        values[f"p99, {kind}"] = 1e6 * times[len(times) * 99 // 100]
        if kind == _NUMBER:
            values[_ONE_AFTER_THE_OTHER] = len(times) / (ended - started)
    return values


def _counted(started: float, ended: float, times: Sequence[float]) -> tuple[float, float, int]:
    return started, ended, len(times)


def _rate(outcomes: Sequence[tuple[float, float, int]]) -> float:
    """Return the calls a second, from the first that begins to the last that ends."""
    started, ended, counts = zip(*outcomes, strict=True)
    return float(sum(counts) / (max(ended) - min(started)))


MEASUREMENT = Measurement(
    name="calls",
    units={
        **dict.fromkeys((f"{share}, {kind}" for kind in _ARGUMENTS for share in ("p50", "p99")), "µs"),
        **dict.fromkeys(_RATES, "1/s"),
    },
    contenders=(who.OURS, who.ORJSON, who.RAW, *who.CALL_PEERS),
    measure=measure,
    goals=(
        *(Goal(f"p50, {kind}", over=who.RAW, at_most=3, slack=_SLACK) for kind in _ARGUMENTS),
        *(Goal(f"p50, {kind}", over=peer, at_most=1, slack=_SLACK) for peer in who.CALL_PEERS for kind in _ARGUMENTS),
        *(Goal(rate, over=peer, at_least=1, slack=_SLACK) for peer in who.CALL_PEERS for rate in _RATES),
    ),
    explanation=(
        "Calls of a function in another process that gives back its argument, a number or a dictionary of 1 KB, over "
        "TCP on loopback. Times are of calls one after the other; "
        f"rates are of calls with the number: by one thread, by {_MANY} threads of one process (greenlets, with "
        "zerorpc), by one thread that has up to 100 calls under way, and by "
        f"{_MANY} processes with a thread each. `{who.RAW}`: REQ and REP with as many bytes as the argument has in "
        f"JSON, which nobody encodes or decodes; `{who.ORJSON}`: the same with JSON. RPyC would pass a dictionary by "
        "reference, so it is given the JSON."
    ),
)
