"""What may arrive at the port of announcements (UDP multicast) and of registrations (TCP)."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from posttroll.message_broadcaster import sendaddress
from posttroll.ns import get_pub_address, get_pub_addresses
from posttroll.protocol.discovery import MAX_DATAGRAM
from posttroll.publisher import Publish
from posttroll.settings import config
from tests.fixtures.hostile import (
    FOUND_WITHIN,
    STRANGER,
    Discovery,
    Footprint,
    RawPeer,
    announcement,
    assert_publishers_are_found,
    datagrams,
    message_bytes,
    nameserver_process,
    no_leaks,
    registrations,
    running_discovery,
    warnings_in,
)
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

NOISE = random.Random(1).randbytes

UNUSABLE = {
    "nothing": b"",
    "one byte": b"x",
    "random bytes": NOISE(1000),
    "64 KB of random bytes": NOISE(MAX_DATAGRAM),
    "64 KB of zeros": bytes(MAX_DATAGRAM),
    "not UTF-8": b"\xff\xfe pytroll",
    "wrong magic word": announcement().replace(b"pytroll:/", b"pytroll;/"),
    "magic word only": b"pytroll:/",
    "too few parts": b"pytroll://address/evil info user@host",
    "no data": message_bytes(body=""),
    "mime type without data": message_bytes(body=" application/json"),
    "mime type and a blank": message_bytes(body=" application/json "),
    "unknown mime type": message_bytes(body=" application/pickle gASVBQAAAAAAAABLAS4="),
    "cut JSON": announcement()[:-5],
    "64 KB of cut JSON": announcement(service=["s" * 100] * 1000)[:MAX_DATAGRAM],
    "bad JSON": message_bytes(body=" application/json {'URI': 1}"),
    "deep JSON": message_bytes(body=" application/json " + "[" * 60_000),
    "deeply nested JSON that is complete": announcement(more=eval("[" * 80 + "]" * 80)),
    "data is a text": message_bytes(body=" text/ascii tcp://127.0.0.1:9"),
    "data is a list": message_bytes(["tcp://127.0.0.1:9"]),
    "data is a number": message_bytes(7),
    "data is null": message_bytes(None),
    "URI missing": message_bytes({"service": ["evil"]}),
    "URI null": announcement(None),
    "URI a number": announcement(5),
    "URI a list": announcement(["tcp://127.0.0.1:9"]),
    "URI an object": announcement({"URI": "tcp://127.0.0.1:9"}),
    "URI empty": announcement(""),
    "URI with a blank": announcement("tcp://127.0.0.1:9 x"),
    "URI with a new line": announcement("tcp://127.0.0.1:9\nx"),
    "URI with a zero": announcement("tcp://127.0.0.1:9\0"),
    "URI with a lone surrogate": announcement("tcp://\ud800:9"),
    "URI of 50 KB": announcement("tcp://" + "a" * 50_000),
    "service a number": announcement(service=5),
    "service an object": announcement(service={"a": "b"}),
    "service with a number": announcement(service=["a", 5]),
    "service with a list": announcement(service=[["a"]]),
    "service true": announcement(service=True),
    "backend a number": announcement(backend=5),
    "backend a list": announcement(backend=["unsecure_zmq"]),
    "supported version a number": announcement(supported_message_version=1.2),
    "version of the future": message_bytes({"URI": "tcp://127.0.0.1:9"}, version="v1.3"),
    "version of the far future": message_bytes({"URI": "tcp://127.0.0.1:9"}, version="v99"),
    "time that is none": message_bytes({"URI": "tcp://127.0.0.1:9"}, time="yesterday"),
    "time that cannot be": message_bytes({"URI": "tcp://127.0.0.1:9"}, time="2026-02-30T25:61:00"),
    "subject without a slash": message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="address"),
    "subject of another kind": message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="/weather/now"),
    "type of another kind": message_bytes({"URI": "tcp://127.0.0.1:9"}, kind="file"),
}


@pytest.mark.parametrize("data", UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_announcement_is_counted_and_hurts_nobody(
    discovery: Discovery, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    discovery.shout(data)

    eventually(lambda: discovery.dropped() == 1)
    eventually(lambda: len(warnings_in(caplog.records, "dropped from 127.0.0.1")) == 1)
    assert_publishers_are_found(nameservers=discovery.nameservers)


def test_a_flood_of_rubbish_is_logged_once(discovery: Discovery, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        discovery.shout(b"rubbish")

    eventually(lambda: discovery.dropped() == 50)
    assert len(warnings_in(caplog.records, "dropped from")) == 1


@pytest.mark.parametrize(
    "data",
    [
        message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="/weather/" + "\x1b[2Jx" * 10_000),
        announcement("tcp://\x1b[31m"),
        b"\x1b[2J" * 1000,
    ],
)
def test_what_is_logged_of_a_stranger_is_short_and_printable(
    discovery: Discovery, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    discovery.shout(data)

    (line,) = eventually(lambda: warnings_in(caplog.records, "dropped from"))
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize("aliases", [60, 2000])
def test_a_publisher_with_many_aliases_is_found_by_each(discovery: Discovery, aliases: int) -> None:
    names = [f"alias/of/a/publisher/{number:04}" for number in range(aliases)]

    with Publish("good", aliases=names, nameservers=discovery.nameservers) as publisher:
        (by_last,) = get_pub_addresses([names[-1]], timeout=FOUND_WITHIN)
        (by_name,) = get_pub_addresses(["good"], timeout=FOUND_WITHIN)

    assert by_last["URI"] == by_name["URI"]
    assert by_last["URI"].endswith(f":{publisher.port_number}")
    assert by_name["service"] == ["good", *names]


def test_the_longest_datagram_is_used_whole(discovery: Discovery) -> None:
    room = MAX_DATAGRAM - len(announcement(filling=""))
    longest = announcement(filling="x" * room)

    discovery.shout(longest)

    (entry,) = get_pub_addresses(["evil"], timeout=FOUND_WITHIN)
    assert len(longest) == MAX_DATAGRAM
    assert len(entry["filling"]) == room


def test_an_announcement_without_services_is_found_among_all(discovery: Discovery) -> None:
    broadcaster = sendaddress("old", ("127.0.0.1", 9), 2, discovery.nameservers).start()
    try:
        entries = eventually(lambda: [entry for entry in get_pub_address("") or [] if entry["URI"] == "127.0.0.1:9"])
    finally:
        broadcaster.stop()

    assert entries[0]["service"] == []
    assert_publishers_are_found(nameservers=discovery.nameservers)


ODD = {
    "a backend nobody knows": announcement(backend="carrier_pigeon"),
    "an empty backend": announcement(backend=""),
    "a newer supported version": announcement(supported_message_version="v9"),
    "an empty supported version": announcement(supported_message_version=""),
    "service a text": announcement(service="evil"),
    "no service": message_bytes({"URI": "tcp://127.0.0.1:9"}),
    "services that are no texts anybody can print": announcement(service=["\ud800", "\x00", "", "evil"]),
    "items that a nameserver makes itself": announcement(status=False, name=5, receive_time=[]),
    "numbers that are none": announcement(more=[float("nan"), float("inf"), 10**400]),
    "a URI that leads nowhere": announcement("nowhere"),
    "a subject in capitals": message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="/ADDRESS/x"),
    "no name": message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="/address"),
    "a name of slashes": message_bytes({"URI": "tcp://127.0.0.1:9"}, subject="/address////"),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_an_odd_announcement_spoils_no_look_up(discovery: Discovery, data: bytes) -> None:
    discovery.shout(data)
    discovery.shout(data)

    eventually(lambda: get_pub_address(""))
    get_pub_address("evil")
    assert_publishers_are_found(nameservers=discovery.nameservers)


def uris(service: str) -> list[str]:
    return [entry["URI"] for entry in get_pub_addresses(service, timeout=FOUND_WITHIN)]


def shouts(port: int, raw_peer: RawPeer, multicast: bool) -> Callable[..., None]:
    return datagrams(port) if multicast else registrations(port, raw_peer)


@pytest.mark.parametrize("multicast", [True, False], ids=["multicast", "designated"])
def test_ten_thousand_invented_addresses_hide_no_publisher(
    network: Network, raw_peer: RawPeer, tmp_path: Path, multicast: bool
) -> None:
    arguments = [] if multicast else ["--no-multicast"]
    nameservers = None if multicast else ["localhost"]
    with nameserver_process(tmp_path, *arguments) as daemon, Publish("before", nameservers=nameservers):
        (before,) = get_pub_addresses(["before"], timeout=FOUND_WITHIN)
        shout = shouts(network.announcements, raw_peer, multicast)
        shout(b"the connection stays")
        with no_leaks(daemon.pid, memory=100 * 2**20):
            for number in range(10_000):
                shout(announcement(f"tcp://127.0.0.1:{number}", service=[f"evil {number}", "before", "after"]))
                if number % 100 == 0:
                    get_pub_address("nobody", FOUND_WITHIN)

            assert_publishers_are_found("after", nameservers)
            eventually(lambda: before["URI"] in uris("before"), FOUND_WITHIN)

            assert len(uris("before")) <= 1000


def test_the_table_keeps_no_more_than_its_limits(network: Network, raw_peer: RawPeer) -> None:
    limits = {"max_addresses": 30, "max_addresses_per_source": 20, "max_addresses_per_service": 10}
    with config.set(limits), running_discovery(network, raw_peer, multicast=False) as discovery:
        for number in range(100):
            discovery.shout(announcement(f"tcp://127.0.0.1:{number}", service=["evil"]))
            discovery.shout(announcement(f"tcp://127.0.0.1:{1000 + number}", service=[f"evil {number}"]))
            discovery.shout(announcement(f"tcp://127.0.0.1:{2000 + number}", service=[]), STRANGER)

        assert len(get_pub_address("evil")) <= 10
        assert len(get_pub_address("")) <= 30


def test_announcements_as_long_as_can_be_fill_no_memory(network: Network, raw_peer: RawPeer, tmp_path: Path) -> None:
    with nameserver_process(tmp_path, "--no-multicast") as daemon:
        shout = registrations(network.announcements, raw_peer)
        before = Footprint.of(daemon.pid)

        for number in range(2000):
            shout(announcement(f"tcp://127.0.0.1:{number}", service=[f"{number}"], filling="x" * 60_000))

        assert Footprint.of(daemon.pid).memory < before.memory + 100 * 2**20
        assert_publishers_are_found(nameservers=["localhost"])


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of a process is set in the way of Linux")
def test_more_registering_publishers_than_open_files_take_turns_and_look_ups_find_room(
    network: Network, raw_peer: RawPeer, tmp_path: Path
) -> None:
    with nameserver_process(tmp_path, "--no-multicast") as daemon:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (100, 100))
        dealers = [raw_peer.dealer(network.announcements) for _ in range(90)]

        def are_all_known() -> bool:
            for number, dealer in enumerate(dealers):
                with suppress(zmq.Again):
                    dealer.send_multipart([b"", announcement(f"tcp://127.0.0.1:{number + 1}")], zmq.DONTWAIT)
            with suppress(AssertionError):
                return eventually(lambda: len(get_pub_address("evil", FOUND_WITHIN)) == len(dealers), 0.2 * UNIT)
            return False

        eventually(are_all_known, 30 * UNIT)

        assert daemon.log.read_text().count("they take turns") == 1


def test_what_a_burst_of_announcements_loses_the_next_ones_make_up_for(network: Network, tmp_path: Path) -> None:
    texts = [announcement(f"tcp://127.0.0.1:{number}", service=[f"service {number}"]) for number in range(9000)]
    with nameserver_process(tmp_path):
        shout = datagrams(network.announcements)

        def are_all_known() -> bool:
            for text in texts:
                shout(text)
            with suppress(AssertionError):
                return eventually(lambda: len(get_pub_address("", FOUND_WITHIN)) == len(texts), UNIT)
            return False

        assert any(are_all_known() for _ in range(5))


def test_a_stranger_cannot_say_goodbye_for_a_publisher(discovery: Discovery) -> None:
    with Publish("good", nameservers=discovery.nameservers):
        (entry,) = get_pub_addresses(["good"], timeout=FOUND_WITHIN)
        goodbye = message_bytes({"URI": entry["URI"], "service": ["good"]}, subject="/address/good", kind="goodbye")

        discovery.shout(goodbye, STRANGER)

        eventually(lambda: discovery.dropped() == 1)
        assert get_pub_address("good")


def test_a_stranger_cannot_take_a_publishers_place(discovery: Discovery) -> None:
    with Publish("good", nameservers=discovery.nameservers, broadcast_interval=60):
        (entry,) = get_pub_addresses(["good"], timeout=FOUND_WITHIN)

        discovery.shout(announcement(entry["URI"], service=["evil"]), STRANGER)

        eventually(lambda: discovery.dropped() == 1)
        assert [found["URI"] for found in get_pub_addresses(["good"])] == [entry["URI"]]
        assert not get_pub_address("evil")


@pytest.mark.parametrize("multicast", [True, False], ids=["multicast", "designated"])
def test_announcements_from_hosts_that_are_not_authorized_are_refused(
    network: Network, raw_peer: RawPeer, multicast: bool
) -> None:
    with (
        config.set(authorized_announcer_addresses=["127.0.0.1"]),
        running_discovery(network, raw_peer, multicast) as discovery,
    ):
        discovery.shout(announcement(), STRANGER)

        eventually(lambda: discovery.receiver.dropped == {"source not allowed": 1})
        assert not get_pub_address("evil", 5 * UNIT)
        assert_publishers_are_found(nameservers=discovery.nameservers)


@pytest.mark.parametrize("multicast", [True, False], ids=["multicast", "designated"])
def test_the_nameserver_process_survives_all_of_it(
    network: Network, raw_peer: RawPeer, tmp_path: Path, multicast: bool
) -> None:
    arguments = [] if multicast else ["--no-multicast"]
    with nameserver_process(tmp_path, *arguments) as daemon:
        shout = shouts(network.announcements, raw_peer, multicast)
        shout(b"the connection stays")
        with no_leaks(daemon.pid):
            for _ in range(3):
                for data in [*UNUSABLE.values(), *ODD.values()]:
                    shout(data)

            assert_publishers_are_found(nameservers=None if multicast else ["localhost"])

        assert daemon.has_logged("dropped from 127.0.0.1: unusable announcement")
