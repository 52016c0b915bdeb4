"""The backend ``memory``: frames move between the objects of one process, over a bus that misbehaves when asked to."""

from __future__ import annotations

import functools
import itertools
import math
import os
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from posttroll.backends.base import (
    Arrival,
    Batch,
    DatagramReceiver,
    DatagramSender,
    Exchange,
    LinkChannel,
    Peer,
    PublishChannel,
    Question,
    Received,
    ReplyChannel,
    RequestChannel,
    SubscribeChannel,
)
from posttroll.errors import BindFailed, ConnectionLost, TransportError, UsedAfterFork
from posttroll.protocol.topics import overlap
from posttroll.settings import Ports, read
from posttroll.threads import Bell

__all__ = ["Bus", "MemoryBackend", "backend"]

_ADDRESS = re.compile(r"tcp://[^/]+:(?P<port>\d+)|(ipc|inproc)://.+")
_HOST = "127.0.0.1"
_MOST_DATAGRAMS = 10_000
_MOST_BUNDLES = 1000


class Bus:
    """Where channels meet; as lossy, slow and disorderly as asked for, and for the same seed in the same way.

    `loss`, `doubling` and `reordering` are probabilities, `delay` is a mean in seconds of `clock`, which decides
    about nothing else. They strike publications, bundles and datagrams; requests and replies always arrive.
    """

    def __init__(
        self,
        seed: int = 0,
        loss: float = 0.0,
        delay: float = 0.0,
        doubling: float = 0.0,
        reordering: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()  # a signal handler may wake who holds it
        self.bound: dict[str, _Bound] = {}
        self.links: defaultdict[str, list[_Link]] = defaultdict(list)
        self.callers: defaultdict[str, dict[tuple[_LinkChannel, Peer], None]] = defaultdict(dict)
        """Who wants a connection to a place, whether somebody is there or not."""
        self.questions: defaultdict[str, deque[Question]] = defaultdict(deque)
        self._process = os.getpid()
        self._random = random.Random(seed)
        self._loss, self._delay, self._doubling, self._reordering = loss, delay, doubling, reordering
        self._clock = clock

    def check_process(self) -> None:
        """Raise `UsedAfterFork` in a child of the process that made the bus."""
        if os.getpid() != self._process:
            raise UsedAfterFork("the memory bus does not reach beyond the process it was made in")

    def bind(self, address: str, ports: Ports, channel: _Bound) -> tuple[str, str]:
        """Give the address to the channel; return it with its real port, and its place. The lock is held."""
        if address.startswith("tcp://") and address.endswith(":0"):
            address = f"{address[:-1]}{self._free_port(ports)}"
        place = _place(address, BindFailed)
        if place in self.bound:
            raise BindFailed(f"cannot bind {address}: in use")
        self.bound[place] = channel
        return address, place

    def tell_publisher(self, place: str) -> None:
        """Tell who publishes at a place that somebody subscribes or leaves, or took a frame. The lock is held."""
        if isinstance(channel := self.bound.get(place), _PublishChannel):
            channel.news.tell()

    def copies(self) -> int:
        """Return how often the next frame arrives."""
        if self._strikes(self._loss):
            return 0
        return 2 if self._strikes(self._doubling) else 1

    def overtakes(self) -> bool:
        """Return whether the next frame arrives before the one before it."""
        return self._strikes(self._reordering)

    def next_due(self) -> float:
        """Return when the next frame arrives, 0 for at once."""
        return self._clock() + self._random.expovariate(1 / self._delay) if self._delay else 0.0

    def now(self) -> float:
        """Return the time by the clock of the delays."""
        return self._clock() if self._delay else 0.0

    def _strikes(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def _free_port(self, ports: Ports) -> int:
        for port in range(ports.minimum, ports.maximum):
            if f"tcp:{port}" not in self.bound:
                return port
        raise BindFailed(f"no port is free in {ports.minimum} <= port < {ports.maximum}")


class _News:
    """Wakes who waits for it, on the lock of the bus or by a descriptor, which is opened when it is asked for."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._told = threading.Condition(lock)
        self._bell: Bell | None = None
        self._is_rung = False
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor that is readable from `tell` to `note`, -1 once closed."""
        with self._lock:
            if self._bell is None and not self._closed:
                self._bell = Bell()
                self.tell()  # what may have come before
            return -1 if self._bell is None else self._bell.fileno()

    def tell(self) -> None:
        """Wake all. The lock is held."""
        self._told.notify_all()
        if self._bell is not None and not self._is_rung:
            self._is_rung = True
            self._bell.ring()

    def note(self) -> None:
        """Take note of what was told. The lock is held."""
        if self._bell is not None and self._is_rung:
            self._bell.silence()
            self._is_rung = False

    def wait(self, timeout: float | None) -> None:
        """Wait on the lock, which is held, until told."""
        self._told.wait(timeout)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait on the lock, which is held, until it is so."""
        self._told.wait_for(predicate, timeout)

    def close(self) -> None:
        """Wake all, and give the descriptor back. The lock is held."""
        self.tell()
        self._closed = True
        if self._bell is not None:
            self._bell.close()


def _place(address: str, error: type[TransportError]) -> str:
    """Return what two addresses of the same end have in common: for tcp the port, as all hosts are this process."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise error(f"{address!r} is no address of the form tcp://host:port, ipc://path or inproc://name")
    return f"tcp:{int(match['port'])}" if match["port"] else address


@dataclass(eq=False)
class _Link:
    """One way into an inbox, and what is under way on it."""

    inbox: _Inbox
    place: str
    peer: Hashable
    prefixes: tuple[bytes, ...] = (b"",)
    tells_connected: bool = False
    is_open: bool = True
    waiting: int = 0
    last_due: float = 0.0


@dataclass(frozen=True)
class _Underway:
    due: float
    link: _Link
    frame: bytes = b""
    connected: bool = False


class _Inbox:
    """What is under way to one receiver."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.news = _News(bus.lock)
        self._underway: deque[_Underway] = deque()
        self._woken = False
        self.closed = False

    def put(self, link: _Link, frame: bytes) -> None:
        """Send a frame on its way. The lock is held."""
        for _ in range(self._bus.copies()):
            position = len(self._underway)
            if self._bus.overtakes():
                position = max((at for at, other in enumerate(self._underway) if other.link is link), default=position)
            else:
                link.last_due = max(link.last_due, self._bus.next_due())
            self._insert(position, _Underway(link.last_due, link, frame))

    def tell(self, link: _Link, *, connected: bool) -> None:
        """Tell whether the link's other end is there, after all that it has sent. The lock is held."""
        self._insert(len(self._underway), _Underway(link.last_due, link, connected=connected))

    def take(self, timeout: float | None) -> _Underway | None:
        """Return what arrives first, None when `timeout` seconds passed, and when closed or woken."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._bus.lock:
            while not self.closed and not self._woken:
                now = self._bus.now()
                for position, underway in enumerate(self._underway):
                    if underway.due <= now:
                        del self._underway[position]
                        underway.link.waiting -= 1
                        self._bus.tell_publisher(underway.link.place)
                        return underway
                pauses = [underway.due - now for underway in self._underway]
                if deadline is not None:
                    pauses.append(deadline - time.monotonic())
                pause = min(pauses, default=None)
                if pause is not None and pause <= 0:
                    break
                self.news.wait(pause)
            else:
                self._woken = False
            self.news.note()
            return None

    def next_timeout(self) -> float:
        """Return when (monotonic) to take what is under way by now, -inf if `take` is to return at once."""
        with self._bus.lock:
            if self.closed or self._woken:
                return -math.inf
            first = min((underway.due for underway in self._underway), default=math.inf)
            return time.monotonic() + first - self._bus.now()

    @property
    def has_more(self) -> bool:
        """Whether something is under way."""
        return bool(self._underway)

    def forget(self, link: _Link) -> None:
        """Throw away what is under way on the link. The lock is held."""
        self._underway = deque(underway for underway in self._underway if underway.link is not link)

    def wake(self) -> None:
        """Make the waiting `take`, or else the next one, return."""
        with self._bus.lock:
            self._woken = True
            self.news.tell()

    def close(self) -> None:
        """Make `take` return now and from now on. The lock is held."""
        self.closed = True
        self._underway.clear()
        self.news.close()

    def _insert(self, position: int, underway: _Underway) -> None:
        self._underway.insert(position, underway)
        underway.link.waiting += 1
        self.news.tell()


class _PublishChannel:
    def __init__(self, bus: Bus, address: str, ports: Ports, when_full: str) -> None:
        self._bus = bus
        self._blocks = when_full == "block"
        self._high_water_mark = read("send_high_water_mark")
        self._closed = False
        self.news = _News(bus.lock)
        with bus.lock:
            self.address, self._place = bus.bind(address, ports, self)
            for link in bus.links[self._place]:
                if link.tells_connected:
                    link.inbox.tell(link, connected=True)

    def send(self, frame: bytes) -> bool:
        self._bus.check_process()
        with self._bus.lock:
            self._check_open()
            links = self._links_for(frame)
            had_room = not any(map(self._is_full, links))
            if self._blocks and not had_room:
                self.news.wait_for(lambda: self._closed or not any(map(self._is_full, links)))
                self._check_open()
            self._put(links, frame)
        return had_room

    def try_send(self, frame: bytes) -> bool:
        self._bus.check_process()
        with self._bus.lock:
            self._check_open()
            links = self._links_for(frame)
            if any(map(self._is_full, links)):
                self.news.note()
                return False
            self._put(links, frame)
            return True

    def wait_for_subscriber(self, prefix: bytes, timeout: float | None) -> bool:
        with self._bus.lock:
            self.news.wait_for(lambda: self._closed or self._has_subscriber(prefix), timeout)
            self.news.note()
            return not self._closed and self._has_subscriber(prefix)

    def fileno(self) -> int:
        return self.news.fileno()

    def close(self) -> None:
        with self._bus.lock:
            if not self._closed:
                self._closed = True
                del self._bus.bound[self._place]
                self.news.close()

    def _links_for(self, frame: bytes) -> list[_Link]:
        return [link for link in self._bus.links[self._place] if frame.startswith(link.prefixes)]

    def _put(self, links: Iterable[_Link], frame: bytes) -> None:
        for link in links:
            if link.is_open and not self._is_full(link):
                link.inbox.put(link, frame)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost(f"cannot publish on {self.address}: it is stopped")

    def _is_full(self, link: _Link) -> bool:
        return link.is_open and link.waiting >= self._high_water_mark

    def _has_subscriber(self, prefix: bytes) -> bool:
        return any(overlap(prefix, other) for link in self._bus.links[self._place] for other in link.prefixes)


class _SubscribeChannel:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._inbox = _Inbox(bus)
        self._links: dict[Peer, _Link] = {}

    @property
    def closed(self) -> bool:
        return self._inbox.closed

    def connect(self, peer: Peer, topics: Sequence[bytes] | None, tell_connected: bool = False) -> None:
        place = _place(peer.uri, TransportError)
        prefixes = (b"",) if topics is None else tuple(topics)
        with self._bus.lock:
            if self._inbox.closed:
                raise ConnectionLost(f"cannot connect to {peer.uri!r}: the subscriber is closed")
            if peer in self._links:
                return
            self._links[peer] = link = _Link(self._inbox, place, peer, prefixes, tell_connected)
            self._bus.links[place].append(link)
            self._bus.tell_publisher(place)
            if tell_connected and place in self._bus.bound:
                self._inbox.tell(link, connected=True)

    def disconnect(self, peer: Peer, linger: float = 0.0) -> None:
        with self._bus.lock:
            if link := self._links.pop(peer, None):
                self._unlink(link)
                if not linger:
                    self._inbox.forget(link)

    def receive(self, timeout: float | None) -> Received | None:
        underway = self._inbox.take(timeout)
        if underway is None:
            return None
        return Received(underway.frame, cast(Peer, underway.link.peer), underway.connected)

    def receive_batch(self, timeout: float | None) -> Batch | None:
        received = self.receive(timeout)
        return None if received is None else Batch([received.frame], received.peer, received.connected)

    def wake(self) -> None:
        self._inbox.wake()

    def fileno(self) -> int:
        return self._inbox.news.fileno()

    def next_timeout(self) -> float:
        return self._inbox.next_timeout()

    def close(self) -> None:
        with self._bus.lock:
            for link in self._links.values():
                self._unlink(link)
            self._links.clear()
            self._inbox.close()

    def _unlink(self, link: _Link) -> None:
        link.is_open = False
        self._bus.links[link.place].remove(link)
        self._bus.tell_publisher(link.place)


@dataclass(frozen=True, eq=False)
class _Return:
    """Where the reply to a question goes."""

    peer: Peer
    exchange: _Exchange


class _Exchange:
    """A request whose questions lie where the peers take them."""

    def __init__(self, channel: _RequestChannel, frame: bytes, timeout: float, grace: float | None) -> None:
        self.replies: dict[Peer, bytes] = {}
        self._channel = channel
        self._deadline = time.monotonic() + timeout
        self._grace = grace
        self._is_over = False
        self._questions = [
            (channel.bus.questions[place], Question(frame, _HOST, _Return(peer, self)))
            for peer, place in channel.places.items()
        ]

    def ask(self) -> None:
        """Ask all peers. The lock is held."""
        for waiting, question in self._questions:
            waiting.append(question)
        for place in self._channel.places.values():
            if isinstance(channel := self._channel.bus.bound.get(place), _ReplyChannel):
                channel.arrived.notify()

    def put(self, peer: Peer, reply: bytes) -> None:
        """Keep a reply that comes in time. The lock is held."""
        if self._is_over:
            return
        if self._grace is not None and not self.replies:
            self._deadline = min(self._deadline, time.monotonic() + self._grace)
        self.replies[peer] = reply
        self._channel.news.tell()

    def advance(self) -> bool:
        with self._channel.bus.lock:
            self._channel.news.note()
            if len(self.replies) == len(self._questions) or time.monotonic() >= self._deadline:
                self.end()
            return self._is_over

    def next_timeout(self) -> float:
        return self._deadline

    def end(self) -> None:
        """Withdraw the questions that nobody has taken, and take no more replies. The lock is held."""
        self._is_over = True
        for waiting, question in self._questions:
            if question in waiting:
                waiting.remove(question)


class _RequestChannel:
    def __init__(self, bus: Bus, peers: Iterable[Peer]) -> None:
        self.bus = bus
        self.places = {peer: _place(peer.uri, TransportError) for peer in peers}
        self.news = _News(bus.lock)
        self._under_way: _Exchange | None = None
        self._closed = False

    def request(self, frame: bytes, timeout: float, grace: float | None = None) -> Mapping[Peer, bytes]:
        exchange = self.begin(frame, timeout, grace)
        with self.bus.lock:
            while not exchange.advance():
                self.news.wait(max(0.0, exchange.next_timeout() - time.monotonic()))
        return exchange.replies

    def begin(self, frame: bytes, timeout: float, grace: float | None = None) -> Exchange:
        self.bus.check_process()
        with self.bus.lock:
            if self._closed:
                raise ConnectionLost("the request channel is closed")
            self._give_up()
            self._under_way = _Exchange(self, frame, timeout, grace)
            self._under_way.ask()
            return self._under_way

    def fileno(self) -> int:
        return self.news.fileno()

    def close(self) -> None:
        with self.bus.lock:
            self._closed = True
            self._give_up()
            self.news.close()

    def _give_up(self) -> None:
        if self._under_way is not None:
            self._under_way.end()


class _ReplyChannel:
    def __init__(self, bus: Bus, bindings: Sequence[Peer]) -> None:
        self._bus = bus
        self._closed = False
        self.arrived = threading.Condition(bus.lock)
        self._places: dict[str, str] = {}
        with bus.lock:
            try:
                for binding in bindings:
                    address, place = bus.bind(binding.uri, Ports.read(), self)
                    self._places[address] = place
            except BindFailed:
                self._unbind()
                raise
        self.addresses: Sequence[str] = list(self._places)

    @property
    def closed(self) -> bool:
        return self._closed

    def receive(self, timeout: float | None) -> Question | None:
        with self._bus.lock:
            self.arrived.wait_for(lambda: self._closed or any(self._queues()), timeout)
            return None if self._closed else next((queue.popleft() for queue in self._queues() if queue), None)

    def reply(self, question: Question, frame: bytes) -> None:
        with self._bus.lock:
            question.envelope.exchange.put(question.envelope.peer, frame)

    def pause(self) -> None:
        """Do nothing: there are no connections here."""

    def resume(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        with self._bus.lock:
            if not self._closed:
                self._closed = True
                self._unbind()
                self.arrived.notify_all()

    def _queues(self) -> list[deque[Question]]:
        return [self._bus.questions[place] for place in self._places.values()]

    def _unbind(self) -> None:
        for place in self._places.values():
            del self._bus.bound[place]


@dataclass(frozen=True)
class _Way:
    """A connection as one end of it sees it; the other end calls it by the peer of its way out."""

    out: _Link
    into: _Link
    other: _LinkChannel


class _LinkChannel:
    _numbers = itertools.count(1)

    def __init__(self, bus: Bus, address: str | None, ports: Ports) -> None:
        self._bus = bus
        self._inbox = _Inbox(bus)
        self._places: dict[Peer, str] = {}
        self._ways: dict[Hashable, _Way] = {}
        self.address, self._place = "", ""
        if address is not None:
            with bus.lock:
                self.address, self._place = bus.bind(address, ports, self)
                for caller, peer in bus.callers[self._place]:
                    self._let_in(caller, peer)

    @property
    def closed(self) -> bool:
        return self._inbox.closed

    def connect(self, peer: Peer) -> None:
        place = _place(peer.uri, TransportError)
        with self._bus.lock:
            if self._inbox.closed:
                raise ConnectionLost(f"cannot connect to {peer.uri!r}: the channel is closed")
            if peer not in self._places:
                self._places[peer] = place
                self._bus.callers[place][self, peer] = None
                if isinstance(server := self._bus.bound.get(place), _LinkChannel):
                    server._let_in(self, peer)

    def disconnect(self, peer: Peer) -> None:
        with self._bus.lock:
            self._disconnect(peer)

    def receive(self, timeout: float | None) -> Arrival | None:
        self._bus.check_process()
        underway = self._inbox.take(timeout)
        return None if underway is None else Arrival(underway.link.peer, underway.frame, "", underway.connected)

    @property
    def has_more(self) -> bool:
        return self._inbox.has_more

    def send(self, peer: Hashable, bundle: bytes) -> bool:
        self._bus.check_process()
        with self._bus.lock:
            way = self._ways.get(peer)
            if way is None or way.out.waiting >= _MOST_BUNDLES:
                return False
            way.out.inbox.put(way.out, bundle)
            return True

    def wake(self) -> None:
        self._inbox.wake()

    def fileno(self) -> int:
        return self._inbox.news.fileno()

    def next_timeout(self) -> float:
        return self._inbox.next_timeout()

    def close(self) -> None:
        with self._bus.lock:
            if self._inbox.closed:
                return
            self._inbox.close()
            for peer in list(self._places):
                self._disconnect(peer)
            for guest in list(self._ways):
                self._cut(guest)
            if self._place:
                del self._bus.bound[self._place]

    def _let_in(self, caller: _LinkChannel, peer: Peer) -> None:
        guest = next(self._numbers)
        into, back = _Link(self._inbox, self._place, guest), _Link(caller._inbox, self._place, peer)
        self._ways[guest] = _Way(back, into, caller)
        caller._ways[peer] = _Way(into, back, self)
        caller._inbox.tell(back, connected=True)

    def _disconnect(self, peer: Peer) -> None:
        if place := self._places.pop(peer, None):
            del self._bus.callers[place][self, peer]
            self._cut(peer)

    def _cut(self, peer: Hashable) -> None:
        """End a connection from this side: what was sent arrives, what was not yet received does not."""
        if way := self._ways.pop(peer, None):
            self._inbox.forget(way.into)
            del way.other._ways[way.out.peer]
            way.out.inbox.tell(way.out, connected=False)


class _DatagramSender:
    def __init__(self, bus: Bus, port: int) -> None:
        self._bus = bus
        self._port = port
        self._closed = False

    def __call__(self, data: str | bytes) -> None:
        if self._closed:
            raise ConnectionLost("the datagram sender is closed")
        datagram = data.encode() if isinstance(data, str) else data
        with self._bus.lock:
            for link in self._bus.links[f"udp:{self._port}"]:
                if link.waiting < _MOST_DATAGRAMS:
                    link.inbox.put(link, datagram)

    def close(self) -> None:
        self._closed = True


class _DatagramReceiver:
    def __init__(self, bus: Bus, port: int) -> None:
        self._bus = bus
        self._source = (_HOST, port)
        self._timeout: float | None = None
        self._inbox = _Inbox(bus)
        self._link = _Link(self._inbox, f"udp:{port}", Peer("", "memory"))
        with bus.lock:
            bus.links[self._link.place].append(self._link)

    def __call__(self) -> tuple[bytes, tuple[str, int]]:
        underway = self._inbox.take(self._timeout)
        if underway is not None:
            return underway.frame, self._source
        if self._inbox.closed:
            raise ConnectionLost("the datagram receiver is closed")
        raise TimeoutError("no datagram came in time")

    def settimeout(self, timeout: float | None) -> _DatagramReceiver:
        self._timeout = timeout
        return self

    def wake(self) -> None:
        self._inbox.wake()

    def close(self) -> None:
        with self._bus.lock:
            if not self._inbox.closed:
                self._bus.links[self._link.place].remove(self._link)
                self._inbox.close()


@dataclass
class MemoryBackend:
    """Opens channels on its present bus; what is open stays on the bus that it was opened on."""

    bus: Bus = field(default_factory=Bus)
    name: str = "memory"
    strength: int = 0
    within_process: bool = True

    def open_publish(self, address: str, ports: Ports, when_full: str = "drop") -> PublishChannel:
        """Bind `address`; a port of 0 is replaced by the lowest free one of the range."""
        return _PublishChannel(self.bus, address, ports, when_full)

    def open_subscribe(self) -> SubscribeChannel:
        """Open a channel that is not yet connected."""
        return _SubscribeChannel(self.bus)

    def open_request(self, peers: Iterable[Peer]) -> RequestChannel:
        """Open a channel to the peers; a question waits for a peer that is not there yet."""
        return _RequestChannel(self.bus, peers)

    def open_reply(self, bindings: Sequence[Peer]) -> ReplyChannel:
        """Bind all the addresses, or none."""
        return _ReplyChannel(self.bus, bindings)

    def open_links(self, address: str | None, ports: Ports) -> LinkChannel:
        """Bind `address` like a publisher, or only connect."""
        return _LinkChannel(self.bus, address, ports)

    def announce_with(self, port: int) -> Callable[[], DatagramSender]:
        """Return how to send datagrams to all who listen on the bus."""
        return functools.partial(_DatagramSender, self.bus, port)

    def listen_with(self, port: int) -> Callable[[], DatagramReceiver]:
        """Return how to hear the datagrams of the bus."""
        return functools.partial(_DatagramReceiver, self.bus, port)

    def nameserver_ports(self) -> Sequence[tuple[str, int]]:
        """Return the one port of a nameserver in memory."""
        return [(self.name, read("nameserver_port"))]

    def leave_bus(self) -> None:
        """Open on a new bus from now on."""
        self.bus = Bus()


_Bound = _ReplyChannel | _PublishChannel | _LinkChannel

backend = MemoryBackend()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=backend.leave_bus)
