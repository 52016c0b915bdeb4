"""Talking with other containers, over one channel, whoever connected to whom."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from posttroll.backends.base import Arrival, LinkChannel, Peer
from posttroll.errors import ConfigurationError, JournalError, RemoteProtocolError
from posttroll.forks import check_process, is_this_process
from posttroll.journal.opening import file_name, journal_opener
from posttroll.links import LONGEST_TURN, Engine, arrivals, by_peer
from posttroll.protocol import frames
from posttroll.protocol.container import (
    Arrived,
    Connected,
    Container,
    Disconnected,
    Event,
    Refused,
    Troubled,
    Unwanted,
    Wanted,
)
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import Close, Outcome, Spoken
from posttroll.protocol.link import Delivery, Patience
from posttroll.protocol.outbound import Concluded, Tag
from posttroll.protocol.queue import Queue, Shelf
from posttroll.settings import read
from posttroll.threads import is_held_here

__all__ = ["LinkPeer", "Listener"]

logger = logging.getLogger(__name__)

# What is put faster than this is left to the thread, which sends it together.
_QUICK_SUCCESSION = 0.0002
_FAREWELL_TIMEOUT = 0.1
_LARGEST_QUEUE = 256 * 2**20
_TARGET = re.compile(r"[\w.-]{1,200}")


class Listener(Protocol):
    """Who is told what happens, in a turn of a `LinkPeer`, which has to wait meanwhile."""

    def on_wanted(self, peer: str) -> None:
        """There is something for a peer that is not connected: it is to be found."""

    def on_unwanted(self, peer: str) -> None:
        """There is nothing more for a peer that was to be found and did not come."""

    def on_connect(self, peer: PeerInfo) -> None:
        """A peer is there."""

    def on_disconnect(self, peer: PeerInfo, reason: str) -> None:
        """A peer is there no longer."""

    def on_outcome(self, concluded: Concluded) -> None:
        """A message was accepted or rejected, or has expired."""


class LinkPeer(Engine):
    """Talks with other containers under a name.

    `directory`: where to keep what is to outlive the process. `silence`: seconds until a quiet peer is taken for gone.
    `bandwidth`: the most bytes/s to each of them.
    """

    def __init__(
        self,
        name: str,
        channel: LinkChannel,
        listener: Listener,
        directory: Path | None = None,
        silence: float = 10.0,
        bandwidth: float | None = None,
    ) -> None:
        super().__init__(f"posttroll-peer-{name}", channel, f"messenger {name} has trouble")
        self.address = channel.address
        self.left_over = 0
        """How many messages there were to be sent at the start."""
        self._name = name
        self._directory = directory
        self._lock = threading.RLock()  # a signal handler may stop what it interrupts
        self._placing: set[int] = set()
        self._sleeps_until = self._spoke_at = -math.inf
        self._max_age: float | None = read("journal_max_age") or None
        self._known: set[Peer] = set()
        self._on_arrival: dict[str, Callable[[], None]] = {}
        patience = Patience(interval=min(2.0, silence / 4), silence=silence)
        self._container = Container(name, uuid.uuid4().hex, self._open_shelf, patience, bandwidth)
        self._unanswered: set[Hashable] = set()
        self._leaves_at = -math.inf
        self._tellers: dict[type[Event], Callable[[Any], None]] = {
            Arrived: lambda event: self._on_arrival[event.target](),
            Concluded: listener.on_outcome,
            Connected: lambda event: listener.on_connect(event.peer),
            Disconnected: lambda event: listener.on_disconnect(event.peer, event.reason),
            Refused: self._tell_refusal,
            Troubled: self._tell_trouble,
            Unwanted: lambda event: listener.on_unwanted(event.peer),
            Wanted: lambda event: listener.on_wanted(event.peer),
        }

    def start(self) -> LinkPeer:
        """Begin to talk, in a thread, with what a former life has left to be sent.

        `JournalError`, and it is stopped then.
        """
        try:
            if self._directory is not None:
                _make_directory(self._directory)
                for path in sorted(self._directory.glob("*.journal")):
                    self._take_up(path)
        except BaseException:
            self.stop()
            raise
        self.left_over = self._container.pending()
        self._worker.start()
        return self

    def _take_up(self, path: Path) -> None:
        """Go on with what a former life kept in a file."""
        with closing(journal_opener(path, self._name)()) as journal:
            kept = [consumer.name for consumer in journal.consumers() if consumer.pending]
        for name in kept:
            target, _, peer = name.partition(" ")
            self._container.open_outbound(peer, target, time.time(), is_persistent=True)

    def _open_shelf(self, peer: str, target: str, is_persistent: bool, name: str) -> tuple[Shelf, int]:
        _check_target(target)
        if not is_persistent:
            return Queue(name, _LARGEST_QUEUE), 0
        if self._directory is None:
            raise ConfigurationError(f"the messenger {self._name} has no journal to keep what is persistent in")
        path = self._directory / file_name(f"{target} {peer}")
        journal = journal_opener(path, self._name)()
        return journal, sum(consumer.pending for consumer in journal.consumers())

    def stop(self) -> None:
        """Say goodbye, from any thread; harmless when stopped. What is not settled is released."""
        # Who was interrupted by a signal may hold what the thread needs before it can end.
        if is_held_here(self._lock) or threading.get_ident() in self._placing:
            self._worker.stop(timeout=0.0)
            return
        try:
            self._worker.stop()
        finally:
            self._channel.close()
            if is_this_process(self._process):
                with self._lock:
                    self._container.close(time.monotonic())  # as the thread does, if it was ever started

    def open_target(
        self, target: str, on_arrival: Callable[[], None], credit: int = 200, *, is_prompt: bool = True
    ) -> None:
        """Take in what others have for a target, so many deliveries of each at a time.

        `on_arrival` is called, in a turn, when there is something to take. A prompt target tells what
        became of a delivery as soon as there is nothing more to take, another one soon.
        """
        _check_target(target)
        self._on_arrival[target] = on_arrival
        with self._owned() as now:
            self._container.open_target(target, now, credit, is_prompt=is_prompt)

    def take(self, target: str) -> tuple[Delivery, str] | None:
        """Return the next delivery, which has to be settled, and the name of who sent it; None if there is none."""
        check_process(self._process, "the messenger")
        with self._lock:
            taken = self._container.take(target)
            if taken is None:
                self._follow_up(time.monotonic())
        return taken

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Tell who sent it what became of a delivery, soon; return False if it is no longer this container's."""
        if not is_this_process(self._process):  # where nobody gives the lock back, if it was held
            return False
        with self._lock:
            now = time.monotonic()
            is_ours = self._container.settle(delivery, outcome, now)
            self._follow_up(now)
        return is_ours

    def put(
        self,
        peer: str,
        target: str,
        payload: bytes,
        tag: Tag | None = None,
        *,
        ttl: float | None = None,
        persistent: bool = False,
    ) -> None:
        """Have a message given to a peer, which is a name or the address connected to, within `ttl` seconds.

        Never waits for anybody. `JournalFull` and other `JournalError`; `ConfigurationError` without a directory, where
        a message is kept no longer than the setting ``journal_max_age`` says.
        """
        if persistent and self._max_age is not None:
            ttl = self._max_age if ttl is None else min(ttl, self._max_age)
        check_process(self._process, "the messenger")
        with self._lock:
            now = time.monotonic()
            self._container.put(peer, target, payload, tag, now, time.time(), ttl, is_persistent=persistent)
            self._follow_up(now)

    def withdraw(self, peer: str, tag: Tag) -> bool:
        """Take a message for a peer back that nobody has; return whether it was there to be taken."""
        with self._owned():
            return self._container.withdraw(peer, tag)

    def connect(self, peer: Peer) -> None:
        """Connect to a place, now and whenever the connection was cut."""
        with self._owned():
            self._known.add(peer)
        with self._at_the_channel():
            self._channel.connect(peer)

    def disconnect(self, peer: Peer) -> None:
        """Leave a place."""
        with self._owned() as now:
            self._known.discard(peer)  # so that what has come from there already begins nothing anew
            self._container.disconnected(peer, now, "it was left")
        with self._at_the_channel():
            self._channel.disconnect(peer)

    @contextmanager
    def _at_the_channel(self) -> Iterator[None]:
        """Note which thread may hold the channel's lock, without one that the other thread could wait for."""
        thread = threading.get_ident()
        self._placing.add(thread)
        try:
            yield
        finally:
            self._placing.discard(thread)

    def peers(self) -> list[PeerInfo]:
        """Return who is connected."""
        with self._owned():
            return self._container.peers

    def pending(self, peer: str | None = None) -> int:
        """Return how many messages, for all or for one peer, were not settled and have not expired."""
        with self._owned():
            return self._container.pending(peer)

    @contextmanager
    def _owned(self) -> Iterator[float]:
        """Give the time, and see to it that what is done meanwhile has its effect."""
        check_process(self._process, "the messenger")
        with self._lock:
            now = time.monotonic()
            yield now
            self._follow_up(now)

    def _follow_up(self, now: float) -> None:
        """See to it that what was just done has its effect. The lock is held."""
        moment = self._container.next_timeout()
        if self._sleeps_until > now >= max(moment, self._spoke_at + _QUICK_SUCCESSION) and not self._placing:
            self._speak_instead(now)  # as to have the thread wake up takes longer than to do it
        moment = self._next_turn()
        if moment < self._sleeps_until:
            self._sleeps_until = moment
            self._channel.wake()

    def _speak_instead(self, now: float) -> None:
        """Do what the thread would; a signal handler that comes in between must not, but leaves it to this one."""
        sleeps_until, self._sleeps_until = self._sleeps_until, -math.inf
        try:
            self._speak(now)
        finally:
            self._sleeps_until = sleeps_until

    def _next_turn(self) -> float:
        return -math.inf if self._container.has_events else self._container.next_timeout()

    def leave(self) -> None:
        """Say goodbye; ZeroMQ loses what was sent if the connection ends too soon, so wait a moment for the answers."""
        with self._lock:
            farewell = self._container.close(time.monotonic())
            self._send(farewell)
        self._unanswered = {place for place, (frame, _) in farewell if isinstance(frame, Close)}
        self._leaves_at = time.monotonic() + _FAREWELL_TIMEOUT

    @property
    def is_leaving(self) -> bool:
        """Whether to wait for an answer to the farewell."""
        return bool(self._unanswered) and not self._channel.closed and time.monotonic() < self._leaves_at

    def _hear_answers(self, deadline: float) -> bool:
        has_come = False
        for arrival in arrivals(self._channel, deadline, LONGEST_TURN):
            has_come = True
            spoken = self._decode(arrival, time.monotonic())
            if not arrival.bundle or any(isinstance(frame, Close) for frame, _ in spoken):
                self._unanswered.discard(arrival.peer)
        return has_come

    def turn(self, deadline: float) -> bool:
        """Take in what has come, tell of it, and send what is due."""
        if self._unanswered:
            return self._hear_answers(deadline)
        has_come = False
        for arrival in self._arrivals(deadline):
            has_come = True
            self._take_in(arrival, time.monotonic())
            self._tell()  # before more is looked for, as somebody may wait for it
        with self._lock:
            self._sleeps_until = -math.inf
            self._speak(time.monotonic())
        self._tell()
        return has_come

    def next_timeout(self) -> float:
        """Return when there is something to be said, or told; who has something to say before may do so instead."""
        if self._unanswered:
            return self._leaves_at
        with self._lock:
            self._sleeps_until = self._next_turn()
            return self._sleeps_until

    def _arrivals(self, deadline: float) -> Iterator[Arrival]:
        """Wait for something to arrive, and give that and what is known to have come with it."""
        arrival = self._channel.receive(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
        if arrival is None:  # as it was woken, perhaps, and again and again, which is no reason to hear nobody
            arrival = self._channel.receive(0)
        end = time.monotonic() + LONGEST_TURN
        while arrival is not None:
            yield arrival
            arrival = self._channel.receive(0) if self._channel.has_more and time.monotonic() < end else None

    def _speak(self, now: float) -> None:
        self._spoke_at = now
        self._send(self._container.frames_to_send(now, time.time()))

    def _take_in(self, arrival: Arrival, now: float) -> None:
        peer = arrival.peer
        address = peer.uri if isinstance(peer, Peer) else ""
        spoken = self._decode(arrival, now)
        with self._lock:
            if isinstance(peer, Peer) and peer not in self._known:
                return
            if spoken:
                self._container.receive(spoken, peer, address, now, arrival.key)
            elif arrival.connected:
                self._container.connected(peer, address, now)
            elif not arrival.bundle:
                self._container.disconnected(peer, now)

    def _decode(self, arrival: Arrival, now: float) -> Sequence[Spoken]:
        try:
            return frames.decode_conversation(arrival.bundle) if arrival.bundle else ()
        except RemoteProtocolError as error:
            if self._drops.add("not a link frame", now):
                place = arrival.peer.uri if isinstance(arrival.peer, Peer) else "a peer"
                logger.warning("messenger %s dropped what came from %s: %s", self._name, place, error)
            return ()

    def _send(self, loaded: Iterable[tuple[Hashable, Spoken]]) -> None:
        for place, spoken in by_peer(loaded):
            self._channel.send(place, frames.encode(spoken))

    def _tell(self) -> None:
        if not self._container.has_events:
            return
        with self._lock:
            events = self._container.take_events()
        for event in events:
            try:
                self._tellers[type(event)](event)
            except Exception:
                if self._drops.add("listener", time.monotonic()):
                    logger.exception("messenger %s: %s was not taken note of", self._name, type(event).__name__)

    def _tell_refusal(self, refused: Refused) -> None:
        if self._drops.add(f"refused {refused.address}", time.monotonic()):
            place = refused.address or "somebody who came in"
            logger.error("messenger %s and %s do not talk: %s", self._name, place, refused.reason)

    def _tell_trouble(self, troubled: Troubled) -> None:
        if self._drops.add("journal", time.monotonic()):
            logger.error(
                "messenger %s: what waits for %s cannot be sent now, will try again: %s",
                self._name,
                troubled.peer,
                troubled.reason,
            )


def _check_target(name: str) -> None:
    if not _TARGET.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a target: others could not read it")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"cannot make the directory of journals {directory}: {error}") from error
