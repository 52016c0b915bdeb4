"""A nameserver, a durable publisher and its consumers, which are killed, restarted and frozen while messages flow."""

from __future__ import annotations

import heapq
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.acceptance.processes import Process, Site
from tests.acceptance.transfers import Transfer
from tests.fixtures.waiting import UNIT
from tests.soak.plan import VICTIMS, WORKERS, Harm, Plan
from tests.soak.verdict import Verdict

__all__ = ["Chain"]

_STANDSTILL = 45 * UNIT
_BURST = "20"
_TURN = 0.05
_TELL_EVERY = 10.0
_BAD_WORDS = ("Traceback", "ERROR", "CRITICAL")


class Chain:
    """All parts as processes; with the interpreter of a released version, a plain subscriber of that one besides.

    `report` is told now and then how far all are.
    """

    def __init__(
        self, site: Site, plan: Plan, ports: tuple[int, int], released: Path | None, report: Callable[[str], None]
    ) -> None:
        self._transfer = Transfer(site)
        self._plan = plan
        self._report = report
        self._tell_at = time.monotonic() + _TELL_EVERY
        self._processes: dict[str, Process] = {}
        self._returns: list[tuple[float, str]] = []
        self._kills = dict.fromkeys(VICTIMS, 0)
        self._freezes = 0
        self._errors: list[str] = []
        self._witnesses = ["witness"] if released is not None else []
        fixed = ["--port", str(ports[0]), "--link-port", str(ports[1])]
        pace = ["--period", str(plan.period), "--burst", _BURST, *["--await-subscriber"] * len(self._witnesses)]
        handling = ["--handle", str(plan.period)]
        self._start_of: dict[str, Callable[[], Process]] = {
            "nameserver": self._transfer.nameserver,
            "publisher": partial(self._transfer.publisher, plan.messages, *fixed, *pace),
            "alone": partial(self._transfer.durable, "alone"),
            **{name: partial(self._transfer.durable, name, *handling) for name in WORKERS},
        }
        if released is not None:
            self._processes["witness"] = self._transfer.released_subscriber(released, "witness")

    def run(self) -> Verdict:
        """Send all, doing harm as planned; wait until all that can arrive has, and judge."""
        start = time.monotonic()
        for part in VICTIMS:
            self._start(part)
        for harm in self._plan.schedule():
            if not self._await(lambda after=harm.after: self._transfer.last_sent() >= after):  # type: ignore[misc]
                break
            self._do(harm)
        self._await(self._is_done)
        return self._judge(time.monotonic() - start)

    def _start(self, part: str) -> None:
        self._processes[part] = self._start_of[part]()

    def _do(self, harm: Harm) -> None:
        """Kill or freeze, unless the victim is away already."""
        victim = harm.victim
        if any(part == victim for _, part in self._returns):
            return
        process = self._processes[victim]
        if harm.is_freeze:
            process.signal(signal.SIGSTOP)
            self._freezes += 1
        else:
            process.kill()
            process.close()
            self._note_errors(victim, process)
            self._kills[victim] += 1
        heapq.heappush(self._returns, (time.monotonic() + harm.absence, victim))

    def _bring_back(self, part: str) -> None:
        if self._processes[part].is_running():
            self._processes[part].signal(signal.SIGCONT)
        else:
            self._start(part)

    def _note_errors(self, part: str, process: Process) -> None:
        lines = process.errors.splitlines()
        self._errors += [f"{part}: {line}" for line in lines if any(word in line for word in _BAD_WORDS)]

    def _await(self, is_reached: Callable[[], bool]) -> bool:
        """Wait, bringing back who is due; return False when nobody got any further for too long."""
        progress, deadline = self._progress(), time.monotonic() + _STANDSTILL
        while not is_reached():
            while self._returns and self._returns[0][0] <= time.monotonic():
                self._bring_back(heapq.heappop(self._returns)[1])
            if (now := self._progress()) != progress:
                progress, deadline = now, time.monotonic() + _STANDSTILL
            elif time.monotonic() > deadline:
                return False
            self._tell()
            time.sleep(_TURN)
        return True

    def _progress(self) -> list[int]:
        return [self._transfer.size(name) for name in ("sent", "alone", *WORKERS, *self._witnesses)]

    def _tell(self) -> None:
        if time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + _TELL_EVERY
            self._report(
                f"sent {self._transfer.last_sent()} of {self._plan.messages}, "
                f"handled {len(self._transfer.handled('alone'))} alone and {len(self._transfer.handled(*WORKERS))} "
                f"shared; {sum(self._kills.values())} kills, {self._freezes} freezes"
            )

    def _is_done(self) -> bool:
        return (
            not self._returns
            and self._transfer.last_sent() >= self._plan.messages
            and all(self._transfer.last_handled(name) == self._plan.messages for name in self._witnesses)
            and not any(self._transfer.pending().values())
        )

    def _judge(self, seconds: float) -> Verdict:
        for part, process in self._processes.items():
            process.close()
            self._note_errors(part, process)
        return Verdict(
            seed=self._plan.seed,
            seconds=seconds,
            kills=self._kills,
            freezes=self._freezes,
            sent=[one.number for one in self._transfer.sent()],
            handled={name: self._transfer.handled(name) for name in ("alone", *WORKERS)},
            witnessed={name: self._transfer.handled(name) for name in self._witnesses},
            pending=self._transfer.pending(),
            number_set_aside=self._transfer.number_set_aside(),
            errors=self._errors,
        )
