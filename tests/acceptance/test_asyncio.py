"""Programs with an event loop end when they are to."""

from __future__ import annotations

import signal
import time

from tests.acceptance.processes import Site
from tests.fixtures.waiting import UNIT

AT_ONCE = 1.5 * UNIT


def test_an_interrupt_ends_all_that_goes_on_in_a_loop(site: Site) -> None:
    site.program("nameserver.py", "60", "--no-multicast").expect_ready()
    program = site.program("loop.py", "interrupt", str(site.directory))
    program.expect_ready()

    began = time.monotonic()
    program.signal(signal.SIGINT)
    program.expect_word("ended")

    assert program.wait() == 0
    assert time.monotonic() - began < AT_ONCE
    assert program.errors == ""


def test_a_loop_ends_though_nothing_was_stopped_in_it(site: Site) -> None:
    site.program("nameserver.py", "60", "--no-multicast").expect_ready()
    program = site.program("loop.py", "drop", str(site.directory))
    program.expect_ready()

    began = time.monotonic()
    program.expect_word("ended")

    assert program.wait() == 0
    assert time.monotonic() - began < AT_ONCE
    assert "Traceback" not in program.errors
