"""What was measured, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contenders import RELEASED
from bench.harness import Goal, Plan, Results, Verdict

__all__ = ["as_json", "as_markdown", "machine"]

_ANSWERS = {True: "yes", False: "no", None: "not measured"}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def as_json(
    about: Mapping[str, Any], plan: Plan, everything: Sequence[Results], notes: Iterable[str]
) -> dict[str, Any]:
    """Return all samples, their medians and the goals, as JSON can hold them."""
    return {
        "about": dict(about),
        "rounds": plan.rounds,
        "quick": plan.quick,
        "notes": [*notes],
        "measurements": {
            results.measurement.name: {
                "explanation": results.measurement.explanation,
                "units": dict(results.measurement.units),
                "samples": results.samples,
                "medians": {
                    metric: {contender: results.median(metric, contender) for contender in samples}
                    for metric, samples in results.samples.items()
                },
                "notes": results.notes,
            }
            for results in everything
        },
        "goals": [
            {
                "measurement": results.measurement.name,
                "goal": _claim(verdict.goal),
                "value": verdict.value,
                "reached": verdict.is_reached,
                "gross regression": verdict.is_gross_regression,
            }
            for results in everything
            for verdict in results.verdicts()
        ],
    }


def as_markdown(about: Mapping[str, Any], plan: Plan, everything: Sequence[Results], notes: Iterable[str]) -> str:
    """Return tables of the medians, with their ratios to the release's, and of the goals."""
    blocks = [
        f"Medians of {plan.rounds} interleaved rounds; in brackets: how many times the median of `{RELEASED}`.",
        _listed(f"{name}: {value}" for name, value in about.items()),
        _listed(notes),
    ]
    for results in everything:
        blocks += [
            f"## {results.measurement.name}",
            results.measurement.explanation,
            _table(results),
            _listed(results.notes),
        ]
    verdicts = [
        (results.measurement.name, verdict)
        for results in everything
        for verdict in results.verdicts()
        if verdict.value is not None or not plan.quick
    ]
    if verdicts:
        blocks += ["## Goals", _goals(verdicts)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _listed(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(results: Results) -> str:
    """Return a row for each metric, or for each contender where there are more of those."""
    units, samples = results.measurement.units, results.samples
    metrics = [metric for metric in units if metric in samples]
    contenders = dict.fromkeys(contender for metric in metrics for contender in samples[metric])
    known = [name for name in results.measurement.contenders if name in contenders]
    lines = [
        ["", *(f"{metric} [{units[metric]}]" for metric in metrics)],
        *(
            [contender, *(_cell(results, metric, contender) for metric in metrics)]
            for contender in [*known, *(name for name in contenders if name not in known)]
        ),
    ]
    if len(metrics) >= len(lines):
        lines = [list(row) for row in zip(*lines, strict=True)]
    return _rows(lines[0], lines[1:])


def _cell(results: Results, metric: str, contender: str) -> str:
    value, ratio = results.median(metric, contender), results.ratio(metric, contender, RELEASED)
    if value is None:
        return ""
    return _number(value) + (f" ({_number(ratio)})" if ratio is not None and contender != RELEASED else "")


def _goals(verdicts: Iterable[tuple[str, Verdict]]) -> str:
    rows = [
        [
            name,
            _claim(verdict.goal),
            "" if verdict.value is None else _number(verdict.value),
            _ANSWERS[verdict.is_reached],
        ]
        for name, verdict in verdicts
    ]
    return _rows(["", "goal", "measured", "reached"], rows)


def _claim(goal: Goal) -> str:
    bound = f"at least {goal.at_least:.3g}" if goal.at_least is not None else f"at most {goal.at_most:.3g}"
    return f"{goal.metric}: {goal.contender} {bound}" + (f" times {goal.over}" if goal.over else "")


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    line = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, line, *rows))


def _number(value: float) -> str:
    """Return a number with three digits that tell something."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{digits}f}"
