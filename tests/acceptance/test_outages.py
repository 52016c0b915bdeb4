"""Connections that die without a sign of it, peers that hang, and applications that are busy elsewhere."""

from __future__ import annotations

import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from tests.acceptance.processes import Site
from tests.fixtures.waiting import UNIT, eventually

PINGS = {"connection_heartbeat_interval": 0.3, "connection_heartbeat_timeout": 1.0}


class Relay:
    """Passes bytes on between whoever connects and a port, until it is told to swallow them all."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._swallowing: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        self.connections = 0
        self._running = True

    def run(self) -> None:
        """Pass on until the end."""
        while self._running:
            for key, _ in self._selector.select(0.05):
                with suppress(OSError):
                    self._connect() if key.fileobj is self._server else self._pass_on(key.fileobj)  # type: ignore[arg-type]

    def swallow(self) -> None:
        """Let the connections of now stay open and lead nowhere."""
        self._swallowing = set(self._peers)

    def stop(self) -> None:
        """End."""
        self._running = False

    def close(self) -> None:
        """Close all connections."""
        for end in [self._server, *self._peers]:
            end.close()
        self._selector.close()

    def _connect(self) -> None:
        client, _ = self._server.accept()
        server = socket.create_connection(self._target)
        self._peers |= {client: server, server: client}
        self.connections += 1
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        data = end.recv(65536)
        if not data:
            self._selector.unregister(end)
        elif end not in self._swallowing:
            self._peers[end].sendall(data)


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """Run a relay to a port."""
    relay = Relay(port)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()
        relay.close()


@pytest.fixture
def published(site: Site) -> int:
    """Run a publisher that counts as ``counted``; give its port."""
    return int(site.publisher("counted").expect_ready()[0])


def test_a_subscriber_notices_a_dead_connection_and_makes_another(site: Site, published: int) -> None:
    with relaying(published) as relay:
        address = f"tcp://127.0.0.1:{relay.port}"
        subscriber = site.subscriber("--nameserver", "none", "--addresses", address, **PINGS)
        last = int(subscriber.expect_word("counted")[0])

        relay.swallow()

        gap = _await_gap(last, lambda: int(subscriber.expect_word("counted")[0]))
        assert relay.connections == 2
        assert gap < (PINGS["connection_heartbeat_interval"] + PINGS["connection_heartbeat_timeout"] + 2 * UNIT) / 0.02


def _await_gap(last: int, next_number: Callable[[], int]) -> int:
    """Wait until numbers were left out, and return how many."""
    while (number := next_number()) == last + 1:
        last = number
    return number - last


def test_messages_flow_again_when_a_frozen_publisher_goes_on(site: Site) -> None:
    publisher = site.publisher("counted")
    address = f"tcp://127.0.0.1:{publisher.expect_ready()[0]}"
    subscriber = site.subscriber("--nameserver", "none", "--addresses", address, **PINGS)
    subscriber.expect_word("counted")

    publisher.signal(signal.SIGSTOP)
    subscriber.expect_silence(2.0)
    publisher.signal(signal.SIGCONT)

    subscriber.expect_word("counted")


def test_a_frozen_nameserver_in_a_list_delays_neither_publisher_nor_subscriber(
    site: Site, free_ports: Callable[[int], list[int]]
) -> None:
    other = dict(zip(("nameserver_port", "broadcast_port", "address_publish_port"), free_ports(3), strict=True))
    frozen = site.nameserver("--no-multicast", **other)
    site.nameserver("--no-multicast")
    _await_port(other["nameserver_port"])
    frozen.signal(signal.SIGSTOP)

    site.publisher("counted", "--nameservers", f"localhost:{other['broadcast_port']}", "localhost")
    subscriber = site.subscriber("--nameserver", f"tcp://localhost:{other['nameserver_port']}", "localhost")

    subscriber.expect_word("counted")
    frozen.signal(signal.SIGCONT)


def _await_port(port: int) -> None:
    def answers() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(answers)


def test_nothing_is_lost_while_a_handler_works_and_the_publisher_is_restarted_on_its_port(
    site: Site, free_port: int
) -> None:
    first = site.publisher("slow", "--port", str(free_port))
    address = f"tcp://127.0.0.1:{free_port}"
    subscriber = site.subscriber("--nameserver", "none", "--addresses", address, "--handle", "4")
    subscriber.expect_word("slow")
    first.kill()

    second = site.publisher("second", "--port", str(free_port), "--wait")
    awaited = second.expect_word("awaited", 3.0)
    second.tell("")
    second.wait()

    assert awaited == ["True"]
    sent = int(second.output.split()[-1])
    numbers = [int(subscriber.expect_word("second", 30 * UNIT)[0]) for _ in range(sent)]
    assert numbers == [*range(1, sent + 1)]


def test_a_publisher_that_comes_while_a_handler_works_is_connected_to_meanwhile(site: Site) -> None:
    site.nameserver()
    subscriber = site.subscriber("--handle", "4")
    site.publisher("slow", "--wait", "--period", "60")
    subscriber.expect_word("slow")

    later = site.publisher("later", "--wait")

    assert later.expect_word("awaited", 3.0) == ["True"]
    assert subscriber.expect_word("later", 30 * UNIT) == ["1"]


@pytest.mark.parametrize("sort", [[], ["--container"]], ids=["subscriber", "container"])
def test_a_subscriber_lives_through_a_publisher_that_comes_and_goes(
    site: Site, free_port: int, sort: list[str]
) -> None:
    site.nameserver()
    subscriber = site.subscriber(*sort)
    for number in range(5):
        publisher = site.publisher(f"run{number}", "--port", str(free_port))
        subscriber.expect_word(f"run{number}")
        publisher.kill()

    assert subscriber.is_running()
    assert "Traceback" not in subscriber.errors
