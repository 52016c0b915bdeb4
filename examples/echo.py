"""A component that prints what it is told, and by whom: `python echo.py NAME`. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from posttroll.components import Component, command, on, run


class Echo(Component):
    """Says again what it hears."""

    @on("echo", "/echo")
    def hear(self, data: dict[str, Any]) -> None:
        """Print what was published."""
        who = data["fingerprint"]
        print(f"{self.name} hears {data['text']!r} from {who['name']}, {who['kind']} {who['version']}", flush=True)

    @command("echo")
    def echo(self, text: str) -> str:
        """Print what was sent to this component, and return it."""
        print(f"{self.name} is told {text!r}", flush=True)
        return text


def main() -> int:
    """Read the command line and run the component; return its exit status."""
    parser = argparse.ArgumentParser(description="Print what is said.")
    parser.add_argument("name", help="its own name")
    parser.add_argument("--shared", metavar="GROUP", help="hear only its share of what the group is told")
    options = parser.parse_args()
    hears = {"private": options.name} if options.shared is None else {"shared": options.shared}
    return run(Echo, Path(__file__).with_suffix(".yaml"), name=options.name, **hears)


if __name__ == "__main__":
    sys.exit(main())
