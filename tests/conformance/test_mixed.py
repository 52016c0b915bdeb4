"""Ends of both kinds in one conversation, blocking and asyncio, and loops of several threads, over every backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import posttroll
import posttroll.asyncio
import posttroll.listener
import posttroll.messenger
import posttroll.publisher
import posttroll.rpc
import posttroll.subscriber
from posttroll.errors import LocalProtocolError
from posttroll.message import Message
from tests.conformance.conftest import Nameservers, listening, next_of
from tests.fixtures.portal import Portal, Twin
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("backend")


class Kind:
    """The front ends of one kind."""

    def __init__(self, portal: Portal | None) -> None:
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        if self._portal is not None:
            return self._portal.twin(getattr(posttroll.asyncio, name))
        modules = (posttroll.publisher, posttroll.subscriber, posttroll.listener, posttroll.messenger, posttroll.rpc)
        return next(getattr(module, name) for module in modules if hasattr(module, name))


@dataclass(frozen=True)
class Ends:
    """Of which kind each end is."""

    here: Kind
    there: Kind


@pytest.fixture(params=["blocking-asyncio", "asyncio-blocking", "asyncio-asyncio"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Give two ends of different kinds, or two loops in two threads."""
    with ExitStack() as portals:
        kinds = [
            Kind(portals.enter_context(Portal()) if kind == "asyncio" else None) for kind in request.param.split("-")
        ]
        yield Ends(*kinds)


def note(number: int = 0) -> Message:
    return Message("/note", "info", {"number": number})


def take(subscriber: Any, count: int) -> list[int]:
    """Return what is in the next messages, all of which are accepted."""
    numbers: list[int] = []
    for message in subscriber.recv(timeout=5 * UNIT):
        assert message is not None, f"only {numbers} came"
        numbers.append(message.data["number"])
        if len(numbers) == count:
            subscriber.accept(message)
            break
    return numbers


def address_of(publisher: Any) -> dict[str, str]:
    address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}"}
    if publisher.link_address is not None:
        address["link"] = f"tcp://127.0.0.1:{publisher.link_address.rpartition(':')[2]}"
    return address


def test_messages_go_through_a_chain_of_both_kinds(ends: Ends, nameservers: Nameservers) -> None:
    with (
        ends.here.Publish("source", nameservers=nameservers) as source,
        ends.there.Subscribe("source", "/note", addr_listener=True, timeout=5 * UNIT) as middle,
        ends.there.Publish("sink", nameservers=nameservers) as relay,
        listening(ends.here.ListenerContainer(topics=["/note"], services="sink")) as container,
    ):
        assert source.wait_for_subscriber("/note", 5 * UNIT)
        assert relay.wait_for_subscriber("/note", 5 * UNIT)
        for number in range(20):
            source.send(note(number))
        for number in take(middle, 20):
            relay.send(note(number))

        arrived = [next_of(container, 5 * UNIT) for _ in range(20)]

    assert [message.data["number"] for message in arrived if message] == list(range(20))


def test_durable_messages_go_from_one_kind_to_the_other(ends: Ends, tmp_path: Path) -> None:
    publisher = ends.here.Publisher("tcp://*:0", "test", journal=tmp_path / "journal")
    options = {"durable": "archive", "start_at": "first"}
    with ExitStack() as stack:
        publisher.start()
        stack.callback(publisher.stop)
        for number in range(100):
            publisher.send(note(number))
        with ends.there.Subscribe(addresses=[address_of(publisher)], nameserver=False, topics="", **options) as one:
            first = take(one, 30)
        with ends.there.Subscribe(addresses=[address_of(publisher)], nameserver=False, topics="", **options) as one:
            others = take(one, 70)
            eventually(lambda: [consumer.pending for consumer in publisher.journal.consumers()] == [0])
            again = [message.data["number"] for message in one.replay(timeout=5 * UNIT)]

    assert first + others == again == list(range(100))


def test_a_consumer_of_either_kind_goes_on_where_the_other_one_was(ends: Ends, tmp_path: Path) -> None:
    publisher = ends.here.Publisher("tcp://*:0", "test", journal=tmp_path / "journal")
    publisher.start()
    try:
        for number in range(20):
            publisher.send(note(number))
        arrived = []
        for kind in (ends.here, ends.there):
            subscriber = kind.Subscriber(address_of(publisher), durable="archive", start_at="first")
            arrived += take(subscriber, 10)
            subscriber.close()
    finally:
        publisher.stop()

    assert arrived == list(range(20))


def test_messengers_of_both_kinds_talk(ends: Ends, tmp_path: Path) -> None:
    with (
        ends.here.Messenger("alice", nameservers=False, journal=tmp_path) as alice,
        ends.there.Messenger("bob", nameservers=False, listen=False) as bob,
    ):
        bob.connect(alice.address)
        trackers = [bob.put("alice", note(number)) for number in range(20)]
        for number in range(20):
            message = alice.get(5 * UNIT)
            assert message.data["number"] == number
            alice.reply(message, note(-number), persistent=True)
        alice.accept()
        answers = [bob.get(5 * UNIT).data["number"] for _ in range(20)]
        bob.accept()

        assert {tracker.wait(5 * UNIT) for tracker in trackers} == {"accepted"}
        assert answers == [-number for number in range(20)]
        assert alice.send(timeout=5 * UNIT) == 20


async def count_in_a_loop(number: int) -> Any:
    for each in range(number):
        yield each


def count(number: int) -> Iterator[int]:
    yield from range(number)


def test_calls_are_answered_by_the_other_kind(ends: Ends) -> None:
    with (
        ends.here.Messenger("alice", nameservers=False) as alice,
        ends.there.Messenger("bob", nameservers=False, listen=False) as bob,
        ends.here.RpcServer(alice) as server,
        ends.there.RpcServer(bob) as backwards,
        ends.there.RpcClient(bob, timeout=10 * UNIT) as client,
        ends.here.RpcClient(alice, timeout=10 * UNIT) as answerer,
    ):
        bob.connect(alice.address)
        server.register_function(lambda text: text.upper(), "upper")
        server.register_function(count_in_a_loop if isinstance(alice, Twin) else count, "count")
        backwards.register_function(lambda text: text.lower(), "lower")
        remote = client.proxy("alice")

        assert remote.upper("there") == "THERE"
        assert [remote.upper.start(text).result() for text in ("a", "b")] == ["A", "B"]
        assert list(remote.count.stream(300)) == list(range(300))
        assert answerer.proxy("bob").lower("AND BACK") == "and back"


def test_what_belongs_to_one_loop_is_not_used_in_another() -> None:
    with (
        Portal() as here,
        Portal() as there,
        Kind(here).Publish("test", nameservers=False, address="tcp://127.0.0.1:0") as publisher,
        Kind(here).Subscriber(address_of(publisher)) as subscriber,
    ):
        assert next(subscriber.recv(0.01)) is None

        with pytest.raises(LocalProtocolError, match="another event loop"):
            next(there.twin(vars(subscriber)["_original"]).recv(0.01))

        assert publisher.wait_for_subscriber("", 5 * UNIT)
        publisher.send(note(1))
        assert take(subscriber, 1) == [1]
