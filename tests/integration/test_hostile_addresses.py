"""What a nameserver may tell of publishers that are not there, or not what they should be."""

from __future__ import annotations

import logging
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from posttroll.address_listener import AddressListener
from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.ns import get_pub_address, get_pub_addresses
from posttroll.publisher import Publish
from posttroll.settings import config
from posttroll.subscriber import Subscribe, Subscriber
from tests.fixtures.hostile import (
    FOUND_WITHIN,
    STRANGER,
    Discovery,
    RawPeer,
    announcement,
    assert_delivery,
    environment,
    message_bytes,
    registrations,
    running_discovery,
    warnings_in,
)
from tests.fixtures.keys import Keys
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

POISON = {
    "a backend nobody knows": announcement(service=["good"], backend="carrier_pigeon"),
    "a backend that is no name": announcement(service=["good"], backend="../../etc/passwd"),
    "an empty backend": announcement(service=["good"], backend=""),
    "a backend of this process only": announcement(service=["good"], backend="memory"),
    "the secure backend": announcement(service=["good"], backend="secure_zmq"),
    "a newer version": announcement(service=["good"], supported_message_version="v9"),
    "a URI without a scheme": announcement("127.0.0.1:9", service=["good"]),
    "a URI without a port": announcement("tcp://127.0.0.1", service=["good"]),
    "a URI with a port too high": announcement("tcp://127.0.0.1:99999", service=["good"]),
    "a URI with a port that is none": announcement("tcp://127.0.0.1:port", service=["good"]),
    "a URI of another scheme": announcement("http://127.0.0.1:9", service=["good"]),
    "a URI that leads nowhere": announcement("nowhere", service=["good"]),
    "a URI of colons": announcement("::::", service=["good"]),
    "a URI of all hosts": announcement("tcp://*:9", service=["good"]),
    "a URI that is not ASCII": announcement("tcp://köln:9", service=["good"]),
    "a file of this host": announcement("ipc:///dev/null", service=["good"]),
    "inside of the process": announcement("inproc://zeromq.zap.01", service=["good"]),
    "a URI of 1 KB": announcement("tcp://" + "a" * 1000 + ":9", service=["good"]),
}


@pytest.mark.parametrize("services", ["", "good"])
@pytest.mark.parametrize("data", POISON.values(), ids=POISON)
def test_a_running_subscriber_survives_a_poisoned_address(
    network: Network, raw_peer: RawPeer, data: bytes, services: str
) -> None:
    with (
        running_discovery(network, raw_peer) as discovery,
        Subscribe(services, "/good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        discovery.shout(data)
        discovery.shout(data)
        eventually(lambda: get_pub_address("good"))

        with Publish("good") as publisher:
            assert_delivery(publisher, subscriber)


@pytest.mark.parametrize("data", POISON.values(), ids=POISON)
def test_a_subscriber_that_starts_later_survives_it_too(network: Network, raw_peer: RawPeer, data: bytes) -> None:
    with running_discovery(network, raw_peer) as discovery:
        discovery.shout(data)
        eventually(lambda: get_pub_address("good"))

        with Publish("good") as publisher:
            eventually(lambda: len(get_pub_address("good")) == 2)
            with Subscribe("good", "/good", timeout=FOUND_WITHIN) as subscriber:
                assert_delivery(publisher, subscriber)


def test_refused_addresses_are_counted_and_logged_once(
    network: Network, raw_peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running_discovery(network, raw_peer) as discovery,
        Subscribe("good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        for number in range(20):
            discovery.shout(announcement(f"tcp://127.0.0.1:{number}", ["good"], backend="\x1b[2J" + "pigeon" * 1000))

        eventually(lambda: subscriber.drops["address refused"] >= 20)

    (line,) = warnings_in(caplog.records, "address from the nameserver refused")
    assert line.isprintable()
    assert len(line) < 1000


def test_a_container_survives_poisoned_addresses(network: Network, raw_peer: RawPeer) -> None:
    with running_discovery(network, raw_peer) as discovery, Publish("another"):
        container = ListenerContainer(topics=["/good"], services="")
        try:
            for data in POISON.values():
                discovery.shout(data)
            with Publish("good") as publisher:
                assert publisher.wait_for_subscriber("/good", FOUND_WITHIN)
                publisher.send(Message("/good/news", "info", "x"))

                assert container.output_queue.get(timeout=FOUND_WITHIN).data == "x"
        finally:
            container.stop()


def test_a_secure_publisher_nearby_ends_no_plain_subscriber(network: Network, raw_peer: RawPeer, keys: Keys) -> None:
    with (
        running_discovery(network, raw_peer) as discovery,
        Subscribe("", "/good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        # It is only announced when the subscriber can no longer see the keys that it has.
        with config.set(backend="secure_zmq", **keys.settings()):
            secure = Publish("good", broadcast_interval=0).publisher.start()
        try:
            uri = f"tcp://127.0.0.1:{secure.port_number}"
            discovery.shout(announcement(uri, service=["good"], backend="secure_zmq"))
            eventually(lambda: subscriber.drops.get("address refused"))

            with Publish("good") as publisher:
                assert_delivery(publisher, subscriber)
        finally:
            secure.stop()


@pytest.mark.parametrize("services", ["good", ""])
@pytest.mark.parametrize(("fakes", "times"), [(1500, 1), (1500, 3)])
def test_many_fakes_of_a_service_do_not_hide_its_publisher(
    network: Network, raw_peer: RawPeer, fakes: int, times: int, services: str
) -> None:
    with (
        running_discovery(network, raw_peer, multicast=False) as discovery,
        Subscribe(services, "/good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        for _ in range(times):
            for number in range(fakes):
                discovery.shout(announcement(f"tcp://127.0.0.1:{number + 1}", service=["good"]), STRANGER)

        with Publish("good", nameservers=discovery.nameservers) as publisher:
            assert_delivery(publisher, subscriber)
            assert len(subscriber.addresses) <= 1000


SUBSCRIBING = """
import logging, sys
from posttroll.subscriber import Subscribe
logging.basicConfig()
with Subscribe("good", "/good", addr_listener=True) as subscriber:
    print("ready", flush=True)
    for message in subscriber.recv():
        print(message.data, flush=True)
        break
"""


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


@pytest.mark.parametrize("are_there", [True, False], ids=["that accept connections", "that do not"])
def test_fakes_do_not_use_up_the_usual_number_of_open_files(
    network: Network, raw_peer: RawPeer, are_there: bool
) -> None:
    with (
        running_discovery(network, raw_peer, multicast=False) as discovery,
        socket.create_server(("0.0.0.0", 0), backlog=4096 if are_there else 0) as fake,
        subprocess.Popen(
            [sys.executable, "-c", SUBSCRIBING],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=few_descriptors,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            with Publish("good", nameservers=discovery.nameservers) as publisher:
                assert process.stdout.readline() == "ready\n"
                assert publisher.wait_for_subscriber("/good", FOUND_WITHIN)
            port = fake.getsockname()[1] if are_there else 9
            for number in range(1500):
                host = f"127.1.{number // 250}.{number % 250 + 1}"
                discovery.shout(announcement(f"tcp://{host}:{port}", service=["good"]))
            with Publish("good", nameservers=discovery.nameservers) as publisher:
                assert publisher.wait_for_subscriber("/good", 3 * FOUND_WITHIN)  # behind 1500 others
                publisher.send(Message("/good/news", "info", "x"))

                assert process.communicate(timeout=FOUND_WITHIN)[0] == "x\n"
        finally:
            process.kill()

    assert process.returncode == 0


class Meetings:
    """A subscriber that only notes which addresses it is given."""

    def __init__(self) -> None:
        self.met: list[Any] = []
        self.parted: list[Any] = []

    def meet(self, entry: Any) -> bool:
        """Note an address."""
        self.met.append(entry)
        return True

    def part(self, entry: Any) -> None:
        """Note that it is gone."""
        self.parted.append(entry)


@pytest.fixture
def listener(network: Network) -> Iterator[AddressListener]:
    """Give an address listener that is not started, for a real subscriber."""
    with closing(Subscriber([], "")) as subscriber:
        listener = AddressListener(subscriber, ["good"])
        try:
            yield listener
        finally:
            listener.stop()


STRANGE_DATA: list[Any] = [
    None,
    "text",
    5,
    [],
    {},
    {"service": ["good"]},
    {"URI": None, "service": ["good"]},
    {"URI": 5, "service": ["good"]},
    {"URI": "", "service": ["good"]},
    {"URI": "tcp://127.0.0.1:9", "service": None},
    {"URI": "tcp://127.0.0.1:9", "service": 5},
    {"URI": "tcp://127.0.0.1:9", "service": {"good": 1}},
    {"URI": "tcp://127.0.0.1:9", "service": [["good"]]},
    {"URI": "tcp://127.0.0.1:9", "service": ["good"], "backend": 5},
    {"URI": "tcp://127.0.0.1:9", "service": ["good"], "backend": []},
    {"URI": "tcp://\ud800:9", "service": ["good"]},
    {"URI": "tcp://127.0.0.1:9\0", "service": ["good"]},
    {"URI": "tcp://127.0.0.1:9", "status": False},
    {"URI": 5, "status": False},
]


@pytest.mark.parametrize("data", STRANGE_DATA, ids=repr)
def test_strange_news_of_addresses_raise_nothing(listener: AddressListener, data: Any) -> None:
    message = Message("/address/x", "info", "")
    message.data = data

    listener.handle_msg(message)


def test_rubbish_on_the_address_feed_ends_no_listener(
    network: Network, raw_peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    feed, _ = raw_peer.publisher(network.addresses)
    meetings = Meetings()
    listener = AddressListener(meetings, ["good"]).start()
    try:
        assert feed.recv()[:1] == b"\x01"
        for data in STRANGE_DATA:
            feed.send(message_bytes(data, subject="/address/x"))
        feed.send(b"pytroll://address \xff\xfe")
        feed.send(message_bytes(body=" application/json " + "[" * 100_000, subject="/address/x"))
        feed.send(announcement("tcp://127.0.0.1:7", service=["good"]))

        eventually(lambda: [entry for entry in meetings.met if entry["URI"] == "tcp://127.0.0.1:7"])
    finally:
        listener.stop()

    assert len(warnings_in(caplog.records, "not a message")) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL]


def test_a_stranger_that_withdraws_all_addresses_cuts_nobody(discovery: Discovery) -> None:
    with (
        Publish("good", nameservers=discovery.nameservers) as publisher,
        Subscribe("good", "/good", addr_listener=True, timeout=FOUND_WITHIN) as subscriber,
    ):
        assert_delivery(publisher, subscriber)
        (entry,) = get_pub_addresses("good")
        entry["receive_time"] = "now"

        for data in ({**entry, "status": False}, {"URI": entry["URI"], "status": False}):
            discovery.shout(message_bytes(data, subject="/address/good"), STRANGER)
        discovery.shout(message_bytes({"URI": entry["URI"]}, subject="/address/good", kind="goodbye"), STRANGER)

        eventually(lambda: discovery.dropped() == 2)
        assert get_pub_address("good")
        assert_delivery(publisher, subscriber)


def test_registering_is_as_quick_after_a_flood(network: Network, raw_peer: RawPeer) -> None:
    with running_discovery(network, raw_peer, multicast=False) as discovery:
        shout = registrations(network.announcements, raw_peer)
        for number in range(3000):
            shout(announcement(f"tcp://127.0.0.1:{number}", service=[f"evil {number}"]))

        with Publish("good", nameservers=discovery.nameservers), Subscribe("good", "/x", timeout=UNIT) as subscriber:
            assert len(subscriber.addresses) == 1
