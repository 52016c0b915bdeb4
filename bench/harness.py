"""Contenders, the processes that stand for them, and rounds in which they take turns.

A measurement is a module of `bench.measurements` that has a `Measurement` called ``MEASUREMENT``, and whose name is in
the list there::

    def measure(contender: Contender, plan: Plan) -> Mapping[str, float]:
        with Child(contender, "imports") as child:  # bench/children/imports.py, in the contender's interpreter
            return {"import": child.call("import_all", timeout=10.0)}

    MEASUREMENT = Measurement(
        name="imports",
        units={"import": "ms"},
        contenders=("this package", "released"),
        measure=measure,
        goals=(Goal("import", at_most=60.0), Goal("import", over="released", at_most=0.5)),
    )

`measure` is called once a round for each contender, all contenders in turn in each round, and gives one value for each
metric that it could measure. It may raise `Unavailable` to be left out with a note. A child is a module of
`bench.children` that imports the standard library, `children` and its contender's package only, and ends with
``serve(object)`` of `children.serving`: each call names a method of that object, arguments and results are JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = [
    "Child",
    "Contender",
    "Failure",
    "Goal",
    "Measurement",
    "Plan",
    "Results",
    "Service",
    "Unavailable",
    "Verdict",
    "run",
]

_BENCH = Path(__file__).resolve().parent
_CALL_TIMEOUT = 60.0
_END_TIMEOUT = 5.0
_TAIL_OF_ERRORS = 2000


class Unavailable(Exception):
    """The contender, or what it needs, cannot be had on this machine."""


class Failure(Exception):
    """A child did not do what it was asked to."""


@dataclass(frozen=True)
class Service:
    """A server that runs: where it is reached, the session of its processes, and where its files are."""

    address: str
    session: int
    directory: Path


@dataclass(frozen=True)
class Contender:
    """Somebody to measure: an interpreter, and the module of `bench.children.ends` or `calls` that speaks for it.

    `path`: directories to import from before the interpreter's own, as in PYTHONPATH. `environment`: variables of its
    processes. `options`: what its sending end is made with. `receiver`: who receives, if that is somebody else. `like`:
    the name of the contender that it is measured beside, everywhere. `server`: what it needs, if that is one.
    """

    name: str
    interpreter: Path
    ends: str = ""
    path: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    receiver: Contender | None = None
    like: str = ""
    server: Service | None = None


@dataclass(frozen=True)
class Plan:
    """How much to measure: `seconds` is what one trial should take; `quick` asks for the most telling metrics only.

    `found` is what measurements remember from one round to the next.
    """

    rounds: int = 3
    seconds: float = 0.7
    quick: bool = False
    found: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What one metric of a contender should be, as such or `over` (divided by) that of another contender.

    What is `slack` times worse is a gross regression, which neither noise nor another machine explains.
    """

    metric: str
    over: str = ""
    at_least: float | None = None
    at_most: float | None = None
    contender: str = "this package"
    slack: float = 3.0

    def is_reached(self, value: float, slack: float = 1.0) -> bool:
        """Return whether the value is good enough, when it may be `slack` times worse."""
        return (self.at_least is None or value * slack >= self.at_least) and (
            self.at_most is None or value / slack <= self.at_most
        )


@dataclass(frozen=True)
class Measurement:
    """What to measure, in which units, for which contenders (by their names), and the goals; see the module."""

    name: str
    units: Mapping[str, str]
    contenders: Sequence[str]
    measure: Callable[[Contender, Plan], Mapping[str, float]]
    goals: Sequence[Goal] = ()
    explanation: str = ""


@dataclass(frozen=True)
class Verdict:
    """A goal with the value that it was compared to, None where something it needs was not measured."""

    goal: Goal
    value: float | None

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached; None if that is not known."""
        return None if self.value is None else self.goal.is_reached(self.value)

    @property
    def is_gross_regression(self) -> bool:
        """Whether it is missed by more than its slack."""
        return self.value is not None and not self.goal.is_reached(self.value, self.goal.slack)


@dataclass
class Results:
    """The samples of one measurement by metric and contender, one a round, and notes on what is not there."""

    measurement: Measurement
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def add(self, contender: str, values: Mapping[str, float]) -> None:
        """Take the values of one round."""
        for metric, value in values.items():
            self.samples.setdefault(metric, {}).setdefault(contender, []).append(value)

    def median(self, metric: str, contender: str) -> float | None:
        """Return the median over the rounds, None if there are none."""
        samples = self.samples.get(metric, {}).get(contender)
        return statistics.median(samples) if samples else None

    def ratio(self, metric: str, contender: str, over: str) -> float | None:
        """Return how many times the other's median a contender's is, None if either is not known."""
        value, reference = self.median(metric, contender), self.median(metric, over)
        return value / reference if value is not None and reference else None

    def verdicts(self) -> Iterator[Verdict]:
        """Give each goal with its value."""
        for goal in self.measurement.goals:
            if goal.over:
                yield Verdict(goal, self.ratio(goal.metric, goal.contender, goal.over))
            else:
                yield Verdict(goal, self.median(goal.metric, goal.contender))


def run(
    measurement: Measurement,
    contenders: Iterable[Contender],
    plan: Plan,
    tell: Callable[[str], object] = lambda line: None,
) -> Results:
    """Measure those of the contenders that it is for, in turn, round by round; `tell` is called with the progress."""
    results = Results(measurement)
    present = [one for one in contenders if {one.name, one.like} & {*measurement.contenders}]
    for number in range(plan.rounds):
        for contender in _rotated(present, number):
            if contender.name in results.failed:
                continue
            started = time.monotonic()
            try:
                values = measurement.measure(contender, plan)
            except (Unavailable, Failure) as reason:
                results.failed.add(contender.name)
                results.notes.append(f"{contender.name}: {reason}")
                tell(f"{contender.name} is left out: {reason}")
                values = {}
            results.add(contender.name, values)
            tell(f"{measurement.name} {number + 1}/{plan.rounds} {contender.name} {time.monotonic() - started:.1f} s")
    return results


def _rotated(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Let somebody else begin in each round, so that nobody always comes after the same neighbour."""
    first = number % len(contenders) if contenders else 0
    return [*contenders[first:], *contenders[:first]]


class Child:
    """A process that answers calls, as lines of JSON on its standard input and output.

    It runs ``children.<module>`` with the arguments given, as text, in the contender's interpreter; an argument that is
    no text is given as JSON. It is ended by its id when the ``with`` block is left, if it does not end by itself.
    """

    def __init__(self, contender: Contender, module: str, *arguments: Any, **environment: str) -> None:
        self._name = f"{module} of {contender.name}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        self._buffer = bytearray()
        self._process = subprocess.Popen(
            [contender.interpreter, "-P", "-m", f"children.{module}", *map(_as_argument, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd="/",
            env=_environment(contender, environment),
        )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def call(self, method: str, timeout: float = _CALL_TIMEOUT, **arguments: Any) -> Any:
        """Return what the method returns, waiting for it `timeout` seconds at most; `Failure`."""
        self.ask(method, **arguments)
        return self.answer(timeout)

    def ask(self, method: str, **arguments: Any) -> None:
        """Begin a call, whose answer has to be fetched by `answer`."""
        line = json.dumps({"method": method, "arguments": arguments}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError as error:
            raise Failure(f"{self._name} has ended: {self._last_errors()}") from error

    def answer(self, timeout: float = _CALL_TIMEOUT) -> Any:
        """Return the result of the call that was begun first; `Failure`."""
        answer = json.loads(self._read_line(time.monotonic() + timeout))
        if "error" in answer:
            raise Failure(f"{self._name}: {answer['error']}")
        return answer["result"]

    def _read_line(self, deadline: float) -> bytes:
        stdout = self._process.stdout.fileno()
        while (end := self._buffer.find(b"\n")) < 0:
            if not select.select([stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise Failure(f"{self._name} does not answer: {self._last_errors()}")
            data = os.read(stdout, 2**16)
            if not data:
                raise Failure(f"{self._name} has ended: {self._last_errors()}")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _last_errors(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-_TAIL_OF_ERRORS:].decode(errors="replace").splitlines()
        return lines[-1] if lines else "nothing on its standard error"

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_END_TIMEOUT)

    def close(self) -> None:
        """Let it end, and end it if it does not."""
        try:
            self._process.stdin.close()
            self._process.wait(_END_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        finally:
            self._process.stdout.close()
            self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _as_argument(argument: Any) -> str:
    return argument if isinstance(argument, str) else json.dumps(argument)


def _environment(contender: Contender, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: without settings of the user, and with no checkout to import from."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POSTTROLL_", "PYTHON"))}
    path = os.pathsep.join(filter(None, (str(_BENCH), contender.path)))
    return {**inherited, "PYTHONPATH": path, **contender.environment, **environment}
