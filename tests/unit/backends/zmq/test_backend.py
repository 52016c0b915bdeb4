from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from posttroll.backends.base import Peer
from posttroll.backends.registry import find_backend
from posttroll.backends.zmq.backend import ZMQBackend, secure_zmq, unsecure_zmq
from posttroll.errors import ConfigurationError
from posttroll.settings import Ports, config
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT

LOOPBACK = "tcp://127.0.0.1:0"


@pytest.mark.parametrize("backend", [unsecure_zmq, secure_zmq], ids=lambda backend: backend.name)
def test_a_backend_opens_channels_that_find_each_other(backend: ZMQBackend, keys: Keys, free_port: int) -> None:
    with (
        config.set(**keys.settings()),
        closing(backend.open_publish(LOOPBACK, Ports(free_port, free_port + 1), "block")) as publisher,
        closing(backend.open_subscribe()) as subscriber,
    ):
        subscriber.connect(Peer(publisher.address, backend.name), [b""])
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
        publisher.send(b"frame")

        received = subscriber.receive(5 * UNIT)

    assert received is not None
    assert received.frame == b"frame"
    assert publisher.address == f"tcp://127.0.0.1:{free_port}"


@pytest.mark.parametrize("backend", [unsecure_zmq, secure_zmq], ids=lambda backend: backend.name)
def test_a_backend_opens_both_ends_of_a_question(backend: ZMQBackend, keys: Keys) -> None:
    with (
        config.set(**keys.settings()),
        closing(backend.open_reply([Peer(LOOPBACK, backend.name)])) as replies,
        closing(backend.open_request([Peer(replies.addresses[0], backend.name)])) as requests,
    ):
        assert requests.request(b"question", 0.2) == {}
        question = replies.receive(5 * UNIT)

    assert question is not None
    assert question.frame == b"question"


def test_the_two_are_known_by_their_names_and_differ_in_strength() -> None:
    for backend in (unsecure_zmq, secure_zmq):
        found: object = find_backend(backend.name)
        assert found is backend
    assert unsecure_zmq.strength < secure_zmq.strength


def test_a_backend_of_another_name_cannot_be_made() -> None:
    with pytest.raises(ConfigurationError):
        ZMQBackend("memory", "nameserver_port")


def test_announcements_are_left_to_the_network() -> None:
    assert unsecure_zmq.announce_with(21200) is None
    assert unsecure_zmq.listen_with(21200) is None


OPEN, SECURE = ("unsecure_zmq", 1000), ("secure_zmq", 1001)


@pytest.mark.parametrize(
    ("backend", "settings", "ports"),
    [
        (unsecure_zmq, {}, [OPEN]),
        (unsecure_zmq, {"server_secret_key_file": "a"}, [OPEN]),
        (unsecure_zmq, {"server_secret_key_file": "a", "clients_public_keys_directory": "b"}, [OPEN, SECURE]),
        (secure_zmq, {}, [SECURE]),
        (secure_zmq, {"serve_unsecure_nameserver": True}, [SECURE, OPEN]),
    ],
)
def test_a_nameserver_serves_its_own_port_and_the_other_one_when_it_may(
    backend: ZMQBackend, settings: dict[str, Any], ports: list[tuple[str, int]]
) -> None:
    with config.set(nameserver_port=1000, secure_zmq_nameserver_port=1001, **settings):
        assert backend.own_port == ports[0]
        assert backend.nameserver_ports() == ports
