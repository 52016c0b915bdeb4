"""Every test of this folder has a bus of its own, unless it wants the network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from posttroll.backends import memory
from posttroll.settings import config


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[memory.Bus]:
    """Configure the backend ``memory`` with a new bus."""
    bus = memory.Bus()
    monkeypatch.setattr(memory.backend, "bus", bus)
    with config.set(backend="memory"):
        yield bus
