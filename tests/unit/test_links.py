"""The threads that move frames between links and a transport."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from posttroll import links
from posttroll.backends import memory
from posttroll.backends.base import LinkChannel, Peer
from posttroll.errors import JournalError, TransportError
from posttroll.journal import Journal, MemoryJournal
from posttroll.journal.sqlite import SqliteJournal
from posttroll.links import LinkClient, LinkServer, arrivals
from posttroll.protocol.frames import Outcome
from posttroll.protocol.link import Delivery, Receiver
from posttroll.settings import Ports
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

ACCEPTED = Outcome("accepted")
FRAME = b"pytroll://1b info me@here 2026-01-01T00:00:00 v1.01 text/ascii text"


class Ends:
    """Servers and clients on a bus of their own."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self._backend = memory.MemoryBackend()

    def open(self, address: str | None = None) -> LinkChannel:
        """Open a channel."""
        return self._resources.enter_context(closing(self._backend.open_links(address, Ports.read())))

    def serve(self, journal: Journal, address: str = "tcp://127.0.0.1:0") -> LinkServer:
        """Serve a journal."""
        server = LinkServer(journal, self.open(address), "test", lambda *_: None, max_deliveries=10).start()
        self._resources.callback(server.stop)
        return server

    def attach(self, consumer: str = "archive", on_news: Callable[[], None] = lambda: None) -> LinkClient:
        """Return a client that is not yet connected."""
        make_receiver = functools.partial(Receiver, consumer=consumer, start_at="first")
        client = LinkClient(self.open(), consumer, make_receiver, on_news).start()
        self._resources.callback(client.stop)
        return client


def peer(address: str) -> Peer:
    return Peer(address, "memory")


def append(journal: Journal, server: LinkServer | None = None) -> None:
    journal.append("pytroll://1b", FRAME, time.time())
    if server is not None:
        server.appended()


def taken(client: LinkClient) -> Delivery:
    return eventually(client.take, 5 * UNIT)


@contextmanager
def closing_server(server: LinkServer) -> Iterator[LinkServer]:
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Stop all that was made at the end."""
    with ExitStack() as resources:
        yield Ends(resources)


@pytest.fixture
def journal() -> MemoryJournal:
    """Make a journal."""
    return MemoryJournal()


class FailingJournal(MemoryJournal):
    """Cannot keep anything for a while."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self._failures = itertools.chain([True] * failures, itertools.repeat(False))

    def commit(self) -> None:
        if next(self._failures):
            raise JournalError("the disk is on fire")
        super().commit()


class BrokenJournal(MemoryJournal):
    """Has a mistake that shows once."""

    has_failed = False

    def commit(self) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError
        super().commit()


def test_not_even_a_mistake_ends_a_server(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    journal = BrokenJournal()
    append(journal)
    server, client = ends.serve(journal), ends.attach()

    client.connect(peer(server.address), journal.identity)

    assert taken(client).payload == FRAME
    assert "publisher test has trouble with its links, will try again" in caplog.text


def test_not_even_a_mistake_ends_a_client(ends: Ends, journal: MemoryJournal, caplog: pytest.LogCaptureFixture) -> None:
    append(journal)
    server = ends.serve(journal)
    news = iter([ZeroDivisionError()])

    def fail_once() -> None:
        if (error := next(news, None)) is not None:
            raise error

    client = ends.attach(on_news=fail_once)
    client.connect(peer(server.address), journal.identity)

    assert taken(client).payload == FRAME
    eventually(lambda: "consumer archive has trouble with its links, will try again" in caplog.text)
    append(journal, server)
    assert taken(client).sequence == 2


class UntidyJournal(MemoryJournal):
    """Is untidy after each message."""

    def __init__(self) -> None:
        super().__init__()
        self.tidied_to = 0

    @property
    def is_untidy(self) -> bool:
        return self.tidied_to < self.last

    def tidy(self) -> None:
        self.tidied_to = self.last


def test_an_untidy_journal_is_tidied_soon_though_nobody_is_attached(ends: Ends) -> None:
    journal = UntidyJournal()
    server = ends.serve(journal)

    append(journal, server)

    eventually(lambda: journal.tidied_to == 1, 5 * UNIT)


def test_a_journal_in_trouble_is_told_of_and_served_when_it_is_well_again(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    journal = FailingJournal(failures=1)
    append(journal)
    server = ends.serve(journal)
    client = ends.attach()

    client.connect(peer(server.address), journal.identity)
    delivery = taken(client)

    assert delivery.payload == FRAME
    assert "cannot serve its consumers, will try again: the disk is on fire" in caplog.text


def test_what_is_too_much_for_one_turn_is_there_in_the_next(ends: Ends) -> None:
    server, client = ends.open("tcp://127.0.0.1:0"), ends.open()
    client.connect(peer(server.address))
    sent = [str(number).encode() for number in range(250)]
    for bundle in sent:
        client.send(peer(server.address), bundle)

    turns = [[arrival.bundle for arrival in arrivals(server, time.monotonic())] for _ in range(4)]

    assert [bundle for turn in turns for bundle in turn] == sent
    assert max(map(len, turns)) < len(sent)


def test_rubbish_on_a_servers_link_is_dropped_and_told_of_once(
    ends: Ends, journal: MemoryJournal, caplog: pytest.LogCaptureFixture
) -> None:
    append(journal)
    server = ends.serve(journal)
    stranger, client = ends.open(), ends.attach()
    stranger.connect(peer(server.address))
    for rubbish in (b"\n", b"\xff\nx", b'[[{"frame": "attach"}], []]\n', b"[" * 100_000):
        stranger.send(peer(server.address), rubbish)

    client.connect(peer(server.address), journal.identity)

    assert taken(client).payload == FRAME
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert "publisher test dropped what came on its link" in caplog.text


def test_rubbish_on_a_clients_link_is_dropped_and_told_of(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    publisher, client = ends.open("tcp://127.0.0.1:0"), ends.attach()
    client.connect(peer(publisher.address), "journal")
    arrival = eventually(lambda: publisher.receive(5 * UNIT))
    while not arrival.bundle:
        arrival = eventually(lambda: publisher.receive(5 * UNIT))

    publisher.send(arrival.peer, b"rubbish")

    eventually(lambda: "consumer archive dropped what came from" in caplog.text)


def test_a_journal_at_two_addresses_is_attached_to_once(ends: Ends, journal: MemoryJournal) -> None:
    append(journal)
    server, client = ends.serve(journal), ends.attach()

    client.connect(peer("tcp://127.0.0.1:1"), journal.identity)
    client.connect(peer(server.address), journal.identity)
    delivery = taken(client)

    assert client.settle(delivery, ACCEPTED)
    eventually(lambda: journal.consumers()[0].pending == 0)
    assert client.take() is None


def test_what_is_settled_while_a_journal_is_nowhere_is_told_where_it_turns_up_again(ends: Ends, tmp_path: Path) -> None:
    client = ends.attach()
    with closing(SqliteJournal(tmp_path / "journal")) as journal:
        append(journal)
        former = ends.serve(journal)
        client.connect(peer(former.address), journal.identity)
        delivery = taken(client)
        former.stop()

    client.part(peer(former.address))
    is_ours = client.settle(delivery, ACCEPTED)
    with closing(SqliteJournal(tmp_path / "journal")) as journal, closing_server(ends.serve(journal)) as server:
        client.connect(peer(server.address), journal.identity)
        eventually(lambda: journal.consumers()[0].pending == 0)

    assert is_ours


def test_who_is_disconnected_gets_nothing_more_and_what_it_had_goes_to_others(
    ends: Ends, journal: MemoryJournal
) -> None:
    append(journal)
    server, one, other = ends.serve(journal), ends.attach(), ends.attach()
    one.connect(peer(server.address), journal.identity)
    delivery = taken(one)

    one.disconnect(peer(server.address))
    other.connect(peer(server.address), journal.identity)
    again = taken(other)

    assert again.sequence == delivery.sequence
    assert again.redelivered
    eventually(lambda: not one.is_attached_to_any)
    assert not one.settle(delivery, ACCEPTED)


def test_who_is_connected_again_before_it_has_detached_goes_on(ends: Ends, journal: MemoryJournal) -> None:
    append(journal)
    server, client = ends.serve(journal), ends.attach()
    client.connect(peer(server.address), journal.identity)
    taken(client)

    client.disconnect(peer(server.address))
    client.connect(peer(server.address), journal.identity)

    assert taken(client).sequence == 1
    assert client.is_attached_to_any


def test_one_of_two_addresses_of_a_journal_can_be_given_up(ends: Ends, journal: MemoryJournal) -> None:
    append(journal)
    server, client = ends.serve(journal), ends.attach()
    for address in (server.address, "tcp://127.0.0.1:1"):
        client.connect(peer(address), journal.identity)
    delivery = taken(client)

    client.disconnect(peer("tcp://127.0.0.1:1"))

    assert client.settle(delivery, ACCEPTED)
    eventually(lambda: journal.consumers()[0].pending == 0)
    assert client.is_attached_to_any


def test_nothing_is_left_of_an_address_that_cannot_be_connected_to(ends: Ends) -> None:
    client = ends.attach()

    with pytest.raises(TransportError):
        client.connect(peer("nonsense"), "journal")

    eventually(lambda: not client.is_attached_to_any)


def test_who_stops_in_the_midst_of_its_own_doing_as_signal_handlers_may_does_not_wait_for_itself() -> None:
    channel = memory.MemoryBackend().open_links(None, Ports.read())

    def make_receiver(name: str) -> Receiver:
        client.stop()
        return Receiver(name, "archive")

    client = LinkClient(channel, "archive", make_receiver, lambda: None).start()
    begin = time.monotonic()
    with contextlib.suppress(TransportError):
        client.connect(peer("tcp://127.0.0.1:1"), "journal")

    assert time.monotonic() - begin < UNIT
    eventually(lambda: channel.closed)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_nothing_is_to_be_settled_in_the_child_of_a_fork(ends: Ends, journal: MemoryJournal) -> None:
    append(journal)
    client = ends.attach()
    client.connect(peer(ends.serve(journal).address), journal.identity)
    delivery = taken(client)

    with client._lock:  # as its thread may have done at the fork
        told = in_child(lambda: client.settle(delivery, ACCEPTED))

    assert told == "False"
    assert client.settle(delivery, ACCEPTED)


def test_several_journals_take_turns(ends: Ends) -> None:
    client, journals = ends.attach(), [MemoryJournal(), MemoryJournal()]
    for journal in journals:
        for _ in range(2):
            append(journal)
        client.connect(peer(ends.serve(journal).address), journal.identity)

    def all_there() -> bool:
        return all(one.consumers() for one in journals)

    eventually(all_there)
    deliveries = [taken(client) for _ in range(4)]

    assert sorted(delivery.sequence for delivery in deliveries) == [1, 1, 2, 2]
    assert {delivery.publisher for delivery in deliveries} == {journal.identity for journal in journals}


def test_a_publisher_that_does_not_answer_is_told_of(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(links, "_PATIENCE", 0.01)
    client = ends.attach()

    client.connect(peer("tcp://127.0.0.1:1"), "journal")

    eventually(lambda: "consumer archive: no answer from tcp://127.0.0.1:1" in caplog.text)


@pytest.mark.parametrize("make", [Ends.serve, Ends.attach])
def test_all_can_be_stopped_twice(ends: Ends, journal: MemoryJournal, make: Callable[..., LinkServer]) -> None:
    end = make(ends, journal) if make is Ends.serve else make(ends)

    end.stop()
    end.stop()
