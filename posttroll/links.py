"""Moving frames between links and a transport.

A `LinkServer` serves the consumers of a publisher's journal, from a thread; a `LinkClient` attaches one consumer to the
journals of many publishers, from a thread or, as any `Engine`, driven by a loop. The rules are in
`posttroll.protocol.link`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from posttroll.backends.base import Arrival, LinkChannel, Peer
from posttroll.errors import JournalError, RemoteProtocolError
from posttroll.forks import check_process, is_this_process
from posttroll.journal.base import Journal
from posttroll.protocol import frames
from posttroll.protocol.drops import Drops
from posttroll.protocol.frames import UNKNOWN_SESSION, Attach, Loaded, Outcome, Spoken
from posttroll.protocol.link import Delivery, Receiver
from posttroll.protocol.node import Node
from posttroll.protocol.source import Source
from posttroll.threads import Worker, is_held_here

__all__ = ["LONGEST_TURN", "PAUSE_AFTER_TROUBLE", "Engine", "LinkClient", "LinkServer", "arrivals", "by_peer"]

logger = logging.getLogger(__name__)

LONGEST_TURN = 0.005
"""Seconds that an engine takes in what comes before it does the rest of its turn."""

PAUSE_AFTER_TROUBLE = 1.0
"""Seconds until a turn is tried again."""

_MOST_IN_A_TURN = 100
# What comes in quick succession shares a transaction, which others have to wait for.
_BETWEEN_TURNS = 0.002
_EXPIRY_INTERVAL = 10.0
_PATIENCE = 10.0
_LARGE_BUNDLE = 2**18
_LONGEST_SILENCE = 0.02
_MOST_UNTOLD = 50


class LinkServer:
    """Serves the consumers of a journal, from a thread of its own.

    `on_expired` is called, in that thread, with a consumer and how many messages it will not get because they are too
    old.
    """

    def __init__(
        self,
        journal: Journal,
        channel: LinkChannel,
        name: str,
        on_expired: Callable[[str, int], None],
        max_deliveries: int,
    ) -> None:
        self.address = channel.address
        self._journal = journal
        self._channel = channel
        self._name = name
        self._on_expired = on_expired
        self._max_deliveries = max_deliveries
        self._drops = Drops()
        self._node = Node(uuid.uuid4().hex, journal.identity, self._open_source)
        self._expires_at = time.monotonic()
        self._spoke_at = 0.0
        self._is_hungry = False
        self._worker = Worker(f"posttroll-link-{name}", self._run, wake=channel.wake)

    def start(self) -> LinkServer:
        """Begin to serve."""
        self._worker.start()
        return self

    def appended(self) -> None:
        """Have a new message in the journal sent on; costs nothing while there is nothing to do."""
        if self._is_hungry or self._journal.is_untidy:
            self._is_hungry = False
            self._channel.wake()

    def stop(self, *, waits: bool = True) -> None:
        """End serving, from any thread; harmless when stopped. What is not settled stays in the journal.

        Who holds what the thread may need, as it was interrupted by a signal, has it end later: `waits` is False.
        """
        try:
            self._worker.stop(5.0 if waits else 0.0)
        finally:
            self._channel.close()

    def _open_source(self, attach: Attach, key: str) -> Source:
        try:
            source = self._find_source(attach, key)
        except (JournalError, PermissionError, ValueError) as error:
            if self._drops.add("refused", time.monotonic()):
                logger.warning("publisher %s refused consumer %s: %s", self._name, attach.consumer, error)
            raise PermissionError(str(error)) from error
        logger.info("publisher %s: consumer %s is attached", self._name, attach.consumer)
        return source

    def _find_source(self, attach: Attach, key: str) -> Source:
        if attach.distribution_mode == "copy":
            return self._journal.open_replay(attach.topics, attach.start_at, attach.until, attach.after)
        return self._journal.open_source(
            attach.consumer, attach.topics, attach.start_at, time.time(), key, self._max_deliveries
        )

    def _run(self, worker: Worker) -> None:
        while not worker.stopping and not self._channel.closed:
            with self._told_of_trouble(worker):
                moments = [self._expires_at, self._node.next_timeout()]
                self._listen(min(moment for moment in moments if moment is not None))
                worker.wait(max(0.0, self._spoke_at + _BETWEEN_TURNS - time.monotonic()))
                self._speak(time.monotonic())
        with self._told_of_trouble(worker):  # what was settled just before the end need not come again
            self._listen(time.monotonic())
            self._node.save()
            self._journal.commit()

    @contextmanager
    def _told_of_trouble(self, worker: Worker) -> Iterator[None]:
        try:
            yield
        except JournalError as error:
            if not worker.stopping and self._drops.add("journal", time.monotonic()):
                logger.error("publisher %s cannot serve its consumers, will try again: %s", self._name, error)
            worker.wait(PAUSE_AFTER_TROUBLE)
        except Exception:
            if not worker.stopping and self._drops.add("trouble", time.monotonic()):
                logger.exception("publisher %s has trouble with its links, will try again", self._name)
            worker.wait(PAUSE_AFTER_TROUBLE)

    def _listen(self, deadline: float) -> None:
        for arrival in arrivals(self._channel, deadline):
            now = time.monotonic()
            if arrival.bundle:
                for frame, _ in self._decode(arrival, now):
                    self._node.receive(frame, arrival.peer, now, arrival.key)
            elif not arrival.connected:
                self._node.disconnected(arrival.peer, now)

    def _decode(self, arrival: Arrival, now: float) -> Sequence[Loaded]:
        try:
            return frames.decode(arrival.bundle)
        except RemoteProtocolError as error:
            if self._drops.add("not a link frame", now):
                logger.warning("publisher %s dropped what came on its link: %s", self._name, error)
            return ()

    def _speak(self, now: float) -> None:
        self._spoke_at = now
        if now >= self._expires_at:
            self._expires_at = now + _EXPIRY_INTERVAL
            self._tell_expired(self._journal.expire(time.time(), now).items())
        self._is_hungry = True  # before the journal is read, so that what is appended from here on wakes this thread
        loaded = self._node.frames_to_send(now, time.time())
        self._is_hungry = self._node.is_hungry
        self._journal.commit()
        for peer, bundle in by_peer(loaded):
            self._channel.send(peer, frames.encode(bundle))
        self._tell_expired(self._node.take_expired().items())
        for consumer, sequence, reason in self._node.take_aside():
            if self._drops.add("set aside", now):
                logger.warning(
                    "publisher %s: message %d is set aside for consumer %s: %s", self._name, sequence, consumer, reason
                )
        self._journal.tidy()

    def _tell_expired(self, expired: Iterable[tuple[str, int]]) -> None:
        for consumer, count in expired:
            self._on_expired(consumer, count)


class Engine(ABC):
    """Talks over a channel in turns: its own thread waits in them, or else a task of a loop waits between them.

    A task does not `start` it, as that is for the thread. `trouble` is what the log says when a turn fails.
    """

    def __init__(self, name: str, channel: LinkChannel, trouble: str) -> None:
        self.name = name
        self._channel = channel
        self._trouble = trouble
        self._drops = Drops()
        self._process = os.getpid()
        self._worker = Worker(name, self._run, wake=channel.wake)

    @abstractmethod
    def turn(self, deadline: float) -> bool:
        """Take in what has come, or comes until the deadline, and send what is due; return whether anything came.

        There may be more then. Nothing is waited for if the deadline is over.
        """

    @abstractmethod
    def next_timeout(self) -> float:
        """Return when the next turn is due, though nothing comes; what makes it due earlier wakes the channel."""

    @abstractmethod
    def leave(self) -> None:
        """Take leave of all, as the last thing but turns, for as long as `is_leaving`."""

    @property
    @abstractmethod
    def is_leaving(self) -> bool:
        """Whether there are answers to come, after `leave`."""

    def tell_trouble(self, error: Exception) -> None:
        """Log what ended a turn, now and then."""
        if not self._channel.closed and self._drops.add("trouble", time.monotonic()):
            logger.error("%s, will try again", self._trouble, exc_info=error)

    def _run(self, worker: Worker) -> None:
        try:
            while not worker.stopping and not self._channel.closed:
                try:
                    self.turn(self.next_timeout())
                except Exception as error:
                    self.tell_trouble(error)
                    worker.wait(PAUSE_AFTER_TROUBLE)
            self.leave()
            while self.is_leaving:
                self.turn(self.next_timeout())
        finally:
            self._channel.close()


@dataclass(eq=False)
class _Attachment:
    """A receiver, where its sender may be, and where it was last heard."""

    receiver: Receiver
    peers: list[Peer] = field(default_factory=list)
    speaks_to: Hashable = None
    silent_since: float = 0.0

    def addressees(self) -> Sequence[Hashable]:
        """Return whom to tell: all who may be the sender, until one has answered."""
        return [self.speaks_to] if self.receiver.state == "attached" else self.peers


class LinkClient(Engine):
    """Attaches a consumer to journals and hands over what they send.

    `on_news` is called, in a turn, when there is something to take, or an attachment has ended.
    `make_receiver` returns the receiver of a new attachment; its argument is the name that it is to have.
    """

    def __init__(
        self,
        channel: LinkChannel,
        consumer: str,
        make_receiver: Callable[[str], Receiver],
        on_news: Callable[[], None],
    ) -> None:
        super().__init__(f"posttroll-link-{consumer}", channel, f"consumer {consumer} has trouble with its links")
        self._consumer = consumer
        self._make_receiver = make_receiver
        self._on_news = on_news
        self._lock = threading.RLock()  # a signal handler may stop what it interrupts
        self._attachments: dict[str, _Attachment] = {}
        self._by_peer: dict[Hashable, _Attachment] = {}
        self._untold = 0
        self._tell_by = 0.0

    def start(self) -> LinkClient:
        """Begin to receive, in a thread."""
        self._worker.start()
        return self

    @property
    def is_attached_to_any(self) -> bool:
        """Whether there is a journal to receive from, now or when its publisher is back."""
        return bool(self._attachments)

    def connect(self, peer: Peer, journal: str) -> None:
        """Attach to a journal whose publisher is at an address; if it is attached, look for it there too."""
        with self._lock:
            attachment = self._attachments.get(journal)
            if attachment is None:
                attachment = _Attachment(self._make_receiver(uuid.uuid4().hex), silent_since=time.monotonic())
                self._attachments[journal] = attachment
            left = [one for one in attachment.peers if one != peer] if attachment.receiver.is_leaving else []
            attachment.receiver.attach(time.monotonic())
            self._leave(peer)
            attachment.peers.append(peer)
            self._by_peer[peer] = attachment
        for one in left:
            self.part(one)
        try:
            self._channel.connect(peer)
        except BaseException:
            self.part(peer)
            raise
        self._channel.wake()

    def part(self, peer: Peer) -> None:
        """Look for a publisher no longer at an address; what it sent stays, to be settled where it turns up again."""
        with self._lock:
            self._leave(peer)
        self._channel.disconnect(peer)
        self._channel.wake()

    def _leave(self, peer: Peer) -> None:
        attachment = self._by_peer.pop(peer, None)
        if attachment is not None:
            attachment.peers.remove(peer)
            if attachment.speaks_to == peer:
                attachment.receiver.disconnected(time.monotonic())

    def disconnect(self, peer: Peer) -> None:
        """Detach from the journal of the publisher at an address: what is not settled is released.

        If the journal has other addresses, it is only looked for there from now on.
        """
        with self._lock:
            attachment = self._by_peer.get(peer)
            is_last = attachment is not None and attachment.peers == [peer]
            if attachment is not None and is_last:
                attachment.receiver.detach()
        if is_last:
            self._channel.wake()
        else:
            self.part(peer)

    def take(self) -> Delivery | None:
        """Return the next delivery, which has to be settled; None if there is none now; `UsedAfterFork`."""
        check_process(self._process)
        with self._lock:
            for journal, attachment in self._attachments.items():
                delivery = attachment.receiver.take()
                if delivery is not None:
                    if len(self._attachments) > 1:  # the others come first now
                        self._attachments[journal] = self._attachments.pop(journal)
                    return delivery
            if self._untold:
                self._tell_by = 0.0
                self._channel.wake()
        return None

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Tell the publisher what became of a delivery; return False if it is no longer this consumer's.

        That is told with others, soon: at once if the application has nothing more to do. In the child of a fork
        nothing is this consumer's.
        """
        if not is_this_process(self._process):  # where nobody gives the lock back, if it was held
            return False
        with self._lock:
            is_ours = any(one.receiver.settle(delivery, outcome) for one in self._attachments.values())
            self._untold += 1
            if self._untold == 1:
                self._tell_by = time.monotonic() + _LONGEST_SILENCE
            elif self._untold == _MOST_UNTOLD:
                self._tell_by = 0.0
            if self._untold in (1, _MOST_UNTOLD):
                self._channel.wake()
        return is_ours

    def stop(self) -> None:
        """Release what is not settled and detach from all, from any thread; harmless when stopped."""
        if is_held_here(self._lock):  # by whom a signal interrupted: the thread needs it before it can end
            self._worker.stop(timeout=0.0)
            return
        try:
            self._worker.stop()
        finally:
            self._channel.close()

    def leave(self) -> None:
        """Detach from all, without waiting for answers."""
        with self._lock:
            for attachment in self._attachments.values():
                attachment.receiver.detach()
        self._speak(time.monotonic())

    @property
    def is_leaving(self) -> bool:
        """Not at all, as no answers are waited for."""
        return False

    def turn(self, deadline: float) -> bool:
        """Take in what has come, and tell what is to be told."""
        has_come = has_news = False
        for arrival in arrivals(self._channel, deadline, LONGEST_TURN):
            has_come = True
            has_news |= self._take_in(arrival, time.monotonic())
        if not self._untold or time.monotonic() >= self._tell_by:
            has_news |= self._speak(time.monotonic())
        if has_news:
            self._on_news()
        return has_come

    def next_timeout(self) -> float:
        """Return when something is to be told again."""
        with self._lock:
            moments = [one.receiver.next_timeout() for one in self._attachments.values() if one.peers]
            if self._untold:
                moments.append(self._tell_by)
        return min(moments, default=math.inf)

    def _take_in(self, arrival: Arrival, now: float) -> bool:
        """Take note of what came; return whether the application is to look."""
        with self._lock:
            attachment = self._by_peer.get(arrival.peer)
            if attachment is None:
                return False
            if arrival.bundle:
                return self._receive(attachment, arrival, now)
            if arrival.connected:
                attachment.receiver.connected(now)
            elif attachment.speaks_to == arrival.peer:
                attachment.receiver.disconnected(now)
        return False

    def _receive(self, attachment: _Attachment, arrival: Arrival, now: float) -> bool:
        try:
            bundle = frames.decode(arrival.bundle)
        except RemoteProtocolError as error:
            if self._drops.add("not a link frame", now):
                logger.warning("consumer %s dropped what came from %s: %s", self._consumer, arrival.peer, error)
            return False
        receiver = attachment.receiver
        for frame, payload in bundle:
            was_attached = receiver.state == "attached"
            receiver.receive(frame, payload, now)
            if receiver.state == "attached" and not was_attached:
                attachment.speaks_to = arrival.peer
                receiver.key, receiver.address = arrival.key, _place(arrival.peer)
                logger.info("consumer %s is attached at %s", self._consumer, _place(arrival.peer))
            elif receiver.refusal not in ("", UNKNOWN_SESSION) and self._drops.add(f"refused by {arrival.peer}", now):
                place, refusal = _place(arrival.peer), receiver.refusal
                logger.error("consumer %s is refused at %s, will try again: %s", self._consumer, place, refusal)
        return any(payload is not None for _, payload in bundle)

    def _speak(self, now: float) -> bool:
        """Tell the senders what they are to be told; return whether an attachment has ended."""
        with self._lock:
            self._untold = 0
            for attachment in self._attachments.values():
                addressees = attachment.addressees()
                self._tell_silence(attachment, now)
                bundle = attachment.receiver.frames_to_send(now)
                if bundle:
                    encoded = frames.encode(bundle)
                    for peer in addressees:
                        self._channel.send(peer, encoded)
            return self._drop_ended()

    def _tell_silence(self, attachment: _Attachment, now: float) -> None:
        """Log now and then that there is no answer, where there ought to be one."""
        if attachment.receiver.state != "attaching" or not attachment.peers:
            attachment.silent_since = now
        elif now - attachment.silent_since >= _PATIENCE and self._drops.add(f"silent {attachment.peers[0]}", now):
            places = ", ".join(peer.uri for peer in attachment.peers)
            silence = now - attachment.silent_since
            logger.warning("consumer %s: no answer from %s for %.0f s", self._consumer, places, silence)

    def _drop_ended(self) -> bool:
        """Forget who has detached, and who lost its publisher and owes it nothing; return whether there is one."""
        ended = [
            (journal, attachment)
            for journal, attachment in self._attachments.items()
            if attachment.receiver.state == "detached" or not (attachment.peers or attachment.receiver.unsettled)
        ]
        for journal, attachment in ended:
            del self._attachments[journal]
            for peer in attachment.peers:
                del self._by_peer[peer]
                self._channel.disconnect(peer)
        return bool(ended)


def arrivals(channel: LinkChannel, deadline: float, longest: float = math.inf) -> Iterator[Arrival]:
    """Wait for something to arrive until the deadline; give that and what came with it, but not without end.

    Nothing more is given after `longest` seconds.
    """
    arrival = channel.receive(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    if arrival is None:  # as it was woken, perhaps, and again and again, which is no reason to hear nobody
        arrival = channel.receive(0)
    if arrival is not None:
        end = time.monotonic() + longest
        yield arrival
        more = iter(lambda: channel.receive(0) if time.monotonic() < end else None, None)
        yield from itertools.islice(more, _MOST_IN_A_TURN - 1)


def _place(peer: Hashable) -> str:
    return peer.uri if isinstance(peer, Peer) else str(peer)


def by_peer(loaded: Iterable[tuple[Hashable, Spoken]]) -> Iterator[tuple[Hashable, list[Spoken]]]:
    """Give what is for the same peer together, but no more than fits into a bundle."""
    bundles: dict[Hashable, list[Spoken]] = {}
    sizes: Counter[Hashable] = Counter()
    for peer, (frame, payload) in loaded:
        if sizes[peer] > _LARGE_BUNDLE:
            yield peer, bundles.pop(peer)
            del sizes[peer]
        bundles.setdefault(peer, []).append((frame, payload))
        sizes[peer] += len(payload or b"")
    yield from bundles.items()
