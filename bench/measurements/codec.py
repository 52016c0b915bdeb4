"""How long it takes to write and to read one message, and how many instructions."""

from __future__ import annotations

from collections.abc import Mapping

from bench import contenders as who
from bench.harness import Child, Contender, Goal, Measurement, Plan

__all__ = ["MEASUREMENT"]

_TASKS = ("encode", "decode")
_KINDS = ("text", "file", "dataset", "bytes")
_QUICK_KINDS = ("text", "file")
_COUNT_TIMEOUT = 200.0
# They are the same in each round.
_counted: dict[str, dict[str, float]] = {}


def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
    """Return the microseconds that each kind of message takes, and the instructions where they can be counted."""
    kinds = _QUICK_KINDS if plan.quick else _KINDS
    tasks = [(task, kind) for kind in kinds for task in _TASKS]
    with Child(contender, "codec") as child:
        values = {
            f"{task} {kind}": child.call("microseconds", task=task, kind=kind, seconds=plan.seconds / 2)
            for task, kind in tasks
        }
        if contender.name not in _counted:
            _counted[contender.name] = _count(child, tasks)
    return {**values, **_counted[contender.name]}


def _count(child: Child, tasks: list[tuple[str, str]]) -> dict[str, float]:
    counts = child.call("instructions", timeout=_COUNT_TIMEOUT, tasks=tasks)
    return {f"{task} {kind}, instructions": count for (task, kind), count in zip(tasks, counts or (), strict=False)}


def _goals() -> list[Goal]:
    wanted = {"text": (6, 6), "file": (6, 6), "dataset": (20, 15)}
    return [
        Goal(f"{task} {kind}", over=who.RELEASED, at_most=1 / times)
        for kind, both in wanted.items()
        for task, times in zip(_TASKS, both, strict=True)
    ]


MEASUREMENT = Measurement(
    name="codec",
    units={f"{task} {kind}": "µs" for kind in _KINDS for task in _TASKS}
    | {f"{task} {kind}, instructions": "thousands" for kind in _KINDS for task in _TASKS},
    contenders=(who.OURS, who.RELEASED),
    measure=measure,
    goals=_goals(),
    explanation=(
        "One message made from its data and written, or read from the frame that arrives: 150 bytes of text, 1 KB "
        "about a file, a dataset of 50 files, 64 kB of bytes (for the release, which takes no bytes, of text). "
        "Instructions are counted by valgrind, where it is installed."
    ),
)
