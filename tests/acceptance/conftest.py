"""Sites to run programs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Site, loopback_settings, opened


@pytest.fixture
def site(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Site]:
    """Run programs on loopback, on ports of their own."""
    with opened(Site(tmp_path, loopback_settings(free_ports(4)))) as site:
        yield site
