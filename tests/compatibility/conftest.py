"""The released versions to talk to, and the places to meet them at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compatibility.ends import Site
from tests.compatibility.releases import RELEASES, Release, Unavailable
from tests.fixtures.keys import Keys
from tests.fixtures.network import Network


@pytest.fixture(params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest) -> Release:
    """Return a release that can be run; the first test of each has to wait for its installation."""
    release: Release = request.param
    try:
        release.interpreter()
    except Unavailable as reason:
        pytest.skip(str(reason))
    return release


@pytest.fixture
def site(release: Release, network: Network, tmp_path: Path) -> Iterator[Site]:
    """Give a place with ports of its own; what is started there is ended with the test."""
    site = Site(network, release, release.interpreter(), tmp_path)
    with site.processes:
        yield site


@pytest.fixture
def secure_site(site: Site, keys: Keys) -> Site:
    """Give a place where everybody has the keys, and uses them."""
    site.settings.update({"backend": "secure_zmq", **keys.settings()})
    return site
