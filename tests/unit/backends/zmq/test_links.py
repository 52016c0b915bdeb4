from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
import zmq

from posttroll.backends.base import Arrival, Peer
from posttroll.backends.zmq.links import ZMQLinks
from posttroll.errors import BindFailed
from posttroll.settings import Ports, config
from tests.fixtures.background import in_background
from tests.fixtures.hostile import RawPeer
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"


def open_links(address: str | None = LOOPBACK, backend: str = "unsecure_zmq") -> ZMQLinks:
    return ZMQLinks(address, Ports.read(), backend)


@pytest.fixture
def server() -> Iterator[ZMQLinks]:
    with closing(open_links()) as server:
        yield server


@pytest.fixture
def client(server: ZMQLinks) -> Iterator[ZMQLinks]:
    """Give a channel that is connected to the server."""
    with closing(open_links(None)) as client:
        client.connect(peer_of(server))
        assert client.receive(5 * UNIT) == Arrival(peer_of(server), connected=True)
        yield client


def peer_of(server: ZMQLinks, backend: str = "unsecure_zmq") -> Peer:
    return Peer(server.address, backend)


def test_open_and_secure_peers_are_served_side_by_side(server: ZMQLinks, keys: Keys) -> None:
    with (
        config.set(**keys.settings()),
        closing(open_links(backend="secure_zmq")) as secure,
        closing(open_links(None)) as client,
    ):
        peers = [peer_of(server), peer_of(secure, "secure_zmq")]
        for peer in peers:
            client.connect(peer)
        assert {arrival.peer for _ in peers if (arrival := client.receive(5 * UNIT))} == set(peers)

        assert all(client.send(peer, b"hello") for peer in peers)
        arrivals = [channel.receive(5 * UNIT) for channel in (server, secure)]

    assert [bool(arrival.key) for arrival in arrivals if arrival] == [False, True]


def test_a_key_that_a_peer_claims_in_the_open_is_not_believed(server: ZMQLinks, raw_peer: RawPeer) -> None:
    dealer = raw_peer.socket(zmq.DEALER)
    dealer.set(zmq.METADATA, b"X-User-Id:somebody")
    dealer.connect(server.address)
    dealer.send(b"hello")

    arrival = server.receive(5 * UNIT)

    assert arrival is not None
    assert arrival.key == ""


def test_a_name_that_one_gave_itself_serves_the_next_one_too(server: ZMQLinks, raw_peer: RawPeer) -> None:
    for text in (b"first", b"second"):
        dealer = raw_peer.socket(zmq.DEALER, routing_id=b"me", rcvtimeo=int(5000 * UNIT))
        dealer.connect(server.address)
        dealer.send(text)
        assert server.receive(5 * UNIT) == (b"me", text, "", False)
        assert server.send(b"me", b"reply to " + text)
        assert dealer.recv() == b"reply to " + text

        dealer.close()

        assert server.receive(5 * UNIT) == Arrival(b"me")
        assert not server.send(b"me", b"bundle")


def test_the_last_words_of_one_who_has_left_are_followed_by_the_news_of_it(server: ZMQLinks, raw_peer: RawPeer) -> None:
    dealer = raw_peer.socket(zmq.DEALER)
    dealer.linger = 1000
    dealer.connect(server.address)
    dealer.send(b"first")
    first = server.receive(5 * UNIT)
    assert first is not None

    dealer.send(b"last")
    dealer.close()

    eventually(lambda: server.receive(0.1) == Arrival(first.peer))
    assert server.receive(0.1) is None


def test_a_signal_handler_may_wake_who_waits(server: ZMQLinks) -> None:
    former = signal.signal(signal.SIGUSR1, lambda *_: server.wake())
    try:
        with in_background(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            assert server.receive(5 * UNIT) is None
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_idle_connections_cost_next_to_nothing(server: ZMQLinks, client: ZMQLinks) -> None:
    before = resource.getrusage(resource.RUSAGE_THREAD)

    assert client.receive(1.0) is None
    after = resource.getrusage(resource.RUSAGE_THREAD)

    assert after.ru_nvcsw - before.ru_nvcsw <= 5
    assert after.ru_utime - before.ru_utime < 0.05


def test_a_child_of_a_fork_can_use_nothing_and_harms_nothing(server: ZMQLinks, client: ZMQLinks) -> None:
    peer = peer_of(server)

    assert in_child(lambda: client.receive(0)) == "UsedAfterFork"
    assert in_child(lambda: client.send(peer, b"bundle")) == "UsedAfterFork"
    assert in_child(lambda: client.connect(peer)) == "UsedAfterFork"
    assert in_child(client.close) == "None"

    assert client.send(peer, b"bundle")
    assert server.receive(5 * UNIT) is not None


def test_an_address_in_use_leaves_nothing_behind(server: ZMQLinks) -> None:
    with pytest.raises(BindFailed):
        open_links(server.address)


def test_another_thread_may_connect_while_one_waits(server: ZMQLinks) -> None:
    with closing(open_links(None)) as client, in_background(lambda: client.receive(5 * UNIT)) as waiting:
        assert waiting.is_pending()

        client.connect(peer_of(server))

        assert waiting.result() == Arrival(peer_of(server), connected=True)


def test_closing_ends_the_wait_every_time() -> None:
    for _ in range(50):
        links = open_links()
        with in_background(partial(links.receive, None)) as waiting:
            links.close()
            assert waiting.result() is None
        with pytest.raises(ValueError, match="closed"):
            links.fileno()


def test_who_takes_nothing_does_not_make_the_server_deaf_to_the_others(server: ZMQLinks, raw_peer: RawPeer) -> None:
    full, other = raw_peer.socket(zmq.DEALER, rcvhwm=1, routing_id=b"full"), raw_peer.socket(zmq.DEALER)
    for dealer in (full, other):
        dealer.connect(server.address)
        dealer.send(b"hello")
        assert server.receive(5 * UNIT) is not None
    eventually(lambda: sum(server.send(b"full", bytes(10_000)) for _ in range(200)) == 0)
    assert server.receive(0) is None

    for _ in range(10):
        other.send(b"news")
        assert select.select([server._server.socket.get(zmq.FD)], [], [], 5 * UNIT)[0]  # type: ignore[union-attr]
        assert not server.send(b"full", b"bundle")

        arrival = server.receive(2 * UNIT)

        assert arrival is not None
        assert server.receive(0) is None
