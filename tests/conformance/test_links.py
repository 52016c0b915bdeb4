"""What every backend's channels for links do."""

from __future__ import annotations

import socket
import time
from collections.abc import Hashable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import zmq

from posttroll.backends.base import Arrival, LinkChannel, Peer
from posttroll.backends.zmq.keys import load_public_key
from posttroll.errors import BindFailed, TransportError
from posttroll.settings import Ports, config
from tests.conformance.conftest import Channels, awaited_too
from tests.fixtures.background import in_background
from tests.fixtures.hostile import RawPeer
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually

pytestmark = awaited_too

SILENCE = 0.2
BUNDLE = b"head\x00\xff\ntail"


def arrival(channel: LinkChannel, timeout: float = 5 * UNIT) -> Arrival:
    """Return the next arrival, which has to come."""
    arrived = channel.receive(timeout)
    assert arrived is not None
    return arrived


def linked(channels: Channels, *servers: LinkChannel) -> LinkChannel:
    """Open a channel that is connected to the servers."""
    client = channels.links(None)
    for server in servers:
        client.connect(channels.peer(server.address))
    assert {arrival(client).peer for _ in servers} == {channels.peer(server.address) for server in servers}
    return client


def introduced(channels: Channels, client: LinkChannel, server: LinkChannel) -> Hashable:
    """Have the server hear from the client; return how it calls it."""
    assert client.send(channels.peer(server.address), b"hello")
    greeting = arrival(server)
    assert greeting.bundle == b"hello"
    return greeting.peer


def serve_again(channels: Channels, address: str) -> LinkChannel:
    """Bind where another one was just closed; the system may take a moment to free the port."""

    def attempt() -> LinkChannel | None:
        with suppress(BindFailed):
            return channels.links(address)
        return None

    channel = eventually(attempt)
    assert channel is not None
    return channel


@pytest.mark.parametrize("bundle", [BUNDLE, b"\0", bytes(2**20), bytes(5 * 2**20)], ids=len)
def test_bundles_go_both_ways_as_they_were_sent(channels: Channels, bundle: list[bytes]) -> None:
    server = channels.links()
    client = linked(channels, server)
    peer = channels.peer(server.address)

    assert client.send(peer, bundle)
    there = arrival(server)
    assert server.send(there.peer, bundle)
    back = arrival(client)

    assert there.bundle == back.bundle == bundle
    assert back.peer == peer
    assert not there.connected


def test_bundles_arrive_in_order(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    sent = [b"%d" % number for number in range(500)]

    for bundle in sent:
        assert client.send(channels.peer(server.address), bundle)

    assert [arrival(server).bundle for _ in sent] == sent


def test_one_end_talks_with_several_peers_and_knows_them_apart(channels: Channels) -> None:
    servers = channels.links(), channels.links()
    clients = linked(channels, *servers), linked(channels, *servers)

    for client in clients:
        for server in servers:
            client.send(channels.peer(server.address), b"to %d" % servers.index(server))
    for server in servers:
        for _ in clients:
            came = arrival(server)
            assert came.bundle == b"to %d" % servers.index(server)
            assert server.send(came.peer, b"reply")

    for client in clients:
        replies = [arrival(client) for _ in servers]
        assert {reply.peer for reply in replies} == {channels.peer(server.address) for server in servers}
        assert client.receive(SILENCE) is None


def test_a_bound_end_connects_to_others_too(channels: Channels) -> None:
    one, other = channels.links(), channels.links()
    peer = channels.peer(other.address)
    one.connect(peer)
    assert arrival(one) == Arrival(peer, connected=True)

    one.send(peer, b"ping")
    other.send(arrival(other).peer, b"pong")

    assert arrival(one).bundle == b"pong"


def test_two_connections_to_one_place_are_told_apart_by_their_tags(channels: Channels) -> None:
    server, client = channels.links(), channels.links(None)
    peers = [channels.peer(server.address, tag) for tag in ("one", "other")]
    for peer in peers:
        client.connect(peer)
    assert {arrival(client).peer for _ in peers} == set(peers)

    for peer in peers:
        client.send(peer, peer.tag.encode())
    for _ in peers:
        came = arrival(server)
        server.send(came.peer, came.bundle)

    replies = [arrival(client) for _ in peers]
    assert {(reply.peer, reply.bundle) for reply in replies} == {(peer, peer.tag.encode()) for peer in peers}


def test_a_second_connection_to_a_known_peer_changes_nothing(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)

    client.connect(channels.peer(server.address))
    introduced(channels, client, server)

    assert client.receive(SILENCE) is None
    assert server.receive(SILENCE) is None


def test_an_end_may_connect_before_the_other_one_binds(channels: Channels, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    client = channels.links(None)
    client.connect(channels.peer(address))
    assert not client.send(channels.peer(address), b"too early")
    assert client.receive(SILENCE) is None

    server = channels.links(address)

    assert arrival(client) == Arrival(channels.peer(address), connected=True)
    introduced(channels, client, server)


def test_a_cut_and_a_new_connection_are_told(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    peer = channels.peer(server.address)

    server.close()
    assert arrival(client) == Arrival(peer, connected=False)
    assert not client.send(peer, b"to nobody")
    again = serve_again(channels, server.address)

    assert arrival(client) == Arrival(peer, connected=True)
    introduced(channels, client, again)


def test_a_bound_end_is_told_who_was_cut(channels: Channels) -> None:
    server = channels.links()
    leaving, staying = linked(channels, server), linked(channels, server)
    names = [introduced(channels, client, server) for client in (leaving, staying)]

    leaving.close()

    assert arrival(server) == Arrival(names[0])
    assert not server.send(names[0], b"to nobody")
    assert server.send(names[1], b"still here")
    assert arrival(staying).bundle == b"still here"


def test_those_who_come_and_go_are_not_taken_for_each_other(channels: Channels) -> None:
    server = channels.links()
    staying = linked(channels, server)
    name = introduced(channels, staying, server)
    for _ in range(20):
        with closing(linked(channels, server)) as client:
            passing = introduced(channels, client, server)
        assert arrival(server) == Arrival(passing)

    assert server.send(name, b"still here")
    assert server.receive(SILENCE) is None


def test_what_was_sent_before_the_end_closed_arrives(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)

    client.send(channels.peer(server.address), b"last words")
    client.close()

    assert arrival(server).bundle == b"last words"


def test_a_peer_that_was_disconnected_is_no_longer_heard(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    name = introduced(channels, client, server)
    peer = channels.peer(server.address)

    client.disconnect(peer)

    assert not client.send(peer, b"bundle")
    assert arrival(server) == Arrival(name)
    client.connect(peer)
    assert arrival(client) == Arrival(peer, connected=True)


@pytest.mark.parametrize("name", [Peer("tcp://127.0.0.1:9", "unsecure_zmq"), b"nobody", "nobody"])
def test_nothing_can_be_sent_to_who_is_unknown(channels: Channels, name: Hashable) -> None:
    channel = channels.links()

    assert not channel.send(name, b"bundle")
    channel.disconnect(channels.peer("tcp://127.0.0.1:9"))


def test_a_peer_that_does_not_read_holds_nobody_up(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    name = introduced(channels, client, server)

    taken = [server.send(name, bytes(50_000)) for _ in range(5000)]

    assert not all(taken)


def test_a_wake_up_ends_the_receive_that_waits(channels: Channels) -> None:
    channel = channels.links()

    with in_background(lambda: channel.receive(None)) as waiting:
        assert waiting.is_pending()
        channel.wake()

        assert waiting.result(UNIT) is None


def test_a_wake_up_that_nobody_waits_for_ends_the_next_receive_and_loses_nothing(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    client.send(channels.peer(server.address), b"bundle")

    server.wake()
    server.wake()

    assert server.receive(None) is None
    assert arrival(server).bundle == b"bundle"
    assert server.receive(SILENCE) is None


def test_a_subscriber_can_be_woken_too(channels: Channels) -> None:
    subscriber = channels.subscribe(channels.publish())

    with in_background(lambda: subscriber.receive_batch(None)) as waiting:
        assert waiting.is_pending()
        subscriber.wake()
        assert waiting.result(UNIT) is None
    subscriber.wake()

    assert subscriber.receive(None) is None


def test_closing_ends_the_receive_that_waits(channels: Channels) -> None:
    channel = linked(channels, channels.links())

    with in_background(lambda: channel.receive(None)) as waiting:
        assert waiting.is_pending()
        assert not channel.closed

        channel.close()

        assert waiting.result(UNIT) is None
    assert channel.closed


def test_a_closed_channel_is_harmless(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)

    for channel in (server, client, server, client):
        channel.close()

    assert client.receive(None) is None
    assert not client.send(channels.peer(server.address), b"bundle")
    client.wake()
    client.disconnect(channels.peer(server.address))
    with pytest.raises(TransportError):
        client.connect(channels.peer(server.address))


def test_channels_close_at_once(channels: Channels) -> None:
    server = channels.links()
    client = linked(channels, server)
    client.send(channels.peer(server.address), bytes(1000))

    start = time.monotonic()
    client.close()
    server.close()

    assert time.monotonic() - start < 0.1 * UNIT


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_receive_gives_none_when_its_time_is_over(channels: Channels, timeout: float) -> None:
    channel = channels.links()

    start = time.monotonic()
    arrived = channel.receive(timeout)

    assert arrived is None
    assert timeout <= time.monotonic() - start < timeout + UNIT


def test_who_sent_a_bundle_is_told_by_key_where_there_are_keys(
    channels: Channels, request: pytest.FixtureRequest
) -> None:
    keys: Keys | None = request.getfixturevalue("keys") if channels.backend.strength else None
    server = channels.links()
    client = linked(channels, server)
    client.send(channels.peer(server.address), b"hello")

    there = arrival(server)
    server.send(there.peer, b"hello")
    back = arrival(client)

    expected = [load_public_key(keys.public(name)).decode() for name in ("client", "server")] if keys else ["", ""]
    assert [there.key, back.key] == expected


def test_a_free_port_is_taken_from_the_range(channels: Channels, free_port: int) -> None:
    ports = Ports(free_port, free_port + 1)

    assert channels.links(ports=ports).address == f"tcp://127.0.0.1:{free_port}"
    with pytest.raises(BindFailed, match=str(free_port)):
        channels.links(ports=ports)


def test_a_channel_that_only_connects_has_no_address(channels: Channels) -> None:
    assert channels.links(None).address == ""


def test_a_malformed_address_is_refused(channels: Channels) -> None:
    with pytest.raises(BindFailed):
        channels.links("nonsense")
    with pytest.raises(TransportError):
        channels.links(None).connect(channels.peer("nonsense"))


@pytest.mark.parametrize("scheme", ["ipc", "inproc"])
def test_addresses_without_a_port_work(channels: Channels, scheme: str, tmp_path: Path) -> None:
    server, client = channels.links(f"{scheme}://{tmp_path}/end"), channels.links(None)
    peer = channels.peer(server.address)
    client.connect(peer)
    eventually(lambda: client.send(peer, b"there"))

    assert server.send(arrival(server).peer, b"back")

    eventually(lambda: arrival(client).bundle == b"back")


over_sockets = pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"], indirect=True)


@over_sockets
def test_a_frame_beyond_the_limit_cuts_its_sender_only(channels: Channels) -> None:
    with config.set(max_message_size=1024):
        server = channels.links()
    rude, kind = linked(channels, server), linked(channels, server)
    names = [introduced(channels, client, server) for client in (rude, kind)]

    rude.send(channels.peer(server.address), bytes(5 * 2**20))

    assert arrival(server) == Arrival(names[0])
    assert server.send(names[1], b"still here")
    assert arrival(kind).bundle == b"still here"


@over_sockets
def test_who_gets_a_frame_beyond_its_limit_connects_anew(channels: Channels) -> None:
    server = channels.links()
    with config.set(max_message_size=1024):
        client = linked(channels, server)
    name = introduced(channels, client, server)
    peer = channels.peer(server.address)

    server.send(name, bytes(5 * 2**20))

    assert arrival(client) == Arrival(peer, connected=False)
    assert arrival(client, 10 * UNIT) == Arrival(peer, connected=True)
    assert arrival(server) == Arrival(name)
    introduced(channels, client, server)


@over_sockets
def test_strangers_that_talk_rubbish_hurt_nobody(channels: Channels, raw_peer: RawPeer) -> None:
    server = channels.links()
    client = linked(channels, server)
    port = int(server.address.rpartition(":")[2])

    for rubbish in (b"GET / HTTP/1.0\r\n\r\n", bytes(1000), b"\xff" * 1000):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5 * UNIT)) as stranger:
            stranger.sendall(rubbish)
    for kind in (zmq.REQ, zmq.DEALER, zmq.ROUTER, zmq.SUB, zmq.PUSH):
        raw_peer.socket(kind).connect(server.address)
    with suppress(zmq.Again):
        raw_peer.dealer(port).send_multipart([b"", b""], zmq.DONTWAIT)

    client.send(channels.peer(server.address), b"hello")
    came = eventually(lambda: next((one for one in [arrival(server)] if one.bundle == b"hello"), None))
    assert came is not None
    assert server.send(came.peer, b"hello")
    assert arrival(client).bundle == b"hello"
