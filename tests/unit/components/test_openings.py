"""Opening what a component needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from posttroll.components.component import Component
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import handlers_of, on, request
from posttroll.components.middleware import CountMiddleware, Stack
from posttroll.components.openings import open_messenger, open_server, open_subscriber
from posttroll.errors import MethodNotFound
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient
from posttroll.settings import config
from posttroll.testing import memory_bus
from tests.fixtures.waiting import UNIT


@pytest.fixture(autouse=True)
def bus() -> Iterator[None]:
    with memory_bus():
        yield


class Handlers(Component):
    @on("file", "/1b")
    def work(self) -> None:
        """Be there."""

    @request("double")
    def double_it(self, number: int, component: Component) -> int:
        assert component is self
        return number * 2


def configured(**items: Any) -> Configuration:
    return Configuration.load({"name": "worker", "timeout": 0.01, **items})


def test_a_messenger_publishes_under_the_components_name() -> None:
    with closing(open_messenger(configured(port=9123))) as messenger:
        assert messenger.publisher is not None
        assert messenger.name == "worker"
        assert messenger.publisher.port_number == 9123
        assert messenger.publisher.journal is None


def test_a_component_has_a_journal_if_its_configuration_or_the_settings_say_so(tmp_path: Path) -> None:
    journals = []
    for items in ({"journal": str(tmp_path / "own.sqlite")}, {}):
        with (
            config.set(journal=str(tmp_path / "usual.sqlite")),
            closing(open_messenger(configured(**items))) as messenger,
        ):
            assert messenger.publisher is not None
            journals.append(messenger.publisher.journal)

    assert all(journals)
    assert {file.name for file in tmp_path.iterdir()} >= {"own.sqlite", "usual.sqlite"}


def test_without_nameservers_a_messenger_is_not_announced() -> None:
    with closing(open_messenger(configured(nameservers=False))) as messenger:
        assert type(messenger.publisher).__name__ == "Publisher"


@pytest.mark.parametrize(
    ("items", "topics"),
    [({}, []), ({"topics": []}, ["/1b"]), ({"services": None}, ["/1b"]), ({"nameservers": False}, ["/1b"])],
)
def test_without_topics_or_anybody_to_get_messages_from_there_is_no_subscriber(
    items: dict[str, Any], topics: list[str]
) -> None:
    assert open_subscriber(configured(**items), topics) is None


@pytest.mark.parametrize(
    "items", [{"nameservers": False, "addresses": ["tcp://127.0.0.1:9000"]}, {"addresses": ["tcp://127.0.0.1:9000"]}]
)
def test_known_addresses_are_connected_to(items: dict[str, Any]) -> None:
    subscriber = open_subscriber(configured(**items), ["/1b"])

    assert subscriber is not None
    with closing(subscriber):
        assert [address["URI"] for address in subscriber.addresses] == ["tcp://127.0.0.1:9000"]


def test_calls_are_served_under_their_names() -> None:
    component, counts = Handlers(), CountMiddleware()
    with Messenger("worker") as messenger, Messenger("caller") as caller, RpcClient(caller, timeout=5 * UNIT) as client:
        server = open_server(messenger, component, handlers_of(component), Stack([counts]), workers=1)
        assert server is not None
        with server:
            assert client.proxy("worker").double(4) == 8
            with pytest.raises(MethodNotFound):
                client.proxy("worker").double_it(4)

    assert counts.done == {"double_it": 1}


def test_without_declared_calls_there_is_no_server() -> None:
    module = ModuleType("handlers")

    assert open_server(Messenger("worker"), Component(), handlers_of(module), Stack([]), workers=1) is None


def test_a_message_to_somebody_can_outlive_the_component(tmp_path: Path) -> None:
    with closing(open_messenger(configured(outbox=str(tmp_path / "outbox")))) as messenger:
        messenger.put("absent", Message("/2a", "file", 5), persistent=True)

    assert list((tmp_path / "outbox").rglob("*"))
