"""Being a program."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttroll.components import __main__ as command_line
from posttroll.components.component import Component
from posttroll.components.messages import Command
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


@pytest.mark.parametrize("component", [Ending, Interrupted])
def test_a_signal_ends_it_well_and_is_left_to_others_afterwards(component: type[Component]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    assert run(component, ITEMS) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


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


def test_logging_is_set_up_as_the_configuration_says(tmp_path: Path) -> None:
    logger = logging.getLogger("posttroll.components.program.test")

    run(Ending, {**ITEMS, "logging": {"incremental": True, "loggers": {logger.name: {"level": "ERROR"}}}})

    assert logger.level == logging.ERROR


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
