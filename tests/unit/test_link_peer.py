"""The thread that talks with other containers."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from posttroll.backends import memory
from posttroll.backends.base import Backend, LinkChannel, Peer
from posttroll.backends.registry import find_backend
from posttroll.errors import ConfigurationError, JournalError, JournalInUse, UsedAfterFork
from posttroll.journal import MemoryJournal
from posttroll.link_peer import LinkPeer
from posttroll.protocol import frames
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import Close, Open, Outcome
from posttroll.protocol.link import Delivery
from posttroll.protocol.outbound import Concluded
from posttroll.protocol.queue import Queue, Shelf
from posttroll.settings import Ports, config
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

ACCEPTED = Outcome("accepted")
MESSAGE = b"pytroll://1b info me@here 2026-01-01T00:00:00 v1.01 text/ascii text"
LOOPBACK = "tcp://127.0.0.1:0"
ROUND_THE_BUS = 0.2 * UNIT


class Notes:
    """What a peer was told."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.connected: list[PeerInfo] = []
        self.disconnected: list[tuple[str, str]] = []
        self.outcomes: list[Concluded] = []

    def on_wanted(self, peer: str) -> None:
        self.wanted.append(peer)

    def on_connect(self, peer: PeerInfo) -> None:
        self.connected.append(peer)

    def on_disconnect(self, peer: PeerInfo, reason: str) -> None:
        self.disconnected.append((peer.name, reason))

    def on_outcome(self, concluded: Concluded) -> None:
        self.outcomes.append(concluded)


class Tag:
    """Follows a message."""

    def __init__(self) -> None:
        self.state = ""

    def sent(self) -> None:
        self.state = "sent"

    def concluded(self, state: str, reason: str) -> None:
        self.state = state


class Peers:
    """Peers of a backend, all of which are stopped at the end."""

    def __init__(self, backend: Backend, resources: ExitStack) -> None:
        self.backend = backend
        self._resources = resources

    def channel(self, address: str | None = LOOPBACK) -> LinkChannel:
        """Open a channel."""
        return self._resources.enter_context(closing(self.backend.open_links(address, Ports.read())))

    def make(
        self, name: str, notes: Notes | None = None, kind: type[LinkPeer] = LinkPeer, **options: object
    ) -> LinkPeer:
        """Return a peer that is not started."""
        peer = kind(name, self.channel(), notes or Notes(), **options)  # type: ignore[arg-type]
        self._resources.callback(peer.stop)
        return peer

    def start(self, name: str, notes: Notes | None = None, **options: object) -> LinkPeer:
        """Return a peer that talks."""
        return self.make(name, notes, **options).start()  # type: ignore[arg-type]

    def place(self, peer: LinkPeer | str) -> Peer:
        """Return where a peer is."""
        return Peer(peer if isinstance(peer, str) else peer.address, self.backend.name)


@pytest.fixture(params=["memory", "unsecure_zmq"])
def peers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peers]:
    """Stop all that was made at the end; over one backend after the other."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    with ExitStack() as resources:
        yield Peers(find_backend(request.param), resources)


def answering(peer: LinkPeer, target: str = "messages") -> list[bytes]:
    """Have a peer accept all that comes; return what that was."""
    accepted: list[bytes] = []

    def accept() -> None:
        while (taken := peer.take(target)) is not None:
            accepted.append(taken[0].payload)
            peer.settle(taken[0], ACCEPTED)

    peer.open_target(target, accept)
    return accepted


def accepted(tag: Tag) -> Callable[[], bool]:
    return lambda: tag.state == "accepted"


def put(peer: LinkPeer, to: str = "bob", **options: object) -> Tag:
    tag = Tag()
    peer.put(to, "messages", MESSAGE, tag, **options)  # type: ignore[arg-type]
    return tag


def taken(peer: LinkPeer, target: str = "messages") -> tuple[Delivery, str]:
    return eventually(lambda: peer.take(target))


def duration(function: Callable[[], object]) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def test_what_is_put_is_accepted_whoever_connected(peers: Peers) -> None:
    notes = Notes()
    alice, bob = peers.start("alice", notes), peers.start("bob")
    at_alice, at_bob = answering(alice), answering(bob)

    tags = [put(alice), put(bob, "alice")]
    alice.connect(peers.place(bob))
    for tag in tags:
        eventually(accepted(tag))

    assert at_alice == at_bob == [MESSAGE]
    assert alice.peers() == [PeerInfo("bob", bob.address)]
    assert notes.wanted == ["bob"]
    eventually(lambda: [(one.tag, one.state) for one in notes.outcomes] == [(tags[0], "accepted")])
    assert alice.pending() == bob.pending("alice") == 0


def test_what_is_put_for_an_address_goes_to_whoever_is_there(peers: Peers) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")
    answering(bob)

    tag = put(alice, bob.address)
    alice.connect(peers.place(bob))

    eventually(accepted(tag))


def test_one_that_stops_says_so(peers: Peers) -> None:
    notes = Notes()
    alice, bob = peers.start("alice", notes), peers.start("bob")
    alice.connect(peers.place(bob))
    eventually(lambda: notes.connected)

    bob.stop()

    eventually(lambda: notes.disconnected == [("bob", "it has ended")])


def test_what_one_that_stops_has_not_settled_is_given_to_the_next_one(peers: Peers) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")
    bob.open_target("messages", lambda: None)
    put(alice)
    alice.connect(peers.place(bob))
    first, _ = taken(bob)

    bob.stop()
    other = peers.start("bob")
    other.open_target("messages", lambda: None)
    alice.connect(peers.place(other))
    again, sender = taken(other)

    assert (again.payload, sender) == (first.payload, "alice")
    assert again.redelivered


def test_a_place_that_was_left_is_not_talked_to_any_more(peers: Peers) -> None:
    notes = Notes()
    alice, bob = peers.start("alice", notes), peers.start("bob")
    alice.connect(peers.place(bob))
    eventually(lambda: notes.connected)

    alice.disconnect(peers.place(bob))

    eventually(lambda: notes.disconnected == [("bob", "it was left")])
    eventually(lambda: not bob.peers())
    assert alice.peers() == []
    assert alice._container._conversations == {}


@pytest.mark.parametrize("is_started", [True, False])
def test_it_can_be_stopped_twice_by_several_threads_and_soon(peers: Peers, is_started: bool) -> None:
    alice, bob = peers.make("alice"), peers.start("bob")
    if is_started:
        alice.start()
    alice.connect(peers.place(bob))
    threads = [threading.Thread(target=alice.stop) for _ in range(3)]

    def stop() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5 * UNIT)
        alice.stop()

    assert duration(stop) < ROUND_THE_BUS + 0.1


def test_with_dead_peers_it_stops_as_soon(peers: Peers) -> None:
    alice = peers.start("alice")
    silent = peers.channel()
    alice.connect(peers.place(silent.address))
    alice.connect(peers.place("tcp://127.0.0.1:1"))
    for name in ("bob", "carol"):
        put(alice, name)
    arrival = eventually(lambda: silent.receive(5 * UNIT))
    silent.send(arrival.peer, frames.encode([(Open("bob", "life", 1, 1), None)]))
    eventually(alice.peers)

    assert duration(alice.stop) < ROUND_THE_BUS


def test_a_listener_may_stop_it(peers: Peers) -> None:
    class Stopping(Notes):
        def on_connect(self, peer: PeerInfo) -> None:
            alice.stop()

    alice, bob = peers.start("alice", Stopping()), peers.start("bob")

    alice.connect(peers.place(bob))

    eventually(lambda: alice._channel.closed)


def test_who_stops_in_the_midst_of_its_own_doing_as_signal_handlers_may_does_not_wait_for_itself(peers: Peers) -> None:
    class Interrupted(Tag):
        def concluded(self, state: str, reason: str) -> None:
            alice.stop()

    alice = peers.start("alice")
    tag = Interrupted()
    alice.put("bob", "messages", MESSAGE, tag)

    assert duration(lambda: alice.withdraw("bob", tag)) < UNIT
    eventually(lambda: alice._channel.closed)


def test_a_signal_handler_may_stop_it(peers: Peers) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")
    answering(bob)
    alice.connect(peers.place(bob))
    before = signal.signal(signal.SIGUSR1, lambda *_: alice.stop())
    try:
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        killer.start()
        while not alice._channel.closed:
            alice.put("bob", "messages", MESSAGE)
        killer.join(5 * UNIT)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert duration(alice.stop) < UNIT


def test_what_a_signal_handler_puts_in_the_midst_of_sending_is_sent_after_that(zmq_peers: Peers) -> None:
    class Interrupted:
        def __init__(self, channel: LinkChannel) -> None:
            self._channel = channel
            self.depths = [0]

        def __getattr__(self, name: str) -> object:
            return getattr(self._channel, name)

        def send(self, peer: Hashable, bundle: bytes) -> bool:
            if threading.current_thread() is threading.main_thread():
                self.depths.append(self.depths[-1] + 1)
                if len(tags) < 10:
                    tags.append(put(alice))
                self.depths.append(self.depths[-1] - 1)
            return self._channel.send(peer, bundle)

    tags: list[Tag] = []
    channel = Interrupted(zmq_peers.channel())
    alice, bob = LinkPeer("alice", channel, Notes()).start(), zmq_peers.start("bob")  # type: ignore[arg-type]
    with closing(channel), ExitStack() as stopping:  # type: ignore[type-var]
        stopping.callback(alice.stop)
        answering(bob)
        alice.connect(zmq_peers.place(bob))
        eventually(alice.peers)

        eventually(lambda: put(alice) and len(tags) == 10)

        for tag in tags:
            eventually(accepted(tag))
        assert max(channel.depths) == 1


def test_in_the_child_of_a_fork_it_is_of_no_use(peers: Peers) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")
    bob.open_target("messages", lambda: None)
    put(alice)
    alice.connect(peers.place(bob))
    delivery, _ = taken(bob)

    with bob._lock:  # as its thread may have done at the fork
        told = [
            in_child(function)
            for function in (
                lambda: bob.put("alice", "messages", MESSAGE),
                lambda: bob.take("messages"),
                bob.peers,
                bob.pending,
                lambda: bob.settle(delivery, ACCEPTED),
            )
        ]

    assert told == [UsedAfterFork.__name__] * 4 + ["False"]
    assert bob.settle(delivery, ACCEPTED)


def test_a_listener_that_raises_is_told_of_and_the_talk_goes_on(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Notes):
        def on_connect(self, peer: PeerInfo) -> None:
            raise ZeroDivisionError

        on_wanted = on_connect  # type: ignore[assignment]
        on_outcome = on_connect  # type: ignore[assignment]

    alice, bob = peers.start("alice", Failing()), peers.start("bob")
    answering(bob)

    tags = [put(alice)]
    alice.connect(peers.place(bob))
    eventually(accepted(tags[0]))
    tags.append(put(alice))
    eventually(accepted(tags[1]))

    assert "messenger alice: Wanted was not taken note of" in caplog.text


def test_a_listener_that_leaves_somebody_is_told_soon_that_it_did(peers: Peers) -> None:
    class Leaving(Notes):
        def on_outcome(self, concluded: Concluded) -> None:
            alice.disconnect(peers.place(bob))

    notes = Leaving()
    alice, bob = peers.start("alice", notes), peers.start("bob")
    alice.connect(peers.place(bob))
    eventually(lambda: notes.connected)

    put(alice, "nobody", ttl=0.01)

    eventually(lambda: notes.disconnected == [("bob", "it was left")], UNIT)


@pytest.mark.parametrize("target", ["", "two words", "\ud800", "x" * 201])
def test_a_target_that_others_could_not_read_is_refused(peers: Peers, target: str) -> None:
    alice = peers.start("alice")

    with pytest.raises(ConfigurationError, match="target"):
        alice.put("bob", target, MESSAGE)
    with pytest.raises(ConfigurationError, match="target"):
        alice.open_target(target, lambda: None)


def test_a_target_that_raises_is_told_of_and_the_talk_goes_on(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")

    def fail() -> None:
        raise ZeroDivisionError

    bob.open_target("messages", fail)
    tag = put(alice)
    alice.connect(peers.place(bob))
    delivery, _ = taken(bob)
    bob.settle(delivery, ACCEPTED)

    eventually(accepted(tag))
    eventually(lambda: "messenger bob: Arrived was not taken note of" in caplog.text)


def test_rubbish_is_dropped_and_told_of_once(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    alice, bob = peers.start("alice"), peers.start("bob")
    answering(bob)
    stranger = peers.channel(None)
    stranger.connect(peers.place(bob))
    eventually(lambda: stranger.receive(5 * UNIT))
    for rubbish in (
        b"\n",
        b"\xff\nx",
        b'[[{"frame": "open"}], []]\n',
        b"[" * 100_000,
        b'[[{"frame":"transfer"}],[1]]\nx',
    ):
        assert stranger.send(peers.place(bob), rubbish)

    tag = put(alice)
    alice.connect(peers.place(bob))
    eventually(accepted(tag))

    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert told[0].startswith("messenger bob dropped what came from a peer: not a bundle of link frames")


def test_who_speaks_another_version_is_told_so_and_that_is_logged(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    bob, stranger = peers.start("bob"), peers.channel(None)
    stranger.connect(peers.place(bob))
    eventually(lambda: stranger.receive(5 * UNIT))

    stranger.send(peers.place(bob), frames.encode([(Open("eve", "life", 2, 1), None)]))

    def is_told() -> bool:
        arrival = stranger.receive(5 * UNIT)
        spoken = frames.decode_conversation(arrival.bundle) if arrival and arrival.bundle else []
        return (Close("version 1 of the protocol is spoken here, not 2"), None) in spoken

    eventually(is_told)
    eventually(lambda: "messenger bob and somebody who came in do not talk: version 1" in caplog.text)


def test_a_silent_peer_is_noticed(peers: Peers) -> None:
    notes = Notes()
    bob, silent = peers.start("bob", notes, silence=0.4), peers.channel(None)
    silent.connect(peers.place(bob))
    eventually(lambda: silent.receive(5 * UNIT))

    silent.send(peers.place(bob), frames.encode([(Open("alice", "life", 1, 1), None)]))

    eventually(lambda: notes.disconnected == [("alice", "it was silent for 0.4 s")])


class FailingShelf(Queue):
    """Cannot keep anything."""

    def commit(self) -> None:
        raise JournalError("the disk is on fire")


class Unlucky(LinkPeer):
    """Cannot keep what is for carol."""

    def _open_shelf(self, peer: str, target: str, is_persistent: bool, name: str) -> tuple[Shelf, int]:
        return (
            (FailingShelf(name, 2**20), 0)
            if peer == "carol"
            else super()._open_shelf(peer, target, is_persistent, name)
        )


def test_the_trouble_with_what_waits_for_one_does_not_hold_up_another(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob, carol = peers.make("alice", kind=Unlucky).start(), peers.start("bob"), peers.start("carol")
    for peer in (bob, carol):
        answering(peer)
        alice.connect(peers.place(peer))

    put(alice, "carol")
    tags = [put(alice) for _ in range(3)]

    for tag in tags:
        eventually(accepted(tag), 0.9 * UNIT)
    eventually(lambda: "what waits for carol cannot be sent now, will try again: the disk is on fire" in caplog.text)


def test_what_is_persistent_needs_a_directory(peers: Peers) -> None:
    alice = peers.start("alice")

    with pytest.raises(ConfigurationError, match="alice has no journal"):
        put(alice, persistent=True)

    assert alice.pending() == 0


def test_what_is_persistent_is_taken_up_by_the_next_life(peers: Peers, tmp_path: Path) -> None:
    alice = peers.start("alice", directory=tmp_path)
    for name in ("bob", "bob", "tcp://10.0.0.1:1"):
        put(alice, name, persistent=True)
    put(alice, "bob")
    alice.stop()
    notes = Notes()

    alice, bob = peers.start("alice", notes, directory=tmp_path), peers.start("bob")
    accepted_by_bob = answering(bob)
    alice.connect(peers.place(bob))

    eventually(lambda: [(one.peer, one.tag, one.state) for one in notes.outcomes] == [("bob", None, "accepted")] * 2)
    assert alice.left_over == 3
    assert accepted_by_bob == [MESSAGE, MESSAGE]
    assert alice.pending() == alice.pending("tcp://10.0.0.1:1") == 1


def test_what_is_persistent_is_kept_no_longer_than_the_setting_says(peers: Peers, tmp_path: Path) -> None:
    with config.set(journal_max_age=0.05):
        alice = peers.start("alice", directory=tmp_path)
        tags = [put(alice, persistent=True), put(alice, persistent=True, ttl=3600.0), put(alice)]

        eventually(lambda: [tag.state for tag in tags] == ["expired", "expired", ""])


def test_of_a_start_that_fails_nothing_is_left(peers: Peers, tmp_path: Path) -> None:
    alice = peers.start("alice", directory=tmp_path)
    for name in ("bob", "carol"):
        put(alice, name, persistent=True)
    alice.stop()
    broken = sorted(tmp_path.glob("*.journal"))[-1]
    whole = broken.read_bytes()
    broken.write_bytes(b"not a journal" * 1000)

    with pytest.raises(JournalError):
        peers.start("alice", directory=tmp_path)
    broken.write_bytes(whole)

    assert peers.start("alice", directory=tmp_path).pending("bob") == 1


def test_one_that_was_never_started_gives_its_journals_back(peers: Peers, tmp_path: Path) -> None:
    alice = peers.make("alice", directory=tmp_path)
    put(alice, persistent=True)

    alice.stop()

    assert peers.start("alice", directory=tmp_path).pending() == 1


class Watched(MemoryJournal):
    """Notes when it is looked after."""

    def __init__(self) -> None:
        super().__init__()
        self.expired = self.tidied = 0

    def expire(self, wall: float, now: float) -> dict[str, int]:
        self.expired += 1
        return dict(super().expire(wall, now))

    def tidy(self) -> None:
        self.tidied += 1


def test_journals_are_looked_after(peers: Peers) -> None:
    journal = Watched()

    class Watching(LinkPeer):
        def _open_shelf(self, peer: str, target: str, is_persistent: bool, name: str) -> tuple[Shelf, int]:
            return journal, 0

    alice = peers.make("alice", kind=Watching).start()

    put(alice, persistent=True)

    eventually(lambda: journal.expired == 1 and journal.tidied > 0)


PUTTER = """
import sys, time
from pathlib import Path
from posttroll.backends.registry import find_backend
from posttroll.link_peer import LinkPeer
from posttroll.settings import Ports

class Nobody:
    def on_wanted(self, peer): pass
    def on_connect(self, peer): pass
    def on_disconnect(self, peer, reason): pass
    def on_outcome(self, concluded): pass

directory, count, address = sys.argv[1:]
channel = find_backend("unsecure_zmq").open_links("tcp://127.0.0.1:0", Ports.read())
peer = LinkPeer("alice", channel, Nobody(), Path(directory)).start()
for number in range(int(count)):
    peer.put("bob", "messages", b"pytroll://1b %d" % number, persistent=True)
if address:
    from posttroll.backends.base import Peer
    peer.connect(Peer(address, "unsecure_zmq"))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def zmq_peers() -> Iterator[Peers]:
    """Stop all that was made at the end; over ZeroMQ."""
    with ExitStack() as resources:
        yield Peers(find_backend("unsecure_zmq"), resources)


@pytest.fixture
def putter(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run processes that put persistent messages, until the end."""
    processes: list[subprocess.Popen[str]] = []

    def run(count: int, address: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PUTTER, str(tmp_path), str(count), address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate(timeout=10 * UNIT)


def test_what_was_put_outlives_a_kill(
    zmq_peers: Peers, tmp_path: Path, putter: Callable[..., subprocess.Popen[str]]
) -> None:
    process = putter(100)
    process.kill()
    process.wait(10 * UNIT)

    alice, bob = zmq_peers.start("alice", directory=tmp_path), zmq_peers.start("bob")
    came = answering(bob)
    alice.connect(zmq_peers.place(bob))

    eventually(lambda: alice.pending() == 0, 10 * UNIT)
    assert came == [b"pytroll://1b %d" % number for number in range(100)]


def test_a_directory_that_another_process_uses_is_a_clear_error(
    zmq_peers: Peers, tmp_path: Path, putter: Callable[..., subprocess.Popen[str]]
) -> None:
    process = putter(1)

    with pytest.raises(JournalInUse, match=f"in use by process {process.pid}; end that, or choose another path"):
        zmq_peers.start("alice", directory=tmp_path)


def test_the_silence_of_a_frozen_process_is_noticed_and_its_return_too(
    zmq_peers: Peers, putter: Callable[..., subprocess.Popen[str]]
) -> None:
    notes = Notes()
    bob = zmq_peers.start("bob", notes, silence=0.8 * UNIT)
    process = putter(0, bob.address)
    eventually(lambda: len(notes.connected) == 1)

    process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: [name for name, _ in notes.disconnected] == ["alice"])
        told = notes.disconnected[0][1]
    finally:
        process.send_signal(signal.SIGCONT)

    assert told.startswith("it was silent for")
    eventually(lambda: len(notes.connected) == 2)


def test_the_bandwidth_is_kept(peers: Peers) -> None:
    rate, count, size = 200_000.0, 60, 10_000
    alice, bob = peers.start("alice", bandwidth=rate), peers.start("bob")
    came: Sequence[bytes] = answering(bob)
    alice.connect(peers.place(bob))
    eventually(alice.peers)
    begin = time.monotonic()

    for _ in range(count):
        alice.put("bob", "messages", bytes(size))
    eventually(lambda: len(came) == count, 30 * UNIT)

    assert 0.8 * rate < count * size / (time.monotonic() - begin) < 1.2 * rate
