import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from posttroll import message_broadcaster
from posttroll.backends.base import Peer, ReplyChannel
from posttroll.backends.registry import find_backend
from posttroll.bbmcast import MulticastReceiver
from posttroll.errors import ConfigurationError, UnknownBackend
from posttroll.message import Message
from posttroll.message_broadcaster import (
    AddressBroadcaster,
    AddressServiceBroadcaster,
    DesignatedReceiversSender,
    MessageBroadcaster,
)
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.keys import Keys
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

URI = "tcp://10.0.0.1:9000"


@pytest.fixture
def hear(network: Network) -> Iterator[Callable[[], str]]:
    """Give what returns the next announcement."""
    with closing(MulticastReceiver(network.announcements).settimeout(5 * UNIT)) as receiver:
        yield lambda: receiver()[0]


@pytest.fixture
def registry(network: Network) -> Iterator[ReplyChannel]:
    """Give the receiving end of a nameserver without multicast."""
    peer = Peer(f"tcp://127.0.0.1:{network.announcements}", "unsecure_zmq")
    with closing(find_backend("unsecure_zmq").open_reply([peer])) as channel:
        yield channel


def registered(registry: ReplyChannel, reply: bytes = b"ok") -> Message:
    """Accept the next registration."""
    question = registry.receive(5 * UNIT)
    assert question is not None
    assert question.frame is not None
    registry.reply(question, reply)
    return Message.decode(question.frame)


@contextmanager
def started(broadcaster: MessageBroadcaster) -> Iterator[MessageBroadcaster]:
    try:
        yield broadcaster.start()
    finally:
        broadcaster.stop()


def test_a_message_is_repeated(network: Network, hear: Callable[[], str]) -> None:
    with started(MessageBroadcaster("hello", network.announcements, 0.05)) as broadcaster:
        assert [hear(), hear(), hear()] == ["hello"] * 3
        assert broadcaster.is_running()
    assert not broadcaster.is_running()


def test_an_announcement_says_all_that_subscribers_need(hear: Callable[[], str]) -> None:
    with started(AddressServiceBroadcaster("my viirs", URI, ["my viirs", "sdr"], 2)):
        message = Message.decode(hear())

    assert (message.subject, message.type, message.version) == ("/address/my_viirs", "info", "v1.01")
    assert message.data == {
        "URI": URI,
        "service": ["my viirs", "sdr"],
        "supported_message_version": "v1.2",
        "backend": "unsecure_zmq",
    }


def test_announcements_are_identical_to_the_byte(hear: Callable[[], str]) -> None:
    with started(AddressServiceBroadcaster("viirs", URI, "viirs", 0.05)):
        texts = {hear() for _ in range(4)}

    assert len(texts) == 1


def test_a_stopped_announcer_says_goodbye(hear: Callable[[], str]) -> None:
    with started(AddressServiceBroadcaster("viirs", URI, ["viirs"], 100)):
        announcement = Message.decode(hear())

    messages = [announcement]
    while messages[-1].type != "goodbye":
        messages.append(Message.decode(hear()))
    assert messages[-1].subject == announcement.subject
    assert messages[-1].data == {"URI": URI, "service": ["viirs"]}


def test_the_goodbye_goes_where_the_announcements_went(network: Network, hear: Callable[[], str]) -> None:
    """Even if the settings have changed since."""
    broadcaster = MessageBroadcaster("hello", network.announcements, 100, goodbye="bye").start()
    hear()

    with config.set(mc_group="225.0.0.213", backend="memory"):
        broadcaster.stop()

    while hear() != "bye":
        pass


def test_a_goodbye_that_the_network_does_not_take_is_no_error(network: Network, hear: Callable[[], str]) -> None:
    broadcaster = MessageBroadcaster("hello", network.announcements, 100, goodbye="bye").start()
    hear()
    assert broadcaster._sender is not None
    broadcaster._sender.close()

    broadcaster.stop()


def test_a_plain_address_is_announced_without_services(hear: Callable[[], str]) -> None:
    with started(AddressBroadcaster("viirs", ("10.0.0.1", 9000), 2)):
        message = Message.decode(hear())

    assert (message.subject, message.data) == ("/address/viirs", {"URI": "10.0.0.1:9000"})


@pytest.mark.parametrize("interval", [0, -1])
def test_without_an_interval_nothing_is_sent(interval: float, network: Network) -> None:
    broadcaster = MessageBroadcaster("hello", network.announcements, interval, goodbye="bye").start()

    assert not broadcaster.is_running()
    broadcaster.stop()


def test_stopping_before_the_start_and_twice_is_harmless(network: Network) -> None:
    broadcaster = MessageBroadcaster("hello", network.announcements, 2)

    broadcaster.stop()
    broadcaster.start().start()
    broadcaster.stop()
    broadcaster.stop()

    assert not broadcaster.is_running()


def test_an_invalid_group_is_told_at_the_start(network: Network) -> None:
    with config.set(mc_group="10.0.0.1"), pytest.raises(OSError, match="Invalid multicast address"):
        MessageBroadcaster("hello", network.announcements, 2).start()


def test_an_unknown_backend_is_refused_at_construction() -> None:
    with config.set(backend="zqm"), pytest.raises(UnknownBackend):
        AddressServiceBroadcaster("viirs", URI, ["viirs"])


def test_a_network_that_takes_nothing_is_tried_again(
    network: Network, hear: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    with config.set(multicast_interface="192.0.2.77"):
        broadcaster = MessageBroadcaster("hello", network.announcements, 0.05).start()
        eventually(lambda: "will try again" in caplog.text)

    try:
        assert hear() == "hello"
    finally:
        broadcaster.stop()
    assert len(caplog.records) == 1


def test_an_announcement_that_old_nameservers_cut_is_warned_about_once(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    with started(MessageBroadcaster("x" * 1025, network.announcements, 0.05)):
        pass

    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_announcement_longer_than_a_datagram_is_refused(network: Network) -> None:
    with pytest.raises(ConfigurationError, match="fewer aliases"):
        MessageBroadcaster("x" * 65_508, network.announcements, 2)


def test_registrations_have_no_such_limit(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    MessageBroadcaster("x" * 65_508, network.announcements, 2, ["localhost"])

    assert not caplog.records


def test_a_designated_nameserver_gets_announcements_and_the_goodbye(registry: ReplyChannel) -> None:
    broadcaster = AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, "127.0.0.1").start()
    first = registered(registry)

    with in_background(broadcaster.stop):
        while (last := registered(registry)).type != "goodbye":
            pass

    assert first.data["URI"] == last.data["URI"] == URI


def test_dead_nameservers_delay_neither_the_others_nor_the_stop(registry: ReplyChannel) -> None:
    nameservers = ["127.0.0.1:9", "127.0.0.1"]
    broadcaster = AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, nameservers).start()
    registered(registry)
    registered(registry)

    start = time.monotonic()
    broadcaster.stop()

    assert time.monotonic() - start < 0.5 * UNIT


@pytest.mark.usefixtures("network")
def test_stopping_takes_no_time_when_no_nameserver_is_there() -> None:
    broadcaster = AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, ["127.0.0.1:9", "127.0.0.1:10"]).start()
    eventually(broadcaster.is_running)

    start = time.monotonic()
    broadcaster.stop()

    assert time.monotonic() - start < 0.3 * UNIT


def test_a_nameserver_that_does_not_answer_is_told_of_once(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with closing(DesignatedReceiversSender(network.announcements, ["127.0.0.1"], timeout=0.01)) as sender:
        for _ in range(3):
            sender("hello")

    assert len(caplog.records) == 1
    assert f"tcp://127.0.0.1:{network.announcements} does not answer" in caplog.text


def test_a_nameserver_that_does_not_accept_is_told_of(
    network: Network, registry: ReplyChannel, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(DesignatedReceiversSender(network.announcements, "127.0.0.1")) as sender,
        in_background(lambda: sender(Message("/address/a", "info", "").encode())),
    ):
        registered(registry, reply=b"no")

    assert "does not accept" in caplog.text


def test_registrations_are_secured_with_the_backend(network: Network, keys: Keys) -> None:
    with config.set(backend="secure_zmq", **keys.settings()):
        peer = Peer(f"tcp://127.0.0.1:{network.announcements}", "secure_zmq")
        with (
            closing(find_backend("secure_zmq").open_reply([peer])) as registry,
            started(AddressServiceBroadcaster("viirs", URI, ["viirs"], 2, ["127.0.0.1"])),
        ):
            assert registered(registry).data["backend"] == "secure_zmq"


def test_an_error_of_any_kind_while_sending_does_not_end_the_thread(
    network: Network, hear: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    with started(MessageBroadcaster("hello", network.announcements, 0.05)) as broadcaster:
        hear()
        assert broadcaster._sender is not None
        broadcaster._sender.close()

        while "will try again" not in caplog.text:
            hear()
        assert hear() == "hello"


def test_the_old_names_are_there() -> None:
    assert message_broadcaster.sendaddress is AddressBroadcaster
    assert message_broadcaster.sendaddressservice is AddressServiceBroadcaster
