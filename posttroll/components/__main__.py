"""Run a component: ``python -m posttroll.components module:Class configuration.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from posttroll.components.program import run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the program; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m posttroll.components", description="Run a component.")
    parser.add_argument("component", help="what to run: module:Class, or a module with handlers")
    parser.add_argument("configuration", help="its YAML file")
    parser.add_argument("--name", help="its name instead of the one in the file, as each running one needs its own")
    options = parser.parse_args(arguments)
    overrides = {} if options.name is None else {"name": options.name}
    return run(options.component, options.configuration, **overrides)


if __name__ == "__main__":
    sys.exit(main())
