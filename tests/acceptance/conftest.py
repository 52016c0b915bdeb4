"""Sites to run programs on, and released versions to run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Site, loopback_settings, opened
from tests.compatibility.releases import RELEASES, Release, Unavailable


@pytest.fixture
def site(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Site]:
    """Run programs on loopback, on ports of their own."""
    with opened(Site(tmp_path, loopback_settings(free_ports(4)))) as site:
        yield site


@pytest.fixture(params=RELEASES, ids=lambda release: release.name)
def released(request: pytest.FixtureRequest) -> Path:
    """Give the interpreter of a released version."""
    release: Release = request.param
    try:
        return release.interpreter()
    except Unavailable as reason:
        pytest.skip(str(reason))
