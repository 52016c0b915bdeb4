"""What a class of handlers derives from."""

from __future__ import annotations

import pytest

from posttroll.components.component import Component
from posttroll.errors import NotStarted
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.settings import config
from posttroll.testing import patched_publisher


def test_a_component_publishes_by_its_messenger() -> None:
    component = Component()

    with config.set(backend="memory"), patched_publisher() as sent, Messenger("worker", nameservers=False) as messenger:
        component.messenger = messenger
        component.publish(Message("/2a", "file", 5))

    assert [Message.decode(text).data for text in sent] == [5]


def test_a_component_that_is_not_running_cannot_publish() -> None:
    component = Component()
    component.name, component.messenger = "worker", Messenger("worker")

    with pytest.raises(NotStarted, match="worker is not running"):
        component.publish(Message("/2a", "file", 5))
