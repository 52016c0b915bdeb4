from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import zmq

from posttroll.backends.base import Peer
from posttroll.backends.zmq.connection import Connection
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.waiting import UNIT, eventually


@pytest.fixture
def subscriber() -> Iterator[ZMQSubscriber]:
    with closing(ZMQSubscriber()) as subscriber:
        yield subscriber


def peer_at(port: int) -> Peer:
    return Peer(f"tcp://127.0.0.1:{port}", "unsecure_zmq")


class StrangeServer:
    """Takes connections on a port and answers each with something else than ZeroMQ."""

    def __init__(self, port: int) -> None:
        self.visits = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._worker = Worker("strange-server", self._serve, lambda: self._listener.shutdown(socket.SHUT_RDWR)).start()

    def _serve(self, worker: Worker) -> None:
        while not worker.stopping:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            with visitor:
                visitor.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                self.visits += 1
                visitor.settimeout(UNIT)
                with suppress(OSError):
                    while visitor.recv(4096):
                        pass

    def close(self) -> None:
        self._worker.stop()
        self._listener.close()


def test_a_publisher_is_heard_though_another_kind_of_server_had_its_port_for_a_while(
    subscriber: ZMQSubscriber, free_port: int
) -> None:
    with closing(StrangeServer(free_port)) as server:
        subscriber.connect(peer_at(free_port), [b""])
        eventually(lambda: not subscriber.receive(0.1) and server.visits > 1, 10 * UNIT)

    with closing(ZMQPublisher(f"tcp://127.0.0.1:{free_port}").start()) as publisher:
        eventually(lambda: subscriber.receive(0.1) or publisher.wait_for_subscriber(b"", 0.01), 10 * UNIT)
        publisher.send(b"frame")

        received = subscriber.receive(5 * UNIT)
    assert received is not None
    assert received.frame == b"frame"


def test_a_connection_that_was_cut_is_renewed_while_nobody_receives(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        config.set(max_message_size=1024),
        closing(ZMQPublisher(f"tcp://127.0.0.1:{free_port}").start()) as publisher,
        closing(ZMQSubscriber(f"tcp://127.0.0.1:{free_port}")) as subscriber,
    ):
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
        publisher.send(b"x" * 5000)
        eventually(lambda: "cut or refused, connecting anew" in caplog.text, 10 * UNIT)

        eventually(lambda: publisher.send(b"frame") and subscriber.receive(0.1))


def test_an_ordinary_loss_is_left_to_libzmq(free_port: int) -> None:
    with closing(ZMQPublisher(f"tcp://127.0.0.1:{free_port}").start()) as publisher:
        connection = Connection(peer_at(free_port), zmq.SUB, {zmq.LINGER: 0}, [b""])
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
    assert connection.monitor is not None
    eventually(lambda: connection.read_monitor(0.0) or connection.next_timeout() is None)

    assert not connection.renew_if_lost(now=1e9)
    connection.close()


def test_what_came_before_the_loss_is_taken_first(free_port: int) -> None:
    with closing(ZMQPublisher(f"tcp://127.0.0.1:{free_port}").start()) as publisher:
        connection = Connection(peer_at(free_port), zmq.SUB, {zmq.LINGER: 0, zmq.MAXMSGSIZE: 100}, [b""])
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
        publisher.send(b"frame")
        publisher.send(b"x" * 1000)
        eventually(lambda: (connection.read_monitor(0.0), connection.next_timeout() is not None)[1])

        assert not connection.renew_if_lost(now=1e9)
        assert connection.socket.recv() == b"frame"
        assert connection.renew_if_lost(now=1e9)
    connection.close()


def test_the_descriptors_of_many_connections_are_not_doubled_by_watching_them(subscriber: ZMQSubscriber) -> None:
    for port in range(20_000, 20_110):
        subscriber.connect(peer_at(port), [b""])

    watched = [connection for connection in subscriber._connections.values() if connection.monitor is not None]
    assert len(watched) == 100
