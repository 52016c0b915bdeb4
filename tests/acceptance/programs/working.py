"""A component that works on files, with a line for all that it does: ``working.py <configuration> [name]``."""

import sys
import threading
from typing import Any

from posttroll.components import Component, command, on, run

VERSION = "first"


class Worker(Component):
    """Does jobs; those of type ``long`` take as many seconds as the settings say."""

    version = VERSION

    def start(self) -> None:
        say("ready")

    def stop(self) -> None:
        say("stopped")

    @on("file", "/1b")
    def work(self, data: Any) -> dict[str, Any]:
        say("done", data["number"], VERSION)
        return {"number": data["number"], "by": self.name}

    @on("long", "/1b")
    def work_long(self, message: Any) -> dict[str, Any]:
        say("began", message.data["number"], message.delivery is not None and message.delivery.redelivered)
        threading.Event().wait(self.settings["seconds"])
        return self.work(message.data)

    @on("bad", "/1b")
    def fail(self) -> None:
        say("failing")
        raise ValueError("cannot do it")

    @command("version")
    def tell_version(self) -> str:
        return VERSION


def say(*words: object) -> None:
    print(f"{' '.join(map(str, words))}\n", end="", flush=True)


if __name__ == "__main__":
    sys.exit(run(Worker, sys.argv[1], **dict(zip(["name"], sys.argv[2:], strict=False))))
