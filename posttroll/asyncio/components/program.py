"""Being a program whose component runs in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from signal import Signals
from typing import Any

from posttroll.asyncio.components.runner import Runner
from posttroll.components.base import Target
from posttroll.components.configuration import Configuration
from posttroll.components.middleware import Middleware
from posttroll.components.orders import Order
from posttroll.components.process import Source, be_program, ending_signals
from posttroll.daemon import notify

__all__ = ["live", "run"]


def run(target: Target | str, configuration: Source, middleware: Sequence[Middleware] = (), **overrides: Any) -> int:
    """Run a component in an event loop of its own until it is told to end; return the exit status.

    The arguments, and what ends it, are as in `posttroll.components.run`. Who has a loop uses a `Runner` instead.
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
        return asyncio.run(_run(runner, numbers))


async def _run(runner: Runner, numbers: Sequence[Signals]) -> Order:
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, runner.stop)
    return await runner.run(lambda: notify("READY=1"))
