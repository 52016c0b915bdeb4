"""Links that a loop drives: a task in place of their thread, where no disk is in the way."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from posttroll.asyncio.readiness import Readiness
from posttroll.asyncio.side_thread import LoopCalls, SideThread
from posttroll.asyncio.tasks import Worker
from posttroll.asyncio.turns import Turn
from posttroll.backends.base import LinkChannel, Peer
from posttroll.link_peer import LinkPeer, Listener
from posttroll.links import PAUSE_AFTER_TROUBLE, Engine
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.link import Delivery
from posttroll.protocol.outbound import Concluded

__all__ = ["Driver", "LoopPeer"]

P = ParamSpec("P")
Result = TypeVar("Result")

_MOST_FETCHED = 20


class Driver:
    """Gives an engine its turns, from a task of the loop in which it is started; closes its channel at the end."""

    def __init__(self, engine: Engine, channel: LinkChannel) -> None:
        self._engine = engine
        self._channel = channel
        self._readiness = Readiness(channel.fileno, engine.name)
        self._worker = Worker(engine.name, self._run)
        self._turn = Turn()
        self._has_left = False

    def start(self) -> None:
        """Begin, in the running loop; harmless when begun, and when stopped."""
        self._worker.start()

    async def _run(self) -> None:
        while not self._has_left and not self._channel.closed:
            try:
                await self._take_turn()
            except Exception as error:
                self._engine.tell_trouble(error)
                await asyncio.sleep(PAUSE_AFTER_TROUBLE)

    async def _take_turn(self) -> None:
        """Have the engine do what it can do now, and wait for more."""
        if self._engine.turn(-math.inf):
            await self._turn.give_way()
        else:
            await self._readiness.wait(min(self._engine.next_timeout(), self._channel.next_timeout()))

    def close(self) -> None:
        """End without taking leave; without waiting, and without a loop. Harmless when closed."""
        self._has_left = True
        self._readiness.close()
        self._channel.close()

    async def stop(self) -> None:
        """Have the engine take its leave; that and the end also come when cancelled. Harmless when stopped."""
        try:
            if not self._has_left:
                self._has_left = True
                self._engine.leave()
            while self._engine.is_leaving:
                await self._take_turn()
        finally:
            self.close()
            await self._worker.stop()


class _Relay:
    """Has a listener told in a loop, between its begin and its end, of what happens in a thread."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._calls: LoopCalls | None = None
        self.link: LinkPeer
        self.peers: list[PeerInfo] = []
        """Who is connected, as far as the listener was told."""

    def begin(self) -> None:
        """Tell in the running loop."""
        self._calls = LoopCalls(asyncio.get_running_loop())

    def end(self) -> None:
        """Tell nothing any more."""
        if self._calls is not None:
            self._calls.close()

    def tell(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have a function called in the loop; from any thread."""
        if self._calls is not None:
            self._calls.add(function, *args, **kwargs)

    def on_wanted(self, peer: str) -> None:
        self.tell(self._listener.on_wanted, peer)

    def on_unwanted(self, peer: str) -> None:
        self.tell(self._listener.on_unwanted, peer)

    def on_connect(self, peer: PeerInfo) -> None:
        self._note_peers()
        self.tell(self._listener.on_connect, peer)

    def on_disconnect(self, peer: PeerInfo, reason: str) -> None:
        self._note_peers()
        self.tell(self._listener.on_disconnect, peer, reason)

    def _note_peers(self) -> None:
        self.tell(setattr, self, "peers", self.link.peers())

    def on_outcome(self, concluded: Concluded) -> None:
        self.tell(self._listener.on_outcome, concluded)


class _Fetched:
    """A few deliveries for a target, taken from a link before they are asked for, so that the loop waits for no lock.

    They are few, as the sender may want those back that were not taken, for somebody else.
    """

    def __init__(
        self, link: LinkPeer, target: str, on_arrival: Callable[[], None], relay: _Relay, side: SideThread
    ) -> None:
        self._link = link
        self._target = target
        self._on_arrival = on_arrival
        self._relay = relay
        self._side = side
        self._lock = threading.Lock()
        self._ready: deque[tuple[Delivery, str]] = deque()
        self._is_due = False

    def take(self) -> tuple[Delivery, str] | None:
        """Return the next one, None if there is none now; in the loop."""
        taken = self._ready.popleft() if self._ready else None
        if not self._ready and not self._is_due:
            self._is_due = True
            self._side.call_later(self.fetch)
        return taken

    def fetch(self) -> None:
        """Take some more, if there is room, and tell in the loop if there are any; in another thread."""
        has_news = False
        with self._lock:
            self._is_due = False
            while len(self._ready) < _MOST_FETCHED and (taken := self._link.take(self._target)) is not None:
                self._ready.append(taken)
                has_news = True
        if has_news:
            self._relay.tell(self._on_arrival)


class LoopPeer:
    """A `LinkPeer` for one loop, in which `listener` is told and `on_arrival` called.

    Without `directory` a task of the loop drives it, and coroutines do at once what they are to do. With one a thread
    does, as the disk may be slow: coroutines wait for a thread beside. Plain methods wait in neither case.
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
        self.address = channel.address
        self.left_over = 0
        """How many messages there were to be sent at the start."""
        self._relay = _Relay(listener)
        self._side = None if directory is None else SideThread(f"posttroll-journal-{name}")
        told = listener if self._side is None else self._relay
        self._link = self._relay.link = LinkPeer(name, channel, told, directory, silence, bandwidth)
        self._driver = Driver(self._link, channel)
        self._fetched: dict[str, _Fetched] = {}
        self._turn = Turn()

    async def start(self) -> LoopPeer:
        """Begin to talk, with what a former life has left to be sent; `JournalError`. Stopped if that fails."""
        if self._side is None:
            self._driver.start()
            return self
        self._relay.begin()
        try:
            await self._side.call(self._link.start)
        except BaseException:
            await self.stop()
            raise
        self.left_over = self._link.left_over
        return self

    async def stop(self) -> None:
        """Say goodbye; closes the channel, also when cancelled. Nobody is told of anything afterwards. Harmless twice.

        What is not settled is released.
        """
        if self._side is None:
            await self._driver.stop()
        else:
            self._relay.end()
            await self._side.stop(self._link.stop)

    def open_target(
        self, target: str, on_arrival: Callable[[], None], credit: int = 200, *, is_prompt: bool = True
    ) -> None:
        """Take in what others have for a target, so many deliveries of each at a time; before or after the start.

        `on_arrival` is called in the loop when there is something to take.
        """
        if self._side is None:
            self._link.open_target(target, on_arrival, credit, is_prompt=is_prompt)
        else:
            fetched = _Fetched(self._link, target, on_arrival, self._relay, self._side)
            self._side.call_later(self._link.open_target, target, fetched.fetch, credit, is_prompt=is_prompt)
            self._fetched[target] = fetched

    def take(self, target: str) -> tuple[Delivery, str] | None:
        """Return the next delivery, which has to be settled, and the name of who sent it; None if there is none."""
        return self._link.take(target) if self._side is None else self._fetched[target].take()

    @property
    def link(self) -> LinkPeer:
        """What is driven, for functions that are given to `call` or `call_soon` alone: they may wait for a disk."""
        return self._link

    async def call(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Call a function where the disk may be waited for; cancelled before it has begun, it is not called."""
        if self._side is not None:
            return await self._side.call(function, *args, **kwargs)
        await self._turn.give_way()
        return function(*args, **kwargs)

    def connect(self, peer: Peer) -> None:
        """Connect to a place, now and whenever the connection was cut; with a directory, errors are only logged."""
        self.call_soon(self._link.connect, peer)

    def disconnect(self, peer: Peer) -> None:
        """Leave a place, in order with `connect`."""
        self.call_soon(self._link.disconnect, peer)

    def call_soon(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do so without waiting for the end, in order with others; with a directory, errors are only logged."""
        if self._side is None:
            function(*args, **kwargs)
        else:
            self._side.call_later(function, *args, **kwargs)

    def peers(self) -> list[PeerInfo]:
        """Return who is connected, as far as the listener was told."""
        return self._link.peers() if self._side is None else self._relay.peers
