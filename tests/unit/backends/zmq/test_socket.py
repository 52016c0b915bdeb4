from __future__ import annotations

import errno
import os
import socket as system_sockets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest
import zmq

from posttroll.backends.zmq import socket as module
from posttroll.backends.zmq.socket import (
    ServerSocket,
    check_process,
    close_socket,
    connect,
    connect_client,
    get_tcp_keepalive_options,
    open_client,
    receive_limit,
    set_up_client_socket,
    set_up_server_socket,
    translated_errors,
)
from posttroll.errors import (
    BindFailed,
    ConfigurationError,
    ConnectionLost,
    MissingSetting,
    TransportError,
    UsedAfterFork,
)
from posttroll.settings import Ports, config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"
OPEN = "unsecure_zmq"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Listen on a port."""
    with system_sockets.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def fail(number: int) -> None:
    raise zmq.ZMQError(number)


@pytest.mark.parametrize("number", [zmq.EADDRINUSE, zmq.EINVAL])
def test_errors_of_zeromq_are_told_as_what_was_tried_and_why(number: int) -> None:
    with pytest.raises(TransportError, match="cannot juggle") as caught, translated_errors("juggle"):
        fail(number)

    assert {zmq.ZMQError, OSError} <= set(type(caught.value).mro())
    assert caught.value.errno == number
    assert os.strerror(number).lower() in str(caught.value).lower()


@pytest.mark.parametrize("number", [zmq.ENOTSOCK, zmq.ETERM])
def test_a_socket_or_context_that_was_closed_is_a_lost_connection(number: int) -> None:
    with pytest.raises(ConnectionLost), translated_errors("juggle"):
        fail(number)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(KeyError), translated_errors("juggle"):
        raise KeyError


def test_a_failed_bind_is_a_zmq_error_too(taken_port: int) -> None:
    with pytest.raises(
        BindFailed, match=f"cannot bind 'tcp://127.0.0.1:{taken_port}': Address already in use"
    ) as caught:
        ServerSocket(zmq.PUB, f"tcp://127.0.0.1:{taken_port}", OPEN)

    assert zmq.ZMQError in type(caught.value).mro()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    "address", ["", "nonsense", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:port", "tcp://127.0.0.1:70000", "x://y"]
)
def test_a_malformed_address_cannot_be_bound(address: str) -> None:
    with pytest.raises(BindFailed):
        ServerSocket(zmq.PUB, address, OPEN)


def test_an_address_of_another_host_cannot_be_bound() -> None:
    with pytest.raises(BindFailed):
        ServerSocket(zmq.PUB, "tcp://192.0.2.1:0", OPEN)


@pytest.mark.parametrize(
    "address", ["", "nonsense", "tcp://", "tcp://127.0.0.1:port", "tcp://127.0.0.1:70000", "x://y"]
)
def test_a_malformed_address_cannot_be_connected_to(address: str) -> None:
    with pytest.raises(TransportError, match="cannot connect"):
        connect_client(zmq.SUB, address, OPEN)


def test_the_address_bound_has_the_real_port() -> None:
    with closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN, Ports(20_000, 60_000))) as server:
        assert server.address.startswith("tcp://127.0.0.1:")
        assert 20_000 <= port_of(server.address) < 60_000


def test_the_hosts_of_an_address_stays_as_given(free_port: int) -> None:
    with closing(ServerSocket(zmq.PUB, f"tcp://*:{free_port}", OPEN)) as server:
        assert server.address == f"tcp://*:{free_port}"


def test_a_port_left_to_the_system_is_told() -> None:
    with closing(ServerSocket(zmq.PUB, "tcp://127.0.0.1:*", OPEN)) as server:
        assert port_of(server.address) > 0


def test_every_port_of_the_range_is_tried(free_ports: Callable[[int], list[int]]) -> None:
    lowest = next(port for port in free_ports(50) if all(is_free(port + offset) for offset in range(5)))
    ports = Ports(lowest, lowest + 5)

    with ExitStack() as stack:
        servers = [stack.enter_context(closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN, ports))) for _ in range(5)]

        assert sorted(port_of(server.address) for server in servers) == list(range(lowest, lowest + 5))
        with pytest.raises(BindFailed, match=f"to a free port of {lowest} to {lowest + 4}"):
            ServerSocket(zmq.PUB, LOOPBACK, OPEN, ports)


def is_free(port: int) -> bool:
    with suppress(OSError), system_sockets.create_server(("127.0.0.1", port)):
        return True
    return False


def test_the_ports_of_the_settings_are_taken_where_none_are_given(free_port: int) -> None:
    settings = config.set(pub_min_port=free_port, pub_max_port=free_port + 1)

    with settings, closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN)) as server:
        assert port_of(server.address) == free_port


def test_a_port_that_may_not_be_taken_ends_the_search() -> None:
    with pytest.raises(BindFailed) as caught:
        ServerSocket(zmq.PUB, "tcp://192.0.2.1:0", OPEN, Ports(20_000, 60_000))

    assert caught.value.errno != errno.EADDRINUSE


def test_a_port_that_becomes_free_in_a_moment_is_waited_for(taken_port: int) -> None:
    blocking = ServerSocket(zmq.PUB, LOOPBACK, OPEN)

    with in_background(lambda: ServerSocket(zmq.PUB, blocking.address, OPEN)) as binding:
        assert binding.is_pending(0.05)
        blocking.close()

        binding.result().close()


def test_a_closed_server_can_be_closed_again() -> None:
    server = ServerSocket(zmq.PUB, LOOPBACK, OPEN)

    server.close()
    server.close()

    assert server.socket.closed


def test_a_failed_bind_leaves_the_lease_of_its_guard_behind_no_more(taken_port: int) -> None:
    with config.set(authorized_client_addresses=["127.0.0.1"]), pytest.raises(BindFailed):
        ServerSocket(zmq.PUB, f"tcp://127.0.0.1:{taken_port}", OPEN)


def test_security_that_is_not_configured_opens_nothing() -> None:
    with pytest.raises(MissingSetting):
        ServerSocket(zmq.PUB, LOOPBACK, "secure_zmq")
    with pytest.raises(MissingSetting):
        open_client(zmq.SUB, "tcp://127.0.0.1:9", "secure_zmq")
    with pytest.raises(ConfigurationError):
        connect_client(zmq.SUB, "tcp://127.0.0.1:9", "memory")


def test_a_client_is_prepared_before_it_is_connected() -> None:
    with closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN)) as server, open_client(zmq.SUB, server.address, OPEN) as client:
        assert client.getsockopt_string(zmq.LAST_ENDPOINT) == ""
        connect(client, server.address)
        assert client.getsockopt_string(zmq.LAST_ENDPOINT) == server.address


KEEPALIVE = {"tcp_keepalive": 1, "tcp_keepalive_cnt": 10, "tcp_keepalive_idle": 2, "tcp_keepalive_intvl": 3}
OPTIONS = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_CNT: 10, zmq.TCP_KEEPALIVE_IDLE: 2, zmq.TCP_KEEPALIVE_INTVL: 3}


def test_keepalive_is_unset_unless_asked_for() -> None:
    assert get_tcp_keepalive_options() == {}


def test_keepalive_settings_become_options_one_by_one() -> None:
    with config.set(**KEEPALIVE):
        assert get_tcp_keepalive_options() == OPTIONS
    with config.set(tcp_keepalive=0, tcp_keepalive_cnt=None):
        assert get_tcp_keepalive_options() == {zmq.TCP_KEEPALIVE: 0}


def test_keepalive_is_set_on_all_sockets() -> None:
    with (
        config.set(**KEEPALIVE),
        closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN)) as server,
        connect_client(zmq.SUB, server.address, OPEN) as client,
    ):
        for socket in (server.socket, client):
            assert {option: socket.get(option) for option in OPTIONS} == OPTIONS


def test_options_given_win() -> None:
    with connect_client(zmq.SUB, "tcp://127.0.0.1:9", OPEN, {zmq.LINGER: 7, zmq.RCVHWM: 8}) as client:
        assert (client.get(zmq.LINGER), client.get(zmq.RCVHWM)) == (7, 8)


def test_sockets_linger_for_a_second() -> None:
    with connect_client(zmq.SUB, "tcp://127.0.0.1:9", OPEN) as client:
        assert client.get(zmq.LINGER) == 1000


def test_the_limit_of_received_frames_leaves_room_to_notice_what_is_too_long() -> None:
    with config.set(max_message_size=1024):
        assert receive_limit() == {zmq.MAXMSGSIZE: 2048}


def test_a_context_that_others_put_in_place_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with zmq.Context() as context:
        monkeypatch.setattr(module, "get_context", lambda: context)
        with closing(ServerSocket(zmq.PUB, LOOPBACK, OPEN)) as server:
            assert server.socket.context is context


def test_a_context_that_is_terminated_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    context = zmq.Context()
    context.term()
    monkeypatch.setattr(module, "get_context", lambda: context)

    with pytest.raises(TransportError, match="cannot open a socket"):
        ServerSocket(zmq.PUB, LOOPBACK, OPEN)


def test_only_the_process_that_opened_may_use() -> None:
    pid = os.getpid()

    check_process(pid)

    assert in_child(lambda: check_process(pid)) == "UsedAfterFork"
    with pytest.raises(UsedAfterFork, match=f"opened by process {pid + 1}"):
        check_process(pid + 1)


def test_programs_may_have_sockets_of_their_own_set_up(free_port: int) -> None:
    server, port, guard = set_up_server_socket(
        zmq.PUSH, LOOPBACK, {zmq.SNDHWM: 7}, port_interval=(free_port, free_port + 1)
    )
    with server, set_up_client_socket(zmq.PULL, f"tcp://127.0.0.1:{port}") as client:
        server.send(b"frame")

        assert client.poll(int(5000 * UNIT))
        assert client.recv() == b"frame"
        assert (port, guard, server.get(zmq.SNDHWM)) == (free_port, None, 7)
        close_socket(client)
        assert client.closed


def test_a_socket_set_up_without_tcp_has_no_port() -> None:
    server, port, _ = set_up_server_socket(zmq.PUSH, "inproc://test-socket", backend=OPEN)

    with server:
        assert port is None


def test_a_closed_server_gives_its_port_back() -> None:
    server = ServerSocket(zmq.PUB, LOOPBACK, OPEN)
    server.close()

    def bind_again() -> ServerSocket | None:
        with suppress(BindFailed):
            return ServerSocket(zmq.PUB, server.address, OPEN)
        return None

    again = eventually(bind_again)
    assert again is not None
    again.close()
