"""What came of it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.acceptance.transfers import Handled, gaps, out_of_order, shortened, unflagged
from tests.soak.plan import WORKERS

__all__ = ["Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What was sent, handled by the durable consumers, and witnessed by a plain one, by the names of their records."""

    seed: int
    seconds: float
    kills: Mapping[str, int]
    freezes: int
    sent: Sequence[int]
    handled: Mapping[str, Sequence[Handled]]
    witnessed: Mapping[str, Sequence[Handled]]
    pending: Mapping[str, int]
    number_set_aside: int
    errors: Sequence[str]

    @property
    def shared(self) -> list[Handled]:
        """What the workers handled, one after the other."""
        return list(itertools.chain.from_iterable(self.handled[name] for name in WORKERS))

    def faults(self) -> list[str]:
        """Return which promises were broken; none is what should be."""
        return [f"{what}: {shortened(found)}" for what, found in self._found() if found]

    def _found(self) -> Iterator[tuple[str, Collection[object]]]:
        for name, handled in (("alone", self.handled["alone"]), ("shared", self.shared)):
            yield f"lost by {name}", sorted(set(self.sent) - {one.number for one in handled})
            yield f"handled more than once by {name} without being told", unflagged(handled)
        # Among workers, what one gives back goes to another that may be farther.
        yield "out of order at alone", out_of_order(self.handled["alone"])
        yield "workers without work", [name for name in WORKERS if not self.handled[name]]
        yield "left to settle", [f"{count} by {name}" for name, count in self.pending.items() if count]
        yield "set aside", [self.number_set_aside] if self.number_set_aside else []
        for name, handled in self.witnessed.items():
            yield f"not seen in turn by {name}", gaps(handled)
            yield f"not seen at all by {name}", [] if handled else ["anything"]
        yield "logged", self.errors

    def report(self) -> str:
        """Return the figures, and the faults if there are any."""
        killed = ", ".join(f"{part} {count}" for part, count in self.kills.items())
        by_worker = ", ".join(str(len(self.handled[name])) for name in WORKERS)
        witnessed = [f"seen by a plain released subscriber: {len(seen)}" for seen in self.witnessed.values()]
        lines = [
            f"seed {self.seed}, {self.seconds:.0f} s; frozen {self.freezes} times, killed: {killed}",
            f"sent: {len(set(self.sent))}",
            f"handled by one durable subscriber: {_summary(self.handled['alone'])}",
            f"handled by three workers ({by_worker}): {_summary(self.shared)}",
            *witnessed,
            *(f"BROKEN: {fault}" for fault in self.faults()),
        ]
        return "\n".join(lines)


def _summary(handled: Sequence[Handled]) -> str:
    different = len({one.sequence for one in handled})
    redelivered = sum(one.is_redelivered for one in handled)
    return f"{different}, {len(handled) - different} of them again; {redelivered} flagged as redelivered"
