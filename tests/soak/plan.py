"""What is killed when: drawn at random, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["VICTIMS", "WORKERS", "Harm", "Plan"]

WORKERS = ("shared.1", "shared.2", "shared.3")
VICTIMS = ("publisher", "nameserver", "alone", *WORKERS)
_LONGEST_ABSENCE = 1.5
_FREEZES = (1.0, 3.0, 13.0)
"""Not noticed, noticed where a connection is watched closely, and long enough to count as dead."""


class Harm(NamedTuple):
    """Who is killed or frozen when the publisher has sent so many messages, and for how many seconds it is away."""

    after: int
    victim: str
    absence: float
    is_freeze: bool = False


@dataclass(frozen=True)
class Plan:
    """How many messages are sent, in about how many seconds, and how often somebody is killed or frozen meanwhile."""

    seed: int
    messages: int
    seconds: float
    kills: int
    freezes: int = 0

    @property
    def period(self) -> float:
        """Seconds between messages."""
        return self.seconds / self.messages

    def schedule(self) -> list[Harm]:
        """Return all that is done in the order of its time; each part is killed once before any is twice."""
        chance = random.Random(self.seed)
        moments = chance.sample(range(1, self.messages), self.kills + self.freezes)
        victims: list[str] = []
        while len(victims) < self.kills:
            victims += chance.sample(VICTIMS, len(VICTIMS))
        kills = [
            Harm(after, victim, chance.uniform(0, _LONGEST_ABSENCE))
            for after, victim in zip(sorted(moments[: self.kills]), victims, strict=False)
        ]
        freezes = [
            Harm(after, chance.choice(VICTIMS), chance.choice(_FREEZES), is_freeze=True)
            for after in moments[self.kills :]
        ]
        return sorted(kills + freezes)
