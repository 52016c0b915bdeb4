"""Only the monotonic clock decides about age, time-outs and intervals: nobody notices when the time is set."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from tests.acceptance.processes import FOUND_WITHIN, PROGRAMS, Process, Site
from tests.fixtures.waiting import UNIT

MAX_AGE = 2.0
AN_HOUR = "3600"
JUMPS = pytest.mark.parametrize("jump", [signal.SIGUSR1, signal.SIGUSR2], ids=["ahead", "back"])


def _jumping(site: Site, step: str, program: str, *arguments: str, **settings: object) -> Process:
    return site.program("jumping.py", step, str(PROGRAMS / program), *arguments, **settings)


@JUMPS
def test_a_nameserver_keeps_living_publishers_and_forgets_dead_ones_when_its_clock_jumps(
    site: Site, jump: signal.Signals
) -> None:
    nameserver = _jumping(site, AN_HOUR, "nameserver.py", str(MAX_AGE))
    nameserver.expect_ready()
    publisher = site.publisher("counted")
    with closing(site.program("watch.py")) as watcher:
        watcher.expect(lambda line: line not in ("[]", "silent"), FOUND_WITHIN)

        nameserver.signal(jump)

        with pytest.raises(AssertionError, match="did not say it"):
            watcher.expect(lambda line: line in ("[]", "silent"), MAX_AGE)
        publisher.kill()
        watcher.expect(lambda line: line == "[]", 1.5 * MAX_AGE + 2 * UNIT)


@JUMPS
def test_a_publisher_goes_on_announcing_itself_when_its_clock_jumps(site: Site, jump: signal.Signals) -> None:
    publisher = _jumping(site, AN_HOUR, "publish.py", "counted")
    publisher.expect_ready()

    publisher.signal(jump)
    site.nameserver()

    with closing(site.program("watch.py")) as watcher:
        watcher.expect(lambda line: line not in ("[]", "silent"), FOUND_WITHIN)


@JUMPS
def test_a_subscriber_goes_on_receiving_and_finding_when_its_clock_jumps(site: Site, jump: signal.Signals) -> None:
    nameserver = site.nameserver()
    site.publisher("first")
    subscriber = _jumping(site, AN_HOUR, "subscribe.py")
    subscriber.expect_word("first")

    subscriber.signal(jump)

    subscriber.expect_word("first")
    nameserver.kill()
    site.publisher("second")
    site.nameserver()
    subscriber.expect_word("second")


def test_no_wait_is_shorter_or_longer_because_the_clock_swings(site: Site, free_port: int) -> None:
    site.program("nameserver.py", "600").expect_ready()

    waits = _jumping(site, "0", "waits.py", str(free_port), site.settings["nameserver_port"])

    assert waits.wait(10 * UNIT) == 0, waits.errors
    durations = {name: float(seconds) for name, seconds in map(str.split, waits.lines)}
    assert len(durations) == 6
    assert all(0.45 < seconds < 0.5 + UNIT for seconds in durations.values()), durations
