"""What is built can be installed into an empty environment, and works there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.processes import FOUND_WITHIN, PROGRAMS, ROOT, Process, Site
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.timeout(300)

SCRIPTS = ("nameserver", "posttroll-generate-keys", "pytroll-logger")
NEIGHBOURS = ("trollmoves", "pytroll-collectors")
_PATIENCE = 240 * UNIT


class Environment:
    """A virtual environment, empty at first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        venv.create(directory)  # without pip, which takes most of the time

    def script(self, name: str) -> str:
        """Return the path of a command."""
        return str(self.directory / "bin" / name)

    def python(self, *arguments: str) -> str:
        """Run its interpreter away from the sources, and return what it says."""
        return run_away(self.directory, self.script("python"), *arguments)

    def pip(self, *arguments: str) -> str:
        """Have the pip of this interpreter work on it, and return what that says."""
        options = "--disable-pip-version-check", "--python", self.script("python")
        return run_away(self.directory, sys.executable, "-m", "pip", *options, *arguments)

    def install(self, *what: str) -> None:
        """Install files, or what the package index has."""
        self.pip("install", "-q", *what)


def run_away(directory: Path, *command: str) -> str:
    """Run a command away from the sources, and return what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_PATIENCE)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip what needs a package index where there is none."""
    asking = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "hatchling"]
    done = subprocess.run(
        [*asking, "-d", str(tmp_path_factory.mktemp("index"))], capture_output=True, text=True, timeout=_PATIENCE
    )
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def distributions(package_index: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel, by way of the sdist."""
    target = tmp_path_factory.mktemp("dist")
    run_away(target, sys.executable, "-m", "build", "--outdir", str(target), str(ROOT))
    return {path.suffix: path for path in target.iterdir()}


@pytest.fixture(scope="module")
def installed(distributions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel into an empty environment."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.install(str(distributions[".whl"]))
    return environment


@pytest.fixture
def run(installed: Environment, site: Site) -> Callable[..., Process]:
    """Return how to run a command of the environment."""
    return lambda name, *arguments: site.run("/usr/bin/env", "-u", "PYTHONPATH", installed.script(name), *arguments)


def test_the_package_is_typed_and_comes_from_the_environment(installed: Environment) -> None:
    script = (
        "import importlib.metadata, importlib.resources, posttroll\n"
        "assert importlib.resources.files('posttroll').joinpath('py.typed').is_file()\n"
        "print(posttroll.version.version, importlib.metadata.version('posttroll'), posttroll.__file__)"
    )

    own, listed, place = installed.python("-c", script).split()

    assert own == listed
    assert Path(place).is_relative_to(installed.directory)


def test_every_module_can_be_imported(installed: Environment) -> None:
    script = (
        "import importlib, pkgutil, posttroll\n"
        "for module in pkgutil.walk_packages(posttroll.__path__, 'posttroll.'): importlib.import_module(module.name)"
    )

    assert installed.python("-W", "error", "-c", script) == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_commands_are_there(run: Callable[..., Process], name: str) -> None:
    process = run(name, "--help")

    assert process.wait(10 * UNIT) == 0
    assert process.output.startswith("usage: ")
    assert process.errors == ""


def test_messages_flow_between_installed_programs(run: Callable[..., Process]) -> None:
    nameserver = run("nameserver")
    run("python", str(PROGRAMS / "publish.py"), "installed")
    subscriber = run("python", str(PROGRAMS / "subscribe.py"))

    subscriber.expect_word("installed")

    nameserver.signal(signal.SIGTERM)
    assert nameserver.wait() == 0


def test_the_installed_nameserver_runs_in_the_background(run: Callable[..., Process], tmp_path: Path) -> None:
    arguments = ("--pid-file", str(tmp_path / "pid"), "-l", str(tmp_path / "log"))

    assert run("nameserver", "-d", "start", *arguments).wait(15 * UNIT) == 0
    try:
        eventually(lambda: "nameserver answers" in (tmp_path / "log").read_text(), FOUND_WITHIN)
    finally:
        assert run("nameserver", "-d", "stop", *arguments).wait(15 * UNIT) == 0


def test_the_sdist_holds_what_is_needed_to_read_test_and_run_it(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "posttroll/py.typed",
        "etc/nameserver.service",
        "etc/posttroll.yaml",
        "bin/nameserver",
        "tests/conftest.py",
        "tests/acceptance/programs/publish.py",
        "examples/demo.py",
    } <= names


def test_it_can_be_installed_from_the_sdist(distributions: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "from_sdist")

    environment.install(str(distributions[".gz"]))

    assert "file" in environment.python("-c", "from posttroll.message import Message; print(Message('/a', 'file', 1))")


def test_it_gets_along_with_its_neighbours(distributions: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "neighbours")

    environment.install(str(distributions[".whl"]), *NEIGHBOURS)

    assert "No broken requirements" in environment.pip("check")
    version = environment.python("-c", "import importlib.metadata as m; print(m.version('posttroll'))").strip()
    assert version in distributions[".whl"].name
