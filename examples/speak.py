"""Publish texts, kept for all who hear them, also later. Ends at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from posttroll.components import Fingerprint, Producer, sends
from posttroll.errors import PosttrollError
from posttroll.publisher import Publish

SPEAKER = Fingerprint.of_this_process("speaker", "Announcements", "1.0")


class Announcements(Producer):
    """What this program publishes."""

    @sends("echo", "/echo")
    def announce(self, text: str) -> dict[str, Any]:
        """Say something to all."""
        return {"text": text, "fingerprint": SPEAKER.as_dict()}


def speak(texts: list[str]) -> None:
    """Publish the texts, and stay for those who come to get them."""
    with Publish(SPEAKER.name, journal=True) as publisher:
        announcements = Announcements(publisher.send)
        for text in texts:
            announcements.announce(text)
        print("all is said", flush=True)
        signal.pause()


def main() -> None:
    """Read the command line and speak."""
    parser = argparse.ArgumentParser(description="Publish texts.")
    parser.add_argument("text", nargs="+")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    try:
        speak(options.text)
    except (PosttrollError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
