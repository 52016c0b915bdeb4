"""Who has no key, or a wrong one, or comes from elsewhere, gets nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth

from posttroll.errors import ConfigurationError, TransportError
from posttroll.message import Message
from posttroll.ns import get_pub_address, get_pub_addresses
from posttroll.publisher import Publish, Publisher
from posttroll.settings import config
from posttroll.subscriber import Subscribe, Subscriber
from tests.fixtures.hostile import (
    FOUND_WITHIN,
    LOOPBACK,
    RawPeer,
    announcement,
    assert_delivery,
    assert_publishers_are_found,
    environment,
    message_bytes,
    nameserver_process,
    no_leaks,
    program,
    running_discovery,
    warnings_in,
)
from tests.fixtures.keys import Keys
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

SILENCE = 0.3
ENTRY = "tcp://127.0.0.1:0"


@pytest.fixture
def secure(keys: Keys) -> Iterator[Keys]:
    """Configure the secure backend, with keys that fit."""
    with config.set(backend="secure_zmq", **keys.settings()):
        yield keys


@contextmanager
def publishing(count: int = 1) -> Iterator[list[Publisher]]:
    """Run so many publishers with the present settings."""
    with ExitStack() as resources:
        yield [resources.enter_context(closing(Publisher(ENTRY).start())) for _ in range(count)]


def address_of(publisher: Publisher) -> str:
    return f"tcp://{LOOPBACK}:{publisher.port_number}"


def is_served(publisher: Publisher, settings: Mapping[str, Any], seconds: float = SILENCE) -> bool:
    """Return whether a subscriber with these settings gets what is published."""
    with config.set(dict(settings)), closing(Subscriber(address_of(publisher))) as subscriber:
        return hears(publisher, subscriber, seconds)


def hears(publisher: Publisher, subscriber: Subscriber, seconds: float = SILENCE) -> bool:
    for _ in range(int(seconds / 0.03)):
        publisher.send(Message("/good/news", "info", "secret"))
        if next(subscriber.recv(0.03)) is not None:
            return True
    return False


def another_server_key(keys: Keys) -> dict[str, str]:
    return {**keys.settings(), "server_public_key_file": keys.public("stranger")}


STRANGERS: dict[str, Callable[[Keys], dict[str, str]]] = {
    "without keys": lambda keys: {"backend": "unsecure_zmq"},
    "with an unknown key": lambda keys: keys.settings("stranger"),
    "with the server's own key": lambda keys: keys.settings("server"),
    "with a wrong server key": another_server_key,
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_strangers_get_nothing_from_any_publisher(secure: Keys, stranger: Callable[[Keys], dict[str, str]]) -> None:
    with publishing(3) as publishers:
        for publisher in publishers:
            assert not is_served(publisher, stranger(secure))
            assert is_served(publisher, secure.settings(), 5 * UNIT)


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_strangers_get_nothing_after_another_publisher_stopped(
    secure: Keys, stranger: Callable[[Keys], dict[str, str]]
) -> None:
    with publishing(3) as (first, second, third):
        first.stop()
        assert not is_served(second, stranger(secure))
        second.stop()
        assert not is_served(third, stranger(secure))
        assert is_served(third, secure.settings(), 5 * UNIT)
        third.stop()

        with publishing() as (later,):
            assert not is_served(later, stranger(secure))
            assert is_served(later, secure.settings(), 5 * UNIT)


def test_strangers_are_logged_with_their_source(secure: Keys, caplog: pytest.LogCaptureFixture) -> None:
    with publishing() as (publisher,):
        is_served(publisher, secure.settings("stranger"), UNIT)

    assert len(warnings_in(caplog.records, "connection from 127.0.0.1 refused")) == 1


def test_a_removed_key_is_refused_and_an_added_one_accepted_without_a_restart(secure: Keys) -> None:
    with publishing() as (publisher,):
        assert is_served(publisher, secure.settings(), 5 * UNIT)

        (secure.clients / "client.key").unlink()
        assert not is_served(publisher, secure.settings())

        shutil.copy(secure.public("stranger"), secure.clients)
        assert is_served(publisher, secure.settings("stranger"), 5 * UNIT)
        assert not is_served(publisher, secure.settings())


def test_without_its_directory_of_keys_a_publisher_serves_nobody(secure: Keys) -> None:
    with publishing() as (publisher,):
        shutil.rmtree(secure.clients)

        assert not is_served(publisher, secure.settings())


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b'curve\n    public-key = "short"\n', b"metadata\n", bytes(10**6)]
)
def test_a_damaged_key_file_shuts_out_its_owner_only(
    secure: Keys, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (secure.clients / "damaged.key").write_bytes(damage)
    (secure.clients / "directory.key").mkdir()
    (secure.clients / "nowhere.key").symlink_to("/nonexistent")

    with publishing() as (publisher,):
        assert is_served(publisher, secure.settings(), 5 * UNIT)
        assert not is_served(publisher, secure.settings("stranger"))

    assert warnings_in(caplog.records, "damaged.key")


def test_a_plain_publisher_and_a_secure_one_keep_to_their_own_rules(secure: Keys) -> None:
    with config.set(backend="unsecure_zmq"):
        plain = Publisher(ENTRY).start()
    with closing(plain), publishing() as (publisher,):
        assert is_served(plain, {"backend": "unsecure_zmq"}, 5 * UNIT)
        plain.stop()

        assert not is_served(publisher, {"backend": "unsecure_zmq"})
        assert not is_served(publisher, secure.settings("stranger"))


@pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"])
def test_hosts_that_are_not_on_the_list_get_nothing(keys: Keys, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        config.set(backend=backend, authorized_client_addresses=["127.0.0.77"], **keys.settings()),
        publishing() as (closed,),
    ):
        assert not is_served(closed, {})
        with config.set(authorized_client_addresses=["127.0.0.1"]), publishing() as (opened,):
            assert is_served(opened, {}, 5 * UNIT)
            assert not is_served(closed, {})
        assert not is_served(closed, {})

    assert warnings_in(caplog.records, "address not authorized")


def ask(dealer: zmq.Socket[bytes]) -> bytes:
    dealer.send_multipart([b"", message_bytes({"service": ""})])
    return dealer.recv()


def test_hosts_that_are_not_on_the_list_get_no_answer(network: Network, raw_peer: RawPeer) -> None:
    with config.set(authorized_client_addresses=["127.0.0.1"]), running_discovery(network, raw_peer, multicast=False):
        for port in (network.nameserver, network.announcements):
            dealer = raw_peer.dealer(port, "127.0.0.2")
            dealer.rcvtimeo = dealer.sndtimeo = int(SILENCE * 1000)
            with pytest.raises(zmq.Again):  # to send, if it is refused before that
                ask(dealer)

        assert_publishers_are_found(nameservers=["localhost"])


def test_a_secure_nameserver_answers_who_has_a_key(
    network: Network, secure: Keys, tmp_path: Path, raw_peer: RawPeer
) -> None:
    with nameserver_process(tmp_path):
        assert_publishers_are_found()
        with config.set(secure.settings("stranger")), pytest.raises(TimeoutError):
            get_pub_address("", timeout=SILENCE)
        with config.set(another_server_key(secure)), pytest.raises(TimeoutError):
            get_pub_address("", timeout=SILENCE)
        with config.set(backend="unsecure_zmq"), pytest.raises(TimeoutError):
            get_pub_address("", timeout=SILENCE, nameserver=f"localhost:{network.secure_nameserver}")
        assert_publishers_are_found()


@pytest.mark.parametrize("arguments", [[], ["--no-multicast"]], ids=["multicast", "designated"])
def test_a_secure_nameserver_has_no_plain_port(
    network: Network, secure: Keys, tmp_path: Path, arguments: list[str]
) -> None:
    with nameserver_process(tmp_path, *arguments):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, network.nameserver), timeout=UNIT)

        assert_publishers_are_found(nameservers=["localhost"] if arguments else None)


def test_strangers_cannot_register_at_a_secure_nameserver(
    network: Network, secure: Keys, tmp_path: Path, raw_peer: RawPeer
) -> None:
    with nameserver_process(tmp_path, "--no-multicast") as daemon, no_leaks(daemon.pid):
        dealer = raw_peer.dealer(network.announcements)
        dealer.rcvtimeo = int(SILENCE * 1000)
        dealer.send_multipart([b"", announcement()])
        with pytest.raises(zmq.Again):
            dealer.recv()
        with config.set(secure.settings("stranger")), Publish("evil", nameservers=["localhost"]):
            pass
        dealer.close()

        assert_publishers_are_found(nameservers=["localhost"])
        assert not get_pub_address("evil")


def test_strangers_do_not_hear_the_feed_of_a_secure_nameserver(
    network: Network, secure: Keys, raw_peer: RawPeer
) -> None:
    with running_discovery(network, raw_peer):
        for settings in ({"backend": "unsecure_zmq"}, secure.settings("stranger")):
            with (
                config.set(settings),
                closing(Subscriber(f"tcp://{LOOPBACK}:{network.addresses}")) as stranger,
                config.set(secure.settings(), backend="secure_zmq"),
                Publish("good"),
            ):
                assert next(stranger.recv(SILENCE)) is None


@pytest.mark.parametrize("more", [{"backend": "unsecure_zmq"}, {"backend": "memory"}, {"backend": ""}])
def test_a_secure_subscriber_never_opens_a_plain_connection(
    network: Network, secure: Keys, raw_peer: RawPeer, more: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    trap, address = raw_peer.publisher()
    trap.rcvtimeo = int(SILENCE * 1000)
    with (
        running_discovery(network, raw_peer) as discovery,
        Subscribe("good", "/good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        discovery.shout(announcement(address, service=["good"], **more))

        eventually(lambda: subscriber.drops.get("address refused"))
        with pytest.raises(zmq.Again):
            trap.recv()
        assert not subscriber.addresses
        assert len(warnings_in(caplog.records, address)) == 1
        with Publish("good") as publisher:
            assert_delivery(publisher, subscriber)


def test_an_announcement_that_names_no_backend_gets_no_plain_connection(
    network: Network, secure: Keys, raw_peer: RawPeer
) -> None:
    trap, address = raw_peer.publisher()
    trap.rcvtimeo = int(SILENCE * 1000)
    with (
        running_discovery(network, raw_peer) as discovery,
        Subscribe("good", "/good", addr_listener=True, timeout=0.1) as subscriber,
    ):
        discovery.shout(announcement(address, service=["good"]))
        eventually(lambda: subscriber.addresses)
        trap.send(message_bytes({"uid": "evil"}, subject="/good/news"))

        with pytest.raises(zmq.Again):
            trap.recv()
        assert next(subscriber.recv(SILENCE)) is None


HALF: dict[str, tuple[str, dict[str, Any]]] = {
    "no server key": ("server_secret_key_file", {"server_secret_key_file": None}),
    "a server key that is not there": ("/nonexistent", {"server_secret_key_file": "/nonexistent/key"}),
    "a server key that is a directory": ("/tmp", {"server_secret_key_file": "/tmp"}),
    "a server key that is none": ("/dev/null", {"server_secret_key_file": "/dev/null"}),
    "no directory of clients": ("clients_public_keys_directory", {"clients_public_keys_directory": None}),
    "a directory that is not there": ("/nonexistent", {"clients_public_keys_directory": "/nonexistent"}),
    "a directory that is a file": ("/dev/null", {"clients_public_keys_directory": "/dev/null"}),
    "a client list that cannot be resolved": (
        "authorized_client_addresses",
        {"authorized_client_addresses": ["no.such.host.invalid"]},
    ),
    "an empty client list": ("authorized_client_addresses", {"authorized_client_addresses": []}),
}


@pytest.mark.parametrize(("hint", "settings"), HALF.values(), ids=HALF)
def test_a_publisher_that_is_half_configured_does_not_start(secure: Keys, hint: str, settings: dict[str, Any]) -> None:
    with config.set(settings), no_leaks():
        publisher = Publisher(ENTRY)

        with pytest.raises(ConfigurationError, match=hint):
            publisher.start()

        assert publisher.port_number is None


NAMESERVER_HALF = {
    **HALF,
    "an announcer list that cannot be resolved": (
        "authorized_announcer_addresses",
        {"authorized_announcer_addresses": ["no.such.host.invalid"]},
    ),
}


@pytest.mark.parametrize(("hint", "settings"), NAMESERVER_HALF.values(), ids=NAMESERVER_HALF)
def test_a_nameserver_that_is_half_configured_ends_with_one_line(
    network: Network, secure: Keys, hint: str, settings: dict[str, Any]
) -> None:
    with config.set(settings):
        variables = {name: value for name, value in environment().items() if value != "None"}
        ended = subprocess.run(
            program("posttroll.ns"), env=variables, capture_output=True, text=True, timeout=20 * UNIT
        )

    lines = [line for line in ended.stderr.splitlines() if not line.startswith("[")]
    assert ended.returncode == 1
    assert len(lines) == 1
    assert hint in lines[0]


@pytest.mark.parametrize("missing", ["client_secret_key_file", "server_public_key_file"])
def test_a_subscriber_that_is_half_configured_does_not_start(secure: Keys, missing: str) -> None:
    with config.set({missing: None}), no_leaks(), pytest.raises(ConfigurationError, match=missing):
        Subscriber("tcp://127.0.0.1:9")


def test_a_name_that_cannot_be_resolved_lets_nobody_else_in(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    with config.set(authorized_client_addresses=["no.such.host.invalid", "127.0.0.77"]), publishing() as (publisher,):
        assert not is_served(publisher, {})

    assert len(warnings_in(caplog.records, "no.such.host.invalid")) == 1


def listening(process: int) -> set[tuple[str, int]]:
    """Return the IPv4 addresses and ports on which a process listens for TCP."""
    inodes = {os.readlink(descriptor) for descriptor in Path(f"/proc/{process}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                host, port = fields[1].split(":")
                found.add((socket.inet_ntoa(bytes.fromhex(host)[::-1]) if table == "tcp" else host, int(port, 16)))
    return found


@pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"])
@pytest.mark.parametrize("more", [[], ["--no-multicast"]], ids=["multicast", "designated"])
def test_local_only_listens_on_loopback_alone(
    network: Network, keys: Keys, tmp_path: Path, backend: str, more: list[str]
) -> None:
    with config.set(backend=backend, **keys.settings()), nameserver_process(tmp_path, "-L", *more) as daemon:
        hosts = listening(daemon.pid)

        assert {host for host, _ in hosts} == {LOOPBACK}
        assert (LOOPBACK, network.addresses) in hosts
        assert ((LOOPBACK, network.announcements) in hosts) == bool(more)
        assert_publishers_are_found(nameservers=["localhost"] if more else None)


def test_keys_that_anybody_can_read_are_warned_about(secure: Keys, caplog: pytest.LogCaptureFixture) -> None:
    Path(secure.secret("server")).chmod(0o644)

    with publishing():
        pass

    assert warnings_in(caplog.records, "server.key_secret")
    assert not warnings_in(caplog.records, zmq.auth.load_certificate(secure.secret("server"))[1].decode())  # type: ignore[union-attr]


def test_forged_handshakes_are_harmless(secure: Keys, raw_peer: RawPeer) -> None:
    public, secret = zmq.curve_keypair()
    with publishing() as (publisher,), no_leaks():
        for _ in range(50):
            stranger = raw_peer.socket(
                zmq.SUB, curve_serverkey=zmq.curve_keypair()[0], curve_publickey=public, curve_secretkey=secret
            )
            stranger.connect(address_of(publisher))
            stranger.subscribe(b"")
            plain = raw_peer.socket(zmq.SUB, plain_username=b"admin", plain_password=b"admin")
            plain.connect(address_of(publisher))
        assert is_served(publisher, secure.settings(), 5 * UNIT)
        raw_peer.close()


def test_servers_with_another_key_are_not_believed(network: Network, secure: Keys, raw_peer: RawPeer) -> None:
    with config.set(server_secret_key_file=secure.secret("stranger")):
        evil = Publisher(ENTRY).start()
    with closing(evil):
        assert not is_served(evil, secure.settings())


def test_a_port_that_cannot_be_bound_gives_its_lease_back(secure: Keys, free_port: int) -> None:
    with closing(socket.create_server((LOOPBACK, free_port))), pytest.raises(TransportError):
        Publisher(f"tcp://{LOOPBACK}:{free_port}").start()

    with publishing() as (publisher,):
        assert not is_served(publisher, secure.settings("stranger"))
        assert is_served(publisher, secure.settings(), 5 * UNIT)


def test_an_authorized_publisher_is_found_with_its_key_only(network: Network, secure: Keys, raw_peer: RawPeer) -> None:
    with running_discovery(network, raw_peer), Publish("good"):
        (entry,) = get_pub_addresses(["good"], timeout=FOUND_WITHIN)

    assert entry["backend"] == "secure_zmq"
