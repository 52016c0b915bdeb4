"""Being a program."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from posttroll.components import __main__ as command_line
from posttroll.components.component import Component
from posttroll.components.messages import Command, Result
from posttroll.components.program import run
from posttroll.messenger import Messenger
from posttroll.testing import memory_bus
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT

ITEMS = {"name": "worker", "nameservers": False}


@pytest.fixture(autouse=True)
def bus() -> Iterator[None]:
    with memory_bus():
        yield


class Ending(Component):
    """Is ended by a signal at its very beginning."""

    number = signal.SIGTERM

    def start(self) -> None:
        os.kill(os.getpid(), self.number)


class Interrupted(Ending):
    number = signal.SIGINT


class LeftByItsTerminal(Ending):
    number = signal.SIGHUP


@pytest.mark.parametrize("component", [Ending, Interrupted, LeftByItsTerminal])
def test_a_signal_ends_it_well_and_is_left_to_others_afterwards(component: type[Component]) -> None:
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    handlers = [signal.getsignal(number) for number in numbers]

    assert run(component, ITEMS) == 0
    assert [signal.getsignal(number) for number in numbers] == handlers


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    class Persevering(Component):
        hang_up: object = None

        def start(self) -> None:
            Persevering.hang_up = signal.getsignal(signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)

    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(Persevering, ITEMS)
    finally:
        signal.signal(signal.SIGHUP, former)

    assert Persevering.hang_up is signal.SIG_IGN


@pytest.mark.parametrize(
    ("target", "items", "complaint"),
    [
        (Ending, {"name": "a", "port": "b"}, "the configuration: Expected `int`, got `str`"),
        (Ending, "missing.yaml", "cannot open missing.yaml: No such file or directory"),
        ("no_such_module:Class", ITEMS, "cannot find no_such_module:Class: No module named 'no_such_module'"),
        ("string:digits", ITEMS, "'0123456789' is neither a class derived from Component nor a module"),
        (Ending, {**ITEMS, "middleware": ["lgo"]}, "unknown middleware 'lgo'; the nearest known one is log"),
        (Ending, {**ITEMS, "logging": {"handlers": 5}}, "logging cannot be set up like that: 'int' object"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    target: Any, items: Any, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(target, items)

    told = capsys.readouterr().err
    assert status == 1
    assert complaint in told
    assert told.count("\n") == 1


def test_a_complaint_begins_with_how_the_program_was_called(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import posttroll.components; posttroll.components.run('string:digits', 'missing.yaml')")

    def complaint(*arguments: str) -> str:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=30).stderr

    module = ("-m", "posttroll.components")
    assert complaint(*module, "string:digits", "missing.yaml").startswith("python -m posttroll.components: cannot open")
    assert complaint(str(script)).startswith("worker.py: cannot open")


def test_logging_is_set_up_as_the_configuration_says(tmp_path: Path) -> None:
    logger = logging.getLogger("posttroll.components.program.test")

    run(Ending, {**ITEMS, "logging": {"incremental": True, "loggers": {logger.name: {"level": "ERROR"}}}})

    assert logger.level == logging.ERROR


def test_a_log_of_its_own_tells_what_ended_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "worker.log"
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(file)}}
    own = {"posttroll.components.process": {"handlers": ["file"]}}

    run(Ending, {**ITEMS, "middleware": ["lgo"], "logging": {"handlers": handlers, "loggers": own}})

    logger = logging.getLogger("posttroll.components.process")
    logger.handlers.pop().close()
    assert "worker fails: unknown middleware 'lgo'" in file.read_text()
    assert "unknown middleware 'lgo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("broken", "complaint"), [("worker.yaml", "unknown item 'kind'"), ("handlers.py", "invalid syntax")]
)
def test_a_restart_that_could_not_succeed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, complaint: str
) -> None:
    configuration, code = tmp_path / "worker.yaml", tmp_path / "handlers.py"
    configuration.write_text("{name: worker, nameservers: []}")
    code.write_text("")
    module = ModuleType("handlers")
    module.__file__ = str(code)
    executed: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: executed.append(arguments))

    with in_background(lambda: run(module, configuration)), Messenger("operator") as operator:
        operator.put("worker", Command(command="ping").message()).wait(5 * UNIT)
        (tmp_path / broken).write_text("{kind: worker}\ndef work(:\n" if broken == "handlers.py" else "{kind: worker}")
        for command in ("restart", "quit"):
            operator.put("worker", Command(command=command).message()).wait(5 * UNIT)
        operator.recv(timeout=5 * UNIT)
        results = [Result.read(message) for message in iter(operator.get, None)]

    refused = next(result for result in results if result.command == "restart")
    assert (refused.state, executed) == ("error", [])
    assert f"it could not start again: {complaint}" in refused.text


def test_to_restart_is_to_execute_the_program_anew_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Any] = []
    monkeypatch.setattr(logging, "shutdown", lambda: executed.append("logs are written"))
    monkeypatch.setattr(os, "execv", lambda *arguments: executed.append(arguments))

    with in_background(lambda: run(Component, {"name": "worker"})), Messenger("operator") as operator:
        operator.put("worker", Command(command="restart").message()).wait(5 * UNIT)

    assert executed == ["logs are written", (sys.executable, [sys.executable, *sys.orig_argv[1:]])]


def test_a_file_and_a_name_are_given_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    file = tmp_path / "component.yaml"
    file.write_text("name: worker\nnameservers: false\n")
    monkeypatch.setattr(Ending, "stop", lambda component: names.append(component.name))

    for more in ([], ["--name", "worker_2"]):
        assert command_line.main([f"{__name__}:Ending", str(file), *more]) == 0

    assert names == ["worker", "worker_2"]
