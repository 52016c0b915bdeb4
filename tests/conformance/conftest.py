"""Every test of this folder runs over every backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

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
from posttroll.settings import Ports, config
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

LOOPBACK = "tcp://127.0.0.1:0"
Nameservers = list[str] | None


@pytest.fixture(params=["memory", "unsecure_zmq", "secure_zmq"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Configure one backend after the other, on a bus or with keys of its own."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    keys = request.getfixturevalue("keys").settings() if request.param == "secure_zmq" else {}
    with config.set(backend=request.param, **keys):
        yield find_backend(request.param)


class Channels:
    """Opens channels and closes them all at the end."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._closing = ExitStack()

    def peer(self, address: str, tag: str = "") -> Peer:
        """Return the peer of this backend at an address."""
        return Peer(address, self.backend.name, tag)

    def publish(self, address: str = LOOPBACK, ports: Ports | None = None, when_full: str = "drop") -> PublishChannel:
        """Open a publish channel."""
        channel = self.backend.open_publish(address, ports or Ports.read(), when_full)
        return self._closing.enter_context(closing(channel))

    def subscribe(self, *publishers: PublishChannel, topics: Sequence[bytes] = (b"",)) -> SubscribeChannel:
        """Open a subscribe channel and wait until the publishers know of it."""
        channel = self._closing.enter_context(closing(self.backend.open_subscribe()))
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
        return self._closing.enter_context(closing(self.backend.open_request(map(self.peer, addresses))))

    def links(self, address: str | None = LOOPBACK, ports: Ports | None = None) -> LinkChannel:
        """Open a channel for links; with None, one that only connects."""
        return self._closing.enter_context(closing(self.backend.open_links(address, ports or Ports.read())))

    def close(self) -> None:
        """Close all channels."""
        self._closing.close()


@pytest.fixture
def channels(backend: Backend) -> Iterator[Channels]:
    """Open channels of the backend, and close them at the end."""
    with closing(Channels(backend)) as channels:
        yield channels


@pytest.fixture(params=["multicast", "designated"])
def way(request: pytest.FixtureRequest) -> str:
    """How publishers announce themselves."""
    return str(request.param)


@pytest.fixture
def nameservers(way: str, backend: Backend, network: Network) -> Iterator[Nameservers]:
    """Run a nameserver; give what publishers have to be told of it."""
    with running_nameserver(multicast_enabled=way == "multicast"):
        yield None if way == "multicast" else ["localhost"]
