"""What a backend has to offer: channels that move frames (bytes), and nothing else.

A channel is used by one receiving thread; `connect`, `disconnect` and `close` may come from any thread, and `close`
makes a blocked `receive` or `request` return. Everything can be closed twice.

Who waits for several things at once, as an event loop does, calls what does not wait (`receive(0)`, `try_send`,
`Exchange.advance`) until that gives nothing, and only then waits until `fileno()` is readable or `next_timeout()` is
past. There is one descriptor for any number of connections; it stays the same until `close`, and may be readable for
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from posttroll.settings import Ports

__all__ = [
    "Arrival",
    "Backend",
    "Batch",
    "DatagramReceiver",
    "DatagramSender",
    "Exchange",
    "LinkChannel",
    "Peer",
    "PublishChannel",
    "Question",
    "Received",
    "ReplyChannel",
    "RequestChannel",
    "SubscribeChannel",
]


class Peer(NamedTuple):
    """One end to talk to, or to bind: where it is and which backend it speaks.

    Two peers that differ in `tag` alone are two connections to the same place.
    """

    uri: str
    backend: str
    tag: str = ""


class Received(NamedTuple):
    """A frame and the connected peer it came from; or, if `connected`, the news that the connection is there."""

    frame: bytes
    peer: Peer
    connected: bool = False


class Batch(NamedTuple):
    """Frames from one connected peer, in the order they came; or, if `connected`, the news and an empty frame."""

    frames: list[bytes]
    peer: Peer
    connected: bool = False


class Arrival(NamedTuple):
    """A bundle of frames, or, if it is empty, news of the connection to a peer: whether it is there now.

    `peer` is where a reply goes: the `Peer` connected to, or something opaque for one that came in. `key` is the public
    key of who sent the bundle, in Z85, "" where that is not known.
    """

    peer: Hashable
    bundle: bytes = b""
    key: str = ""
    connected: bool = False


class Question(NamedTuple):
    """A request to reply to: its frame, the host it came from ("" when unknown), and where the reply goes.

    `frame` is None when the request was malformed on the transport's level; it still wants a reply.
    """

    frame: bytes | None
    source: str
    envelope: Any


class PublishChannel(Protocol):
    """The publishing end."""

    address: str
    """The address bound, with the real port."""

    def send(self, frame: bytes) -> bool:
        """Send to all subscribers; return False when the queue of one or more of them was full.

        A queue that stays full may be told of only once.
        Depending on how the channel was opened, those did not get the frame (``drop``), or it was waited for
        (``block``). Safe from several threads. Raises `TransportError` when closed, `UsedAfterFork` in a child process.
        """

    def try_send(self, frame: bytes) -> bool:
        """Send to all subscribers if all have room, else to none; return whether so, and never wait.

        Safe from several threads. Raises `TransportError` when closed, `UsedAfterFork` in a child process.
        """

    def wait_for_subscriber(self, prefix: bytes, timeout: float | None) -> bool:
        """Wait until somebody subscribes to what begins with `prefix`, or to a part of it; return whether so.

        With a timeout of 0 it never waits.
        """

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when somebody may have room again, or have subscribed.

        It may miss that, so wait for it 0.05 s at most.
        """

    def close(self) -> None:
        """Give the address back. What was sent goes on to the subscribers for a short while."""


class SubscribeChannel(Protocol):
    """The subscribing end, connected to any number of peers."""

    def connect(self, peer: Peer, topics: Sequence[bytes] | None, tell_connected: bool = False) -> None:
        """Connect to a publisher, for frames that begin with one of `topics`; None pulls from a queue instead.

        With `tell_connected`, `receive` also gives a `Received` whose `connected` is true whenever the connection is
        there, for the first time or again.
        """

    def disconnect(self, peer: Peer, linger: float = 0.0) -> None:
        """Disconnect; go on reading what is on its way until `linger` seconds pass in silence. Unknown is ignored."""

    def receive(self, timeout: float | None) -> Received | None:
        """Return the next frame; None after `timeout` seconds without one (None: wait for ever), and when closed."""

    def receive_batch(self, timeout: float | None) -> Batch | None:
        """Do the same for all that came from one peer, bounded so that no other one has to wait for long."""

    def wake(self) -> None:
        """Make the waiting `receive` or `receive_batch`, or else the next one, return None at once.

        From any thread and from signal handlers.
        """

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `receive(0)` may find something new, or is woken."""

    def next_timeout(self) -> float:
        """Return when (monotonic) `receive(0)` is due though the descriptor is silent; -inf if it is now."""

    @property
    def closed(self) -> bool:
        """Whether the channel was closed; `receive` then returns None at once."""

    def close(self) -> None:
        """Disconnect from all."""


class Exchange(Protocol):
    """A request under way to all peers of a channel; to give it up, let it be."""

    @property
    def replies(self) -> Mapping[Peer, bytes]:
        """The replies that came so far."""

    def advance(self) -> bool:
        """Send and receive what can be at once; return whether it is over. Never waits.

        It is over when all have replied, when its time is up, and when the channel is closed. `TransportError`.
        """

    def next_timeout(self) -> float:
        """Return when (monotonic) to advance though the channel's descriptor is silent."""


class RequestChannel(Protocol):
    """The asking end, connected to one or more peers."""

    def request(self, frame: bytes, timeout: float, grace: float | None = None) -> Mapping[Peer, bytes]:
        """Ask all peers; return the replies that came within `timeout` seconds.

        With `grace`, wait at most that many seconds more once the first reply is there. Can be called again; a reply
        to an earlier request is not mistaken for one to this.
        """

    def begin(self, frame: bytes, timeout: float, grace: float | None = None) -> Exchange:
        """Begin such a request, which goes on when it is advanced; one that was begun before is given up."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the exchange under way may advance."""

    def close(self) -> None:
        """Disconnect; a request under way returns what it has."""


class ReplyChannel(Protocol):
    """The answering end."""

    addresses: Sequence[str]
    """The addresses bound, with their real ports."""

    def receive(self, timeout: float | None) -> Question | None:
        """Return the next request, None when `timeout` seconds passed without one or when closed."""

    def reply(self, question: Question, frame: bytes) -> None:
        """Answer; nothing happens when the asker is gone."""

    def pause(self) -> None:
        """Disconnect everybody, and let nobody connect until `resume`; `TransportError`."""

    def resume(self) -> None:
        """Let everybody connect again; `TransportError`."""

    @property
    def closed(self) -> bool:
        """Whether the channel was closed; `receive` then returns None at once."""

    def close(self) -> None:
        """Give the addresses back."""


class LinkChannel(Protocol):
    """One end of many connections over which bundles of frames go both ways; any of them may be lost.

    It connects to peers, and peers connect to it if it is bound. The news that a connection is there is given for those
    it connected to, the news that one was cut for all.
    """

    address: str
    """The address bound, with the real port, "" if it only connects."""

    def connect(self, peer: Peer) -> None:
        """Connect, now or when the peer is there, and again whenever it is cut; known peers stay as they are."""

    def disconnect(self, peer: Peer) -> None:
        """Disconnect, after what was sent to the peer. Unknown is ignored."""

    def receive(self, timeout: float | None) -> Arrival | None:
        """Return the next arrival; None after `timeout` seconds (None: wait for ever), when woken and when closed."""

    @property
    def has_more(self) -> bool:
        """Whether there is more to be received that has come already, as far as that is known without looking."""

    def send(self, peer: Hashable, bundle: bytes) -> bool:
        """Send a bundle, which is not empty, to where an arrival came from, from any thread.

        Never waits; return False when it could not be sent, as the peer is gone, not yet there, or its queue is full.
        """

    def wake(self) -> None:
        """Make the waiting `receive`, or else the next one, return None at once.

        From any thread and from signal handlers.
        """

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `receive(0)` may find something new, or is woken."""

    def next_timeout(self) -> float:
        """Return when (monotonic) `receive(0)` is due though the descriptor is silent; -inf if it is now."""

    @property
    def closed(self) -> bool:
        """Whether the channel was closed; `receive` then returns None at once."""

    def close(self) -> None:
        """Disconnect from all and give the address back. What was sent goes on for a short while."""


class DatagramSender(Protocol):
    """Sends announcements to everybody around."""

    def __call__(self, data: str | bytes) -> None:
        """Send one datagram; `OSError` when the network does not take it."""

    def close(self) -> None:
        """Close."""


class DatagramReceiver(Protocol):
    """Hears announcements."""

    def __call__(self) -> tuple[str | bytes, tuple[str, int]]:
        """Return the next datagram and its source; `TimeoutError` after the time set, or when woken."""

    def settimeout(self, timeout: float | None) -> DatagramReceiver:
        """Set the seconds to wait for a datagram; None: for ever."""

    def wake(self) -> None:
        """Make the waiting thread, or the next one, raise `TimeoutError` at once; from any thread."""

    def close(self) -> None:
        """Close."""


class Backend(Protocol):
    """One way to move frames. Opening raises `ConfigurationError` or `TransportError`."""

    name: str
    strength: int
    """How well peers are authenticated: 0 not at all, 1 by key."""
    within_process: bool
    """Whether it reaches no other process."""

    def open_publish(self, address: str, ports: Ports, when_full: str = "drop") -> PublishChannel:
        """Bind `address`; a port of 0 is replaced by a free one of the range. `when_full`: "drop" or "block"."""

    def open_subscribe(self) -> SubscribeChannel:
        """Open a channel that is not yet connected."""

    def open_request(self, peers: Iterable[Peer]) -> RequestChannel:
        """Open a channel to the peers; that they are there is not needed yet."""

    def open_reply(self, bindings: Sequence[Peer]) -> ReplyChannel:
        """Bind all the addresses, or none."""

    def open_links(self, address: str | None, ports: Ports) -> LinkChannel:
        """Bind `address`; a port of 0 is replaced by a free one of the range. None: a channel that only connects."""

    def announce_with(self, port: int) -> Callable[[], DatagramSender] | None:
        """Return how to open this backend's own kind of multicast on `port`; None for the network's."""

    def listen_with(self, port: int) -> Callable[[], DatagramReceiver] | None:
        """Return how to hear this backend's own kind of multicast on `port`; None for the network's."""

    def nameserver_ports(self) -> Sequence[tuple[str, int]]:
        """Return (backend name, port) of each port a nameserver of this backend serves; the first is its own."""
