"""Publishers and subscribers of asyncio, and released versions at the other end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compatibility.conversation import NAIVE, talk
from tests.compatibility.ends import End, Site
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.timeout(120 * UNIT)


@pytest.fixture(params=["asyncio_publisher", "asyncio_subscriber"])
def ends(request: pytest.FixtureRequest, site: Site) -> tuple[End, End]:
    """Start a publisher and a subscriber, one of asyncio and one of the release."""
    ends = site.asyncio_end(), site.end(False)
    return ends if request.param == "asyncio_publisher" else ends[::-1]


def test_messages_get_through_by_a_released_nameserver(site: Site, ends: tuple[End, End]) -> None:
    nameserver = site.nameserver(False)
    publisher, subscriber = ends
    publisher.publish(name="granules")

    talk(publisher, subscriber, nameserver)


def test_messages_get_through_by_registration(site: Site, ends: tuple[End, End]) -> None:
    nameserver = site.nameserver(True, "--no-multicast")
    publisher, subscriber = ends
    publisher.publish(name="granules", nameservers=["localhost"])

    talk(publisher, subscriber, nameserver)


def test_messages_get_through_under_curve(secure_site: Site, ends: tuple[End, End]) -> None:
    nameserver = secure_site.nameserver(False)
    publisher, subscriber = ends
    publisher.publish(name="granules")

    talk(publisher, subscriber, nameserver)


def test_a_released_publisher_is_found_and_heard_by_a_container(site: Site) -> None:
    nameserver = site.nameserver(False)
    publisher, subscriber = site.end(False), site.asyncio_end()
    subscriber.listen(name="queue", services="granules", topics=["/1b"])
    port = publisher.publish(name="granules")
    text = publisher.compose(subject="/1b/viirs", type="file", data={"time": NAIVE})

    def heard() -> Any:
        publisher.send(publisher="granules", texts=[text])
        return subscriber.take(name="queue", timeout=0.2)

    assert eventually(heard, 10 * UNIT)["data"] == {"time": NAIVE}
    (entry,) = subscriber.look_up(service="granules", timeout=10 * UNIT, nameserver=nameserver)
    assert entry["URI"] == f"tcp://127.0.0.1:{port}"
