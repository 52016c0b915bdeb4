"""Show the whole chain at work on this host, and check that it works.

Starts a nameserver, `watch_directory.py` and `print_messages.py`, lets the files of a satellite pass land, waits for
the message about each of them, and stops everything. The exit status is 0 if all went well. Takes a few seconds,
needs no network but loopback, and leaves nothing behind.
"""

from __future__ import annotations

import os
import queue
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from posttroll.message import Message, MessageError

HERE = Path(__file__).resolve().parent
START_TIMEOUT = 20.0
ARRIVAL_TIMEOUT = 10.0
STOP_TIMEOUT = 1.0

GRANULES = (
    "t1011234_e1012476_b63401_c20240112103501283415",
    "t1012488_e1014130_b63401_c20240112103514902217",
    "t1014142_e1015384_b63401_c20240112103528116730",
)
FILES = tuple(
    f"{dataset}_npp_d20240112_{granule}_cspp_dev.h5" for granule in GRANULES for dataset in ("SVM05", "SVI01", "GMTCO")
)


class DemoFailed(Exception):
    """Something did not happen as it should."""


class Program:
    """A process of the chain; what it prints goes to the screen and into a queue, None at its end."""

    def __init__(self, name: str, *command: str | Path, environment: dict[str, str]) -> None:
        self.name = name
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        print(f"         $ {' '.join(Path(word).name for word in command)}", flush=True)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(f"{self.name:>10} | {line}", end="", flush=True)
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def lines(self, timeout: float, awaited: str) -> Iterator[str]:
        """Yield what it prints; `DemoFailed` if it ends, or when `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DemoFailed(f"{self.name} did not show {awaited} within {timeout:g} s") from None
            if line is None:
                raise DemoFailed(f"{self.name} ended with status {self._process.wait()} before it showed {awaited}")
            yield line

    def wait_for(self, text: str) -> None:
        """Wait until it prints a line with the text."""
        next(line for line in self.lines(START_TIMEOUT, repr(text)) if text in line)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def check_ended(self, timeout: float) -> None:
        """Wait for its end; `DemoFailed` if it takes too long or the status is not 0."""
        try:
            status = self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{self.name} did not stop within {STOP_TIMEOUT:g} s of SIGTERM") from None
        if status != 0:
            raise DemoFailed(f"{self.name} ended with status {status}, not 0")

    def kill(self) -> None:
        """Make sure that it is gone."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


@contextmanager
def running_chain(landing: Path) -> Iterator[list[Program]]:
    """Start nameserver, subscriber and publisher; none of them is left at the end."""
    environment = private_environment()
    scripts = Path(sysconfig.get_path("scripts"))
    with ExitStack() as stack:

        def start(name: str, *command: str | Path) -> Program:
            program = Program(name, *command, environment=environment)
            stack.callback(program.kill)
            return program

        nameserver = start("nameserver", scripts / "nameserver")
        nameserver.wait_for("nameserver answers at")
        subscriber = start("subscriber", sys.executable, HERE / "print_messages.py", "viirs_files")
        publisher = start("publisher", sys.executable, HERE / "watch_directory.py", landing)
        publisher.wait_for("somebody is listening")
        yield [publisher, subscriber, nameserver]


def private_environment() -> dict[str, str]:
    """Return an environment in which the chain keeps to loopback and to ports that nobody uses."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTTROLL_")}
    names = ("NAMESERVER_PORT", "SECURE_ZMQ_NAMESERVER_PORT", "BROADCAST_PORT", "ADDRESS_PUBLISH_PORT")
    ports = (port for port in random.sample(range(15_000, 32_000), 500) if is_free(port))
    return environment | {
        "POSTTROLL_MULTICAST_INTERFACE": "127.0.0.1",
        "POSTTROLL_ADVERTISED_HOST": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        **{f"POSTTROLL_{name}": str(next(ports)) for name in names},
    }


def is_free(port: int) -> bool:
    """Return whether nobody uses the port, for TCP or UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def land_files(incoming: Path, landing: Path) -> None:
    """Write the files of a pass and rename each into the directory that is watched."""
    for name in FILES:
        (incoming / name).write_bytes(b"a granule")
        (incoming / name).rename(landing / name)


def wait_for_messages(subscriber: Program) -> None:
    """Wait until there was a message about every file."""
    missing = set(FILES)
    awaited = f"the messages about all {len(FILES)} files"
    try:
        for line in subscriber.lines(ARRIVAL_TIMEOUT, awaited):
            missing.discard(uid_in(line))
            if not missing:
                return
    except DemoFailed as error:
        raise DemoFailed(f"{error}; missing: {', '.join(sorted(missing))}") from None


def uid_in(line: str) -> str:
    """Return the name of the file that a printed message is about, "" if it is about none."""
    try:
        message = Message.decode(line)
    except MessageError:
        return ""
    return str(message.data["uid"]) if message.type == "file" else ""


def stop_all(programs: list[Program]) -> float:
    """Stop them and return how many seconds it took."""
    start = time.monotonic()
    for program in programs:
        program.terminate()
    for program in programs:
        program.check_ended(start + STOP_TIMEOUT - time.monotonic())
    return time.monotonic() - start


def show() -> None:
    """Run the demonstration; `DemoFailed` if something goes wrong."""
    directory = Path(tempfile.mkdtemp(prefix="posttroll-demo-"))
    incoming, landing = directory / "incoming", directory / "landing"
    incoming.mkdir()
    landing.mkdir()
    try:
        print("1. Starting a nameserver, a subscriber and a publisher, which find each other.")
        with running_chain(landing) as programs:
            print(f"2. {len(FILES)} files of a Suomi-NPP pass land in {landing}.", flush=True)
            land_files(incoming, landing)
            wait_for_messages(programs[1])
            print("3. Every message has arrived. Stopping all with SIGTERM.", flush=True)
            seconds = stop_all(programs)
        print(f"Done: {len(FILES)} files landed, {len(FILES)} messages arrived, all stopped in {seconds:.2f} s.")
    finally:
        shutil.rmtree(directory)


def main() -> None:
    """Run the demonstration and exit with its status."""
    try:
        show()
    except (DemoFailed, OSError) as error:
        sys.exit(f"The demonstration FAILED: {error}")


if __name__ == "__main__":
    main()
