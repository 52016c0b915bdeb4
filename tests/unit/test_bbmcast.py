import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from posttroll import bbmcast
from posttroll.bbmcast import MulticastReceiver, MulticastSender, SocketTimeout, mcast_receiver, mcast_sender
from posttroll.errors import BindFailed, ConfigurationError
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT

BROADCASTS = ["", "0.0.0.0", "255.255.255.255", "<broadcast>"]
NOT_MULTICAST = ["10.0.0.1", "127.0.0.1", "240.0.0.1", "no such group"]


@pytest.fixture(autouse=True)
def on_loopback() -> Iterator[None]:
    with config.set(multicast_interface="127.0.0.1"):
        yield


@pytest.fixture
def receiver(free_port: int) -> Iterator[MulticastReceiver]:
    with closing(MulticastReceiver(free_port).settimeout(5 * UNIT)) as receiver:
        yield receiver


@pytest.fixture
def sender(free_port: int) -> Iterator[MulticastSender]:
    with closing(MulticastSender(free_port)) as sender:
        yield sender


def test_the_constants_are_those_of_the_wire() -> None:
    assert bbmcast.DEFAULT_BROADCAST_PORT == bbmcast.get_configured_broadcast_port() == 21200
    assert bbmcast.DEFAULT_MC_GROUP == bbmcast.get_mc_group() == "225.0.0.212"
    assert bbmcast.TTL_LOCALNET == 31
    assert SocketTimeout is TimeoutError


def test_what_is_sent_is_received_with_its_source(receiver: MulticastReceiver, sender: MulticastSender) -> None:
    sender("Grüße")

    text, (host, _) = receiver()

    assert (text, host) == ("Grüße", "127.0.0.1")
    assert sender.group == receiver.group == "225.0.0.212"


def test_all_receivers_of_a_host_hear_every_datagram(
    receiver: MulticastReceiver, sender: MulticastSender, free_port: int
) -> None:
    with closing(MulticastReceiver(free_port).settimeout(5 * UNIT)) as other:
        sender("hello")

        assert receiver()[0] == other()[0] == "hello"


def test_the_largest_datagram_is_received_whole(receiver: MulticastReceiver, sender: MulticastSender) -> None:
    sender("x" * 65_507)

    assert receiver()[0] == "x" * 65_507


def test_a_datagram_that_is_no_unicode_is_received_as_latin_text(
    receiver: MulticastReceiver, sender: MulticastSender
) -> None:
    sender(b"Gr\xfc\xdfe")
    sender(b"")

    assert receiver()[0] == "Grüße"
    assert receiver()[0] == ""


def test_a_datagram_to_this_host_alone_is_received(receiver: MulticastReceiver, free_port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unicast:
        unicast.sendto(b"hello", ("127.0.0.1", free_port))

    assert receiver()[0] == "hello"


def test_silence_ends_in_a_timeout(receiver: MulticastReceiver) -> None:
    start = time.monotonic()

    with pytest.raises(SocketTimeout):
        receiver.settimeout(0.05)()

    assert time.monotonic() - start >= 0.05


def test_a_waiting_receiver_can_be_woken(receiver: MulticastReceiver) -> None:
    receiver.settimeout(None)

    with in_background(receiver) as call:
        assert call.is_pending()
        receiver.wake()
        with pytest.raises(TimeoutError):
            call.result(0.5 * UNIT)


def test_a_receiver_is_woken_beforehand_only_once(receiver: MulticastReceiver, sender: MulticastSender) -> None:
    receiver.wake()
    receiver.wake()
    with pytest.raises(TimeoutError):
        receiver()

    sender("hello")

    assert receiver()[0] == "hello"


def test_closing_twice_is_harmless(receiver: MulticastReceiver, sender: MulticastSender) -> None:
    for _ in range(2):
        receiver.close()
        sender.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        sender("hello")


@pytest.mark.parametrize("group", BROADCASTS)
def test_no_group_means_broadcast(group: str, free_port: int) -> None:
    with closing(MulticastSender(free_port, group)) as sender, closing(MulticastReceiver(free_port, group)) as receiver:
        assert sender.group == receiver.group == "<broadcast>"
        assert sender.socket.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1


@pytest.mark.parametrize("group", NOT_MULTICAST)
def test_an_address_that_is_no_group_is_refused(group: str, free_port: int) -> None:
    for opener in (lambda: mcast_sender(group), lambda: mcast_receiver(free_port, group)):
        with pytest.raises(OSError, match="Invalid multicast address") as raised:
            opener()
        assert raised.value.errno == errno.EINVAL


def test_the_configured_group_is_used(free_port: int) -> None:
    with config.set(mc_group="225.0.0.213"), closing(MulticastSender(free_port)) as sender:
        assert sender.group == "225.0.0.213"


def test_the_old_environment_variable_for_the_group_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTROLL_MC_GROUP", "225.0.0.214")

    with pytest.warns(PendingDeprecationWarning):
        assert bbmcast.get_mc_group() == "225.0.0.214"


def test_the_time_to_live_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("PYTROLL_MC_TTL", "3")

    for sock, group in (mcast_sender(), mcast_receiver(free_port)):
        with sock:
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 3
            assert group == "225.0.0.212"


@pytest.mark.parametrize("hops", ["many", "-1", "256"])
def test_a_wrong_time_to_live_is_told(hops: str, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("PYTROLL_MC_TTL", hops)

    for opener in (lambda: mcast_sender(), lambda: mcast_receiver(free_port)):
        with pytest.raises(ConfigurationError, match="PYTROLL_MC_TTL"):
            opener()


def test_a_port_in_use_is_named(free_port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", free_port))

        with pytest.raises(BindFailed, match=str(free_port)):
            MulticastReceiver(free_port)


def test_a_system_that_refuses_a_large_buffer_is_lived_with(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    class Socket(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
            if option == socket.SO_RCVBUF:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            super().setsockopt(level, option, value)

    monkeypatch.setattr(socket, "socket", Socket)

    with closing(MulticastReceiver(free_port)) as receiver:
        assert receiver.socket.getsockname()[1] == free_port


def test_a_missing_network_is_waited_for(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with config.set(multicast_interface="192.0.2.77"):
        receiver = MulticastReceiver(free_port)
    with closing(receiver), closing(MulticastSender(free_port)) as sender:
        assert "will try again" in caplog.text
        receiver._interface = "127.0.0.1"  # the network is there,
        receiver._next_join = 0.0  # and it is time to try again
        with pytest.raises(TimeoutError):
            receiver.settimeout(0.0)()
        sender("hello")

        assert receiver.settimeout(5 * UNIT)()[0] == "hello"


def test_a_lost_membership_is_renewed(receiver: MulticastReceiver, sender: MulticastSender) -> None:
    membership = struct.pack("=4s4s", socket.inet_aton(receiver.group), socket.inet_aton("127.0.0.1"))
    receiver.socket.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
    receiver._next_join = 0.0  # it is time
    with pytest.raises(TimeoutError):
        receiver.settimeout(0.0)()

    sender("hello")

    assert receiver.settimeout(5 * UNIT)()[0] == "hello"


def test_a_receiver_that_waits_without_end_looks_after_its_membership(
    receiver: MulticastReceiver, sender: MulticastSender
) -> None:
    receiver.settimeout(None)
    receiver._next_join = time.monotonic() + 0.05

    with in_background(receiver) as call:
        assert call.is_pending(0.1)
        sender("hello")
        assert call.result()[0] == "hello"


@pytest.mark.parametrize(
    ("number", "is_missing"), [(errno.ENODEV, True), (errno.ENETUNREACH, True), (errno.EINVAL, False), (None, False)]
)
def test_a_missing_network_is_told_from_a_wrong_address(number: int | None, is_missing: bool) -> None:
    error = OSError() if number is None else OSError(number, "text")

    assert bbmcast.is_missing_network(error) is is_missing
