"""The interpreters of the contenders, each with its packages, made on demand and kept in ``.cache``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.harness import Child, Contender, Unavailable
from tests.compatibility.releases import RELEASES, Release
from tests.compatibility.releases import Unavailable as NotInstallable

__all__ = ["clients", "own", "released", "versions"]

_VERSION = "{}.{}".format(*sys.version_info)
_REQUIREMENTS = Path(__file__).with_name("clients.txt")
# Named after what is in it, so that one with less is not taken for it.
_CLIENTS = Release(
    f"clients-{hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:8]}",
    f"--requirement={_REQUIREMENTS}",
    (_VERSION, "3.13", "3.12", "3.11"),
)


def own() -> Path:
    """Return this interpreter, which has this package."""
    return Path(sys.executable)


def released() -> Path:
    """Return the interpreter of the newest release; `Unavailable`."""
    return _interpreter(RELEASES[-1])


def clients() -> Path:
    """Return an interpreter that has the clients of the other systems; `Unavailable`."""
    return _interpreter(_CLIENTS)


def _interpreter(release: Release) -> Path:
    try:
        return release.interpreter()
    except NotInstallable as reason:
        raise Unavailable(str(reason)) from reason


def versions(contenders: Iterable[Contender]) -> dict[str, str]:
    """Return what each interpreter has installed, by the first contender that uses it."""
    first: dict[Path, Contender] = {}
    for contender in contenders:
        first.setdefault(contender.interpreter, contender)
    found = {}
    for contender in first.values():
        with Child(contender, "versions") as child:
            found[contender.name] = child.call("installed")
    return found
