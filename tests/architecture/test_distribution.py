"""What lies around the package agrees with it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import posttroll
from posttroll.settings import SETTINGS

ROOT = Path(__file__).parents[2]
PROGRAMS = ["nameserver", "posttroll-generate-keys", "pytroll-logger"]
EXAMPLE = re.compile(r"^(?P<help>(?:^# .*\n)+)^#(?P<setting>\w+: .*)$", re.MULTILINE)


def examples() -> dict[str, tuple[str, object]]:
    """Return the help and the default of each setting in the example of a configuration."""
    text = (ROOT / "etc" / "posttroll.yaml").read_text()
    found = {}
    for example in EXAMPLE.finditer(text):
        ((name, value),) = yaml.safe_load(example["setting"]).items()
        found[name] = (" ".join(line.removeprefix("# ") for line in example["help"].splitlines()), value)
    return found


def test_the_example_of_a_configuration_shows_every_setting_with_its_help_and_default():
    assert examples() == {name: (setting.help, setting.default) for name, setting in SETTINGS.items()}


def test_the_example_of_a_configuration_changes_nothing():
    assert yaml.safe_load((ROOT / "etc" / "posttroll.yaml").read_text()) is None


def test_the_version_is_that_of_the_installed_distribution():
    assert importlib.metadata.version("posttroll") == posttroll.__version__


def test_the_commands_are_those_with_a_launcher():
    commands = importlib.metadata.entry_points(group="console_scripts")

    assert {command.name for command in commands if command.dist and command.dist.name == "posttroll"} == {*PROGRAMS}
    assert sorted(path.name for path in (ROOT / "bin").iterdir()) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_launcher_explains_its_program(program: str):
    environment = {**os.environ, "VENV": sys.prefix}

    done = subprocess.run(
        [ROOT / "bin" / program, "--help"], capture_output=True, text=True, timeout=30, env=environment, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program} ")
