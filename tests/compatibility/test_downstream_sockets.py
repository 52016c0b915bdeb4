"""Programs such as trollmoves make their own sockets with the package's functions."""

from __future__ import annotations

import contextlib

import zmq

from posttroll.backends.zmq.socket import close_socket, set_up_client_socket, set_up_server_socket
from tests.fixtures.waiting import UNIT


def exchange(server: zmq.Socket[bytes], client: zmq.Socket[bytes]) -> bytes:
    client.send(b"question")
    assert server.poll(3000 * UNIT)
    return server.recv_multipart()[-1]


def test_a_router_on_a_port_that_is_free_hears_a_requester():
    with contextlib.ExitStack() as resources:
        server, port, _ = set_up_server_socket(zmq.ROUTER, "tcp://127.0.0.1:0")
        resources.callback(close_socket, server)
        client = set_up_client_socket(zmq.REQ, f"tcp://127.0.0.1:{port}", {zmq.LINGER: 0})
        resources.callback(close_socket, client)

        assert exchange(server, client) == b"question"


def test_a_port_is_taken_from_the_interval_that_is_given():
    server, port, _ = set_up_server_socket(zmq.PULL, "tcp://127.0.0.1:0", port_interval=(40_000, 40_500))

    close_socket(server)

    assert port is not None
    assert 40_000 <= port < 40_500


def test_sockets_within_the_process_have_no_port():
    with contextlib.ExitStack() as resources:
        server, port, _ = set_up_server_socket(zmq.PULL, "inproc://replies9010")
        resources.callback(close_socket, server)
        client = set_up_client_socket(zmq.PUSH, "inproc://replies9010")
        resources.callback(close_socket, client)

        assert port is None
        assert exchange(server, client) == b"question"
