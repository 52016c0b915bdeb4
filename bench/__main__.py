"""Measure how fast and how scalable this package is, beside released versions and other systems.

Run it in the root of the repository. What is missing on this machine is left out with a note.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bench import contenders as who
from bench import report
from bench.environments import versions
from bench.harness import Contender, Measurement, Plan, Results, run
from bench.measurements import NAMES, QUICK

_EXAMPLES = """examples:
  python -m bench                                      everything, in a quarter of an hour
  python -m bench --quick                              the most telling part, in less than one
  python -m bench --only rates latency --peers NATS    beside one of the other systems
  python -m bench --only codec --beside before=.venv/bin/python:../before
                                                       beside another checkout, with the same interpreter
"""
_ENDING = (signal.SIGINT, signal.SIGTERM)
_QUICK_CONTENDERS = (who.OURS, who.ASYNCIO, who.RELEASED, who.ORJSON, who.POLLED, who.AWAITED, who.RAW)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if a ratio is grossly worse than its goal, or this package cannot be measured."""
    options = _parser().parse_args(arguments)
    for number in _ENDING:
        signal.signal(number, _end)
    seconds = options.seconds or (0.3 if options.quick else 0.7)
    plan = Plan(options.rounds, seconds, options.quick)
    measurements = [_measurement(name) for name in options.only or (QUICK if options.quick else NAMES)]
    about, notes = report.machine(), []
    with contextlib.ExitStack() as stack:
        contenders = [*who.made(_names(options, measurements), stack, notes.append), *options.beside]
        about.update(versions(contenders))
        everything = [run(measurement, contenders, plan, _tell) for measurement in measurements]
    _write(options, report.as_markdown(about, plan, everything, notes), report.as_json(about, plan, everything, notes))
    return int(any(map(_is_bad, everything)))


def _end(number: int, _: object) -> NoReturn:
    """Leave what is under way, so that all that was started is ended; who is impatient does not disturb that."""
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _names(options: argparse.Namespace, measurements: Sequence[Measurement]) -> set[str]:
    """Return the names of those who are needed and wanted."""
    needed = {name for measurement in measurements for name in measurement.contenders}
    peers = options.peers
    if peers is None:
        peers = () if options.quick else who.SYSTEMS
    others = needed & {*_QUICK_CONTENDERS} if options.quick else needed - {*who.SYSTEMS}
    return others | (needed & {*peers})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="short trials of what matters most, without other systems")
    parser.add_argument("--rounds", type=_above_zero(int), default=3, help="how often each is measured (default: 3)")
    parser.add_argument(
        "--seconds", type=_above_zero(float), help="what one trial should take (default: 0.7; quick: 0.3)"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument(
        "--peers", nargs="*", choices=who.SYSTEMS, metavar="NAME", help=f"other systems: of {', '.join(who.SYSTEMS)}"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        type=_beside,
        metavar="NAME=INTERPRETER[:DIRECTORY]",
        help="one more version of this package, in an environment or a checkout of its own; may be repeated",
    )
    parser.add_argument("--json", type=_file, metavar="FILE", help="write all samples to FILE")
    parser.add_argument("--markdown", type=_file, metavar="FILE", help="write what is printed to FILE, too")
    return parser


def _above_zero(convert: type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < (number := convert(text)) < math.inf:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is no {convert.__name__} above 0")

    return parse


def _beside(text: str) -> Contender:
    try:
        return who.beside(text)
    except ValueError as reason:
        raise argparse.ArgumentTypeError(str(reason)) from reason


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():  # known before all is measured
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def _measurement(name: str) -> Measurement:
    measurement: Measurement = importlib.import_module(f"bench.measurements.{name}").MEASUREMENT
    return measurement


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(options: argparse.Namespace, markdown: str, samples: dict[str, object]) -> None:
    print(markdown)
    if options.markdown:
        options.markdown.write_text(markdown)
    if options.json:
        options.json.write_text(json.dumps(samples, indent=2) + "\n")


def _is_bad(results: Results) -> bool:
    return who.OURS in results.failed or any(
        verdict.goal.over and verdict.is_gross_regression for verdict in results.verdicts()
    )


if __name__ == "__main__":
    sys.exit(main())
