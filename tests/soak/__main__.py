"""Soak durable delivery: ``python -m tests.soak --messages 50000``; the exit status is 1 if anything broke."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.acceptance.processes import Site, loopback_settings, opened
from tests.compatibility.releases import RELEASES, Unavailable
from tests.fixtures.network import find_free_ports
from tests.soak.chain import Chain
from tests.soak.plan import Plan

_SECONDS_BETWEEN_KILLS = 1.5
_SECONDS_BETWEEN_FREEZES = 15.0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long sending is to take, without the kills")
    parser.add_argument("--kills", type=int, help="how often somebody is killed; by default, every 1.5 s")
    parser.add_argument("--freezes", type=int, help="how often somebody is frozen for a while; by default, every 15 s")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    return parser.parse_args()


def _find_released() -> Path | None:
    try:
        return RELEASES[-1].interpreter()
    except Unavailable as reason:
        print(f"without a released subscriber: {reason}", flush=True)
        return None


def _main() -> int:
    options = _parsed()
    seconds = 60.0 * options.minutes
    kills = int(seconds / _SECONDS_BETWEEN_KILLS) if options.kills is None else options.kills
    freezes = int(seconds / _SECONDS_BETWEEN_FREEZES) if options.freezes is None else options.freezes
    plan = Plan(options.seed, options.messages, seconds, kills, freezes)
    print(plan, flush=True)
    *ports, port, link_port = find_free_ports(6)
    with (
        tempfile.TemporaryDirectory(prefix="posttroll-soak-") as directory,
        opened(Site(Path(directory), loopback_settings(ports))) as site,
    ):
        chain = Chain(site, plan, (port, link_port), _find_released(), lambda text: print(text, flush=True))
        verdict = chain.run()
    print(verdict.report(), flush=True)
    return 1 if verdict.faults() else 0


if __name__ == "__main__":
    sys.exit(_main())
