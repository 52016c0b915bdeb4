"""The messenger: what a program sends and gets."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

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
from posttroll.forks import check_process
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.messenger.events import Event, Timers
from posttroll.messenger.peer_finder import PeerFinder
from posttroll.messenger.targets import Incoming, Target
from posttroll.messenger.trackers import Outgoing, Tracker
from posttroll.news import News
from posttroll.protocol.addresses import with_port_of
from posttroll.protocol.addressing import Addressing, checked_name, peer_at, without_credentials
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.drops import Drops
from posttroll.protocol.outbound import Concluded
from posttroll.protocol.properties import Properties, decode_payload, encode_payload
from posttroll.publisher import NoisyPublisher, Publisher, get_own_ip
from posttroll.settings import Ports, read

__all__ = ["Messenger"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Found = TypeVar("Found")
Nameservers = str | Iterable[str] | Literal[False] | None

_MESSAGES = "messages"
_MOST_IN_TURN = 100


class _Listener:
    """Notes what the link tells in its thread, for whoever calls back for it in another one."""

    def __init__(self, messenger: Messenger, outgoing: Outgoing, news: News, outcomes: News) -> None:
        self.finder: PeerFinder
        self._messenger = messenger
        self._outgoing = outgoing
        self._news = news
        self._outcomes = outcomes
        self._happened: deque[Callable[[], object]] = deque()
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
        tracker = tag if isinstance(tag, Tracker) else self._former(concluded)
        self._outgoing.settle(tracker, was_left_over=tag is None)
        if concluded.target == _MESSAGES and not tracker.is_cancelled:
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

    def _warn_of_drop(self, tracker: Tracker) -> None:
        """Tell of a message that did no good, now and then of the first of many."""
        if self._drops.add(tracker.state, time.monotonic()):
            reason = tracker.reason or ("nobody came for it" if tracker.buffered else "it was not settled in time")
            details = tracker.id, tracker.to, tracker.state, reason, self._drops.counts[tracker.state]
            logger.warning("messenger %s: message %s to %s is %s: %s (%d so far)", self._messenger.name, *details)

    def call_back(self) -> int:
        """Call back for what happened so far; return how much that was."""
        count = len(self._happened)
        for _ in range(count):
            self._happened.popleft()()
        return count

    def _note(self, event: Event[P], *args: P.args, **kwargs: P.kwargs) -> None:
        if event:
            self._happened.append(functools.partial(event.happen, *args, **kwargs))
            self._news.tell()

    def _former(self, concluded: Concluded) -> Tracker:
        """Return a tracker of what was put in a former life."""
        try:
            _, properties = decode_payload(concluded.payload, "")
        except RemoteProtocolError:
            properties = Properties(id="unknown", to=concluded.peer)
        tracker = Tracker(properties.id, properties.to, concluded.peer, self._outgoing)
        tracker.sent()
        tracker.concluded(concluded.state, concluded.reason)
        return tracker


class Messenger:
    """Sends messages to others that it knows by name or address, and gets those sent to it.

    Its `name`, a UUID if none is given, is what others find it by: it announces itself as a `NoisyPublisher` does, and
    can publish as one; `aliases`, `nameservers`, `broadcast_interval` and the `options` are those of that. With
    ``nameservers=False`` it is not announced and asks nobody: others are reached by their addresses only. Without
    `listen` it only connects, as those have to who cannot be connected to; it sends and gets all the same.

    What is sent waits here until the peer, who may not be there yet, has accepted it. What is sent as persistent is
    kept in files of the directory `journal`, for the next program of that name and directory.

    `credit`: how many messages of each peer may be here and not be settled. `incoming_window`: how many of those got
    may stay unsettled, beyond which the eldest is accepted; 0: each is accepted when the next one is asked for; None:
    none unless told to. `outgoing_window`: how many trackers are kept. `bandwidth`: bytes per second to each peer.
    `silence`: seconds after which a peer not heard of is taken for gone. `timeout`: seconds that calls wait which are
    given none, None for ever; without `blocking` those do not wait at all.
    """

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
        self.publisher: Publisher | NoisyPublisher | None = None
        """What it publishes with while it is started, if it listens."""
        self.on_message: Event[[Message]] = Event("on_message")
        """A message came; it is accepted afterwards, or as `incoming_window` says; rejected if a callback raises."""
        self.on_sent: Event[[Tracker]] = Event("on_sent")
        """A message was accepted by its peer."""
        self.on_drop: Event[[Tracker, str]] = Event("on_drop")
        """A message was rejected by its peer, or has expired, with the reason."""
        self.on_connect: Event[[PeerInfo]] = Event("on_connect")
        """A peer is there."""
        self.on_disconnect: Event[[PeerInfo, str]] = Event("on_disconnect")
        """A peer is gone, with the reason."""
        self._backend = configured_backend()
        self._ports = Ports.read(options.get("min_port"), options.get("max_port"))
        self._listens, self._link_port = listen, link_port
        self._nameservers = (
            nameservers if nameservers is False or isinstance(nameservers, str) else [*(nameservers or ())]
        )
        self._make_publisher = self._publisher_maker(port, aliases, broadcast_interval, options)
        self._directory = None if journal is None else Path(journal).expanduser()
        self._silence, self._bandwidth = silence, bandwidth
        self._max_size = read("max_message_size")
        self._addressing = Addressing()
        self._hooks: list[tuple[Callable[[str], object], Event[[Message]]]] = []
        self._timers = Timers()
        self._drops = Drops()
        self._news = News()
        self._outcomes = News()  # apart, so that who waits for a message is not woken for nothing
        self._interrupts: deque[None] = deque(maxlen=1)
        self._outgoing = Outgoing(outgoing_window, self._await_outcome, self._withdraw)
        self._listener = _Listener(self, self._outgoing, self._news, self._outcomes)
        self._link: LinkPeer | None = None
        self._targets: list[Target] = []
        self._inbox = self.open_target(_MESSAGES, self._news.tell, credit, is_prompt=True)
        self._incoming = Incoming(self._inbox, incoming_window)
        self._handled = 0
        self._order = threading.RLock()  # a signal handler may stop what is being started
        self._is_stopped = True
        self._process = os.getpid()

    def _publisher_maker(
        self, port: int, aliases: str | Iterable[str] | None, interval: float, options: Mapping[str, Any]
    ) -> Callable[[], Publisher | NoisyPublisher]:
        if self._nameservers is False:
            return functools.partial(Publisher, f"tcp://*:{port}", self.name, **options)
        return functools.partial(
            NoisyPublisher, self.name, port, aliases, interval, self._nameservers, extra=self._announced_with, **options
        )

    def _announced_with(self, address: str) -> dict[str, str]:
        return {"peer": with_port_of(address, self._started_link().address)}

    def start(self) -> Self:
        """Listen, connect and be found; nothing is left running if that fails: `BindFailed`, `JournalError`."""
        with self._order:
            self.stop()
            for news in (self._news, self._outcomes):
                news.open()
            with ExitStack() as opened:
                opened.callback(self.stop)
                self._open_link(opened)
                if self._listens:
                    self.publisher = publisher = self._make_publisher()
                    opened.callback(publisher.stop)
                    publisher.start()
                if not self._is_stopped:  # by a signal handler, meanwhile
                    opened.pop_all()
        logger.info("messenger %s is there, at %s", self.name, self.address or "no address of its own")
        return self

    def _open_link(self, opened: ExitStack) -> None:
        channel = self._backend.open_links(f"tcp://*:{self._link_port}" if self._listens else None, self._ports)
        opened.callback(channel.close)
        link = LinkPeer(self.name, channel, self._listener, self._directory, self._silence, self._bandwidth)
        self._listener.finder = finder = PeerFinder(link, self._backend, self._nameservers)
        self._link, self._process, self._is_stopped = link, os.getpid(), False
        for target in self._targets:
            target.open(link)
        finder.start()
        self._outgoing.begin()
        self._outgoing.expect(link.start().left_over)

    def stop(self) -> None:
        """Say goodbye and end, from any thread and from signal handlers; harmless before the start and when stopped.

        Calls that wait return. What was got is accepted, unless there is an incoming window; what else is not settled
        is released. What was put and is not persistent is lost.
        """
        if self._link is None and self.publisher is None:
            return
        with self._order, ExitStack() as stopping:
            self._incoming.settle_former()
            self._is_stopped = True
            for news in (self._news, self._outcomes):
                news.tell()
                stopping.callback(news.close)
            publisher, self.publisher = self.publisher, None
            if publisher is not None:
                stopping.callback(publisher.stop)
            link, self._link = self._link, None
            if link is not None:
                stopping.callback(link.stop)
                stopping.callback(self._listener.finder.stop)
            for target in self._targets:
                target.close()
            self._incoming.clear()

    def close(self) -> None:
        """Do the same as `stop`."""
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.release()
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether it is not started, or was stopped."""
        return self._is_stopped

    @property
    def address(self) -> str:
        """Where others can connect to it, "" if it is not started or does not listen."""
        bound = "" if (link := self._link) is None else link.address
        return bound and with_port_of(f"tcp://{read('advertised_host') or get_own_ip()}:0", bound)

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

    def connect(self, address: str) -> None:
        """Be connected to a peer, given by name or ``tcp://host:port``, even with nothing to send; `NotStarted`."""
        self._started_link()
        self._listener.finder.stay_with(peer_at(address))

    def disconnect(self, address: str) -> None:
        """Leave a peer that was connected to; it is found again when there is something for it."""
        self._started_link()
        self._listener.finder.leave(peer_at(address))

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

    def put(
        self,
        to: str,
        message: Message,
        *,
        ttl: float | None = None,
        persistent: bool = False,
        id: str | None = None,
        reply_to: str = "",
        correlation_id: str = "",
        target: str = _MESSAGES,
    ) -> Tracker:
        """Have a message, as it is now, sent to a name or to ``tcp://host:port``, both perhaps with a ``/path``.

        Never waits. It expires if the peer has not come for it within `ttl` seconds. `reply_to` may be an address or
        just a name, `id` is made if none is given. `ConfigurationError` for what cannot be an address, `EncodeError`,
        `JournalFull`, `NotStarted`.
        """
        link = self._started_link()
        peer, visible = self._addressing.resolve(to)
        if peer == self.name:
            raise ConfigurationError(f"{to!r} is this messenger itself")
        properties = Properties(
            id=id or uuid.uuid4().hex,
            to=visible,
            reply_to=reply_to and without_credentials(reply_to),
            correlation_id=correlation_id,
        )
        payload = encode_payload(_encoded(message, self._max_size), properties)
        tracker = Tracker(properties.id, visible, peer, self._outgoing)
        if target == _MESSAGES:
            self._outgoing.add(tracker)
        try:
            link.put(
                peer, target, payload, tracker, ttl=None if ttl is None else ttl_in_seconds(ttl), persistent=persistent
            )
        except BaseException:
            self._outgoing.drop(tracker)
            raise
        return tracker

    def reply(self, message: Message, answer: Message, **options: Any) -> Tracker:
        """Put an answer to a message, to where it asks for answers, else to who sent it; `options` are those of `put`.

        `LocalProtocolError` if it did not come by a messenger.
        """
        properties = message.properties
        if properties is None:
            raise LocalProtocolError("the message came by no messenger, so there is nobody to reply to")
        options.setdefault("correlation_id", properties.id)
        return self.put(properties.reply_to or properties.source, answer, **options)

    def send(self, n: int = -1, timeout: float | None = None) -> int:
        """Wait until so many of the messages put are settled, or all; return how many were since the last call.

        With n = 0, and when not blocking, nothing is waited for. `TimedOut`, `Interrupted`.
        """
        if n:
            self._await_outcome(
                lambda: not self._outgoing or 0 < n <= self._outgoing.settled, timeout, "messages to be settled"
            )
        return self._outgoing.reckon()

    def recv(self, n: int = -1, timeout: float | None = None) -> int:
        """Wait until there is a message to get; take in all there are, or n; return how many there are to get.

        When not blocking, nothing is waited for. `TimedOut`, `Interrupted`.
        """
        self._incoming.settle_former()
        if n:
            self._insist(lambda: bool(self._incoming.take_in(n) or self._incoming), timeout, "a message", self._news)
        return self.incoming

    def get(self, timeout: float | None = 0) -> Message | None:
        """Return the eldest message; None if there is none within `timeout` seconds, or as many as `timeout` says."""
        self._incoming.settle_former()
        message = self._incoming.pop()
        if message is None and timeout != 0:
            message = self._wait_until(self._incoming.pop, timeout, self._news)
        return None if message is None else self._incoming.begin(message)

    def accept(self, message: Message | None = None, cumulative: bool = False) -> bool:
        """Tell the sender that a message has done its work, or all got; if `cumulative`, all got up to that one.

        Return False if one of them is settled already, or no longer this messenger's to settle.
        """
        return self._incoming.settle(self._inbox.accept, message, cumulative)

    def release(self, message: Message | None = None, cumulative: bool = False) -> bool:
        """Have messages come again, to this messenger or another one of its name; otherwise as `accept`."""
        return self._incoming.settle(self._inbox.release, message, cumulative)

    def reject(self, message: Message | None = None, cumulative: bool = False, reason: str = "") -> bool:
        """Tell the sender that messages are of no use, and why; otherwise as `accept`."""
        return self._incoming.settle(functools.partial(self._inbox.reject, reason=reason), message, cumulative)

    def status(self, tracker: Tracker | str) -> str:
        """Return the state of a message, given by its tracker or its id, "unknown" if no such tracker is kept."""
        known = self._outgoing.find(tracker) if isinstance(tracker, str) else tracker
        return "unknown" if known is None else known.state

    def buffered(self, tracker: Tracker) -> bool:
        """Return whether a message was not handed to the transport yet."""
        return tracker.buffered

    def settle(self, tracker: Tracker | None = None, cumulative: bool = False) -> None:
        """Keep a tracker no longer, or none of them; if `cumulative`, nor those of what was put before it."""
        self._outgoing.forget(tracker, cumulative)

    def interrupt(self) -> None:
        """Have the call that waits raise `Interrupted`, or else the next one; from any thread and signal handlers."""
        self._interrupts.append(None)
        self._news.tell()
        self._outcomes.tell()

    def add_hook(self, pattern: str | re.Pattern[str], callback: Callable[[Message], object]) -> None:
        """Have `work` give messages whose subject begins with a text, or matches a pattern, to hooks alone."""
        hook: Event[[Message]] = Event(f"the hook for {pattern}")
        hook(callback)
        matches = pattern.match if isinstance(pattern, re.Pattern) else functools.partial(_begins, pattern)
        self._hooks.append((matches, hook))

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Have `work` call back in `delay` seconds."""
        self._timers.add(delay, callback)
        self._news.tell()

    def work(self, timeout: float | None = None) -> bool:
        """Call back for what happened, waiting at most `timeout` seconds for something; return whether anything did.

        Messages for which there is no callback are there to be got afterwards. `Interrupted`.
        """
        return self._work(self._deadline(timeout), _MOST_IN_TURN)

    def run(self, runtime: float | None = None, count: int | None = None) -> None:
        """Call back for what happens until `stop`, KeyboardInterrupt, so many seconds or messages; `Interrupted`."""
        deadline = None if runtime is None else time.monotonic() + runtime
        end = None if count is None else self._handled + count
        with contextlib.suppress(KeyboardInterrupt):
            while not self.stopped and (deadline is None or time.monotonic() < deadline):
                most = _MOST_IN_TURN if end is None else min(end - self._handled, _MOST_IN_TURN)
                if most <= 0:
                    return
                self._work(deadline, most)

    def open_target(
        self,
        name: str,
        on_arrival: Callable[[], None],
        credit: int = 200,
        *,
        is_prompt: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> Target:
        """Take in what others put for another target than "messages"; see `Target`.

        `LocalProtocolError` if that is open already, as a message can be taken once only.
        """
        if any(target.name == name for target in self._targets):
            raise LocalProtocolError(f"the target {name} of {self.name} is open already")
        target = Target(name, on_arrival, credit, self._drops, is_prompt=is_prompt, on_close=on_close)
        self._targets.append(target)
        if self._link is not None:
            target.open(self._link)
        return target

    def _started_link(self) -> LinkPeer:
        if (link := self._link) is None:
            raise NotStarted("the messenger is not started")
        return link

    def _withdraw(self, tracker: Tracker) -> bool:
        return (link := self._link) is not None and link.withdraw(tracker.peer, tracker)

    def _deadline(self, timeout: float | None) -> float | None:
        """Return until when to wait, if a call is given that timeout; None: for ever."""
        if timeout is None:
            timeout = self.timeout if self.blocking else 0.0
        return None if timeout is None else time.monotonic() + timeout

    def _wait_until(self, look: Callable[[], Found], timeout: float | None, news: News) -> Found | None:
        """Look, and again whenever there is news, until something is found, the time is over, or all is stopped."""
        if not self.stopped:
            check_process(self._process, "the messenger")
        deadline = self._deadline(timeout)
        while True:
            since = news.count
            self._raise_interrupted()
            if found := look():
                return found
            if self.stopped or not news.wait(since, deadline):
                return None

    def _insist(self, look: Callable[[], bool], timeout: float | None, what: str, news: News) -> None:
        if not self._wait_until(look, timeout, news) and not self.stopped and (self.blocking or timeout is not None):
            raise TimedOut(f"{self.name} has waited in vain for {what}")

    def _await_outcome(self, look: Callable[[], bool], timeout: float | None, what: str) -> None:
        self._insist(look, timeout, what, self._outcomes)

    def _raise_interrupted(self) -> None:
        if self._interrupts:
            self._interrupts.clear()
            raise Interrupted(f"{self.name} was interrupted")

    def _work(self, deadline: float | None, most: int) -> bool:
        while True:
            since = self._news.count
            self._raise_interrupted()
            if self._timers.call_due() + self._listener.call_back() + self._call_back(most):
                return True
            if self.stopped or (deadline is not None and time.monotonic() >= deadline):
                return False
            moments = [moment for moment in (deadline, self._timers.next_timeout()) if moment is not None]
            self._news.wait(since, min(moments, default=None))

    def _call_back(self, most: int) -> int:
        """Call back for so many messages at most; return how many that were."""
        handle = self._handle_each if self.on_message or self._hooks else self._incoming.take_in
        count = handle(most)
        self._handled += count
        return count

    def _handle_each(self, most: int) -> int:
        count = 0
        while count < most and (message := self._next_to_handle()) is not None:
            self._handle(message)
            count += 1
        return count

    def _next_to_handle(self) -> Message | None:
        return self._incoming.pop() if self.on_message else self._incoming.take()

    def _handle(self, message: Message) -> None:
        events = [hook for matches, hook in self._hooks if matches(message.subject)] or [self.on_message]
        if not any(events):
            self._incoming.append(message)
            return
        self._incoming.begin(message)
        is_done = False  # as it stays if a signal handler raises in the midst of it
        try:
            failures = [failure for event in events if (failure := event.happen(message))]
            is_done = True
        finally:
            if not is_done:
                self.release(message)
        if failures:
            self.reject(message, reason=f"a callback failed: {failures[-1]}")
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
