"""Released versions of the package, each installed in an environment that is made once and kept."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RELEASES", "Release", "Unavailable"]

REPOSITORY = Path(__file__).resolve().parents[2]
_CACHE = Path(os.environ.get("POSTTROLL_TESTS_PEERS", REPOSITORY / ".cache" / "peers"))
_INSTALL_TIMEOUT = 300


class Unavailable(Exception):
    """The release cannot be had on this machine."""


@dataclass(frozen=True)
class Release:
    """What to install, and for which versions of Python."""

    name: str
    requirement: str
    pythons: tuple[str, ...]
    has_two_nameserver_ports: bool = True

    def interpreter(self) -> Path:
        """Return the interpreter of the environment, which is made if it is not there; `Unavailable`."""
        directories = {version: _CACHE / f"{self.name}-python{version}" for version in self.pythons}
        for directory in directories.values():
            if _is_ready(directory):
                return _interpreter(directory)
        for version, directory in directories.items():
            if base := _find_python(version):
                self._make(base, directory)
                return _interpreter(directory)
        raise Unavailable(f"posttroll {self.name} needs Python {' or '.join(self.pythons)}, which is not found here")

    def _make(self, base: str, directory: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{directory}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_ready(directory):
                shutil.rmtree(directory, ignore_errors=True)
                _run(base, "-m", "venv", str(directory))
                pip = [str(_interpreter(directory)), "-m", "pip", "install", "--quiet", "--retries=1"]
                _run(*pip, self.requirement)
                (directory / "ready").touch()


RELEASES = (
    Release("1.13.1", "posttroll==1.13.1", ("3.11",), has_two_nameserver_ports=False),
    Release("newest", "posttroll<2", ("3.12", "3.13")),
)


def _interpreter(directory: Path) -> Path:
    return directory / "bin" / "python"


def _is_ready(directory: Path) -> bool:
    return (directory / "ready").exists() and _interpreter(directory).exists()


def _find_python(version: str) -> str | None:
    return next((candidate for candidate in _candidates(version) if _is_python(candidate, version)), None)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    # Where this Python is one of several of pyenv's, the others are beside it.
    for place in (os.path.dirname(sys.base_prefix), os.path.expanduser("~/.pyenv/versions")):
        yield from sorted(glob.glob(f"{place}/{version}.*/bin/python"))
    if path := shutil.which(f"python{version}"):
        yield path


def _is_python(candidate: str, version: str) -> bool:
    # pyenv has a program of that name even for versions that are not to be had.
    probe = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
    outcome = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, timeout=30, check=False)
    return outcome.stdout.strip() == version


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=True)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command} took more than {_INSTALL_TIMEOUT} s") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
        raise Unavailable(f"{' '.join(command)} failed: {' '.join(reason)}") from error
