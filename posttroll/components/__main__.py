"""Run a component: ``python -m posttroll.components module:Class configuration.yaml``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from posttroll.components import program
from posttroll.components.base import Target, reason_for_loop
from posttroll.components.configuration import Configuration
from posttroll.components.orders import Order
from posttroll.components.process import be_program

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the program; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m posttroll.components", description="Run a component.")
    parser.add_argument("component", help="what to run: module:Class, or a module with handlers")
    parser.add_argument("configuration", help="its YAML file")
    parser.add_argument("--name", help="its name instead of the one in the file, as each running one needs its own")
    options = parser.parse_args(arguments)
    overrides = {} if options.name is None else {"name": options.name}
    return be_program(_live, options.component, options.configuration, overrides)


def _live(target: Target, configuration: Configuration, check_restart: Callable[[], None]) -> Order:
    """Run the component by the runner that can."""
    reason = reason_for_loop(target)
    if not reason:
        logger.debug("%s runs in threads, as it has no coroutines", configuration.name)
        return program.live(target, configuration, check_restart)
    logger.debug("%s runs in an event loop, as it %s", configuration.name, reason)
    # Imported for those who have some only, as it takes a while.
    from posttroll.asyncio.components.program import live

    return live(target, configuration, check_restart)


if __name__ == "__main__":
    sys.exit(main())
