"""Being a program: from a component and a file to a daemon, and to its exit status."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from posttroll.components.base import Target
from posttroll.components.configuration import Configuration
from posttroll.components.middleware import Middleware
from posttroll.components.orders import Order
from posttroll.components.process import Source, be_program, ending_signals
from posttroll.components.runner import Runner
from posttroll.daemon import notify

__all__ = ["live", "run"]


def run(target: Target | str, configuration: Source, middleware: Sequence[Middleware] = (), **overrides: Any) -> int:
    """Run a component until it is told to end; return the exit status: 0, or 1 after an error, which is printed.

    `target`: a class derived from `Component`, a module with handlers, or the place of one of them as
    ``module:Class``. `configuration`: a YAML file or its items; `overrides` go before these.

    SIGTERM, SIGINT and SIGHUP end it, those sent again at once. To restart, the program executes itself anew, with the
    same arguments and under the same process id, unless it is plain that it could not start.
    """
    return be_program(partial(live, middleware=middleware), target, configuration, overrides)


def live(
    target: Target,
    configuration: Configuration,
    check_restart: Callable[[], None],
    middleware: Sequence[Middleware] = (),
) -> Order:
    """Run a component until a signal or something else tells it to end; return how."""
    runner = Runner(target, configuration, middleware, check_restart)
    with ending_signals() as numbers:
        for number in numbers:
            signal.signal(number, lambda *_: runner.stop())
        return runner.run(lambda: notify("READY=1"))
