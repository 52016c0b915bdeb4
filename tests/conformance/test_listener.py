"""Messages that come through a queue, over every backend."""

from __future__ import annotations

import pytest

from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.ns import get_pub_address
from posttroll.publisher import Publish
from tests.conformance.conftest import Nameservers, listening, next_of
from tests.fixtures.waiting import UNIT, eventually


@pytest.mark.usefixtures("fronts")
def test_a_listener_container_puts_messages_on_its_queue(nameservers: Nameservers) -> None:
    with Publish("data_provider", nameservers=nameservers) as publisher:
        eventually(lambda: get_pub_address("data_provider", timeout=2 * UNIT))
        with listening(ListenerContainer(topics=["/counter"], services="data_provider")) as container:
            assert publisher.wait_for_subscriber("/counter", 5 * UNIT)
            publisher.send(Message("/counter", "info", "text"))

            assert next_of(container, 5 * UNIT).data == "text"
            assert next_of(container, 0.1) is None
