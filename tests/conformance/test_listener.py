"""Messages that come through a queue, over every backend."""

from __future__ import annotations

import queue

import pytest

from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.ns import get_pub_address
from posttroll.publisher import Publish
from tests.conformance.conftest import Nameservers
from tests.fixtures.waiting import UNIT, eventually


def test_a_listener_container_puts_messages_on_its_queue(nameservers: Nameservers) -> None:
    with Publish("data_provider", nameservers=nameservers) as publisher:
        eventually(lambda: get_pub_address("data_provider", timeout=2 * UNIT))
        container = ListenerContainer(topics=["/counter"], services="data_provider")
        try:
            assert publisher.wait_for_subscriber("/counter", 5 * UNIT)
            publisher.send(Message("/counter", "info", "text"))

            assert container.output_queue.get(timeout=5 * UNIT).data == "text"
            with pytest.raises(queue.Empty):
                container.output_queue.get(timeout=0.1)
        finally:
            container.stop()
