import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from posttroll import address_receiver
from posttroll.address_receiver import AddressReceiver, get_configured_address_port, get_local_ips
from posttroll.backends.base import Peer
from posttroll.backends.registry import find_backend
from posttroll.bbmcast import MulticastSender
from posttroll.errors import BindFailed, ConfigurationError, UnknownBackend
from posttroll.message import Message
from posttroll.message_broadcaster import AddressServiceBroadcaster, DesignatedReceiversSender
from posttroll.settings import config
from posttroll.subscriber import Subscriber
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

URI = "tcp://10.0.0.1:9000"

_LISTENING = "0A"


def announcement(uri: str = URI, type: str = "info") -> str:
    return Message("/address/viirs", type, {"URI": uri, "service": ["viirs"]}).encode()


@contextmanager
def listening(**arguments: object) -> Iterator[AddressReceiver]:
    receiver = AddressReceiver(**arguments)  # type: ignore[arg-type]
    try:
        yield receiver.start()
    finally:
        receiver.stop()


@pytest.fixture
def announce(network: Network) -> Iterator[Callable[[str | bytes], None]]:
    """Give what sends a datagram to everybody around."""
    with closing(MulticastSender(network.announcements)) as sender:
        yield sender


@pytest.fixture
def feed(network: Network) -> Iterator[Subscriber]:
    """Give a subscriber to the address feed."""
    with closing(Subscriber(f"tcp://127.0.0.1:{network.addresses}", "/")) as subscriber:
        yield subscriber


def next_message(feed: Subscriber, uri: str = URI) -> Message:
    for message in feed.recv(5 * UNIT):
        assert message is not None
        if message.data.get("URI") == uri:
            return message
    raise AssertionError("the feed ended")


def await_feed(feed: Subscriber, announce: Callable[[str], None]) -> None:
    """Announce ever new addresses until the subscriber, which has to connect first, hears of one."""
    numbers = itertools.count()
    while next(feed.recv(0.05)) is None:
        announce(announcement(f"tcp://probe:{next(numbers)}"))


def test_the_configured_port_is_used() -> None:
    assert get_configured_address_port() == address_receiver.DEFAULT_ADDRESS_PUBLISH_PORT == 16543
    assert address_receiver.getaddress is AddressReceiver


def test_the_local_addresses_include_loopback() -> None:
    assert "127.0.0.1" in get_local_ips()


def test_what_is_announced_can_be_looked_up(announce: Callable[[str], None]) -> None:
    with listening() as receiver:
        announce(announcement())
        (entry,) = eventually(lambda: receiver.get("viirs"))

    assert entry["URI"] == URI
    assert entry["service"] == ["viirs"]
    assert entry["status"] is True
    assert entry["name"] == "address"
    assert entry["receive_time"].endswith("+00:00")


def test_the_feed_tells_of_what_comes_and_goes(announce: Callable[[str], None], feed: Subscriber) -> None:
    with listening():
        await_feed(feed, announce)
        announce(announcement())
        added = next_message(feed)
        announce(announcement(type="goodbye"))
        removed = next_message(feed)

    assert (added.subject, added.data) == ("/address/viirs", {"URI": URI, "service": ["viirs"], "status": True})
    assert (removed.subject, removed.data) == (
        "/address/address",
        {"URI": URI, "service": ["viirs"], "status": False},
    )


def test_a_silent_publisher_is_forgotten_and_the_feed_tells(announce: Callable[[str], None], feed: Subscriber) -> None:
    with listening(max_age=timedelta(seconds=0.3)) as receiver:
        await_feed(feed, announce)
        announce(announcement())
        statuses = [next_message(feed).data["status"], next_message(feed).data["status"]]

        assert statuses == [True, False]
        assert receiver.get() == []


@pytest.mark.parametrize("do_heartbeat", [True, False])
@mock.patch("posttroll.address_receiver.Publish")
def test_the_feed_gives_signs_of_life_if_it_is_to(
    publish: mock.Mock, do_heartbeat: bool, announce: Callable[[str], None]
) -> None:
    publisher = publish.return_value.__enter__.return_value
    with listening(do_heartbeat=do_heartbeat) as receiver:
        announce(announcement())
        eventually(lambda: receiver.get("viirs"))

    assert publisher.heartbeat.call_args_list == ([mock.call(29)] * publisher.heartbeat.call_count)
    assert publisher.heartbeat.called is do_heartbeat


def test_rubbish_is_dropped_and_counted(announce: Callable[[str | bytes], None]) -> None:
    rubbish = random.Random(1)
    with listening() as receiver:
        for size in (0, 1, 100, 65_000):
            announce(rubbish.randbytes(size))
        announce(announcement())
        eventually(lambda: receiver.get("viirs"))

        assert receiver.dropped == {"unusable announcement": 4}


def test_an_announcement_can_be_handed_in() -> None:
    receiver = AddressReceiver()
    publisher = mock.Mock()

    receiver.process_address_message(announcement(), publisher)
    receiver.process_address_message(announcement(), publisher)
    receiver.process_address_message("rubbish", publisher)

    assert len(receiver.get("viirs")) == 1
    (sent,) = [Message.decode(call.args[0]) for call in publisher.send.call_args_list]
    assert sent.data["status"] is True


def test_an_unknown_backend_is_refused_at_construction() -> None:
    with config.set(backend="zqm"), pytest.raises(UnknownBackend):
        AddressReceiver()


@pytest.mark.usefixtures("network")
def test_stopping_takes_milliseconds_is_repeatable_and_can_be_followed_by_a_start() -> None:
    receiver = AddressReceiver()
    receiver.stop()
    for _ in range(2):
        receiver.start().start()
        assert receiver.is_running()
        start = time.monotonic()
        receiver.stop()
        assert time.monotonic() - start < 0.5 * UNIT
        assert not receiver.is_running()
    receiver.stop()


@pytest.mark.parametrize("multicast_enabled", [True, False])
def test_a_port_in_use_comes_out_of_the_start_and_leaves_nothing(network: Network, multicast_enabled: bool) -> None:
    kind = socket.SOCK_DGRAM if multicast_enabled else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("", network.announcements))
        receiver = AddressReceiver(multicast_enabled=multicast_enabled)

        with pytest.raises(BindFailed, match=str(network.announcements)):
            receiver.start()

    assert not receiver.is_running()
    with listening(multicast_enabled=multicast_enabled):
        pass


@pytest.mark.usefixtures("network")
def test_a_missing_network_does_not_keep_it_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    with config.set(multicast_interface="192.0.2.77"), listening() as receiver:
        assert receiver.is_running()

    assert "will try again" in caplog.text


def register(network: Network, text: str) -> None:
    with closing(DesignatedReceiversSender(network.announcements, "127.0.0.1")) as sender:
        sender(text)


def test_without_multicast_publishers_register(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with listening(multicast_enabled=False) as receiver:
        register(network, announcement())
        eventually(lambda: receiver.get("viirs"))
        register(network, announcement(type="goodbye"))
        eventually(lambda: not receiver.get("viirs"))

    assert not caplog.records  # each was answered "ok"


def test_rubbish_is_answered_ok_too(network: Network) -> None:
    peer = Peer(f"tcp://127.0.0.1:{network.announcements}", "unsecure_zmq")
    with (
        listening(multicast_enabled=False) as receiver,
        closing(find_backend("unsecure_zmq").open_request([peer])) as channel,
    ):
        assert channel.request(b"rubbish", 5 * UNIT) == {peer: b"ok"}
        eventually(lambda: receiver.dropped == {"unusable announcement": 1})


def test_without_multicast_the_feed_is_an_address_like_others(network: Network) -> None:
    with listening(multicast_enabled=False, max_age=timedelta(seconds=0.3)) as receiver:
        (entry,) = eventually(lambda: receiver.get("addresses"))
        eventually(lambda: receiver.get("address_receiver")[0]["receive_time"] > entry["receive_time"])

    assert entry["URI"] == f"tcp://127.0.0.1:{network.addresses}"
    assert entry["service"] == ["address_receiver", "addresses"]


def test_with_multicast_the_feed_is_not_announced(announce: Callable[[str], None]) -> None:
    with listening() as receiver:
        announce(announcement())
        eventually(lambda: receiver.get("viirs"))

        assert receiver.get("address_receiver") == []


def test_the_ways_in_can_be_opened_alone(free_port: int) -> None:
    for multicast_enabled, expected in ((True, False), (False, ["localhost"])):
        nameservers, way_in = AddressReceiver(multicast_enabled=multicast_enabled).set_up_address_receiver(free_port)
        with closing(way_in), pytest.raises(TimeoutError):
            way_in.settimeout(0.0)()
        assert nameservers == expected


@pytest.mark.parametrize(
    ("hosts", "is_taken"),
    [(["127.0.0.1"], True), (["127.0.0.0/8"], True), (["localhost"], True), (["10.0.0.9"], False)],
)
def test_only_authorized_hosts_are_listened_to(
    hosts: list[str], is_taken: bool, announce: Callable[[str], None]
) -> None:
    with config.set(authorized_announcer_addresses=hosts), listening() as receiver:
        announce(announcement())
        eventually(lambda: receiver.get("viirs") if is_taken else receiver.dropped)

        assert bool(receiver.get("viirs")) is is_taken


def test_a_list_of_hosts_that_cannot_be_resolved_is_refused() -> None:
    with (
        config.set(authorized_announcer_addresses=["no such host"]),
        pytest.raises(ConfigurationError, match="authorized_announcer_addresses"),
    ):
        AddressReceiver()


@pytest.mark.parametrize("multicast_enabled", [True, False])
def test_restricted_to_this_host_it_binds_loopback_and_hears_itself(network: Network, multicast_enabled: bool) -> None:
    with listening(restrict_to_localhost=True, multicast_enabled=multicast_enabled) as receiver:
        if multicast_enabled:
            with closing(MulticastSender(network.announcements)) as sender:
                sender(announcement())
        else:
            register(network, announcement())
        eventually(lambda: receiver.get("viirs"))

        # Bound to all addresses, this would be in use.
        with socket.socket() as other:
            other.bind(("127.0.0.2", network.addresses))


@mock.patch("posttroll.address_receiver.Message")
@mock.patch("posttroll.address_receiver.Publish")
@mock.patch("posttroll.address_receiver.MulticastReceiver")
def test_restricted_to_this_host_nothing_from_others_is_decoded(
    multicast_receiver: mock.Mock, publish: mock.Mock, message: mock.Mock
) -> None:
    instance = multicast_receiver.return_value = mock.Mock()
    instance.return_value = "blabla", ("255.255.255.255", 12)

    with listening(restrict_to_localhost=True) as receiver:
        eventually(lambda: receiver.dropped.get("source not allowed", 0) > 100)

    message.decode.assert_not_called()
    publish.assert_called_once()


@mock.patch("posttroll.address_receiver.MulticastReceiver")
@pytest.mark.usefixtures("network")
def test_trouble_with_the_network_is_survived(multicast_receiver: mock.Mock) -> None:
    outcomes = [OSError("no memory"), (announcement(), ("10.0.0.1", 12))]
    multicast_receiver.return_value = mock.Mock(side_effect=itertools.chain(outcomes, itertools.repeat(TimeoutError())))

    with listening() as receiver:
        eventually(lambda: receiver.get("viirs"))


def test_looking_up_and_hearing_at_the_same_time_is_safe(announce: Callable[[str], None]) -> None:
    with listening() as receiver:
        for number in range(300):
            announce(announcement(f"tcp://10.0.0.1:{number}"))
            receiver.get()
        eventually(lambda: len(receiver.get()) > 100)


def _connections_to(port: int) -> set[str]:
    """Return the other ends of the connections to a port of this host, also of those that are over."""
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {remote for _, local, remote, state, *_ in rows if local.endswith(f":{port:04X}") and state != _LISTENING}


def _note_times(receiver: AddressReceiver, times: set[str]) -> set[str]:
    times.update(entry["receive_time"] for entry in receiver.get("viirs"))
    return times


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="connections are counted in the way of Linux")
def test_publishers_that_register_keep_their_connections(network: Network) -> None:
    names = [f"publisher {number}" for number in range(10)]
    with listening(multicast_enabled=False) as receiver, ExitStack() as stack:
        for name in names:
            broadcaster = AddressServiceBroadcaster(name, f"{URI[:-1]}{name[-1]}", ["viirs"], 0.02, ["127.0.0.1"])
            stack.callback(broadcaster.start().stop)
        eventually(lambda: len(receiver.get("viirs")) == len(names))
        before = _connections_to(network.announcements)
        times: set[str] = set()

        eventually(lambda: len(_note_times(receiver, times)) > 10 * len(names))

        assert _connections_to(network.announcements) == before
        assert len(before) == len(names)
