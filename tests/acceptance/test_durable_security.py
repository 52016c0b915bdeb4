"""Durable delivery among those who have keys."""

from __future__ import annotations

import shutil

import pytest

from tests.acceptance.processes import Process, Site
from tests.acceptance.transfers import Transfer, unflagged
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import eventually

STEADY = ["--period", "0.01"]


@pytest.fixture
def transfer(site: Site, keys: Keys) -> Transfer:
    """Give a transfer among those who have keys, and a second client whose key is accepted."""
    shutil.copy(keys.public("stranger"), keys.clients)
    site.settings.update({"backend": "secure_zmq", **keys.settings()})
    transfer = Transfer(site)
    transfer.nameserver()
    return transfer


def test_durable_messages_come_with_the_key_of_their_publisher(transfer: Transfer, keys: Keys) -> None:
    transfer.publisher(100, *STEADY)
    consumer = transfer.durable("keyed")

    transfer.await_handled(["keyed"], range(1, 101))

    transfer.await_settled()
    assert consumer.expect_word("key") == [keys.public_text("server")]


def test_a_publisher_that_is_restarted_keeps_the_promise_with_keys_too(transfer: Transfer) -> None:
    publisher = transfer.publisher(200, *STEADY)
    transfer.durable("keyed")
    transfer.await_handled(["keyed"], range(1, 50))

    publisher.kill()
    transfer.publisher(200, *STEADY)

    transfer.await_handled(["keyed"], range(1, 201))
    transfer.await_settled()
    assert unflagged(transfer.handled("keyed")) == []


def test_who_asks_for_the_durable_name_of_another_key_is_refused_and_disturbs_nobody(
    transfer: Transfer, keys: Keys
) -> None:
    other_key = {"client_secret_key_file": keys.secret("stranger")}
    publisher = transfer.publisher(400, *STEADY)
    transfer.durable("owned.1")
    transfer.await_handled(["owned.1"], range(1, 50))

    impostor = transfer.durable("owned.2", **other_key)
    transfer.durable("other", **other_key)

    transfer.await_handled(["owned.1"], range(1, 401))
    transfer.await_handled(["other"], range(1, 401))
    transfer.await_settled()
    eventually(lambda: _tells_of_refusal(publisher))
    eventually(lambda: _tells_of_refusal(impostor))
    assert transfer.handled("owned.2") == []
    assert not any(one.is_redelivered for one in transfer.handled("owned.1"))


def _tells_of_refusal(process: Process) -> bool:
    return "belongs to another key" in process.errors
