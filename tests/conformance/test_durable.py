"""Durable publishing and subscribing, over every backend."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from posttroll.errors import ConfigurationError, JournalError, JournalFull, TimedOut
from posttroll.journal import MemoryJournal
from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.publisher import NoisyPublisher, Publish, Publisher
from posttroll.settings import config
from posttroll.subscriber import Subscribe, Subscriber
from tests.conformance.conftest import Nameservers, blocking_only, listening, next_of
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("backend", "fronts")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return where the journal is kept."""
    return tmp_path / "journal"


@pytest.fixture
def publisher(journal: Path) -> Iterator[Publisher]:
    """Start a durable publisher on a free port."""
    with closing(Publisher("tcp://*:0", "test", journal=journal)) as publisher:
        yield publisher.start()


def address_of(publisher: Publisher) -> dict[str, str]:
    assert publisher.link_address is not None
    link_port = publisher.link_address.rpartition(":")[2]
    return {"URI": f"tcp://127.0.0.1:{publisher.port_number}", "link": f"tcp://127.0.0.1:{link_port}"}


@contextmanager
def durable(publisher: Publisher, name: str = "archive", topics: Any = "", **arguments: Any) -> Iterator[Subscriber]:
    """Give a durable subscriber."""
    with closing(Subscriber(address_of(publisher), topics, durable=name, **arguments)) as subscriber:
        yield subscriber


def make_known(publisher: Publisher, name: str = "archive", topics: Any = "") -> None:
    """Have a consumer attached once, so that what is published from now on is kept for it."""
    with durable(publisher, name, topics):
        eventually(lambda: name in [consumer.name for consumer in publisher.journal.consumers()])


@contextmanager
def attached(publisher: Publisher, **arguments: Any) -> Iterator[Subscriber]:
    """Give a durable subscriber of a known name that has attached."""
    (before,) = publisher.journal.consumers()
    with durable(publisher, before.name, **arguments) as subscriber:
        eventually(lambda: publisher.journal.consumers()[0].seen > before.seen)
        yield subscriber


def send(publisher: Publisher | NoisyPublisher, *numbers: int, subject: str = "/1b/viirs") -> None:
    for number in numbers:
        publisher.send(Message(subject, "info", {"number": number}))


def take(subscriber: Subscriber, count: int) -> list[Message]:
    """Return the next messages, all of them accepted."""
    messages: list[Message] = []
    for message in subscriber.recv(timeout=5 * UNIT):
        assert message is not None, f"only {len(messages)} of {count} messages came"
        messages.append(message)
        if len(messages) == count:
            subscriber.accept(message)
            break
    return messages


def numbers_of(messages: list[Message]) -> list[int]:
    return [message.data["number"] for message in messages]


def settled(publisher: Publisher | NoisyPublisher, name: str = "archive") -> bool:
    """Return whether there is nothing left for a consumer."""
    assert publisher.journal is not None
    return {consumer.name: consumer.pending for consumer in publisher.journal.consumers()}.get(name) == 0


def test_what_is_published_while_a_consumer_is_away_is_there_when_it_comes_back(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, *range(300))

    with durable(publisher) as subscriber:
        messages = take(subscriber, 300)

    assert numbers_of(messages) == list(range(300))
    eventually(lambda: settled(publisher))


def test_what_is_published_while_it_listens_comes_at_once(publisher: Publisher) -> None:
    with durable(publisher, start_at="first") as subscriber:
        send(publisher, 1)
        first = take(subscriber, 1)
        send(publisher, 2, 3)
        others = take(subscriber, 2)

    assert numbers_of(first + others) == [1, 2, 3]


def test_a_consumer_goes_on_after_what_it_accepted(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, *range(10))
    with durable(publisher) as subscriber:
        take(subscriber, 4)

    with durable(publisher) as subscriber:
        messages = take(subscriber, 6)

    assert numbers_of(messages) == [4, 5, 6, 7, 8, 9]


def test_a_delivery_tells_where_it_is_from(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1)

    with durable(publisher) as subscriber:
        (message,) = take(subscriber, 1)

    delivery = message.delivery
    assert delivery is not None
    assert delivery.publisher == publisher.journal.identity
    assert (delivery.sequence, delivery.count, delivery.redelivered) == (1, 1, False)


def test_what_is_refused_while_the_publisher_stops_is_not_kept(publisher: Publisher) -> None:
    def send_until_refused() -> None:
        with contextlib.suppress(JournalError):
            for number in itertools.count():
                send(publisher, number)
                sent.append(number)

    sent: list[int] = []
    thread = threading.Thread(target=send_until_refused)
    thread.start()
    eventually(lambda: len(sent) > 100)
    publisher.stop()
    thread.join(5 * UNIT)
    publisher.start()

    assert publisher.journal.last == len(sent)


def test_the_publisher_may_be_restarted_meanwhile(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher) as subscriber:
        before = take(subscriber, 1)
        publisher.stop()
        publisher.start()
        send(publisher, 3)
        after = take(subscriber, 2)
        eventually(lambda: settled(publisher))

    assert numbers_of(before + after) == [1, 2, 3]


def test_what_is_settled_while_the_publisher_is_away_is_told_when_it_is_back(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher, acknowledge="manual") as subscriber:
        first = next(message for message in subscriber.recv(5 * UNIT))
        publisher.stop()
        is_ours = subscriber.accept(first)
        publisher.start()
        (second,) = take(subscriber, 1)
        eventually(lambda: settled(publisher))

    assert is_ours
    assert numbers_of([first, second]) == [1, 2]


@pytest.mark.parametrize("leave", ["exception", "break"])
def test_a_loop_that_is_left_releases_the_message_it_had(publisher: Publisher, leave: str) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher) as subscriber:
        try:
            for _message in subscriber.recv(5 * UNIT):
                if leave == "break":
                    break
                raise RuntimeError
        except RuntimeError:
            pass
        again = take(subscriber, 2)

    assert sorted(numbers_of(again)) == [1, 2]
    assert {message.data["number"]: message.delivery.count for message in again} == {1: 2, 2: 1}


def test_released_by_hand_it_comes_again_and_accepted_it_does_not(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher, acknowledge="manual") as subscriber:
        received = subscriber.recv(5 * UNIT)
        one, two = next(received), next(received)
        done = subscriber.release(one), subscriber.accept(two)
        again = next(received)
        subscriber.accept(again)

    assert done == (True, True)
    assert numbers_of([one, two, again]) == [1, 2, 1]
    assert again.delivery.redelivered
    eventually(lambda: settled(publisher))


def test_what_is_rejected_is_set_aside_with_the_reason(publisher: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher, acknowledge="manual") as subscriber:
        received = subscriber.recv(5 * UNIT)
        subscriber.reject(next(received), "no such orbit")
        subscriber.accept(next(received))
        (aside,) = eventually(publisher.journal.set_aside)

    assert (aside.consumer, aside.sequence, aside.reason) == ("archive", 1, "no such orbit")
    eventually(lambda: "message 1 is set aside for consumer archive: no such orbit" in caplog.text)


@pytest.mark.parametrize("backend", ["unsecure_zmq"], indirect=True)  # it is noticed by the clock, whatever the backend
def test_what_was_set_aside_comes_when_it_is_resent(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1)

    with durable(publisher, acknowledge="manual") as subscriber:
        received = subscriber.recv(5 * UNIT)
        subscriber.reject(next(received))
        (aside,) = eventually(publisher.journal.set_aside)
        publisher.journal.resend("archive", aside.sequence)
        again = next(received)
        subscriber.accept(again)

    assert numbers_of([again]) == [1]
    assert publisher.journal.set_aside() == []


def test_what_is_delivered_in_vain_too_often_is_set_aside(journal: Path) -> None:
    with config.set(max_deliveries=3), closing(Publisher("tcp://*:0", "test", journal=journal).start()) as publisher:
        make_known(publisher)
        send(publisher, 1, 2)

        with durable(publisher, acknowledge="manual") as subscriber:
            counts = []
            for message in subscriber.recv(5 * UNIT):
                if message.data["number"] == 1:
                    counts.append(message.delivery.count)
                    subscriber.release(message)
                else:
                    subscriber.accept(message)
                if len(counts) == 3:
                    break
            (aside,) = eventually(publisher.journal.set_aside)

    assert counts == [1, 2, 3]
    assert (aside.sequence, aside.count) == (1, 3)


@pytest.mark.parametrize("start_at", ["first", "datetime"])
def test_a_new_consumer_starts_where_it_is_told_to(publisher: Publisher, start_at: Any) -> None:
    send(publisher, 1, 2)
    begin = dt.datetime.now(dt.UTC)
    send(publisher, 3)

    with durable(publisher, start_at=begin if start_at == "datetime" else start_at) as subscriber:
        expected = [3] if start_at == "datetime" else [1, 2, 3]
        messages = take(subscriber, len(expected))

    assert numbers_of(messages) == expected


def test_a_consumer_gets_its_topics_only(publisher: Publisher) -> None:
    make_known(publisher, topics=["/1b/avhrr", "/2"])
    send(publisher, 1)
    send(publisher, 2, subject="/1b/avhrr/noaa19")
    send(publisher, 3, subject="/2/cloudmask")

    with durable(publisher, topics=["/1b/avhrr", "/2"]) as subscriber:
        messages = take(subscriber, 2)

    assert numbers_of(messages) == [2, 3]
    eventually(lambda: settled(publisher))


def test_a_filter_settles_what_it_does_not_want(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1, 2, 3)

    with durable(publisher, message_filter=lambda message: message.data["number"] == 3) as subscriber:
        messages = take(subscriber, 1)

    assert numbers_of(messages) == [3]
    eventually(lambda: settled(publisher))


def test_what_a_filter_fails_on_is_set_aside(publisher: Publisher) -> None:
    make_known(publisher)
    publisher.send(Message("/1b", "info", {}))
    send(publisher, 1)

    with durable(publisher, message_filter=lambda message: message.data["number"]) as subscriber:
        messages = take(subscriber, 1)
        (aside,) = eventually(publisher.journal.set_aside)

    assert numbers_of(messages) == [1]
    assert (aside.sequence, aside.reason) == (1, "the filter failed")


@blocking_only("an interrupt ends the loop that it comes in")
def test_what_an_interrupt_comes_in_the_way_of_is_released(publisher: Publisher) -> None:
    def interrupt_once(_: Message) -> bool:
        if next(calls) == 0:
            raise KeyboardInterrupt
        return True

    calls = itertools.count()
    make_known(publisher)
    send(publisher, 1, 2)

    with durable(publisher, message_filter=interrupt_once) as subscriber:
        with pytest.raises(KeyboardInterrupt):
            next(subscriber.recv(5 * UNIT))
        messages = take(subscriber, 2)

    assert sorted(numbers_of(messages)) == [1, 2]


def test_what_is_no_message_is_set_aside(publisher: Publisher) -> None:
    make_known(publisher)
    publisher.send("pytroll://no message")
    send(publisher, 1)

    with durable(publisher) as subscriber:
        messages = take(subscriber, 1)
        (aside,) = eventually(publisher.journal.set_aside)

    assert numbers_of(messages) == [1]
    assert aside.sequence == 1


def test_those_of_one_name_share_its_messages(publisher: Publisher) -> None:
    make_known(publisher)
    with attached(publisher, acknowledge="manual") as one, attached(publisher, acknowledge="manual") as other:
        from_one, from_other = one.recv(0.005 * UNIT), other.recv(0.005 * UNIT)
        got: dict[str, list[int]] = {"one": [], "other": []}
        send(publisher, *range(40))
        for _ in range(2000):
            for name, subscriber, received in (("one", one, from_one), ("other", other, from_other)):
                if (message := next(received)) is not None:
                    got[name].append(message.data["number"])
                    subscriber.accept(message)
            if sum(map(len, got.values())) == 40:
                break

    assert sorted(got["one"] + got["other"]) == list(range(40))
    assert got["one"]
    assert got["other"]


def test_two_names_get_everything_each(publisher: Publisher) -> None:
    make_known(publisher, "archive")
    make_known(publisher, "viewer")
    send(publisher, 1, 2)

    with durable(publisher, "archive") as archive, durable(publisher, "viewer") as viewer:
        both = take(archive, 2), take(viewer, 2)

    assert list(map(numbers_of, both)) == [[1, 2], [1, 2]]


def test_a_message_that_is_too_old_is_dropped_counted_and_told_of(journal: Path) -> None:
    told: list[tuple[str, int]] = []
    publisher = Publisher("tcp://*:0", "test", journal=journal, on_expired=lambda *what: told.append(what))
    with closing(publisher.start()):
        make_known(publisher)
        publisher.send(Message("/a", "info", {"number": 1}), ttl=1e-6)
        publisher.send(Message("/a", "info", {"number": 2}), ttl=1000)

        with durable(publisher) as subscriber:
            messages = take(subscriber, 1)
            eventually(lambda: told)

        assert numbers_of(messages) == [2]
        assert told == [("archive", 1)]
        assert publisher.expired == 1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), 10**400, "soon"])
def test_a_ttl_is_more_than_0(publisher: Publisher, ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl is"):
        publisher.send(Message("/a", "info", "x"), ttl=ttl)


def test_what_is_there_can_be_replayed_without_disturbing_anybody(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, *range(250))
    begin = dt.datetime.now(dt.UTC)
    send(publisher, 250, 251)
    send(publisher, 252, subject="/2")

    with durable(publisher) as subscriber:
        everything = list(subscriber.replay())
        late = list(subscriber.replay(since=begin, topics="/1b"))
        early = list(subscriber.replay(until=begin))
        messages = take(subscriber, 253)

    assert numbers_of(everything) == list(range(253))
    assert numbers_of(late) == [250, 251]
    assert numbers_of(early) == list(range(250))
    assert numbers_of(messages) == list(range(253))
    assert {message.delivery.count for message in messages} == {1}


def test_a_plain_subscriber_can_have_a_replay(publisher: Publisher) -> None:
    send(publisher, 1, 2)

    with closing(Subscriber(address_of(publisher))) as subscriber:
        messages = list(subscriber.replay())

    assert numbers_of(messages) == [1, 2]


def test_a_journal_at_two_addresses_is_replayed_once(publisher: Publisher) -> None:
    send(publisher, 1, 2)
    address = {**address_of(publisher), "journal": publisher.journal.identity}
    gone = {"URI": "tcp://127.0.0.1:1", "link": "tcp://127.0.0.1:2", "journal": publisher.journal.identity}

    with closing(Subscriber([gone, address])) as subscriber:
        messages = list(subscriber.replay())

    assert numbers_of(messages) == [1, 2]


def test_a_replay_from_who_does_not_answer_says_so(publisher: Publisher) -> None:
    with closing(Subscriber(address_of(publisher))) as subscriber:
        publisher.stop()

        with pytest.raises(TimedOut, match="nothing came"):
            list(subscriber.replay(timeout=0.2))


def test_plain_subscribers_get_the_same_as_without_a_journal(publisher: Publisher) -> None:
    sent = Message("/a", "file", {"uri": "/data/a.nc"})

    with closing(Subscriber(address_of(publisher))) as subscriber:
        assert publisher.wait_for_subscriber("", 5 * UNIT)
        publisher.send(sent)
        (message,) = take(subscriber, 1)

    assert str(message) == str(sent)
    assert message.delivery is None


def test_a_durable_subscriber_takes_plain_messages_too_and_says_so(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Publisher("tcp://*:0", "plain").start()) as plain:
        addresses = [address_of(publisher), {"URI": f"tcp://127.0.0.1:{plain.port_number}"}]
        with closing(Subscriber(addresses, durable="archive", start_at="first")) as subscriber:
            assert plain.wait_for_subscriber("", 5 * UNIT)
            send(plain, 1)
            send(publisher, 2)
            messages = take(subscriber, 2)

    assert {message.data["number"]: message.delivery is None for message in messages} == {1: True, 2: False}
    assert f"tcp://127.0.0.1:{plain.port_number} keeps no journal" in caplog.text


def test_the_senders_host_is_replaced_by_where_the_journal_is_served(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1)

    with durable(publisher, translate=True) as subscriber:
        (message,) = take(subscriber, 1)

    assert message.host == "127.0.0.1"
    assert message.delivery.address == address_of(publisher)["link"]


def test_a_plain_message_needs_no_settling(publisher: Publisher) -> None:
    message = Message("/a", "info", "x")

    with durable(publisher) as subscriber:
        assert subscriber.accept(message)
        assert subscriber.release(message)
        assert subscriber.reject(message)


def test_a_listener_accepts_a_message_when_the_next_one_is_taken_from_its_queue(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, 1, 2)

    with container_of(publisher) as container:
        first, second = next_of(container, 5 * UNIT), next_of(container, 5 * UNIT)
        eventually(lambda: publisher.journal.consumers()[0].pending == 1)

    with durable(publisher) as subscriber:
        again = take(subscriber, 1)

    assert numbers_of([first, second, *again]) == [1, 2, 2]


def container_of(publisher: Publisher) -> AbstractContextManager[ListenerContainer]:
    return listening(ListenerContainer("", [address_of(publisher)], nameserver=False, durable="archive"))


def test_a_listener_that_is_left_loses_nothing(publisher: Publisher) -> None:
    make_known(publisher)
    send(publisher, *range(20))

    with container_of(publisher) as container:
        first = next_of(container, 5 * UNIT)
    while next_of(container, 0) is not None:
        pass
    with durable(publisher) as subscriber:
        messages = take(subscriber, 20)

    assert numbers_of([first]) == [0]
    assert sorted(numbers_of(messages)) == list(range(20))


def test_publish_and_subscribe_take_the_same_arguments(journal: Path) -> None:
    with Publish("test", 0, nameservers=False, address="tcp://127.0.0.1:0", journal=journal) as publisher:
        arguments = {"durable": "archive", "start_at": "first"}
        with Subscribe(addresses=[address_of(publisher)], nameserver=False, topics="", **arguments) as subscriber:
            send(publisher, 1)
            messages = take(subscriber, 1)

    assert numbers_of(messages) == [1]
    assert messages[0].delivery is not None


def test_the_journal_is_gone_with_the_stop(publisher: Publisher) -> None:
    publisher.stop()

    assert publisher.journal is None
    assert publisher.link_address is None


def test_a_replay_goes_by_datetimes(publisher: Publisher) -> None:
    with durable(publisher) as subscriber, pytest.raises(TypeError, match="'yesterday' is no datetime"):
        list(subscriber.replay(since="yesterday"))  # type: ignore[arg-type]


def test_a_journal_may_be_in_memory() -> None:
    with closing(Publisher("tcp://*:0", "test", journal=MemoryJournal()).start()) as publisher:
        make_known(publisher)
        send(publisher, 1, 2)

        with durable(publisher) as subscriber:
            messages = take(subscriber, 2)
            eventually(lambda: settled(publisher))

    assert numbers_of(messages) == [1, 2]


def test_a_nameserver_tells_where_the_journal_is(nameservers: Nameservers, journal: Path) -> None:
    messages: list[Message] = []

    with Subscribe("hrit", "", durable="archive", start_at="first", timeout=0.1) as subscriber:
        for number in (1, 2):
            with Publish("hrit", nameservers=nameservers, journal=journal) as publisher:
                send(publisher, number)
                messages += take(subscriber, 1)
                eventually(lambda: settled(publisher))

    assert numbers_of(messages) == [1, 2]
    assert all(message.delivery is not None for message in messages)


def test_a_full_journal_refuses_what_is_sent_and_keeps_what_it_has(journal: Path) -> None:
    def fill() -> None:
        for number in itertools.count():
            send(full, number)
            sent.append(number)

    sent: list[int] = []
    with config.set(journal_max_size=10_000), closing(Publisher("tcp://*:0", "test", journal=journal).start()) as full:
        make_known(full)
        with pytest.raises(JournalFull, match="archive"):
            fill()

        with durable(full) as subscriber:
            messages = take(subscriber, len(sent))
            eventually(lambda: settled(full))
            send(full, len(sent))
            more = take(subscriber, 1)

    assert numbers_of(messages) == sent
    assert numbers_of(more) == [len(sent)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"durable": ""}, "durable is ''"),
        ({"durable": "x" * 201}, "durable is"),
        ({"durable": "archive", "start_at": "yesterday"}, "start_at is 'yesterday'"),
        ({"durable": "archive", "acknowledge": "never"}, "acknowledge is 'never'"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Subscriber([], **arguments)


def test_a_plain_subscriber_counts_what_a_heartbeat_says_it_missed(journal: Path) -> None:
    with ExitStack() as resources:
        resources.enter_context(config.set(send_high_water_mark=5, receive_high_water_mark=5))
        publisher = Publisher("tcp://127.0.0.1:0", "test", journal=journal).start()
        resources.enter_context(closing(publisher))
        address = {**address_of(publisher), "journal": publisher.journal.identity}
        subscriber = resources.enter_context(closing(Subscriber(address, "/1b")))
        assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
        publisher.heartbeat()
        received = subscriber.recv(0.1 * UNIT)
        assert next(received) is None

        for _ in range(300):
            publisher.send(Message("/1b", "info", "x" * 100_000))
        arrived = sum(1 for _ in iter(lambda: next(received), None))
        publisher.heartbeat()
        eventually(lambda: next(received) is None and subscriber.missed)

    assert publisher.overruns > 0
    assert subscriber.missed == 300 - arrived
