"""What the tests of the messenger share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from posttroll.backends import memory
from posttroll.settings import config
from tests.fixtures.network import Network


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch, network: Network) -> Iterator[None]:
    """Have all meet within the process."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    with config.set(backend="memory"):
        yield
