"""What an event loop costs: the asyncio end beside the blocking one, and beside others that are awaited."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Child, Contender, Goal, Measurement, Plan
from bench.lines import connected, highest_rate

__all__ = ["MEASUREMENT"]

_TEXT = "text, 150 B"
_FILE = "file, 1 KB"
_DELAY = "p50, 1 KB"
_CALL = "p50 of a call"
_MANY = 8
_CALLS = f"calls, {_MANY} at a time"
_RATE = 500.0
_WARMING_UP = 0.1


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the highest lossless rates, and how long the median message, and call, takes."""
    with connected(contender, "text") as line:
        values = {_TEXT: highest_rate(line, plan)}
    if plan.quick:
        return values
    with connected(contender, "file") as line:
        values[_FILE] = highest_rate(line, plan)
        count = max(int(plan.seconds * _RATE), 100)
        values[_DELAY] = line.delays(count, _RATE, composed=False)[count // 2]
    if contender.name in _CALLERS:
        values |= _calls(contender, plan)
    return values


def _calls(contender: Contender, plan: Plan) -> dict[str, float]:
    module, method, number_of = _CALLERS[contender.name]
    with contextlib.ExitStack() as stack:
        callee = stack.enter_context(Child(contender, "callee", contender.ends))
        caller = stack.enter_context(Child(contender, module, contender.ends, callee.call("address")))
        caller.call("call_for", kind="number", seconds=_WARMING_UP)
        _, _, times = caller.call("call_for", kind="number", seconds=plan.seconds)
        started, ended, count = caller.call(method, kind="number", seconds=plan.seconds, **{number_of: _MANY})
        return {_CALL: 1e6 * sorted(times)[len(times) // 2], _CALLS: count / (ended - started)}


_CALLERS = {
    who.OURS: ("caller", "call_from_threads", "threads"),
    who.ASYNCIO: ("awaiting_caller", "call_from_tasks", "tasks"),
}
_RATES = (_TEXT, _FILE)
MEASUREMENT = Measurement(
    name="asyncio",
    units={**dict.fromkeys(_RATES, "1/s"), _DELAY: "µs", _CALL: "µs", _CALLS: "1/s"},
    contenders=(who.OURS, who.ASYNCIO, who.AWAITED, who.AWAITED_ORJSON, "NATS"),
    measure=measure,
    goals=(
        *(Goal(metric, over=who.OURS, at_least=0.7, contender=who.ASYNCIO) for metric in _RATES),
        *(
            Goal(metric, over=other, at_least=1, contender=who.ASYNCIO)
            for other in ("NATS", who.AWAITED)
            for metric in _RATES
        ),
    ),
    explanation=(
        "Highest lossless rates as above, from a blocking sender, and how long a message is on its way at 500 messages "
        f"a second. `{who.OURS}` receives in a thread, the others on an event loop: `{who.ASYNCIO}` by `async for`, "
        f"`{who.AWAITED}` by `await socket.recv()` of pyzmq and a decoder of JSON, and `NATS` by a callback of its "
        "client, which is nats-py. Calls are of a function that gives back a number, one after the other or by "
        f"{_MANY} threads or tasks; a thread answers those of threads, and a task those of tasks."
    ),
)
