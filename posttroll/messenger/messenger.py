"""The messenger: what a program sends and gets."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from posttroll.errors import NotStarted
from posttroll.forks import check_process
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.messenger.base import MESSAGES, MOST_IN_TURN, BaseMessenger, logger
from posttroll.messenger.events import Event
from posttroll.messenger.peer_finder import PeerFinder
from posttroll.messenger.targets import Target
from posttroll.messenger.trackers import Tracker
from posttroll.news import News
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.frames import ACCEPTED, RELEASED, rejected
from posttroll.protocol.properties import Properties
from posttroll.publisher import NoisyPublisher, Publisher, get_own_ip

__all__ = ["Messenger"]

Found = TypeVar("Found")


class Messenger(BaseMessenger[Tracker, Target]):
    """Sends messages to others that it knows by name or address, and gets those sent to it.

    Its `name`, a UUID if none is given, is what others find it by: it announces itself as a `NoisyPublisher` does, and
    can publish as one; `aliases`, `nameservers`, `broadcast_interval` and the `options` are those of that, and
    `publisher_journal` is its `journal`. With ``nameservers=False`` it is not announced and asks nobody: others are
    reached by their addresses only. Without `listen` it only connects, as those have to who cannot be connected to; it
    sends and gets all the same.

    What is sent waits here until the peer, who may not be there yet, has accepted it. What is sent as persistent is
    kept in files of the directory `journal`, for the next program of that name and directory.

    `credit`: how many messages of each peer may be here and not be settled. `incoming_window`: how many of those got
    may stay unsettled, beyond which the eldest is accepted; 0: each is accepted when the next one is asked for; None:
    none unless told to. `outgoing_window`: how many trackers are kept. `bandwidth`: bytes per second to each peer.
    `silence`: seconds after which a peer not heard of is taken for gone. `timeout`: seconds that calls wait which are
    given none, None for ever; without `blocking` those do not wait at all.
    """

    publisher: Publisher | NoisyPublisher | None
    on_message: Event[[Message]]
    on_sent: Event[[Tracker]]
    on_drop: Event[[Tracker, str]]
    on_connect: Event[[PeerInfo]]
    on_disconnect: Event[[PeerInfo, str]]
    _link: LinkPeer | None
    _news: News
    _outcomes: News
    _event_class = Event
    _order_class = staticmethod(threading.RLock)  # a signal handler may stop what is being started
    _publisher_class = Publisher
    _noisy_publisher_class = NoisyPublisher

    def _make_news(self) -> News:
        return News()

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
        channel = self._open_channel()
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

    def connect(self, address: str) -> None:
        """Be connected to a peer, given by name or ``tcp://host:port``, even with nothing to send; `NotStarted`."""
        self._stay_with(address)

    def disconnect(self, address: str) -> None:
        """Leave a peer that was connected to; it is found again when there is something for it."""
        self._leave(address)

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
        target: str = MESSAGES,
    ) -> Tracker:
        """Have a message, as it is now, sent to a name or to ``tcp://host:port``, both perhaps with a ``/path``.

        Never waits. It expires if the peer has not come for it within `ttl` seconds. `reply_to` may be an address or
        just a name, `id` is made if none is given. `ConfigurationError` for what cannot be an address, `EncodeError`,
        `JournalFull`, `NotStarted`.
        """
        tracker, payload = self._prepare(to, message, id, reply_to, correlation_id)
        self._commit(tracker, payload, target, ttl, persistent)
        return tracker

    def reply(self, message: Message, answer: Message, **options: Any) -> Tracker:
        """Put an answer to a message, to where it asks for answers, else to who sent it; `options` are those of `put`.

        `LocalProtocolError` if it did not come by a messenger.
        """
        return self.put(self._asker(message, options), answer, **options)

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
        return self._incoming.settle(ACCEPTED, message, cumulative)

    def release(self, message: Message | None = None, cumulative: bool = False) -> bool:
        """Have messages come again, to this messenger or another one of its name; otherwise as `accept`."""
        return self._incoming.settle(RELEASED, message, cumulative)

    def reject(self, message: Message | None = None, cumulative: bool = False, reason: str = "") -> bool:
        """Tell the sender that messages are of no use, and why; otherwise as `accept`."""
        return self._incoming.settle(rejected(reason), message, cumulative)

    def work(self, timeout: float | None = None) -> bool:
        """Call back for what happened, waiting at most `timeout` seconds for something; return whether anything did.

        Messages for which there is no callback are there to be got afterwards. `Interrupted`.
        """
        return self._work(self._deadline(timeout), MOST_IN_TURN)

    def run(self, runtime: float | None = None, count: int | None = None) -> None:
        """Call back for what happens until `stop`, KeyboardInterrupt, so many seconds or messages; `Interrupted`."""
        deadline = math.inf if runtime is None else time.monotonic() + runtime
        end = None if count is None else self._handled + count
        with contextlib.suppress(KeyboardInterrupt):
            while not self.stopped and time.monotonic() < deadline:
                most = MOST_IN_TURN if end is None else min(end - self._handled, MOST_IN_TURN)
                if most <= 0:
                    return
                self._work(deadline, most)

    def _make_target(
        self, name: str, on_arrival: Callable[[], None], credit: int, is_prompt: bool, on_close: Callable[[], None]
    ) -> Target:
        return Target(name, on_arrival, credit, self._drops, is_prompt=is_prompt, on_close=on_close)

    def _track(self, properties: Properties, peer: str) -> Tracker:
        return Tracker(properties.id, properties.to, peer, self._outgoing)

    def _peer(self) -> LinkPeer:
        if (link := self._link) is None:
            raise NotStarted("the messenger is not started")
        return link

    def _own_ip(self) -> str:
        return get_own_ip()

    def _wake(self) -> None:
        self._news.tell()
        self._outcomes.tell()

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
        self._check_found(self._wait_until(look, timeout, news), timeout, what)

    def _await_outcome(self, look: Callable[[], bool], timeout: float | None, what: str) -> None:
        self._insist(look, timeout, what, self._outcomes)

    def _work(self, deadline: float, most: int) -> bool:
        while True:
            since = self._news.count
            self._raise_interrupted()
            if self._call_back(most):
                return True
            if self.stopped or time.monotonic() >= deadline:
                return False
            self._news.wait(since, min(deadline, self._timers.next_timeout()))

    def _call_back(self, most: int) -> int:
        """Call back for what happened, and for so many messages at most; return how much that was."""
        happened = 0
        for happen in self._due():
            happen()
            happened += 1
        handle = self._handle_each if self.on_message or self._hooks else self._incoming.take_in
        count = handle(most)
        self._handled += count
        return happened + count

    def _handle_each(self, most: int) -> int:
        count = 0
        while count < most and (message := self._next_to_handle()) is not None:
            self._handle(message)
            count += 1
        return count

    def _handle(self, message: Message) -> None:
        failures = None  # as it stays if a signal handler raises in the midst of it
        if events := self._handlers(message):
            try:
                failures = [event.happen(message) for event in events]
            finally:
                self._conclude(message, failures)
