"""Finding other containers."""

from __future__ import annotations

import resource
from contextlib import closing
from typing import Any

import pytest

from posttroll.backends import memory
from posttroll.backends.base import Peer
from posttroll.backends.registry import find_backend
from posttroll.errors import ConnectionLost
from posttroll.messenger.peer_finder import PeerFinder
from posttroll.publisher import NoisyPublisher
from posttroll.settings import config
from posttroll.testing import memory_bus
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("bus")

URI, OTHER_URI = "tcp://10.0.0.1:1", "tcp://10.0.0.1:2"
PEER, OTHER_PEER = "tcp://10.0.0.1:11", "tcp://10.0.0.1:12"


class Link:
    """Notes to whom it is connected."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.is_closed = False

    def connect(self, peer: Peer) -> None:
        if self.is_closed:
            raise ConnectionLost("it is closed")
        if peer not in self.peers:
            self.peers.append(peer)

    def disconnect(self, peer: Peer) -> None:
        if peer in self.peers:
            self.peers.remove(peer)

    @property
    def uris(self) -> list[str]:
        return [peer.uri for peer in self.peers]


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def finder(link: Link) -> PeerFinder:
    """Give a finder that hears of what the test tells it only."""
    return PeerFinder(link, memory.backend, False)


def entry(uri: str = URI, peer: Any = PEER, service: Any = ("bob", "alias"), **others: Any) -> dict[str, Any]:
    return {"URI": uri, "service": list(service) if isinstance(service, tuple) else service, "peer": peer, **others}


def test_who_is_wanted_by_address_is_connected_to_at_once(finder: PeerFinder, link: Link) -> None:
    finder.find(PEER)

    assert link.peers == [Peer(PEER, "memory")]


def test_who_is_wanted_by_name_is_connected_to_where_the_nameserver_says(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    assert link.peers == []

    assert finder.meet(entry())

    assert link.peers == [Peer(PEER, "memory")]


@pytest.mark.parametrize("service", ["bob", ["alice", "bob"], ["bob", {}, 1]])
def test_a_name_may_be_one_of_several(finder: PeerFinder, link: Link, service: Any) -> None:
    finder.find("bob")

    finder.meet(entry(service=service))

    assert link.uris == [PEER]


@pytest.mark.parametrize("service", [["alice"], [], None, "bobby", {"bob": 1}, 1])
def test_who_is_not_wanted_is_not_connected_to(finder: PeerFinder, link: Link, service: Any) -> None:
    finder.find("bob")

    assert finder.meet(entry(service=service))

    assert link.uris == []


def test_a_publisher_that_is_no_peer_is_left_alone(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")

    assert finder.meet({"URI": URI, "service": ["bob"]})

    assert link.uris == []


@pytest.mark.parametrize(
    "peer",
    [
        None,
        1,
        [],
        "",
        "bob",
        "10.0.0.1:11",
        "tcp://10.0.0.1",
        "tcp://10.0.0.1:0",
        "tcp://10.0.0.1:99999",
        "tcp://*:11/path",
        "tcp://~10.0.0.1:11",
        "tcp://user@10.0.0.1:11",
        "ipc:///tmp/bob",
        "inproc://bob",
        "udp://10.0.0.1:11",
        "tcp://10.0.0.1:11\n",
        f"tcp://{'x' * 2000}:11",
    ],
)
def test_what_is_no_address_to_connect_to_is_refused(
    finder: PeerFinder, link: Link, peer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    finder.find("bob")

    assert finder.meet(entry(peer=peer))

    assert link.uris == []
    assert "peer from the nameserver refused" in caplog.text


@pytest.mark.parametrize("backend", ["unknown", None, 1])
def test_a_backend_that_cannot_be_used_is_refused(finder: PeerFinder, link: Link, backend: Any) -> None:
    finder.find("bob")

    assert finder.meet(entry(backend=backend))

    assert link.uris == []


def test_a_weaker_backend_than_the_own_one_is_refused(link: Link) -> None:
    finder = PeerFinder(link, find_backend("secure_zmq"), False)
    finder.find("bob")

    finder.meet(entry(backend="unsecure_zmq"))
    finder.meet(entry(OTHER_URI, OTHER_PEER, backend="secure_zmq"))

    assert link.peers == [Peer(OTHER_PEER, "secure_zmq")]


def test_who_is_withdrawn_is_left(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.meet(entry())

    finder.part({"URI": URI, "status": False})
    finder.part({"URI": OTHER_URI, "status": False})

    assert link.uris == []


def test_who_is_announced_elsewhere_is_followed_there(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.meet(entry())

    finder.meet(entry(peer=OTHER_PEER))

    assert link.uris == [OTHER_PEER]


def test_an_address_that_two_have_announced_stays_while_one_of_them_is_there(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.meet(entry())
    finder.meet(entry(OTHER_URI))

    finder.part({"URI": URI})
    assert link.uris == [PEER]

    finder.part({"URI": OTHER_URI})
    assert link.uris == []


def test_an_address_wanted_as_such_stays_when_it_is_withdrawn(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.meet(entry())
    finder.find(PEER)

    finder.part({"URI": URI})
    assert link.uris == [PEER]

    finder.leave(PEER)
    assert link.uris == []


def test_who_is_wanted_no_longer_is_left(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.find("carol")
    finder.meet(entry())
    finder.meet(entry(OTHER_URI, OTHER_PEER, ["carol"]))

    finder.leave("bob")
    finder.meet(entry())

    assert link.uris == [OTHER_PEER]


def test_who_did_not_come_is_given_up_unless_to_be_stayed_with(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    finder.stay_with("carol")

    finder.give_up("bob")
    finder.give_up("carol")
    finder.meet(entry())
    finder.meet(entry(OTHER_URI, OTHER_PEER, ["carol"]))

    assert link.uris == [OTHER_PEER]


def test_there_is_room_for_so_many_only(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    with config.set(max_connections=1):
        assert finder.meet(entry())
        assert not finder.meet(entry(OTHER_URI, OTHER_PEER))
        assert finder.meet(entry(peer=OTHER_PEER))

    assert link.uris == [OTHER_PEER]


def test_the_limit_of_open_files_is_respected(finder: PeerFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2, 2))
    finder.find("bob")

    assert not finder.meet(entry())


def test_a_link_that_is_closed_meanwhile_does_no_harm(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")
    link.is_closed = True

    assert finder.meet(entry())


def test_nobody_is_met_after_the_stop(finder: PeerFinder, link: Link) -> None:
    finder.find("bob")

    finder.stop()
    finder.stop()
    finder.meet(entry())

    assert link.uris == []


def test_without_nameservers_nobody_is_looked_for(link: Link) -> None:
    finder = PeerFinder(link, memory.backend, False)

    finder.start()
    finder.find("bob")

    assert (link.uris, finder._listener) == ([], None)


def test_a_finder_that_was_stopped_does_not_listen(link: Link) -> None:
    finder = PeerFinder(link, memory.backend, [])

    finder.stop()
    finder.start()


@pytest.mark.parametrize("nameservers", [[], "localhost", ["localhost"]])
def test_a_nameserver_is_asked_and_listened_to(link: Link, nameservers: Any) -> None:
    def publisher(name: str, peer: str) -> closing[NoisyPublisher]:
        return closing(NoisyPublisher(name, extra=lambda address: {"peer": peer}).start())

    with memory_bus(), publisher("bob", PEER):
        finder = PeerFinder(link, memory.backend, nameservers)
        finder.start()
        try:
            finder.find("bob")
            finder.find("carol")
            eventually(lambda: link.uris == [PEER])
            with publisher("carol", OTHER_PEER):
                eventually(lambda: link.uris == [PEER, OTHER_PEER])

            eventually(lambda: link.uris == [PEER], 5 * UNIT)
        finally:
            finder.stop()
