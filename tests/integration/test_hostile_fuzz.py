"""Messages as they really are on the wire, with a few bytes or values changed at random; each seed is a test."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from posttroll.address_listener import AddressListener
from posttroll.message import Message
from posttroll.ns import get_pub_address
from posttroll.protocol.addresses import AddressBook, Limits
from posttroll.protocol.codec import NEWEST_VERSION
from posttroll.protocol.delivery import Delivery
from posttroll.protocol.discovery import Registrar
from posttroll.subscriber import Subscriber
from tests.fixtures.hostile import RawPeer, assert_publishers_are_found, message_bytes, running_discovery
from tests.fixtures.network import Network

SEEDS = range(4)
MUTANTS = 2000

ANNOUNCED = {
    "URI": "tcp://127.0.0.1:9",
    "service": ["good", "alias"],
    "supported_message_version": NEWEST_VERSION,
    "backend": "unsecure_zmq",
}
ANNOUNCEMENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("/address/good", "info", ANNOUNCED),
    ("/address/good", "goodbye", ANNOUNCED),
    ("/address/address", "info", {**ANNOUNCED, "status": False}),
    ("/address/old", "info", {"URI": "127.0.0.1:9"}),
    ("/oper/ns", "request", {"service": "good"}),
]
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1e308, float("nan"), 10**30, "", " ", "\n", "\0", "\ud800", "x" * 5000, "v9", "tcp://",
    "tcp://*:*", "memory", "2026-02-30T00:00:00", "2026-01-01T00:00:00", [], [[]], {}, {"URI": {}}, ["a", None],
]  # fmt: skip


def mutants(seed: int, count: int = MUTANTS) -> Iterator[bytes]:
    """Give messages with changed bytes, and messages with changed values."""
    chance = random.Random(seed)
    for number in range(count):
        subject, kind, data = chance.choice(ANNOUNCEMENTS)
        if number % 2:
            yield change_bytes(message_bytes(data, subject=subject, kind=kind), chance)
        else:
            yield message_bytes(change_values(data, chance), subject=subject, kind=kind)


def change_bytes(message: bytes, chance: random.Random) -> bytes:
    changed = bytearray(message)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(changed))
        end = place + chance.randint(0, 4)
        changed[place:end] = chance.choice([chance.randbytes(2), changed[:place][-9:], b"", b" ", b"/", b'"', b"{"])
    return bytes(changed[: chance.choice([len(changed), len(changed), place])])


def change_values(data: dict[str, Any], chance: random.Random) -> Any:
    changed: dict[str, Any] = json.loads(json.dumps(data))
    for _ in range(chance.randint(1, 3)):
        changed[chance.choice([*data, "status", "name", "receive_time", "more"])] = chance.choice(ODD_VALUES)
    for key in chance.sample(list(changed), chance.randint(0, 1)):
        del changed[key]
    return chance.choice([changed, changed, changed, [changed], {"data": changed}])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutant_makes_a_registrar_raise_or_forget_its_limits(seed: int) -> None:
    book = AddressBook(600.0, lambda: datetime.now(UTC), Limits(50, 40, 30))
    registrar = Registrar(book, lambda subject, kind, data: Message(subject, kind, data).encode())
    chance = random.Random(seed)

    for now, mutant in enumerate(mutants(seed)):
        source = chance.choice(["127.0.0.1", "127.0.0.2", "", "::1"])
        for text in registrar.datagram(mutant, source, float(now)) + registrar.handle_timeout(float(now)):
            Message.decode(text)
        assert len(book) <= 50
        for service in ("", "good"):
            Message("/oper/ns", "info", book.look_up(service)).encode()

    assert registrar.drops.total() > MUTANTS / 10


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutant_makes_an_address_listener_raise(network: Network, seed: int) -> None:
    with closing(Subscriber([], "")) as subscriber:
        listener = AddressListener(subscriber, ["good"])
        delivery: Delivery[Message] = Delivery(Message.decode)
        try:
            for mutant in mutants(seed, 500):
                message = delivery.decode(mutant, "tcp://127.0.0.1:1", 0.0)
                if message is not None:
                    listener.handle_msg(message)
        finally:
            listener.stop()

        assert set(delivery.drops.counts) <= {"not a message"}
        assert set(subscriber.drops) <= {"address refused"}


@pytest.mark.parametrize("multicast", [True, False], ids=["look-ups", "registrations"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_mutant_gets_an_answer(network: Network, raw_peer: RawPeer, seed: int, multicast: bool) -> None:
    with running_discovery(network, raw_peer, multicast):
        dealer = raw_peer.dealer(network.nameserver if multicast else network.announcements)
        for mutant in mutants(seed):
            dealer.send_multipart([b"", mutant])
        replies = [dealer.recv_multipart() for _ in range(MUTANTS)]

        assert {len(reply) for reply in replies} == {2}
        if multicast:
            assert all(Message.decode(reply[1]).subject == "/oper/ns" for reply in replies)
        get_pub_address("", timeout=1)
        assert_publishers_are_found(nameservers=None if multicast else ["localhost"])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mutant_makes_a_subscriber_raise(raw_peer: RawPeer, seed: int) -> None:
    publisher, address = raw_peer.publisher()
    with closing(Subscriber(address, "pytroll:/")) as subscriber:
        publisher.recv()
        for mutant in mutants(seed):
            publisher.send(b"pytroll:/" + mutant.removeprefix(b"pytroll:/"))
        publisher.send(message_bytes({"uid": "last"}, subject="/last"))

        received = received_until(subscriber, lambda message: message.subject == "/last")

    assert received + subscriber.drops["not a message"] == MUTANTS


def received_until(subscriber: Subscriber, is_last: Callable[[Message], bool]) -> int:
    """Return how many messages come before the last one."""
    for count, message in enumerate(subscriber.recv(5)):
        assert message is not None
        if is_last(message):
            return count
    raise AssertionError("the subscriber ended")
