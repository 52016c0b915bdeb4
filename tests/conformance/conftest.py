"""Every test of this folder runs over every backend."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

import posttroll.asyncio
from posttroll.backends import memory
from posttroll.backends.base import (
    Backend,
    LinkChannel,
    Peer,
    PublishChannel,
    ReplyChannel,
    RequestChannel,
    SubscribeChannel,
)
from posttroll.backends.registry import find_backend
from posttroll.message import Message
from posttroll.settings import Ports, config
from tests.fixtures.awaited import AwaitedChannel
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.portal import Portal, Twin, next_within
from tests.fixtures.waiting import UNIT

LOOPBACK = "tcp://127.0.0.1:0"
Nameservers = list[str] | None

FRONT_ENDS = (
    "Listener",
    "ListenerContainer",
    "Messenger",
    "NSSubscriber",
    "NoisyPublisher",
    "Publish",
    "Publisher",
    "RpcClient",
    "RpcServer",
    "Subscribe",
    "Subscriber",
    "create_publisher_from_dict_config",
    "create_subscriber_from_dict_config",
    "get_pub_address",
    "get_pub_addresses",
)


@pytest.fixture(params=["blocking", "asyncio"])
def fronts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal | None]:
    """Let the names of front ends in a test's module mean the blocking ones, and then those of asyncio."""
    if request.param == "blocking":
        yield None
        return
    with Portal() as portal:
        for name in vars(request.module).keys() & FRONT_ENDS:
            monkeypatch.setattr(request.module, name, portal.twin(getattr(posttroll.asyncio, name)))
        yield portal


def blocking_only(reason: str) -> pytest.MarkDecorator:
    """Have a test use the blocking front ends alone, for a reason."""
    return pytest.mark.parametrize("fronts", [pytest.param("blocking", id="blocking")], indirect=True)


@pytest.fixture(params=["memory", "unsecure_zmq", "secure_zmq"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Configure one backend after the other, on a bus or with keys of its own."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    keys = request.getfixturevalue("keys").settings() if request.param == "secure_zmq" else {}
    with config.set(backend=request.param, **keys):
        yield find_backend(request.param)


@contextmanager
def listening(container: Any) -> Iterator[Any]:
    """Have a container of either kind listen until the end of the block."""
    if isinstance(container, Twin):
        with container:
            yield container
        return
    try:
        yield container
    finally:
        container.stop()


def next_of(container: Any, timeout: float) -> Message | None:
    """Return the next message of a container of either kind, None if there is none within so many seconds."""
    with suppress(queue.Empty, TimeoutError, StopIteration):
        if isinstance(container, Twin):
            return next_within(container, timeout)
        return container.output_queue.get(timeout=timeout)
    return None


class Channels:
    """Opens channels and closes them all at the end; with a portal, those are waited for by tasks of its loop."""

    def __init__(self, backend: Backend, portal: Portal | None = None) -> None:
        self.backend = backend
        self._portal = portal
        self._closing = ExitStack()

    def peer(self, address: str, tag: str = "") -> Peer:
        """Return the peer of this backend at an address."""
        return Peer(address, self.backend.name, tag)

    def publish(self, address: str = LOOPBACK, ports: Ports | None = None, when_full: str = "drop") -> PublishChannel:
        """Open a publish channel."""
        return self._opened(self.backend.open_publish(address, ports or Ports.read(), when_full), when_full)

    def subscribe(self, *publishers: PublishChannel, topics: Sequence[bytes] = (b"",)) -> SubscribeChannel:
        """Open a subscribe channel and wait until the publishers know of it."""
        channel = self._opened(self.backend.open_subscribe())
        for publisher in publishers:
            channel.connect(self.peer(publisher.address), topics)
            for topic in topics:
                assert publisher.wait_for_subscriber(topic, 5 * UNIT)
        return channel

    def reply(self, *addresses: str) -> ReplyChannel:
        """Open a reply channel."""
        bindings = [self.peer(address) for address in addresses or [LOOPBACK]]
        return self._closing.enter_context(closing(self.backend.open_reply(bindings)))

    def request(self, *addresses: str) -> RequestChannel:
        """Open a request channel."""
        return self._opened(self.backend.open_request(map(self.peer, addresses)))

    def links(self, address: str | None = LOOPBACK, ports: Ports | None = None) -> LinkChannel:
        """Open a channel for links; with None, one that only connects."""
        return self._opened(self.backend.open_links(address, ports or Ports.read()))

    def _opened(self, channel: Any, *arguments: Any) -> Any:
        if self._portal is not None:
            channel = AwaitedChannel(self._portal, channel, *arguments)
        return self._closing.enter_context(closing(channel))

    def close(self) -> None:
        """Close all channels."""
        self._closing.close()


@pytest.fixture
def channels(backend: Backend, request: pytest.FixtureRequest) -> Iterator[Channels]:
    """Open channels of the backend, and close them at the end; see `awaited_too`."""
    with ExitStack() as stack:
        portal = stack.enter_context(Portal()) if getattr(request, "param", "") == "asyncio" else None
        yield stack.enter_context(closing(Channels(backend, portal)))


awaited_too = pytest.mark.parametrize("channels", ["blocking", "asyncio"], indirect=True)
"""The calls that wait are tried as such, and by tasks that wait for the channels' descriptors."""


@pytest.fixture(params=["multicast", "designated"])
def way(request: pytest.FixtureRequest) -> str:
    """How publishers announce themselves."""
    return str(request.param)


@pytest.fixture
def nameservers(way: str, backend: Backend, network: Network) -> Iterator[Nameservers]:
    """Run a nameserver; give what publishers have to be told of it."""
    with running_nameserver(multicast_enabled=way == "multicast"):
        yield None if way == "multicast" else ["localhost"]
