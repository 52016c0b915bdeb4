"""Publishers and subscribers that find each other through a nameserver, over every backend."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from posttroll.backends.base import Backend
from posttroll.message import Message
from posttroll.ns import NameServer, get_pub_address, get_pub_addresses
from posttroll.publisher import NoisyPublisher, Publish, Publisher
from posttroll.subscriber import NSSubscriber, Subscribe, Subscriber
from tests.conformance.conftest import Nameservers, blocking_only
from tests.fixtures.background import in_background
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("fronts")


def data_received(subscriber: Subscriber, timeout: float = 5 * UNIT) -> object:
    message = next(subscriber.recv(timeout))
    return message and message.data


def is_found(name: str) -> bool:
    return bool(get_pub_address(name, timeout=2 * UNIT))


def test_a_subscriber_finds_a_publisher_that_was_there_before(nameservers: Nameservers) -> None:
    with (
        Publish("data_provider", nameservers=nameservers) as publisher,
        Subscribe("data_provider", "/counter", timeout=5 * UNIT) as subscriber,
    ):
        assert publisher.wait_for_subscriber("/counter", 5 * UNIT)
        publisher.send(Message("/counter", "info", "text"))

        assert data_received(subscriber) == "text"


def test_a_subscriber_with_a_listener_finds_a_publisher_that_comes_later(nameservers: Nameservers) -> None:
    with (
        Subscribe("data_provider", "/counter", addr_listener=True, timeout=0.1) as subscriber,
        Publish("data_provider", nameservers=nameservers) as publisher,
    ):
        assert publisher.wait_for_subscriber("/counter", 5 * UNIT)
        publisher.send(Message("/counter", "info", "text"))

        assert data_received(subscriber) == "text"


def test_a_publisher_that_stops_is_gone_at_once(nameservers: Nameservers) -> None:
    with Subscribe("data_provider", addr_listener=True, timeout=0.1) as subscriber:
        with Publish("data_provider", nameservers=nameservers):
            eventually(lambda: is_found("data_provider"))
            eventually(lambda: subscriber.addresses)

        eventually(lambda: not is_found("data_provider"), 2 * UNIT)
        eventually(lambda: not subscriber.addresses, 2 * UNIT)


def test_a_publisher_is_found_under_its_name_and_aliases_with_its_address(
    nameservers: Nameservers, backend: Backend
) -> None:
    with Publish("data_provider", aliases=["counter", "ticker"], nameservers=nameservers) as publisher:
        (entry,) = get_pub_addresses(["data_provider"], timeout=5 * UNIT)

        assert entry["URI"] == f"tcp://127.0.0.1:{publisher.port_number}"
        assert entry["service"] == ["data_provider", "counter", "ticker"]
        assert entry["backend"] == backend.name
        for name in ("counter", "ticker", ""):
            assert entry["URI"] in [each["URI"] for each in get_pub_addresses([name], timeout=5 * UNIT)]


def test_an_unknown_service_has_no_address(nameservers: Nameservers) -> None:
    assert get_pub_address("nobody", timeout=5 * UNIT) == ""


def test_services_are_told_apart(nameservers: Nameservers) -> None:
    with Publish("one", nameservers=nameservers) as one, Publish("other", nameservers=nameservers) as other:
        found = get_pub_addresses(["one"], timeout=5 * UNIT) + get_pub_addresses(["other"], timeout=5 * UNIT)

    assert [int(entry["URI"].rpartition(":")[2]) for entry in found] == [one.port_number, other.port_number]


def test_a_subscriber_to_several_services_hears_them_all(nameservers: Nameservers) -> None:
    with (
        Publish("one", nameservers=nameservers) as one,
        Publish("other", nameservers=nameservers) as other,
        Subscribe(["one", "other"], timeout=5 * UNIT) as subscriber,
    ):
        for name, publisher in (("one", one), ("other", other)):
            assert publisher.wait_for_subscriber("", 5 * UNIT)
            publisher.send(Message("/a", "info", name))

        assert {data_received(subscriber), data_received(subscriber)} == {"one", "other"}


def test_the_class_for_nameservers_gives_a_subscriber(nameservers: Nameservers) -> None:
    publisher = NoisyPublisher("data_provider", nameservers=nameservers)
    nameserver_subscriber = NSSubscriber("data_provider", timeout=5 * UNIT)

    with closing(publisher.start()), closing(nameserver_subscriber):
        subscriber = nameserver_subscriber.start()
        assert publisher.wait_for_subscriber("", 5 * UNIT)
        publisher.send(Message("/a", "info", "text"))

        assert data_received(subscriber) == "text"


@pytest.mark.usefixtures("backend", "network")
def test_a_silent_nameserver_times_out_a_look_up() -> None:
    start = time.monotonic()

    with pytest.raises(TimeoutError):
        get_pub_address("data_provider", timeout=0.3)

    assert 0.3 <= time.monotonic() - start < 0.3 + UNIT


@pytest.mark.usefixtures("backend", "network")
def test_a_silent_nameserver_times_out_a_subscriber_without_listener() -> None:
    with pytest.raises(TimeoutError), Subscribe("data_provider", timeout=0.3):
        pass


@pytest.mark.usefixtures("backend", "network")
def test_the_nameserver_may_come_last(way: str) -> None:
    nameservers = None if way == "multicast" else ["localhost"]

    with (
        Publish("data_provider", broadcast_interval=0.2, nameservers=nameservers) as publisher,
        Subscribe("data_provider", addr_listener=True, timeout=0.2) as subscriber,
        running_nameserver(multicast_enabled=way == "multicast"),
    ):
        assert publisher.wait_for_subscriber("", 10 * UNIT)
        publisher.send(Message("/a", "info", "text"))

        assert data_received(subscriber) == "text"


@pytest.mark.usefixtures("backend", "network")
def test_a_nameserver_that_is_replaced_is_found_again(way: str) -> None:
    nameservers = None if way == "multicast" else ["localhost"]
    multicast = way == "multicast"

    with Subscribe("data_provider", addr_listener=True, timeout=0.1) as subscriber:
        with running_nameserver(multicast_enabled=multicast):
            pass
        with running_nameserver(multicast_enabled=multicast), Publish("data_provider", nameservers=nameservers) as late:
            assert late.wait_for_subscriber("", 10 * UNIT)
            late.send(Message("/a", "info", "text"))

            assert data_received(subscriber) == "text"


@pytest.mark.usefixtures("backend", "network")
def test_a_nameserver_that_is_away_delays_no_registration_elsewhere() -> None:
    nameservers = ["127.0.0.1:9", "localhost"]

    with running_nameserver(multicast_enabled=False), Publish("data_provider", nameservers=nameservers):
        eventually(lambda: is_found("data_provider"), 5 * UNIT)


@blocking_only("it is about the nameserver, which has no asyncio twin")
@pytest.mark.usefixtures("backend", "network")
def test_a_nameserver_stops_when_told_from_another_thread(way: str) -> None:
    nameserver = NameServer(multicast_enabled=way == "multicast")

    with in_background(nameserver.run) as running:
        get_pub_address("", timeout=5 * UNIT)
        nameserver.stop()
        running.result(1.5 * UNIT)

    with pytest.raises(TimeoutError):
        get_pub_address("", timeout=0.1)


@blocking_only("it is about the nameserver, which has no asyncio twin")
@pytest.mark.usefixtures("backend", "network")
def test_a_nameserver_that_was_stopped_first_does_not_run() -> None:
    nameserver = NameServer()
    nameserver.stop()

    with in_background(nameserver.run) as running:
        running.result(1.5 * UNIT)


def test_a_publisher_without_a_name_for_others_is_not_found(nameservers: Nameservers) -> None:
    with closing(Publisher("tcp://*:0", "silent").start()):
        assert get_pub_address("silent", timeout=2 * UNIT) == ""
