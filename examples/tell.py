"""Tell a component to do something, and print what became of it: `tell.py NAME COMMAND [PARAMETER=VALUE ...]`."""

from __future__ import annotations

import argparse
import sys

from posttroll.components import Command, Fingerprint, Result
from posttroll.errors import PosttrollError, TimedOut
from posttroll.messenger import Messenger


def tell(name: str, command: Command, timeout: float) -> Result:
    """Send a command and return the result; `TimedOut`."""
    with Messenger(listen=False) as messenger:
        messenger.put(name, command.message(Fingerprint.of_this_process(messenger.name, "tell")), ttl=timeout)
        result = messenger.get(timeout)
        if result is None:
            raise TimedOut(f"{name} did not answer within {timeout:g} s")
        return Result.read(result)


def main() -> None:
    """Read the command line and tell; the exit status is 0 if the command succeeded."""
    parser = argparse.ArgumentParser(description="Tell a component to do something.")
    parser.add_argument("name", help="name of the component")
    parser.add_argument("command", help="such as ping, status, restart, quit, or one of its own")
    parser.add_argument("parameter", nargs="*", help="such as text=Hello")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for the result (default: 10)")
    options = parser.parse_args()
    parameters = dict(parameter.split("=", 1) for parameter in options.parameter)
    try:
        result = tell(options.name, Command(command=options.command, parameters=parameters), options.timeout)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"{result.state}: {result.text or result.value}")
    sys.exit(result.state != "success")


if __name__ == "__main__":
    main()
