"""What the blocking and the asyncio messengers share: all but the waiting."""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar

from posttroll.backends.base import LinkChannel
from posttroll.backends.registry import configured_backend
from posttroll.durable import ttl_in_seconds
from posttroll.errors import (
    ConfigurationError,
    EncodeError,
    Interrupted,
    LocalProtocolError,
    NotStarted,
    RemoteProtocolError,
    TimedOut,
)
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.messenger.events import BaseEvent, Timers
from posttroll.messenger.peer_finder import BasePeerFinder
from posttroll.messenger.targets import BaseTarget, Incoming
from posttroll.messenger.trackers import BaseTracker, Outgoing
from posttroll.protocol.addresses import with_port_of
from posttroll.protocol.addressing import Addressing, checked_name, peer_at, without_credentials
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.drops import Drops
from posttroll.protocol.frames import RELEASED, rejected
from posttroll.protocol.outbound import Concluded
from posttroll.protocol.properties import Properties, decode_payload, encode_payload
from posttroll.settings import Ports, read

if TYPE_CHECKING:
    from posttroll.journal import Wish

__all__ = ["MESSAGES", "MOST_IN_TURN", "BaseMessenger"]

logger = logging.getLogger("posttroll.messenger")

P = ParamSpec("P")
AnyTracker = TypeVar("AnyTracker", bound=BaseTracker[Any])
AnyTarget = TypeVar("AnyTarget", bound=BaseTarget)
Nameservers = str | Iterable[str] | Literal[False] | None

MESSAGES = "messages"
"""The target of what is put for no other one."""

MOST_IN_TURN = 100


class _News(Protocol):
    def tell(self) -> None: ...


class _Listener:
    """Notes what the link tells, for whoever calls back for it later, perhaps in another thread."""

    def __init__(
        self, messenger: BaseMessenger[Any, Any], outgoing: Outgoing[Any], news: _News, outcomes: _News
    ) -> None:
        self.finder: BasePeerFinder
        self._messenger = messenger
        self._outgoing = outgoing
        self._news = news
        self._outcomes = outcomes
        self._happened: deque[Callable[[], Any]] = deque()
        self._drops = Drops()

    def on_wanted(self, peer: str) -> None:
        self.finder.find(peer)

    def on_unwanted(self, peer: str) -> None:
        self.finder.give_up(peer)

    def on_connect(self, peer: PeerInfo) -> None:
        logger.info("messenger %s: %s is there", self._messenger.name, _place(peer))
        self._warn_of_namesakes(peer)
        self._note(self._messenger.on_connect, peer)

    def on_disconnect(self, peer: PeerInfo, reason: str) -> None:
        logger.info("messenger %s: %s is gone: %s", self._messenger.name, _place(peer), reason)
        self._note(self._messenger.on_disconnect, peer, reason)

    def on_outcome(self, concluded: Concluded) -> None:
        tag = concluded.tag
        tracker = tag if isinstance(tag, BaseTracker) else self._former(concluded)
        self._outgoing.settle(tracker, was_left_over=tag is None)
        if concluded.target == MESSAGES and not tracker.is_cancelled:
            if tracker.state == "accepted":
                self._note(self._messenger.on_sent, tracker)
            else:
                self._warn_of_drop(tracker)
                self._note(self._messenger.on_drop, tracker, tracker.reason or tracker.state)
        self._outcomes.tell()

    def _warn_of_namesakes(self, peer: PeerInfo) -> None:
        link = self._messenger._link
        namesakes = [one for one in (link.peers() if link else ()) if one.name == peer.name]
        if len(namesakes) > 1:
            places = ", ".join(one.address or "one that connected to here" for one in namesakes)
            text = "messenger %s: %d programs are called %s, each gets some of the messages: %s"
            logger.warning(text, self._messenger.name, len(namesakes), peer.name, places)

    def _warn_of_drop(self, tracker: BaseTracker[Any]) -> None:
        """Tell of a message that did no good, now and then of the first of many."""
        if self._drops.add(tracker.state, time.monotonic()):
            reason = tracker.reason or ("nobody came for it" if tracker.buffered else "it was not settled in time")
            details = tracker.id, tracker.to, tracker.state, reason, self._drops.counts[tracker.state]
            logger.warning("messenger %s: message %s to %s is %s: %s (%d so far)", self._messenger.name, *details)

    def happened(self) -> Iterator[Callable[[], Any]]:
        """Give what is to be called for what happened so far."""
        for _ in range(len(self._happened)):
            yield self._happened.popleft()

    def _note(self, event: BaseEvent[P], *args: P.args, **kwargs: P.kwargs) -> None:
        if event:
            self._happened.append(functools.partial(event.happen, *args, **kwargs))
            self._news.tell()

    def _former(self, concluded: Concluded) -> BaseTracker[Any]:
        """Return a tracker of what was put in a former life."""
        try:
            _, properties = decode_payload(concluded.payload, "")
        except RemoteProtocolError:
            properties = Properties(id="unknown", to=concluded.peer)
        tracker: BaseTracker[Any] = self._messenger._track(properties, concluded.peer)
        tracker.sent()
        tracker.concluded(concluded.state, concluded.reason)
        return tracker


class BaseMessenger(Generic[AnyTracker, AnyTarget]):
    """What a messenger is and knows; those who derive from it start, wait and call back.

    They say by what: events, news and publishers.
    """

    _event_class: type[BaseEvent[Any]]
    _order_class: Callable[[], Any]
    _publisher_class: Callable[..., Any]
    _noisy_publisher_class: Callable[..., Any]

    def __init__(
        self,
        name: str | None = None,
        *,
        port: int = 0,
        link_port: int = 0,
        aliases: str | Iterable[str] | None = None,
        nameservers: Nameservers = None,
        broadcast_interval: float = 2,
        listen: bool = True,
        journal: str | os.PathLike[str] | None = None,
        publisher_journal: Wish = None,
        credit: int = 200,
        incoming_window: int | None = 0,
        outgoing_window: int = 10_000,
        bandwidth: float | None = None,
        silence: float = 10.0,
        timeout: float | None = None,
        blocking: bool = True,
        **options: Any,
    ) -> None:
        _check_limits(credit, incoming_window, outgoing_window, bandwidth, silence)
        self.name = str(uuid.uuid4()) if name is None else checked_name(name)
        self.timeout = timeout
        self.blocking = blocking
        self.publisher: Any = None
        """What it publishes with while it is started, if it listens."""
        self.on_message: BaseEvent[[Message]] = self._event_class("on_message")
        """A message came; it is accepted afterwards, or as `incoming_window` says; rejected if a callback raises."""
        self.on_sent: BaseEvent[[AnyTracker]] = self._event_class("on_sent")
        """A message was accepted by its peer."""
        self.on_drop: BaseEvent[[AnyTracker, str]] = self._event_class("on_drop")
        """A message was rejected by its peer, or has expired, with the reason."""
        self.on_connect: BaseEvent[[PeerInfo]] = self._event_class("on_connect")
        """A peer is there."""
        self.on_disconnect: BaseEvent[[PeerInfo, str]] = self._event_class("on_disconnect")
        """A peer is gone, with the reason."""
        self._backend = configured_backend()
        self._ports = Ports.read(options.get("min_port"), options.get("max_port"))
        self._listens, self._link_port = listen, link_port
        self._nameservers = (
            nameservers if nameservers is False or isinstance(nameservers, str) else [*(nameservers or ())]
        )
        self._make_publisher = self._publisher_maker(
            port, aliases, broadcast_interval, {**options, "journal": publisher_journal}
        )
        self._directory = None if journal is None else Path(journal).expanduser()
        self._silence, self._bandwidth = silence, bandwidth
        self._max_size = read("max_message_size")
        self._addressing = Addressing()
        self._hooks: list[tuple[Callable[[str], object], BaseEvent[[Message]]]] = []
        self._timers: Timers[Callable[[], Any]] = Timers()
        self._drops = Drops()
        self._news = self._make_news()
        self._outcomes = self._make_news()  # apart, so that who waits for a message is not woken for nothing
        self._interrupts: deque[None] = deque(maxlen=1)
        self._outgoing: Outgoing[Any] = Outgoing(outgoing_window, self._await_outcome, self._withdraw)
        self._listener = _Listener(self, self._outgoing, self._news, self._outcomes)
        self._link: Any = None
        self._targets: list[AnyTarget] = []
        self._inbox = self.open_target(MESSAGES, self._news.tell, credit, is_prompt=True)
        self._incoming = Incoming(self._inbox, incoming_window)
        self._handled = 0
        self._order = self._order_class()
        self._is_stopped = True
        self._process = os.getpid()

    def _publisher_maker(
        self, port: int, aliases: str | Iterable[str] | None, interval: float, options: Mapping[str, Any]
    ) -> Callable[[], Any]:
        if self._nameservers is False:
            return functools.partial(self._publisher_class, f"tcp://*:{port}", self.name, **options)
        return functools.partial(
            self._noisy_publisher_class,
            self.name,
            port,
            aliases,
            interval,
            self._nameservers,
            extra=self._announced_with,
            **options,
        )

    def _make_news(self) -> Any:
        """Return what wakes those who wait."""
        raise NotImplementedError

    def _announced_with(self, address: str) -> dict[str, str]:
        return {"peer": with_port_of(address, self._started_link().address)}

    def _open_channel(self) -> LinkChannel:
        return self._backend.open_links(f"tcp://*:{self._link_port}" if self._listens else None, self._ports)

    @property
    def stopped(self) -> bool:
        """Whether it is not started, or was stopped."""
        return self._is_stopped

    @property
    def address(self) -> str:
        """Where others can connect to it, "" if it is not started or does not listen."""
        bound = "" if (link := self._link) is None else link.address
        return bound and with_port_of(f"tcp://{read('advertised_host') or self._own_ip()}:0", bound)

    @property
    def peers(self) -> dict[str, PeerInfo]:
        """Who is there, by name."""
        return {} if (link := self._link) is None else {peer.name: peer for peer in link.peers()}

    @property
    def drops(self) -> Mapping[str, int]:
        """How much was refused that came, by reason."""
        return self._drops.counts

    @property
    def incoming(self) -> int:
        """How many messages there are for `get`."""
        return len(self._incoming)

    @property
    def outgoing(self) -> int:
        """How many messages were put and are not settled."""
        return len(self._outgoing)

    def route(self, pattern: str, address: str) -> None:
        """Send what is for addresses like `pattern` to another one; the first such rule counts.

        In a pattern `%` stands for anything without a slash, `*` for anything; `$1` to `$9` in the address are what
        they stood for.
        """
        self._addressing.route(pattern, address)

    def rewrite(self, pattern: str, address: str) -> None:
        """Have a peer see another address in what is sent to addresses like `pattern`; it changes nothing else.

        Nobody sees user and password in any case.
        """
        self._addressing.rewrite(pattern, address)

    def status(self, tracker: AnyTracker | str) -> str:
        """Return the state of a message, given by its tracker or its id, "unknown" if no such tracker is kept."""
        known = self._outgoing.find(tracker) if isinstance(tracker, str) else tracker
        return "unknown" if known is None else known.state

    def buffered(self, tracker: AnyTracker) -> bool:
        """Return whether a message was not handed to the transport yet."""
        return tracker.buffered

    def settle(self, tracker: AnyTracker | None = None, cumulative: bool = False) -> None:
        """Keep a tracker no longer, or none of them; if `cumulative`, nor those of what was put before it."""
        self._outgoing.forget(tracker, cumulative)

    def interrupt(self) -> None:
        """Have the call that waits raise `Interrupted`, or else the next one; from any thread and signal handlers."""
        self._interrupts.append(None)
        self._wake()

    def add_hook(self, pattern: str | re.Pattern[str], callback: Callable[[Message], object]) -> None:
        """Have `work` give messages whose subject begins with a text, or matches a pattern, to hooks alone."""
        hook: BaseEvent[[Message]] = self._event_class(f"the hook for {pattern}")
        hook(callback)
        matches = pattern.match if isinstance(pattern, re.Pattern) else functools.partial(_begins, pattern)
        self._hooks.append((matches, hook))

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Have `work` call back in `delay` seconds; from any thread."""
        event: BaseEvent[[]] = self._event_class("what was to be called later")
        event(callback)
        self._timers.add(delay, event.happen)
        self._wake()

    def open_target(
        self,
        name: str,
        on_arrival: Callable[[], None],
        credit: int = 200,
        *,
        is_prompt: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> AnyTarget:
        """Take in what others put for another target than "messages"; see `Target`.

        `LocalProtocolError` if that is open already, as a message can be taken once only.
        """
        if any(target.name == name for target in self._targets):
            raise LocalProtocolError(f"the target {name} of {self.name} is open already")
        target = self._make_target(name, on_arrival, credit, is_prompt, on_close)
        self._targets.append(target)
        if self._link is not None:
            target.open(self._link)
        return target

    def _make_target(
        self, name: str, on_arrival: Callable[[], None], credit: int, is_prompt: bool, on_close: Callable[[], None]
    ) -> AnyTarget:
        raise NotImplementedError

    def _track(self, properties: Properties, peer: str) -> AnyTracker:
        """Return a tracker of a message for a peer."""
        raise NotImplementedError

    def _own_ip(self) -> str:
        """Return the address that other hosts know this one by."""
        raise NotImplementedError

    def _wake(self) -> None:
        """Wake all who wait; from any thread and signal handlers."""
        raise NotImplementedError

    def _await_outcome(self, look: Callable[[], bool], timeout: float | None, what: str) -> Any:
        """Wait until something is so of what was put, or return what to await; `TimedOut`."""
        raise NotImplementedError

    def _peer(self) -> LinkPeer:
        """Return what talks with the peers, for what may wait; `NotStarted`."""
        raise NotImplementedError

    def _withdraw(self, tracker: BaseTracker[Any]) -> bool:
        return self._link is not None and self._peer().withdraw(tracker.peer, tracker)

    def _started_link(self) -> Any:
        if (link := self._link) is None:
            raise NotStarted("the messenger is not started")
        return link

    def _prepare(
        self, to: str, message: Message, id: str | None, reply_to: str, correlation_id: str
    ) -> tuple[AnyTracker, bytes]:
        """Return what follows a message, and what is to be sent of it."""
        self._started_link()
        peer, visible = self._addressing.resolve(to)
        if peer == self.name:
            raise ConfigurationError(f"{to!r} is this messenger itself")
        properties = Properties(
            id=id or uuid.uuid4().hex,
            to=visible,
            reply_to=reply_to and without_credentials(reply_to),
            correlation_id=correlation_id,
        )
        return self._track(properties, peer), encode_payload(_encoded(message, self._max_size), properties)

    def _commit(self, tracker: AnyTracker, payload: bytes, target: str, ttl: float | None, persistent: bool) -> None:
        """Put a message, and follow it unless that fails."""
        if target == MESSAGES:
            self._outgoing.add(tracker)
        try:
            seconds = None if ttl is None else ttl_in_seconds(ttl)
            self._peer().put(tracker.peer, target, payload, tracker, ttl=seconds, persistent=persistent)
        except BaseException:
            self._outgoing.drop(tracker)
            raise

    def _asker(self, message: Message, options: dict[str, Any]) -> str:
        """Return where the answer to a message is to go, and complete the options of that."""
        properties = message.properties
        if properties is None:
            raise LocalProtocolError("the message came by no messenger, so there is nobody to reply to")
        options.setdefault("correlation_id", properties.id)
        return properties.reply_to or properties.source

    def _stay_with(self, address: str) -> None:
        self._started_link()
        self._listener.finder.stay_with(peer_at(address))

    def _leave(self, address: str) -> None:
        self._started_link()
        self._listener.finder.leave(peer_at(address))

    def _deadline(self, timeout: float | None) -> float:
        """Return until when to wait, if a call is given that timeout."""
        if timeout is None:
            timeout = self.timeout if self.blocking else 0.0
        return math.inf if timeout is None else time.monotonic() + timeout

    def _check_found(self, found: object, timeout: float | None, what: str) -> None:
        """Raise `TimedOut` if nothing was found though it was to be waited for."""
        if not found and not self.stopped and (self.blocking or timeout is not None):
            raise TimedOut(f"{self.name} has waited in vain for {what}")

    def _raise_interrupted(self) -> None:
        if self._interrupts:
            self._interrupts.clear()
            raise Interrupted(f"{self.name} was interrupted")

    def _due(self) -> Iterator[Callable[[], Any]]:
        """Give what is to be called now, but for messages."""
        yield from self._timers.due()
        yield from self._listener.happened()

    def _next_to_handle(self) -> Message | None:
        return self._incoming.pop() if self.on_message else self._incoming.take()

    def _handlers(self, message: Message) -> list[BaseEvent[[Message]]]:
        """Return what is to happen for a message; without that, it is there to be got."""
        events = [hook for matches, hook in self._hooks if matches(message.subject)] or [self.on_message]
        if any(events):
            self._incoming.begin(message)
            return events
        self._incoming.append(message)
        return []

    def _conclude(self, message: Message, failures: list[str] | None) -> None:
        """Settle a message that was handled, with those failures; None: something has raised in the midst of it."""
        reasons = None if failures is None else [failure for failure in failures if failure]
        if reasons is None:
            self._incoming.settle_soon(RELEASED, message)
        elif reasons:
            self._incoming.settle_soon(rejected(f"a callback failed: {reasons[-1]}"), message)
        else:
            self._incoming.settle_former()


def _place(peer: PeerInfo) -> str:
    return f"{peer.name} at {peer.address}" if peer.address else peer.name


def _check_limits(
    credit: int, incoming_window: int | None, outgoing_window: int, bandwidth: float | None, silence: float
) -> None:
    has_room = incoming_window is None or 0 <= incoming_window < credit
    complaints = {
        f"incoming_window is {incoming_window}, but must be below the credit of {credit}": not has_room,
        f"outgoing_window is {outgoing_window}, but cannot be negative": outgoing_window < 0,
        f"bandwidth is {bandwidth}, but must be positive": bandwidth is not None and not 0 < bandwidth < math.inf,
        f"silence is {silence}, but must be positive": not 0 < silence < math.inf,
    }
    for complaint, applies in complaints.items():
        if applies:
            raise ConfigurationError(complaint)


def _begins(prefix: str, subject: str) -> bool:
    return subject.startswith(prefix)


def _encoded(message: Message, max_size: int) -> bytes:
    if not isinstance(message, Message):
        raise TypeError(f"a messenger sends a Message, not {type(message).__name__}")
    try:
        frame = message.encode().encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"text cannot be written in UTF-8: {error}") from None
    if len(frame) > max_size:
        raise EncodeError(f"the message has {len(frame)} bytes, more than max_message_size allows: {max_size}")
    return frame
