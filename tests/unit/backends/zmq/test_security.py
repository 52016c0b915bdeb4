from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from posttroll.backends.base import Peer
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.requests import ZMQReplies, ZMQRequests
from posttroll.backends.zmq.security import STRATEGIES, strategy
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.errors import ConfigurationError, KeyFileError, MissingSetting
from posttroll.settings import config
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.handshakes import is_let_in

LOOPBACK = "tcp://127.0.0.1:0"


@pytest.fixture
def secured(keys: Keys) -> Iterator[Keys]:
    """Configure keys for both ends."""
    with config.set(backend="secure_zmq", **keys.settings()):
        yield keys


def publisher(backend: str = "secure_zmq", address: str = LOOPBACK) -> ZMQPublisher:
    return ZMQPublisher(address, backend=backend).start()


def hears(channel: ZMQPublisher, backend: str = "secure_zmq", patience: float = 5 * UNIT) -> bool:
    """Return whether a subscriber of this package gets what is published."""
    with closing(ZMQSubscriber(channel.address, backend=backend)) as subscriber:
        if not channel.wait_for_subscriber(b"", patience):
            return False
        channel.send(b"frame")
        return subscriber.receive(5 * UNIT) is not None


def test_the_stronger_backend_is_the_one_with_keys() -> None:
    assert {name: strategy(name).strength for name in STRATEGIES} == {"unsecure_zmq": 0, "secure_zmq": 1}


@pytest.mark.parametrize("name", ["memory", "", "zmq"])
def test_a_backend_that_is_not_zeromqs_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be reached over ZeroMQ, only unsecure_zmq, secure_zmq"):
        strategy(name)


def test_a_known_client_is_served(secured: Keys) -> None:
    with closing(publisher()) as channel:
        assert hears(channel)
        assert is_let_in(channel.address, secured)


def test_an_unknown_client_gets_nothing(secured: Keys, caplog: pytest.LogCaptureFixture) -> None:
    with closing(publisher()) as channel:
        assert not is_let_in(channel.address, secured, client="stranger")
        with config.set(client_secret_key_file=secured.secret("stranger")):
            assert not hears(channel, patience=0.3)

    assert "connection from 127.0.0.1 refused: key not known" in caplog.text


def test_a_plain_client_gets_nothing(secured: Keys) -> None:
    with closing(publisher()) as channel:
        assert not is_let_in(channel.address)
        assert not hears(channel, "unsecure_zmq", patience=0.3)


def test_a_server_with_another_key_is_not_listened_to(secured: Keys) -> None:
    with closing(publisher()) as channel:
        assert not is_let_in(channel.address, secured, server="stranger")
        with config.set(server_public_key_file=secured.public("stranger")):
            assert not hears(channel, patience=0.3)


def test_a_secured_client_does_not_listen_to_a_plain_server(secured: Keys) -> None:
    with closing(publisher("unsecure_zmq")) as channel:
        assert not hears(channel, patience=0.3)


def test_a_client_whose_key_is_removed_is_refused_when_it_connects_again(secured: Keys) -> None:
    with closing(publisher()) as channel:
        assert hears(channel)

        (secured.clients / "client.key").unlink()

        assert not is_let_in(channel.address, secured)


def test_a_client_whose_key_is_added_is_served_without_a_restart(secured: Keys) -> None:
    with closing(publisher()) as channel:
        assert not is_let_in(channel.address, secured, client="stranger")

        shutil.copy(secured.public("stranger"), secured.clients)

        assert is_let_in(channel.address, secured, client="stranger")


def test_a_client_that_is_refused_is_served_once_its_key_is_added(secured: Keys) -> None:
    with (
        closing(publisher()) as channel,
        config.set(client_secret_key_file=secured.secret("stranger")),
        closing(ZMQSubscriber(channel.address, backend="secure_zmq")),
    ):
        assert not channel.wait_for_subscriber(b"", 0.3)

        shutil.copy(secured.public("stranger"), secured.clients)

        # libzmq does not try again by itself after it was refused
        with closing(ZMQSubscriber(channel.address, backend="secure_zmq")):
            assert channel.wait_for_subscriber(b"", 5 * UNIT)


def test_closing_one_publisher_leaves_the_others_secured(secured: Keys) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(publisher())) for _ in range(2))

        first.close()
        third = stack.enter_context(closing(publisher()))

        for channel in (second, third):
            assert is_let_in(channel.address, secured)
            assert not is_let_in(channel.address, secured, client="stranger")
            assert not is_let_in(channel.address)


def test_nobody_is_let_in_when_nobody_answers_for_it(secured: Keys) -> None:
    """The lease is what the authenticator answers for; without it the socket must not fall open."""
    with closing(publisher()) as channel:
        assert channel._server is not None
        assert channel._server.lease is not None
        channel._server.lease.give_back()

        assert not is_let_in(channel.address, secured)
        assert not is_let_in(channel.address, secured, client="stranger")
        assert not is_let_in(channel.address)


def test_requests_are_secured_too(secured: Keys) -> None:
    with closing(ZMQReplies([Peer(LOOPBACK, "secure_zmq")])) as replies:
        address = replies.addresses[0]

        assert is_let_in(address, secured, kind=zmq.DEALER)
        assert not is_let_in(address, secured, client="stranger", kind=zmq.DEALER)
        assert not is_let_in(address, kind=zmq.DEALER)
        with closing(ZMQRequests([Peer(address, "unsecure_zmq")])) as plain:
            assert plain.request(b"question", 0.3) == {}
        assert replies.receive(0) is None


def test_addresses_without_a_network_need_keys_only_between_processes(secured: Keys, tmp_path: Path) -> None:
    with closing(publisher(address=f"ipc://{tmp_path}/end")) as between_processes:
        assert is_let_in(between_processes.address, secured)
        assert not is_let_in(between_processes.address)
        assert hears(between_processes)
    with config.set(server_secret_key_file=None), closing(publisher(address="inproc://plain")) as within:
        assert hears(within)


@pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"])
@pytest.mark.parametrize(
    ("hosts", "is_in"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.0/8"], True),
        (["localhost"], True),
        ("10.0.0.1, 127.0.0.1", True),
        (["no-such-host.invalid", "127.0.0.1"], True),
        (["10.0.0.1"], False),
        (["10.0.0.0/8", "192.168.0.1"], False),
    ],
)
def test_only_hosts_of_the_list_may_connect(secured: Keys, backend: str, hosts: Any, is_in: bool) -> None:
    with config.set(authorized_client_addresses=hosts), closing(publisher(backend)) as channel:
        assert is_let_in(channel.address, secured if backend == "secure_zmq" else None) == is_in


def test_a_host_that_cannot_be_resolved_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hosts = ["no-such-host.invalid", "127.0.0.1"]

    with config.set(authorized_client_addresses=hosts), closing(publisher("unsecure_zmq")):
        (record,) = caplog.records

    assert record.levelno == logging.ERROR
    assert "no-such-host.invalid" in record.getMessage()


@pytest.mark.parametrize("hosts", [[], ["no-such-host.invalid"]])
@pytest.mark.parametrize("backend", ["unsecure_zmq", "secure_zmq"])
def test_a_list_without_any_host_opens_nothing(secured: Keys, backend: str, hosts: list[str]) -> None:
    with (
        config.set(authorized_client_addresses=hosts),
        pytest.raises(ConfigurationError, match="authorized_client_addresses"),
    ):
        publisher(backend)


def test_without_a_list_every_host_may_connect() -> None:
    with closing(publisher("unsecure_zmq")) as channel:
        assert is_let_in(channel.address)


def open_server() -> None:
    publisher()


def open_client() -> None:
    ZMQRequests([Peer("tcp://127.0.0.1:9", "secure_zmq")])


SETTINGS = [
    ("server_secret_key_file", open_server),
    ("clients_public_keys_directory", open_server),
    ("client_secret_key_file", open_client),
    ("server_public_key_file", open_client),
]


@pytest.mark.parametrize(("setting", "open_end"), SETTINGS)
@pytest.mark.parametrize("nothing", [None, ""])
def test_a_missing_setting_is_told_with_its_environment_variable(
    secured: Keys, setting: str, open_end: Any, nothing: str | None
) -> None:
    with config.set({setting: nothing}), pytest.raises(MissingSetting) as caught:
        open_end()

    assert f"setting {setting} (POSTTROLL_{setting.upper()}) is missing" in str(caught.value)


@pytest.mark.parametrize(("setting", "open_end"), SETTINGS)
def test_a_file_that_is_not_there_is_told(secured: Keys, tmp_path: Path, setting: str, open_end: Any) -> None:
    with config.set({setting: str(tmp_path / "nothing")}), pytest.raises(KeyFileError, match="nothing"):
        open_end()


@pytest.mark.parametrize(("setting", "open_end"), [SETTINGS[0], *SETTINGS[2:]])
def test_a_damaged_key_is_told(secured: Keys, tmp_path: Path, setting: str, open_end: Any) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_text(Path(secured.secret("server")).read_text().replace('-key = "', '-key = "~'))

    with config.set({setting: str(damaged)}), pytest.raises(KeyFileError, match="is damaged"):
        open_end()


@pytest.mark.parametrize(
    ("setting", "open_end", "name"),
    [("server_secret_key_file", open_server, "server"), ("client_secret_key_file", open_client, "client")],
)
def test_a_public_key_in_place_of_the_secret_one_is_told(secured: Keys, setting: str, open_end: Any, name: str) -> None:
    with config.set({setting: secured.public(name)}), pytest.raises(KeyFileError, match="holds no secret key"):
        open_end()


def test_paths_may_be_path_objects(keys: Keys) -> None:
    paths = {name: Path(path) for name, path in keys.settings().items()}

    with config.set(**paths), closing(publisher()) as channel:
        assert hears(channel)


def test_a_subscriber_follows_plain_and_secured_publishers_side_by_side(secured: Keys) -> None:
    with (
        closing(publisher("unsecure_zmq")) as plain,
        closing(publisher("secure_zmq")) as secure,
        closing(ZMQSubscriber()) as subscriber,
    ):
        subscriber.connect(Peer(plain.address, "unsecure_zmq"), [b""])
        subscriber.connect(Peer(secure.address, "secure_zmq"), [b""])
        for channel in (plain, secure):
            assert channel.wait_for_subscriber(b"", 5 * UNIT)
            channel.send(channel.address.encode())

        received = [subscriber.receive(5 * UNIT) for _ in range(2)]

    assert {each.peer.backend for each in received if each} == {"unsecure_zmq", "secure_zmq"}


def test_many_strangers_do_not_keep_a_known_client_out(secured: Keys) -> None:
    with closing(publisher()) as channel, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(closing(ZMQSubscriber(channel.address)))

        assert eventually(lambda: is_let_in(channel.address, secured))
