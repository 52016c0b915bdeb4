"""What may arrive at the ports for look-ups and registrations, which are ZeroMQ's, and beneath that TCP."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import zmq

from posttroll.message import Message
from posttroll.ns import get_pub_address, get_pub_addresses
from posttroll.publisher import Publish
from posttroll.subscriber import NSSubscriber, Subscribe
from tests.fixtures.background import in_background
from tests.fixtures.hostile import (
    LOOPBACK,
    ZMTP_GREETING,
    Footprint,
    RawPeer,
    assert_delivery,
    assert_publishers_are_found,
    connection,
    message_bytes,
    nameserver_process,
    no_leaks,
    subscriber_connection,
    warnings_in,
    zmtp_connection,
    zmtp_frame,
)
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

NOISE = random.Random(2).randbytes
NAMESERVERS = ["localhost"]
AT_ONCE = UNIT
FLOOD = 3.0


def request(data: object, **parts: str) -> bytes:
    return message_bytes(data, subject="/oper/ns", kind="request", **parts)


GOOD = request({"service": ""})

BAD_FRAMES = {
    "empty": b"",
    "one byte": b"?",
    "random bytes": NOISE(1000),
    "not UTF-8": b"\xff\xfe\xfd",
    "wrong magic word": GOOD[1:],
    "too few parts": b"pytroll://oper/ns request",
    "no data": request(None, body=""),
    "mime type without data": request(None, body=" application/json"),
    "bad JSON": request(None, body=" application/json {service}"),
    "deep JSON": request(None, body=" application/json " + "[" * 100_000),
    "deep JSON in the right place": request(None, body=' application/json {"service": ' + "[" * 50_000),
    "text": request(None, body=" text/ascii service"),
    "a list": request(["service"]),
    "no service": request({"topic": "x"}),
    "service null": request({"service": None}),
    "service a number": request({"service": 7}),
    "service a list": request({"service": ["good"]}),
    "service an object": request({"service": {}}),
    "version of the future": request({"service": ""}, version="v1.3"),
    "version of the far future": request({"service": ""}, version="v99"),
    "time that is none": request({"service": ""}, time="noon"),
    "10 MB of zeros": bytes(10_000_000),
    "10 MB of JSON": request({"service": "x" * 10_000_000}),
}

BAD_MULTIPARTS = {
    "no frame but the delimiter": [b""],
    "two delimiters": [b"", b""],
    "many delimiters": [b""] * 100,
    "no delimiter": [GOOD],
    "delimiter last": [GOOD, b""],
    "several requests": [b"", GOOD, GOOD, GOOD],
    "envelope of another": [NOISE(5), NOISE(5), b"", GOOD],
    "a thousand frames": [b"x"] * 1000,
}


@pytest.fixture
def nameserver(network: Network) -> Iterator[None]:
    """Run a nameserver without multicast, so that both of its ports can be asked."""
    with running_nameserver(multicast_enabled=False):
        yield


@pytest.fixture(params=["look-ups", "registrations"])
def port(request: pytest.FixtureRequest, network: Network, nameserver: None) -> int:
    """Give one of the two ports after the other."""
    return network.nameserver if request.param == "look-ups" else network.announcements


def assert_it_answers() -> None:
    start = time.monotonic()

    get_pub_address("", timeout=5 * UNIT)

    assert time.monotonic() - start < AT_ONCE
    assert_publishers_are_found(nameservers=NAMESERVERS)


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_request_is_answered_and_so_is_the_next(port: int, raw_peer: RawPeer, frame: bytes) -> None:
    dealer = raw_peer.dealer(port)

    dealer.send_multipart([b"", frame])
    dealer.send_multipart([b"", GOOD])

    replies = [dealer.recv_multipart(), dealer.recv_multipart()]
    assert [reply[0] for reply in replies] == [b"", b""]
    assert_it_answers()


@pytest.mark.parametrize("frames", BAD_MULTIPARTS.values(), ids=BAD_MULTIPARTS)
def test_a_request_in_odd_frames_is_answered_and_so_is_the_next(
    port: int, raw_peer: RawPeer, frames: Sequence[bytes]
) -> None:
    dealer = raw_peer.dealer(port)

    dealer.send_multipart(frames)
    dealer.send_multipart([b"", GOOD])

    assert len([dealer.recv_multipart(), dealer.recv_multipart()]) == 2
    assert_it_answers()


def test_a_bad_request_is_answered_with_no_address(
    network: Network, nameserver: None, raw_peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    dealer = raw_peer.dealer(network.nameserver)

    for _ in range(20):
        dealer.send_multipart([b"", b"rubbish"])
    replies = [dealer.recv_multipart()[-1] for _ in range(20)]

    assert {Message.decode(reply).data for reply in replies} == {""}
    assert len(warnings_in(caplog.records, "unusable request from 127.0.0.1")) == 1


def test_a_request_beyond_all_measure_is_harmless(port: int, raw_peer: RawPeer) -> None:
    raw_peer.dealer(port).send_multipart([b"", bytes(20 * 2**20)])

    assert_it_answers()


def test_who_goes_away_before_the_answer_delays_nobody(port: int, raw_peer: RawPeer) -> None:
    for number in range(200):
        dealer = raw_peer.socket(zmq.DEALER, linger=1000)
        dealer.connect(f"tcp://{LOOPBACK}:{port}")
        dealer.send_multipart([b"", GOOD])
        dealer.close()
        if number % 20 == 0:
            get_pub_address("", timeout=AT_ONCE)

    assert_it_answers()


def test_who_never_reads_the_answers_delays_nobody(port: int, raw_peer: RawPeer) -> None:
    dealer = raw_peer.socket(zmq.DEALER, rcvhwm=1, sndtimeo=100)
    dealer.connect(f"tcp://{LOOPBACK}:{port}")

    with suppress(zmq.Again):
        for _ in range(20_000):
            dealer.send_multipart([b"", GOOD])

    assert_it_answers()


def test_two_clients_of_one_identity_are_both_harmless(port: int, raw_peer: RawPeer) -> None:
    for _ in range(2):
        dealer = raw_peer.socket(zmq.DEALER, routing_id=b"twin")
        dealer.connect(f"tcp://{LOOPBACK}:{port}")
        dealer.send_multipart([b"", GOOD])

    assert_it_answers()


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.SUB, zmq.PUSH, zmq.PULL, zmq.ROUTER, zmq.PAIR, zmq.REP])
def test_sockets_of_the_wrong_kind_are_harmless(port: int, raw_peer: RawPeer, kind: int) -> None:
    wrong = raw_peer.socket(kind)
    wrong.connect(f"tcp://{LOOPBACK}:{port}")

    assert_it_answers()


RAW = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + NOISE(200),
    "random bytes": NOISE(10_000),
    "zeros": bytes(10_000),
    "half a greeting": ZMTP_GREETING[:11],
    "a greeting": ZMTP_GREETING,
    "a greeting and rubbish": ZMTP_GREETING + NOISE(10_000),
    "a greeting and a command without end": ZMTP_GREETING + b"\x06" + struct.pack(">Q", 2**62) + bytes(1000),
    "ZMTP 1.0": b"\x01\x00\x01\x00",
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_who_speaks_no_zeromq_is_harmless(port: int, data: bytes) -> None:
    with no_leaks(), closing(connection(port)) as stranger:
        stranger.sendall(data)

        assert_it_answers()


def test_a_scan_of_the_ports_is_harmless(network: Network, port: int) -> None:
    with no_leaks():
        for _ in range(300):
            connection(port).close()
            connection(network.addresses).close()
        for _ in range(50):
            with closing(connection(port)) as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        assert_it_answers()


@pytest.mark.parametrize("arguments", [["--no-multicast"], []], ids=["designated", "multicast"])
def test_hundreds_of_half_open_connections_are_harmless(network: Network, tmp_path: Path, arguments: list[str]) -> None:
    nameservers = NAMESERVERS if arguments else None
    ports = [network.nameserver, network.addresses, *([network.announcements] if arguments else [])]
    with nameserver_process(tmp_path, *arguments) as daemon:
        get_pub_address("", timeout=5 * UNIT)
        with no_leaks(daemon.pid), ExitStack() as strangers:
            for number in range(400):
                stranger = strangers.enter_context(closing(connection(ports[number % len(ports)])))
                stranger.sendall(ZMTP_GREETING[: number % 70])

            get_pub_address("", timeout=AT_ONCE)
            assert_publishers_are_found(nameservers=nameservers)


def test_the_nameserver_process_survives_all_of_it(network: Network, tmp_path: Path, raw_peer: RawPeer) -> None:
    with nameserver_process(tmp_path, "--no-multicast") as daemon:
        get_pub_address("", timeout=5 * UNIT)
        with no_leaks(daemon.pid):
            for port in (network.nameserver, network.announcements, network.addresses):
                for data in RAW.values():
                    with closing(connection(port)) as stranger:
                        stranger.sendall(data)
            for port in (network.nameserver, network.announcements):
                with raw_peer.dealer(port) as dealer:
                    for frames in [*BAD_MULTIPARTS.values(), *([b"", frame] for frame in BAD_FRAMES.values())]:
                        dealer.send_multipart(frames)
                    for _ in [*BAD_MULTIPARTS, *BAD_FRAMES]:
                        dealer.recv_multipart()
                    dealer.send_multipart([b"", bytes(20 * 2**20)])

            get_pub_address("", timeout=AT_ONCE)
            assert_publishers_are_found(nameservers=NAMESERVERS)

        assert daemon.has_logged("unusable request from")


PING = b"\x04\x07\x04PING\0\0"


def test_who_asks_much_sends_pings_and_is_gone_does_not_take_the_nameserver_along(
    network: Network, tmp_path: Path
) -> None:
    """libzmq ends the process if it has stopped reading from such a peer."""
    question = zmtp_frame(b"", more=True) + zmtp_frame(GOOD) + PING
    with nameserver_process(tmp_path, "--no-multicast"):
        get_pub_address("", timeout=5 * UNIT)
        for port in (network.nameserver, network.announcements):
            for _ in range(3):
                with zmtp_connection(port, b"DEALER") as stranger, suppress(OSError):
                    stranger.sendall(question * 20_000)
                    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

                get_pub_address("", timeout=5 * UNIT)


@pytest.mark.parametrize("frame", [b"x" * 10, b"x" * 1000, b"x" * 100_000, GOOD], ids=["10", "1000", "100000", "good"])
def test_a_flood_of_requests_fills_no_memory_and_others_are_answered(
    network: Network, tmp_path: Path, frame: bytes
) -> None:
    def flood() -> None:
        data = zmtp_frame(frame) * (2**18 // len(frame))
        end = time.monotonic() + FLOOD
        while time.monotonic() < end:
            with zmtp_connection(network.nameserver, b"DEALER") as stranger, suppress(OSError):
                stranger.settimeout(0.1)
                while time.monotonic() < end:
                    stranger.sendall(data)

    with nameserver_process(tmp_path, "--no-multicast") as daemon:
        get_pub_address("", timeout=5 * UNIT)
        with no_leaks(daemon.pid, memory=512 * 2**20), in_background(flood) as flooding:
            while flooding.is_pending(0.01):
                get_pub_address("", timeout=5 * UNIT)
                assert Footprint.of(daemon.pid).memory < 768 * 2**20


BAD_REPLIES = {
    "empty": [b"", b""],
    "one frame": [],
    "rubbish": [b"", NOISE(1000)],
    "no data": [b"", message_bytes(body="")],
    "text": [b"", message_bytes(body=" text/ascii tcp://127.0.0.1:9")],
    "an object": [b"", message_bytes({"URI": "tcp://127.0.0.1:9"})],
    "deep JSON": [b"", message_bytes(body=" application/json " + "[" * 100_000)],
    "entries that are none": [
        b"",
        message_bytes([None, 1, "x", [], {}, {"URI": None}, {"URI": []}, {"URI": ""}, {"URI": "\ud800"}]),
    ],
    "entries that lead nowhere": [
        b"",
        message_bytes(
            [
                {"URI": "nowhere"},
                {"URI": "tcp://\ud800:9", "service": ["good"]},
                {"URI": "tcp://127.0.0.1:99999"},
                {"URI": "tcp://127.0.0.1:9", "backend": []},
                {"URI": "tcp://127.0.0.1:9", "backend": None},
                {"URI": "tcp://127.0.0.1:9\0", "supported_message_version": {}},
                {"URI": "x" * 100_000},
                {"URI": "ipc://" + "x" * 1000},
            ]
        ),
    ],
}


def answer(raw_peer: RawPeer, port: int, frames: Sequence[bytes], times: int) -> None:
    """Be a nameserver that gives this answer so many times."""
    with raw_peer.socket(zmq.ROUTER, rcvtimeo=int(5000 * UNIT)) as router:
        router.bind(f"tcp://{LOOPBACK}:{port}")
        for _ in range(times):
            identity, number, *_ = router.recv_multipart()
            router.send_multipart([identity, number, *frames] if frames else [identity, number])


@pytest.mark.parametrize("frames", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_a_nameserver_that_answers_rubbish_ends_no_subscriber(
    network: Network, raw_peer: RawPeer, frames: Sequence[bytes]
) -> None:
    with in_background(lambda: answer(raw_peer, network.nameserver, frames, 3)) as answering:
        subscriber = NSSubscriber("good", "/good", addr_listener=True, timeout=2 * UNIT)
        reader = subscriber.start()
        try:
            answering.result(10 * UNIT)
            with running_nameserver(multicast_enabled=False), Publish("good", nameservers=NAMESERVERS) as publisher:
                assert_delivery(publisher, reader)
        finally:
            subscriber.stop()


@pytest.mark.parametrize("frames", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_a_nameserver_that_answers_rubbish_ends_no_announcements(
    network: Network, raw_peer: RawPeer, frames: Sequence[bytes]
) -> None:
    with Publish("good", nameservers=NAMESERVERS, broadcast_interval=0.2):
        answer(raw_peer, network.announcements, frames, 3)

        with running_nameserver(multicast_enabled=False):
            assert get_pub_addresses(["good"], timeout=5 * UNIT)


def test_a_nameserver_that_never_stops_answering_blocks_nobody(network: Network, raw_peer: RawPeer) -> None:
    def chatter() -> None:
        with raw_peer.socket(zmq.ROUTER, rcvtimeo=int(5000 * UNIT), router_mandatory=True, sndtimeo=1000) as router:
            router.bind(f"tcp://{LOOPBACK}:{network.nameserver}")
            identity = router.recv_multipart()[0]
            end = time.monotonic() + 3 * UNIT
            while time.monotonic() < end:
                try:
                    router.send_multipart([identity, b"another number", b"", GOOD])
                except zmq.ZMQError:
                    return

    with in_background(chatter):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            get_pub_address("good", timeout=UNIT)

    assert time.monotonic() - start < 5 * UNIT


SUBSCRIPTIONS = {
    "none": b"",
    "to all": b"\x01",
    "end of one that never was": b"\x00/a",
    "rubbish": NOISE(1000),
    "10 MB": b"\x01" + bytes(10_000_000),
}


@pytest.mark.parametrize("data", SUBSCRIPTIONS.values(), ids=SUBSCRIPTIONS)
def test_odd_subscriptions_stop_neither_a_publisher_nor_the_address_feed(
    network: Network, nameserver: None, data: bytes
) -> None:
    with Publish("good", nameservers=NAMESERVERS) as publisher, no_leaks():
        for port in (publisher.port_number or 0, network.addresses):
            with subscriber_connection(port) as stranger, suppress(ConnectionError):
                stranger.sendall(zmtp_frame(data))
                stranger.sendall(zmtp_frame(b"\x01/a", more=True) + zmtp_frame(NOISE(1000)))

        with Subscribe("good", "/good", timeout=5 * UNIT) as reader:
            assert_delivery(publisher, reader)

    assert_publishers_are_found("another", NAMESERVERS)


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_who_speaks_no_zeromq_stops_no_publisher(nameserver: None, data: bytes) -> None:
    with Publish("good", nameservers=NAMESERVERS) as publisher:
        with closing(connection(publisher.port_number or 0)) as stranger:
            stranger.sendall(data)
        with Subscribe("good", "/good", timeout=5 * UNIT) as reader:
            assert_delivery(publisher, reader)


def test_a_flood_of_subscriptions_fills_no_memory(nameserver: None) -> None:
    with Publish("good", nameservers=NAMESERVERS) as publisher, no_leaks():
        with subscriber_connection(publisher.port_number or 0) as stranger, suppress(TimeoutError):
            stranger.settimeout(UNIT)
            change = zmtp_frame(b"\x01/a") + zmtp_frame(b"\x00/a")
            for _ in range(100):
                stranger.sendall(change * 5000)

        assert_publishers_are_found("another", NAMESERVERS)
        publisher.send(Message("/good/news", "info", "x"))
