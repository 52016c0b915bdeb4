"""Programs run as processes of their own: started, spoken to, and ended by their id."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fixtures.waiting import UNIT

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("programs")
FOUND_WITHIN = 5 * UNIT
"""What is promised for a publisher to be found, whatever was started, killed or cut off."""

_START = 10 * UNIT
_END = 5 * UNIT


class Process:
    """A running program whose lines on standard output can be waited for; standard error goes to a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errors: Path) -> None:
        self.name = Path(command[-1] if len(command) < 3 else command[2]).name
        self._errors_file = errors
        with errors.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=dict(environment), text=True
            )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self._errors_file.read_text(errors="replace")

    @property
    def output(self) -> str:
        """What it wrote to standard output, as far as it was waited for."""
        return "".join(f"{line}\n" for line in self.lines)

    def expect(self, claim: Callable[[str], bool], timeout: float = FOUND_WITHIN) -> str:
        """Wait for a line of which the claim holds, and return it; lines before it are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self._report(f"did not say it within {timeout:g} s")) from None
            if line is None:
                self._arrived.put(None)
                raise AssertionError(self._report("ended without saying it"))
            self.lines.append(line)
            if claim(line):
                return line

    def expect_word(self, word: str, timeout: float = FOUND_WITHIN) -> list[str]:
        """Wait for a line that begins with the word; return what follows it."""
        return self.expect(lambda line: line.split(" ")[0] == word, timeout).split(" ")[1:]

    def expect_silence(self, seconds: float) -> None:
        """Wait until nothing was said for so long."""
        deadline = time.monotonic() + _END
        while time.monotonic() < deadline:
            try:
                self._arrived.get(timeout=seconds)
            except queue.Empty:
                return
        raise AssertionError(self._report(f"is not silent for {seconds:g} s"))

    def expect_ready(self) -> list[str]:
        """Wait for the line ``ready`` that programs begin with; return what follows."""
        return self.expect_word("ready", _START)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._process.kill()
        self._process.wait(_END)

    def wait(self, timeout: float = _END) -> int:
        """Wait for its end and return the exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._report(f"did not end within {timeout:g} s")) from None
        self._reader.join(_END)
        while not self._arrived.empty():
            line = self._arrived.get()
            self.lines += [line] if line is not None else []
        self._arrived.put(None)
        return status

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, gently if it listens to that."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END)
        self._reader.join(_END)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):
            for line in self._process.stdout:
                self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def _report(self, what: str) -> str:
        return f"{self.name} {what}; it said {self.lines[-5:]}, and on standard error:\n{self.errors[-2000:]}"


class Site:
    """A place of its own to run programs in: settings, ports and a directory that nobody else uses."""

    def __init__(self, directory: Path, settings: Mapping[str, object], prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.settings = {name: str(value) for name, value in settings.items()}
        self._prefix = [*prefix]
        self._processes: list[Process] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment its programs run in."""
        own = {f"POSTTROLL_{name.upper()}": value for name, value in self.settings.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NOTIFY_SOCKET": "", **own}

    def run(self, *command: str, **settings: object) -> Process:
        """Run a command with settings of its own beside those of the site."""
        own = {f"POSTTROLL_{name.upper()}": str(value) for name, value in settings.items()}
        errors = self.directory / f"errors_{len(self._processes)}"
        process = Process([*self._prefix, *command], {**self.environment, **own}, errors)
        self._processes.append(process)
        return process

    def python(self, *arguments: str, **settings: object) -> Process:
        """Run this interpreter."""
        return self.run(sys.executable, *arguments, **settings)

    def program(self, name: str, *arguments: str, **settings: object) -> Process:
        """Run one of the helper programs."""
        return self.python(str(PROGRAMS / name), *arguments, **settings)

    def nameserver(self, *arguments: str, **settings: object) -> Process:
        """Run the command ``nameserver``."""
        return self.python("-m", "posttroll.ns", *arguments, **settings)

    def publisher(self, tag: str, *arguments: str, **settings: object) -> Process:
        """Run a publisher of the service ``counter``, which counts under a tag; it is not waited for."""
        return self.program("publish.py", tag, *arguments, **settings)

    def subscriber(self, *arguments: str, **settings: object) -> Process:
        """Run a subscriber to the service ``counter``, which prints ``<tag> <number>`` for each message."""
        return self.program("subscribe.py", *arguments, **settings)

    def close(self) -> None:
        """End everything that was run here."""
        for process in reversed(self._processes):
            process.close()


def loopback_settings(ports: Sequence[int]) -> dict[str, object]:
    """Return the settings that keep all of discovery on loopback, on ports of its own."""
    names = ("nameserver_port", "secure_zmq_nameserver_port", "broadcast_port", "address_publish_port")
    own = {"multicast_interface": "127.0.0.1", "advertised_host": "127.0.0.1"}
    return {**dict(zip(names, ports, strict=True)), **own}


@contextmanager
def opened(site: Site) -> Iterator[Site]:
    """End what runs on the site at the end of the block."""
    try:
        yield site
    finally:
        site.close()
