"""This version and released ones in the three parts of a conversation, in all mixes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from tests.compatibility.conversation import NAIVE, introduce, talk
from tests.compatibility.ends import End, Site
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.timeout(120 * UNIT)


@dataclass(frozen=True)
class Mix:
    """Which parts are played by this version; the others are by the release."""

    publisher: bool
    nameserver: bool
    subscriber: bool

    def __str__(self) -> str:
        parts = {"publisher": self.publisher, "nameserver": self.nameserver, "subscriber": self.subscriber}
        return "-".join(f"{'new' if is_new else 'old'}_{name}" for name, is_new in parts.items())


MIXES = [Mix(*parts) for parts in itertools.product([True, False], repeat=3) if any(parts)]
NAMESERVER_AND_SUBSCRIBER_MIXES = [mix for mix in MIXES if mix.publisher != mix.nameserver]


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_messages_get_through_by_multicast(site: Site, mix: Mix) -> None:
    nameserver = site.nameserver(mix.nameserver)
    publisher, subscriber = site.end(mix.publisher), site.end(mix.subscriber)

    publisher.publish(name="granules")

    talk(publisher, subscriber, nameserver)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_messages_get_through_by_registration(site: Site, mix: Mix) -> None:
    nameserver = site.nameserver(mix.nameserver, "--no-multicast")
    publisher, subscriber = site.end(mix.publisher), site.end(mix.subscriber)

    publisher.publish(name="granules", nameservers=["localhost"])

    talk(publisher, subscriber, nameserver)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_messages_get_through_under_curve(secure_site: Site, mix: Mix) -> None:
    nameserver = secure_site.nameserver(mix.nameserver)
    publisher, subscriber = secure_site.end(mix.publisher), secure_site.end(mix.subscriber)

    publisher.publish(name="granules")

    talk(publisher, subscriber, nameserver)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_a_listener_container_hears_a_publisher_known_by_an_alias(site: Site, mix: Mix) -> None:
    site.nameserver(mix.nameserver)
    publisher, subscriber = site.end(mix.publisher), site.end(mix.subscriber)
    publisher.publish(name="granules", aliases=["segments"])
    subscriber.listen(name="queue", services="segments", topics=["/1b"])
    texts = [
        publisher.compose(subject=subject, type="file", data={"time": NAIVE}) for subject in ("/unwanted", "/1b/viirs")
    ]

    def heard() -> Any:
        publisher.send(publisher="granules", texts=texts)
        return subscriber.take(name="queue", timeout=0.2)

    message = eventually(heard, 10 * UNIT)
    assert (message["subject"], message["data"]) == ("/1b/viirs", {"time": NAIVE})


@pytest.mark.parametrize("mix", NAMESERVER_AND_SUBSCRIBER_MIXES, ids=str)
def test_subscribers_follow_publishers_that_come_and_crash(site: Site, mix: Mix) -> None:
    site.nameserver(mix.nameserver, "--max-age", "3")
    publisher, subscriber = site.end(mix.publisher), site.end(mix.subscriber)
    feed = [f"tcp://127.0.0.1:{site.network.addresses}"]
    subscriber.subscribe(name="feed", addresses=feed, topics="pytroll://address", nameserver=False)
    subscriber.subscribe(name="reader", services="granules", addr_listener=True, timeout=1)

    uri = f"tcp://127.0.0.1:{publisher.publish(name='granules')}"
    eventually(lambda: uri in subscriber.connections(name="reader"), 10 * UNIT)
    publisher.kill()
    eventually(lambda: uri not in subscriber.connections(name="reader"), 20 * UNIT)

    notices = subscriber.receive(name="feed", count=100, timeout=0.5)
    changes = [(message["data"]["status"], message["data"]["URI"]) for message in notices if message["type"] == "info"]
    assert changes == [(True, uri), (False, uri)]


def entries(end: End, nameserver: str = "localhost") -> Sequence[Any]:
    found: Sequence[Any] = end.look_up(service="granules", timeout=10 * UNIT, nameserver=nameserver)
    return found


@pytest.mark.parametrize("subscriber_is_new", [True, False], ids=["new_subscriber", "old_subscriber"])
def test_a_goodbye_takes_a_publisher_off_this_nameserver_at_once(site: Site, subscriber_is_new: bool) -> None:
    site.nameserver(True)
    publisher, subscriber = site.end(True), site.end(subscriber_is_new)
    publisher.publish(name="granules")
    subscriber.subscribe(name="reader", services="granules", addr_listener=True)
    eventually(lambda: subscriber.connections(name="reader"))

    publisher.stop_publishing(publisher="granules")

    eventually(lambda: not subscriber.connections(name="reader"))
    assert not entries(subscriber)


@pytest.mark.parametrize("options", [[], ["--no-multicast"]], ids=["multicast", "registration"])
def test_a_goodbye_does_not_disturb_released_nameservers(site: Site, options: list[str]) -> None:
    nameservers = ["localhost"] if options else None
    site.nameserver(False, *options)
    publisher, asker = site.end(True), site.end(False)
    publisher.publish(name="granules", nameservers=nameservers)
    eventually(lambda: entries(asker), 10 * UNIT)

    publisher.stop_publishing(publisher="granules")

    assert len(entries(asker)) == 1
    publisher.publish(name="granules", nameservers=nameservers)
    eventually(lambda: len(entries(asker)) == 2, 10 * UNIT)


@pytest.mark.parametrize("nameserver_is_new", [True, False], ids=["new_nameserver", "old_nameserver"])
@pytest.mark.parametrize("asker_is_new", [True, False], ids=["new_asker", "old_asker"])
def test_entries_say_what_is_announced(site: Site, nameserver_is_new: bool, asker_is_new: bool) -> None:
    site.nameserver(nameserver_is_new)
    publisher, asker = site.end(True), site.end(asker_is_new)
    port = publisher.publish(name="granules", aliases=["segments"])

    (entry,) = eventually(lambda: entries(asker), 10 * UNIT)

    assert isinstance(entry.pop("receive_time"), datetime)
    assert entry == {
        "URI": f"tcp://127.0.0.1:{port}",
        "service": ["granules", "segments"],
        "supported_message_version": "v1.2",
        "backend": "unsecure_zmq",
        "status": True,
        "name": "address",
    }


@pytest.mark.parametrize("publisher_is_new", [True, False], ids=["new_publisher", "old_publisher"])
def test_a_client_with_an_unknown_key_gets_nothing(site: Site, keys: Keys, publisher_is_new: bool) -> None:
    publisher = site.end(publisher_is_new, backend="secure_zmq", **keys.settings())
    port = publisher.publish(name="granules", address="tcp://127.0.0.1:0", nameservers=False)
    accepted, stranger = (
        site.end(not publisher_is_new, backend="secure_zmq", **keys.settings(name)) for name in ("client", "stranger")
    )
    for subscriber in (accepted, stranger):
        subscriber.subscribe(name="reader", addresses=[f"tcp://127.0.0.1:{port}"], nameserver=False)

    introduce(publisher, accepted)

    assert not stranger.receive(name="reader", count=1, timeout=0.5)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_an_open_subscriber_that_has_the_keys_follows_a_secure_publisher(site: Site, keys: Keys, mix: Mix) -> None:
    if not site.release.has_two_nameserver_ports:
        pytest.skip(f"{site.release.name} knows one backend at a time")
    site.nameserver(mix.nameserver)
    publisher = site.end(mix.publisher, backend="secure_zmq", **keys.settings())
    subscriber = site.end(mix.subscriber, **keys.settings())
    publisher.publish(name="granules")

    talk(publisher, subscriber, "localhost")


@pytest.mark.parametrize("publisher_is_new", [True, False], ids=["from_new_publisher", "from_old_publisher"])
def test_log_records_reach_the_other_side(site: Site, publisher_is_new: bool) -> None:
    site.nameserver(publisher_is_new)
    publisher, subscriber = site.end(publisher_is_new), site.end(not publisher_is_new)
    publisher.log(publisher="log", level=30, text="too early")
    subscriber.subscribe(name="reader", services="log", topics="pytroll:/")

    def heard() -> list[dict[str, Any]]:
        publisher.log(publisher="log", level=30, text="careful")
        found: list[dict[str, Any]] = subscriber.receive(name="reader", count=1, timeout=0.2)
        return found

    message = eventually(heard, 10 * UNIT)[0]
    assert (message["subject"], message["type"], message["data"]) == ("log/WARNING/chain", "log.warning", "careful")
