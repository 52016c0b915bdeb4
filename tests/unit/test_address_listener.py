from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import zmq

from posttroll import address_listener as module
from posttroll.address_listener import AddressListener
from posttroll.backends import memory
from posttroll.backends.zmq import socket as sockets
from posttroll.message import Message
from posttroll.ns import NameServer, get_pub_address
from posttroll.protocol import lookout
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.background import in_background
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

URI, OTHER_URI = "tcp://10.0.0.1:1", "tcp://10.0.0.1:2"


class Subscriber:
    """Notes whom it is told to meet and to part from."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.parted: list[str] = []
        self.has_room = True

    def meet(self, entry: Mapping[str, Any]) -> bool:
        self.met.append(entry["URI"])
        return self.has_room

    def part(self, entry: Mapping[str, Any]) -> None:
        self.parted.append(entry["URI"])


@pytest.fixture(autouse=True)
def bus(monkeypatch: pytest.MonkeyPatch, network: Network) -> Iterator[None]:
    """Discover within the process, and quickly."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    monkeypatch.setattr(module, "LOOK_UP_TIMEOUT", 0.1)
    monkeypatch.setattr(lookout, "_RETRY_AFTER", 0.1)
    with config.set(backend="memory"):
        yield


@pytest.fixture
def subscriber() -> Subscriber:
    return Subscriber()


@pytest.fixture
def feed(network: Network) -> Iterator[Publisher]:
    """Publish addresses as a nameserver does."""
    with closing(Publisher(f"tcp://*:{network.addresses}")) as feed:
        yield feed.start()


def notice(status: Any = True, uri: Any = URI, service: Any = ("viirs",), subject: str = "/address/viirs") -> Message:
    return Message(subject, "info", {"URI": uri, "service": service, "status": status})


class Answers:
    """What a nameserver knows, and how often it was asked for it."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    def get(self, name: str) -> list[dict[str, Any]]:
        self.asked.append(name)
        return [{"URI": uri, "service": [name]} for uri in self.known.get(name, [])]


@contextmanager
def nameserver_that(answers: Answers) -> Iterator[None]:
    """Run a nameserver that gives these answers."""
    nameserver = NameServer()
    worker = Worker("posttroll-nameserver", lambda _: nameserver.run(answers), wake=nameserver.stop).start()
    try:
        get_pub_address("nothing", timeout=5 * UNIT)
        answers.asked.clear()
        yield
    finally:
        worker.stop()


@contextmanager
def listening(subscriber: Subscriber, services: str | list[str] = "viirs") -> Iterator[AddressListener]:
    """Listen until the end of the block."""
    listener = AddressListener(subscriber, services).start()
    try:
        yield listener
    finally:
        listener.stop()


@pytest.fixture
def idle(subscriber: Subscriber) -> Iterator[AddressListener]:
    """Make a listener that is not started."""
    listener = AddressListener(subscriber, ["viirs", "avhrr"])
    yield listener
    listener.stop()


@pytest.mark.parametrize(
    ("service", "wanted"),
    [
        (["viirs"], True),
        (["modis", "avhrr"], True),
        ("viirs", True),
        (["modis"], False),
        ("viirs-day", False),
        (["VIIRS"], False),
        ([], False),
        (None, False),
        ({"viirs": 1}, False),
        (1, False),
    ],
)
def test_an_address_is_met_when_it_has_a_wanted_service(
    idle: AddressListener, subscriber: Subscriber, service: Any, wanted: bool
) -> None:
    idle.handle_msg(notice(service=service))

    assert subscriber.met == [URI] * wanted


@pytest.mark.parametrize("services", ["", [""], ["viirs", ""]])
@pytest.mark.parametrize("service", [["modis"], [], None])
def test_all_addresses_are_met_when_all_services_are_wanted(
    subscriber: Subscriber, services: Any, service: Any
) -> None:
    listener = AddressListener(subscriber, services)
    listener.handle_msg(notice(service=service))
    listener.stop()

    assert subscriber.met == [URI]


def test_one_service_may_be_wanted_by_its_name(subscriber: Subscriber) -> None:
    listener = AddressListener(subscriber, "viirs")
    for service in ("viirs", "v"):
        listener.handle_msg(notice(service=[service]))
    listener.stop()

    assert subscriber.met == [URI]


@pytest.mark.parametrize("service", [["viirs"], ["modis"], None])
def test_an_address_is_parted_from_whatever_its_services(
    idle: AddressListener, subscriber: Subscriber, service: Any
) -> None:
    idle.handle_msg(notice(status=False, service=service))

    assert (subscriber.met, subscriber.parted) == ([], [URI])


def test_an_address_without_a_status_is_met(idle: AddressListener, subscriber: Subscriber) -> None:
    idle.handle_msg(Message("/address/viirs", "info", {"URI": URI, "service": ["viirs"]}))

    assert subscriber.met == [URI]


@pytest.mark.parametrize("data", ["", "text", ["viirs"], {}, {"service": ["viirs"]}, 1, None])
def test_what_is_no_address_is_ignored(idle: AddressListener, subscriber: Subscriber, data: Any) -> None:
    idle.handle_msg(Message("/address/viirs", "info", data))

    assert (subscriber.met, subscriber.parted) == ([], [])


def test_what_is_known_already_is_met_at_the_start(subscriber: Subscriber) -> None:
    answers = Answers(viirs=[URI], avhrr=[OTHER_URI])

    with nameserver_that(answers), listening(subscriber, ["viirs", "avhrr"]):
        eventually(lambda: {URI, OTHER_URI} <= set(subscriber.met))

    assert set(answers.asked) == {"viirs", "avhrr"}


@pytest.fixture
def listener(subscriber: Subscriber) -> Iterator[AddressListener]:
    """Start a listener."""
    with listening(subscriber) as listener:
        yield listener


def test_what_the_feed_tells_is_met_and_parted_from(
    feed: Publisher, listener: AddressListener, subscriber: Subscriber
) -> None:
    assert feed.wait_for_subscriber("/address", 5 * UNIT)

    feed.send(notice())
    feed.send(notice(uri=OTHER_URI, service=["modis"]))
    feed.send(notice(status=False))

    eventually(lambda: subscriber.parted)
    assert (subscriber.met, subscriber.parted) == ([URI], [URI])


def test_only_addresses_are_listened_to(feed: Publisher, listener: AddressListener, subscriber: Subscriber) -> None:
    assert feed.wait_for_subscriber("/address", 5 * UNIT)

    feed.send(notice(subject="/other"))
    feed.send(notice(uri=OTHER_URI))

    eventually(lambda: subscriber.met)
    assert subscriber.met == [OTHER_URI]


def test_rubbish_on_the_feed_ends_nothing(
    feed: Publisher, listener: AddressListener, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    assert feed.wait_for_subscriber("/address", 5 * UNIT)

    feed.send("pytroll://address rubbish")
    feed.send(notice(service=[{"un": "hashable"}]))
    feed.send(notice(uri=["un", "hashable"]))
    feed.send(notice(uri=OTHER_URI))

    eventually(lambda: subscriber.met)
    assert subscriber.met == [OTHER_URI]
    assert listener._lookout.drops.counts == {"not a message": 1, "not an address": 1}


def test_a_nameserver_that_comes_later_is_asked(listener: AddressListener, subscriber: Subscriber) -> None:
    assert subscriber.met == []

    with nameserver_that(Answers(viirs=[URI])):
        eventually(lambda: subscriber.met)


def test_a_nameserver_that_does_not_answer_is_told_of_once_until_it_does(
    subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == lookout.__name__]

    caplog.set_level(logging.INFO, lookout.__name__)

    with listening(subscriber):
        eventually(told)
        with nameserver_that(Answers()):
            eventually(lambda: len(told()) > 1)

    assert [line.partition(" ")[2].partition(" ")[2] for line in told()] == [
        "does not answer, will ask again",
        "answers again",
    ]


def test_the_nameserver_is_asked_again_whenever_the_feed_is_there_again(
    network: Network, listener: AddressListener, subscriber: Subscriber
) -> None:
    answers = Answers()

    with nameserver_that(answers):
        for _ in range(2):
            with closing(Publisher(f"tcp://*:{network.addresses}").start()):
                answers.asked.clear()
                eventually(lambda: len(answers.asked) >= 2)


def test_with_a_feed_the_nameserver_is_left_alone(
    feed: Publisher, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LOOK_AGAIN_AFTER", 0.05)
    answers = Answers()

    with nameserver_that(answers), listening(subscriber) as listener:
        eventually(lambda: listener._lookout.next_timeout() == math.inf)
        feed.send(notice())
        eventually(lambda: subscriber.met)  # after which no question is under way any more
        asked = len(answers.asked)
        subscriber.met.clear()
        feed.send(notice())
        eventually(lambda: subscriber.met)

        assert len(answers.asked) == asked


def test_without_a_feed_the_nameserver_is_asked_again_and_again(
    listener: AddressListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LOOK_AGAIN_AFTER", 0.05)
    answers = Answers()

    with nameserver_that(answers):
        eventually(lambda: len(answers.asked) >= 4)


def test_the_nameserver_is_asked_again_while_the_subscriber_has_no_room(
    feed: Publisher, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LOOK_AGAIN_AFTER", 0.05)
    subscriber.has_room = False
    answers = Answers(viirs=[URI])

    with nameserver_that(answers), listening(subscriber) as listener:
        eventually(lambda: len(subscriber.met) > 4)
        subscriber.has_room = True

        eventually(lambda: listener._lookout.next_timeout() == math.inf)


def test_it_follows_the_feeds_of_several_nameservers(subscriber: Subscriber) -> None:
    with config.set(backend="unsecure_zmq"):
        listener = AddressListener(subscriber, "viirs", ["one.invalid", "tcp://two.invalid:99", "ipc:///tmp/three"])
        uris = set(listener._feed.addr_sub)  # type: ignore[attr-defined]
        listener.stop()

    assert {uri.rpartition(":")[0] for uri in uris} == {"tcp://one.invalid", "tcp://two.invalid", "tcp://localhost"}


def test_it_may_be_stopped_before_its_start_and_twice(subscriber: Subscriber) -> None:
    listener = AddressListener(subscriber, "viirs")
    listener.stop()

    started = AddressListener(subscriber, "viirs").start()
    started.stop()
    started.stop()


def test_a_nameserver_that_is_no_address_leaves_nothing_behind(subscriber: Subscriber) -> None:
    with config.set(backend="unsecure_zmq"), pytest.raises(zmq.ZMQError):
        AddressListener(subscriber, "viirs", ["localhost", "no such host"])


def test_a_context_that_is_terminated_ends_it(subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    context = zmq.Context()
    monkeypatch.setattr(sockets, "get_context", lambda: context)
    with config.set(backend="unsecure_zmq"):
        listener = AddressListener(subscriber, "viirs").start()

    with in_background(context.term):
        eventually(lambda: not listener._worker.is_alive())
        listener.stop()


def test_a_real_nameserver_tells_of_publishers_that_come_and_go(subscriber: Subscriber) -> None:
    with running_nameserver(), listening(subscriber):
        with closing(NoisyPublisher("viirs").start()) as publisher:
            uri = f"tcp://127.0.0.1:{publisher.port_number}"
            eventually(lambda: uri in subscriber.met)

        eventually(lambda: uri in subscriber.parted)


def test_a_service_looked_for_later_is_asked_for_at_once_and_listened_to(
    feed: Publisher, subscriber: Subscriber
) -> None:
    answers = Answers(avhrr=[URI])

    with nameserver_that(answers), listening(subscriber, []) as listener:
        eventually(lambda: listener._lookout.next_timeout() == math.inf)
        assert answers.asked == []

        listener.look_for("avhrr")
        eventually(lambda: subscriber.met == [URI])
        feed.send(notice(uri=OTHER_URI, service=["avhrr"]))
        eventually(lambda: subscriber.met == [URI, OTHER_URI])

        assert set(answers.asked) == {"avhrr"}


def test_a_service_looked_for_again_is_asked_for_again(feed: Publisher, subscriber: Subscriber) -> None:
    answers = Answers(viirs=[URI])

    with nameserver_that(answers), listening(subscriber) as listener:
        eventually(lambda: listener._lookout.next_timeout() == math.inf)
        for _ in range(3):
            asked = len(answers.asked)
            listener.look_for("viirs")
            eventually(lambda asked=asked: len(answers.asked) > asked)


def test_a_service_looked_for_no_longer_is_not_met(feed: Publisher, subscriber: Subscriber) -> None:
    with listening(subscriber, ["hrit"]) as listener:
        listener.look_for("viirs")
        listener.look_no_longer_for("viirs")
        listener.look_for("avhrr")

        eventually(lambda: "avhrr" in listener._lookout.services)

        assert listener._lookout.services == {"hrit", "avhrr"}


def test_a_service_looked_for_while_no_nameserver_answers_is_asked_for_later(
    subscriber: Subscriber,
) -> None:
    with listening(subscriber, []) as listener:
        listener.look_for("viirs")
        assert subscriber.met == []

        with nameserver_that(Answers(viirs=[URI])):
            eventually(lambda: subscriber.met)


def test_services_may_be_looked_for_by_several_threads_and_before_the_start(
    feed: Publisher, subscriber: Subscriber
) -> None:
    answers = Answers()
    listener = AddressListener(subscriber, [])
    listener.look_for("early")

    with nameserver_that(answers), ExitStack() as stack:
        listener.start()
        stack.callback(listener.stop)
        with ExitStack() as threads:
            for number in range(10):
                threads.enter_context(in_background(lambda number=number: listener.look_for(f"service {number}")))

        eventually(lambda: {"early", *(f"service {number}" for number in range(10))} <= set(answers.asked))


def test_a_stop_may_be_told_not_to_wait(subscriber: Subscriber) -> None:
    listener = AddressListener(subscriber, "viirs").start()

    listener.stop(timeout=0.0)

    eventually(lambda: not listener._worker.is_alive())
