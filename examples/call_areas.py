"""Call what another program offers."""

from __future__ import annotations

import argparse
import sys

from posttroll.errors import PosttrollError
from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient


def call_areas(name: str, timeout: float) -> None:
    """Make a call of each kind."""
    with Messenger(listen=False) as messenger:
        areas = RpcClient(messenger, timeout=timeout).proxy(name, "areas")
        print("euro4 has the size", areas.size("euro4"))
        try:
            areas.size("nowhere")
        except KeyError as error:
            print("there is no area", error)
        areas.add.signal("nowhere", width=100, height=200)
        for done in areas.resample.stream("baltic"):
            print("resampled", done)
        call = areas.size.start("nowhere")
        print("nowhere has the size", call.result(timeout))


def main() -> None:
    """Read the command line and call."""
    parser = argparse.ArgumentParser(description="Call a program that offers calls about areas.")
    parser.add_argument("--name", default="resampler", help="name of that program (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a call may take (default: %(default)s)")
    options = parser.parse_args()
    try:
        call_areas(options.name, options.timeout)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
