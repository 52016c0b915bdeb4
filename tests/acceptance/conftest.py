"""Sites to run programs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Site, opened


def port_settings(ports: list[int]) -> dict[str, object]:
    """Return the settings that give all of discovery ports of its own."""
    names = ("nameserver_port", "secure_zmq_nameserver_port", "broadcast_port", "address_publish_port")
    return dict(zip(names, ports, strict=True))


@pytest.fixture
def site(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Site]:
    """Run programs on loopback, on ports of their own."""
    loopback = {"multicast_interface": "127.0.0.1", "advertised_host": "127.0.0.1"}
    with opened(Site(tmp_path, {**port_settings(free_ports(4)), **loopback})) as site:
        yield site
