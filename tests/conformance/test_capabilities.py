"""What the pages for users of other systems promise and nobody else tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import zmq

from posttroll.components import Component, Configuration, Runner, on
from posttroll.lookup import get_pub_address
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually


class Foreigner:
    """A peer that knows ZeroMQ, JSON and the pages on the protocol, but nothing of this package."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def say(self, *frames: dict[str, Any], payloads: tuple[bytes, ...] = ()) -> None:
        head = json.dumps([frames, [len(payload) for payload in payloads]])
        self._socket.send(b"".join([head.encode(), b"\n", *payloads]))

    def hear(self, kind: str) -> tuple[dict[str, Any], bytes]:
        """Return the next frame of a kind, and the payloads of its bundle."""
        while self._socket.poll(int(5000 * UNIT)):
            head, _, payloads = self._socket.recv().partition(b"\n")
            for frame in json.loads(head)[0]:
                if frame["frame"] == kind:
                    return frame, payloads
        raise AssertionError(f"no {kind} came")


@pytest.fixture
def alice() -> Iterator[Messenger]:
    with Messenger("alice", nameservers=False) as messenger:
        yield messenger


@pytest.fixture
def foreigner(network: Network, alice: Messenger) -> Iterator[Foreigner]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(alice.address)
        yield Foreigner(socket)


def introduction(**queues: str) -> dict[str, Any]:
    return {"frame": "open", "container": "foreigner", "life": "f1", "version": 1, "number": 1, "queues": queues}


def test_who_knows_only_the_documented_protocol_can_send(alice: Messenger, foreigner: Foreigner) -> None:
    line = b"pytroll://note info me@abroad 2026-01-12T11:20:35 v1.01 text/ascii bonjour"

    foreigner.say(introduction(q1="messages"))
    attach, _ = foreigner.hear("attach")
    ends = {"receiver": attach["receiver"], "session": attach["session"], "sender": "s1"}
    foreigner.say({"frame": "attached", "journal": attach["journal"], **ends})
    foreigner.hear("flow")
    payload = line + b"\n" + json.dumps({"id": "m1", "to": "alice"}).encode()
    foreigner.say({"frame": "transfer", "delivery": 0, "sequence": 1, **ends}, payloads=(payload,))
    message = alice.get(5 * UNIT)

    assert message is not None
    assert (message.data, message.properties.source) == ("bonjour", "foreigner")
    alice.accept(message)
    assert foreigner.hear("disposition")[0]["outcomes"]["0"][0] == "accepted"


def test_who_knows_only_the_documented_protocol_can_receive(alice: Messenger, foreigner: Foreigner) -> None:
    tracker = alice.put("foreigner", Message("/note", "info", "hello"))

    foreigner.say(introduction())
    opened, _ = foreigner.hear("open")
    ((queue, target),) = opened["queues"].items()
    ends = {"receiver": "r1", "session": 1, "sender": ""}
    foreigner.say(
        {**introduction(), "heard": opened["number"]},
        {"frame": "attach", "consumer": "foreigner", "topics": [], "journal": queue, **ends},
    )
    attached, _ = foreigner.hear("attached")
    ends["sender"] = attached["sender"]
    foreigner.say({"frame": "flow", "number": 1, "expected": 0, "limit": 10, **ends})
    transfer, payload = foreigner.hear("transfer")
    foreigner.say({"frame": "disposition", "outcomes": {str(transfer["delivery"]): ["accepted"]}, **ends})

    line, properties = payload.rsplit(b"\n", 1)
    assert target == "messages"
    assert line.endswith(b" hello")
    assert json.loads(properties) == {"id": tracker.id, "to": "foreigner"}
    assert tracker.wait(5 * UNIT) == "accepted"


@pytest.mark.usefixtures("nameserver")
def test_a_greeting_arrives_each_of_a_hundred_times_whoever_comes_first() -> None:
    for number in range(100):
        host, guest = Messenger(f"host{number}"), Messenger(listen=False)
        first, last = (host, guest) if number % 2 else (guest, host)
        with first, ExitStack() as running:
            if first is guest:
                tracker = guest.put(host.name, Message("/greeting", "info", number))
            running.enter_context(last)
            if first is host:
                tracker = guest.put(host.name, Message("/greeting", "info", number))

            message = host.get(5 * UNIT)

            assert message is not None
            assert message.data == number
            host.accept(message)
            assert tracker.wait(5 * UNIT) == "accepted"


def test_who_is_on_other_ports_is_not_heard_of(free_ports: Callable[[int], list[int]]) -> None:
    ports = free_ports(8)
    here, elsewhere = ports[:4], ports[4:]

    with settings_of(elsewhere), running_nameserver(), settings_of(here), running_nameserver(), Messenger("alice"):
        assert eventually(lambda: get_pub_address("alice", timeout=UNIT))
        with settings_of(elsewhere):
            assert not get_pub_address("alice", timeout=0.5 * UNIT)


@contextmanager
def settings_of(ports: list[int]) -> Iterator[None]:
    names = ("nameserver_port", "secure_zmq_nameserver_port", "broadcast_port", "address_publish_port")
    own = {"multicast_interface": "127.0.0.1", "advertised_host": "127.0.0.1"}
    with config.set(**dict(zip(names, ports, strict=True)), **own):
        yield


class Thinker(Component):
    """Answers at once, and goes on."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    @on("question")
    def think(self, message: Message) -> None:
        self.messenger.reply(message, Message("/answer", "answer", 42))
        assert self.may_end.wait(10 * UNIT)


def test_a_handler_may_answer_before_it_is_done(network: Network) -> None:
    runner = Runner(Thinker, Configuration(name="thinker", nameservers=False, link_port=0))
    ready = threading.Event()
    with in_background(lambda: runner.run(ready.set)):
        assert ready.wait(10 * UNIT)
        with Messenger("asker", listen=False, nameservers=False) as asker:
            asked = asker.put(runner.component.messenger.address, Message("/question", "question", "why"))

            answer = asker.get(5 * UNIT)

            assert (answer.data, asked.settled) == (42, False)
            runner.component.may_end.set()
            assert asked.wait(5 * UNIT) == "accepted"
        runner.stop()
