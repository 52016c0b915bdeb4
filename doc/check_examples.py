"""Run the examples of the documentation and the README that Sphinx does not run, and compare what they print.

Of the fenced blocks of a page,

- ``console`` blocks are typed into a shell: the lines after ``$`` (continued after ``>``); the others are what is to
  appear, where ``...`` stands for anything. Without expected lines only the exit status counts, which has to be 0. A
  block with a caption is a terminal of its own, whose last command may go on running; it ends by itself, or by ``^C``;
- ``python`` blocks are programs;
- ``yaml`` blocks are settings, which have to be known and valid;
- those that Sphinx runs or makes, and plain ``text``, are left to it;
- those marked ``:class: not-executed`` are left out;
- all others are mistakes.

Each page has a copy of the repository to work in, a network on loopback, and a place for its journals. Port 8000, where
web servers are shown, stands for one that nobody else uses.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from loopback import free_ports, private_environment

from posttroll.settings import SETTINGS

DOCUMENTATION = Path(__file__).resolve().parent
REPOSITORY = DOCUMENTATION.parent
COMMAND_TIMEOUT = 180.0
OUTPUT_TIMEOUT = 30.0
WEB_PORT = "8000"
STOP_TIMEOUT = 5.0
LEFT_TO_SPHINX = re.compile(r"text|\{(?!code-block).*")
FENCE = re.compile(r"^(?P<fence>```+)(?P<kind>[^`\n]*)\n(?P<text>.*?)^(?P=fence)\s*?$", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r"^:(?P<name>[\w-]+):[ \t]*(?P<value>.*)\n", re.MULTILINE)
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


class ExampleFailed(Exception):
    """An example does not do what the page says."""


@dataclass
class Block:
    """A fenced block."""

    line: int
    kind: str
    text: str
    caption: str = ""
    is_executed: bool = True


@dataclass
class Step:
    """A command, or Ctrl-C, or nothing, and the lines that are to appear."""

    command: str = ""
    expected: list[str] = field(default_factory=list)

    def pattern(self) -> re.Pattern[str]:
        """Return what the output has to match."""
        pieces = map(re.escape, "\n".join(self.expected).strip().split("..."))
        return re.compile(".*?".join(pieces), re.DOTALL)


class Terminal:
    """A shell that is typed into."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        self._output = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._number = 0
        self.is_busy = False
        self._type("trap : INT")

    def do(self, step: Step, may_go_on: bool) -> None:
        """Do a step; a command that may go on has to show what is expected, any other has to end well."""
        if step.command == "^C":
            os.killpg(self._shell.pid, signal.SIGINT)
            self._await_end(step, STOP_TIMEOUT)
        elif step.command:
            self.finish()
            self._start(step.command)
            if may_go_on:
                self._await_output(step)
            else:
                self._await_end(step, COMMAND_TIMEOUT)
        else:
            self._await_output(step)

    def finish(self) -> None:
        """Wait for the end of what went on, if anything did; it has to end well."""
        if self.is_busy:
            self._await_end(Step("what was started last"), STOP_TIMEOUT)

    def close(self) -> None:
        """End the shell and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()

    def _start(self, command: str) -> None:
        self._number += 1
        self.is_busy = True
        self._output = ""
        self._type(f"{{ {command}\n}} < /dev/null; printf '\\nstatus {self._number}: %s\\n' $?")

    def _type(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text + "\n")
        self._shell.stdin.flush()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            with self._news:
                self._output += line
                self._news.notify_all()

    def _status(self) -> re.Match[str] | None:
        return re.search(rf"\n?^status {self._number}: (\d+)\n", self._output, re.MULTILINE)

    def _await_output(self, step: Step) -> None:
        pattern = step.pattern()
        with self._news:
            self._news.wait_for(lambda: pattern.search(self._output) or self._status(), OUTPUT_TIMEOUT)
            if not pattern.search(self._output):
                raise ExampleFailed(f"{step.command or 'it'} shows\n{self._output}")

    def _await_end(self, step: Step, timeout: float) -> None:
        with self._news:
            self._news.wait_for(self._status, timeout)
            status, output = self._status(), self._output
        if status is None:
            raise ExampleFailed(f"{step.command} does not end within {timeout:g} s; it shows\n{output}")
        self.is_busy = False
        shown = output[: status.start()].strip()
        if status[1] != "0":
            raise ExampleFailed(f"{step.command} ends with status {status[1]} and shows\n{shown}")
        matches = step.pattern().search if step.command == "^C" else step.pattern().fullmatch
        if step.expected and not matches(shown):
            raise ExampleFailed(f"{step.command} shows\n{shown}")


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    source = page.read_text()
    for match in FENCE.finditer(source):
        kind, text = match["kind"].strip(), match["text"]
        options: dict[str, str] = {}
        if kind.startswith("{code-block}"):
            kind = kind.removeprefix("{code-block}").strip()
            while option := OPTION.match(text):
                options[option["name"]] = option["value"].strip()
                text = text[option.end() :]
        line = source.count("\n", 0, match.start()) + 1
        is_executed = "not-executed" not in options.get("class", "")
        yield Block(line, kind, text, options.get("caption", ""), is_executed)


def steps_of(text: str) -> list[Step]:
    """Return what a console block says to do."""
    steps: list[Step] = []
    for line in text.strip("\n").splitlines():
        if line.startswith("$ ") or line == "^C":
            steps.append(Step(line.removeprefix("$ ")))
        elif line.startswith("> ") and steps and not steps[-1].expected:
            steps[-1].command += "\n" + line.removeprefix("> ")
        else:
            if not steps:
                steps.append(Step())
            steps[-1].expected.append(line)
    return steps


class Page:
    """The state that the examples of a page share."""

    def __init__(self, directory: Path) -> None:
        programs = directory.with_name("programs")
        _refuse_installing(programs)
        environment = private_environment()
        path = os.pathsep.join([str(programs), sysconfig.get_path("scripts"), environment["PATH"]])
        state = str(directory.with_name("state"))
        self._environment = environment | {"PATH": path, "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": state}
        self._directory = directory
        self._web_port = str(next(free_ports()))
        self._terminals: dict[str, Terminal] = {}

    def check(self, block: Block) -> None:
        """Do what the block says; `ExampleFailed`."""
        if block.kind == "console":
            self._check_console(block)
        elif block.kind == "python":
            program = self._directory / "example.py"
            program.write_text(block.text)
            self._terminal("").do(Step(f"{sys.executable} {program}"), may_go_on=False)
        elif block.kind == "yaml":
            _check_settings(block.text)
        elif not LEFT_TO_SPHINX.fullmatch(block.kind):
            raise ExampleFailed(f"nobody knows how to check a block of {block.kind!r}")

    def check_end(self) -> None:
        """Raise `ExampleFailed` if something still runs."""
        for terminal in self._terminals.values():
            terminal.finish()

    def close(self) -> None:
        """End all."""
        for terminal in self._terminals.values():
            terminal.close()

    def _check_console(self, block: Block) -> None:
        if "-m pip" in block.text:
            raise ExampleFailed("python -m pip may change the environment that runs this; use pip")
        terminal = self._terminal(block.caption)
        *steps, last = steps_of(block.text.replace(WEB_PORT, self._web_port))
        for step in steps:
            terminal.do(step, may_go_on=False)
        terminal.do(last, may_go_on=bool(block.caption))

    def _terminal(self, caption: str) -> Terminal:
        if caption not in self._terminals:
            self._terminals[caption] = Terminal(self._directory, self._environment)
        return self._terminals[caption]


def _refuse_installing(programs: Path) -> None:
    """Put a ``pip`` there that refuses, so that examples change no environment but one that they have made."""
    programs.mkdir()
    for name in ("pip", "pip3"):
        program = programs / name
        program.write_text(f"#!/bin/sh\necho '{name}: activate an environment of the example first'\nexit 1\n")
        program.chmod(0o755)


def _check_settings(text: str) -> None:
    for name, value in yaml.safe_load(text).items():
        if name not in SETTINGS:
            raise ExampleFailed(f"there is no setting {name}")
        SETTINGS[name].parse(value)


def check(path: Path) -> list[str]:
    """Check a page; return what is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="posttroll-examples-") as place:
        directory = Path(place) / "posttroll"
        shutil.copytree(REPOSITORY, directory, ignore=IGNORED)
        page, line = Page(directory), 0
        try:
            for block in blocks_of(path):
                line = block.line
                if block.is_executed:
                    page.check(block)
            page.check_end()
        except (ExampleFailed, ValueError) as error:
            return [f"{path.relative_to(REPOSITORY)}:{line}: {error}"]
        finally:
            page.close()
    return []


def main() -> None:
    """Check the pages named, or all."""
    # A job in the background may ignore SIGINT, as would what it starts; ^C is to end that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    everything = [REPOSITORY / "README.md", *sorted((DOCUMENTATION / "source").rglob("*.md"))]
    pages = [Path(name).resolve() for name in sys.argv[1:]] or everything
    start = time.monotonic()
    mistakes = [mistake for page in pages if page.exists() for mistake in check(page)]
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    print(f"{len(pages)} pages checked in {time.monotonic() - start:.0f} s, {len(mistakes)} with mistakes")
    sys.exit(bool(mistakes))


if __name__ == "__main__":
    main()
