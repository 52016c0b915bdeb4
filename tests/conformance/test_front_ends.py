"""Publishers and subscribers that know each other's address, over every backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from typing import Any

import pytest

from posttroll.backends.base import Backend
from posttroll.errors import BindFailed, TransportError
from posttroll.message import Message
from posttroll.publisher import Publish, Publisher, create_publisher_from_dict_config
from posttroll.settings import config
from posttroll.subscriber import Subscribe, Subscriber, create_subscriber_from_dict_config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("backend", "fronts")


@pytest.fixture
def publisher(backend: Backend) -> Iterator[Publisher]:
    """Start a publisher on a free port."""
    with closing(Publisher("tcp://*:0", "test")) as publisher:
        yield publisher.start()


def address_of(publisher: Publisher) -> str:
    return f"tcp://127.0.0.1:{publisher.port_number}"


def connected(publisher: Publisher, topics: Any = "", **arguments: Any) -> Subscriber:
    """Return a subscriber that the publisher knows of."""
    subscriber = Subscriber(address_of(publisher), topics, **arguments)
    assert publisher.wait_for_subscriber("pytroll:/", 5 * UNIT)
    return subscriber


def received(subscriber: Subscriber, count: int) -> list[Message]:
    """Return the next messages."""
    messages: list[Message] = []
    for message in subscriber.recv(timeout=5 * UNIT):
        assert message is not None, f"only {len(messages)} of {count} messages came"
        messages.append(message)
        if len(messages) == count:
            break
    return messages


@pytest.mark.parametrize(
    "data",
    [
        "text",
        " white space ",
        {"uri": "/data/ä.nc", "start_time": datetime(2026, 3, 1, 12, 30, 15), "orbit": 27182, "nested": [{"a": None}]},
        ["2026-03-01", 1.5, True],
        b"\x00\xff",
    ],
)
def test_a_message_arrives_as_it_was_sent(publisher: Publisher, data: Any) -> None:
    sent = Message("/1b/viirs", "file", data, binary=isinstance(data, bytes))

    with closing(connected(publisher)) as subscriber:
        publisher.send(sent)
        (message,) = received(subscriber, 1)

    assert (message.subject, message.type, message.data) == ("/1b/viirs", "file", data)
    assert message.sender == sent.sender


def test_the_text_of_a_message_can_be_sent(publisher: Publisher) -> None:
    sent = Message("/a", "info", {"number": 1})

    with closing(connected(publisher)) as subscriber:
        publisher.send(str(sent))

        assert str(received(subscriber, 1)[0]) == str(sent)


def test_only_messages_of_the_topics_arrive(publisher: Publisher) -> None:
    with closing(connected(publisher, ["/1b/viirs", "/counter"])) as subscriber:
        for subject in ("/1b/avhrr", "/1b/viirs/day", "/other", "/counter"):
            publisher.send(Message(subject, "info", "text"))

        assert [message.subject for message in received(subscriber, 2)] == ["/1b/viirs/day", "/counter"]


def test_messages_that_the_filter_refuses_do_not_arrive(publisher: Publisher) -> None:
    subscriber = connected(publisher, message_filter=lambda message: message.data["number"] % 2)

    with closing(subscriber):
        for number in range(4):
            publisher.send(Message("/a", "info", {"number": number}))

        assert [message.data["number"] for message in received(subscriber, 2)] == [1, 3]


def test_what_is_no_message_is_dropped_and_counted(publisher: Publisher) -> None:
    with closing(connected(publisher)) as subscriber:
        for text in ("pytroll://rubbish", "pytroll://a b c d v9", str(Message("/a", "info", "good"))):
            publisher.send(text)

        assert received(subscriber, 1)[0].data == "good"
        assert sum(subscriber.drops.values()) == 2


def test_nothing_comes_as_none_when_its_time_is_over(publisher: Publisher) -> None:
    with closing(connected(publisher)) as subscriber:
        messages = subscriber.recv(timeout=0.1)
        start = time.monotonic()

        assert [next(messages), next(messages)] == [None, None]

        assert 0.2 <= time.monotonic() - start < UNIT


def test_rubbish_does_not_prolong_the_time(publisher: Publisher) -> None:
    is_over = threading.Event()

    def send_rubbish() -> None:
        while not is_over.wait(0.05):
            publisher.send("pytroll://rubbish")

    with closing(connected(publisher)) as subscriber, in_background(send_rubbish):
        start = time.monotonic()
        message = next(subscriber.recv(timeout=0.3))
        took = time.monotonic() - start
        is_over.set()

    assert message is None
    assert 0.3 <= took < 0.3 + 0.5 * UNIT


def test_stopping_from_another_thread_ends_the_loop(publisher: Publisher) -> None:
    subscriber = connected(publisher)

    with in_background(lambda: list(subscriber.recv())) as receiving:
        assert receiving.is_pending()
        subscriber.stop()

        assert receiving.result(UNIT) == []

    assert subscriber.running is False


def test_an_address_can_be_added_and_removed_while_another_thread_receives(publisher: Publisher) -> None:
    with closing(Subscriber([])) as subscriber:
        with in_background(lambda: received(subscriber, 1)) as receiving:
            subscriber.add(address_of(publisher))
            assert publisher.wait_for_subscriber("", 5 * UNIT)
            publisher.send(Message("/a", "info", "text"))
            assert receiving.result()[0].data == "text"

        subscriber.remove(address_of(publisher))

        eventually(lambda: not publisher.wait_for_subscriber("", 0.01))
        assert list(subscriber.addresses) == []


def test_updating_leaves_exactly_the_addresses_given(publisher: Publisher) -> None:
    with closing(Publisher("tcp://*:0").start()) as other, closing(connected(publisher)) as subscriber:
        changed = subscriber.update([address_of(other)])
        again = subscriber.update(address_of(other))

        assert (changed, again) == (True, False)
        assert [address["URI"] for address in subscriber.addresses] == [address_of(other)]
        assert other.wait_for_subscriber("", 5 * UNIT)
        eventually(lambda: not publisher.wait_for_subscriber("", 0.01))


def test_messages_of_a_hook_go_to_its_callback_only(publisher: Publisher) -> None:
    hooked: list[Message] = []

    with closing(connected(publisher, "/main")) as subscriber:
        subscriber.add_hook_sub(address_of(publisher), "/hook", hooked.append)
        assert publisher.wait_for_subscriber("/hook", 5 * UNIT)
        publisher.send(Message("/hook", "info", "for the hook"))
        publisher.send(Message("/main", "info", "for the loop"))

        assert [message.data for message in received(subscriber, 1)] == ["for the loop"]
        eventually(lambda: next(subscriber.recv(0.01)) is None and hooked)

    assert [message.data for message in hooked] == ["for the hook"]


def test_a_heartbeat_arrives(publisher: Publisher) -> None:
    with closing(connected(publisher, "/heartbeat")) as subscriber:
        publisher.heartbeat(30)
        publisher.heartbeat(30)

        (beat,) = received(subscriber, 1)

        assert (beat.subject, beat.type, beat.data) == ("/heartbeat/test", "beat", {"min_interval": 30})
        assert next(subscriber.recv(0.1)) is None


def test_a_publisher_can_be_stopped_twice_and_before_its_start_and_started_again(free_port: int) -> None:
    publisher = Publisher(f"tcp://*:{free_port}")

    publisher.stop()
    publisher.start().stop()
    publisher.stop()
    eventually(lambda: starts(publisher))
    publisher.stop()

    assert publisher.port_number == free_port


def starts(publisher: Publisher) -> bool:
    try:
        publisher.start()
    except BindFailed:
        return False
    return True


def test_a_publisher_that_is_not_running_refuses_to_send() -> None:
    publisher = Publisher("tcp://*:0")

    with pytest.raises(AttributeError):
        publisher.send("pytroll://a b c@d 2026-01-01T00:00:00 v1.01")
    publisher.start()
    publisher.stop()
    with pytest.raises(TransportError):
        publisher.send("pytroll://a b c@d 2026-01-01T00:00:00 v1.01")


def test_a_port_in_use_is_told_at_the_start(publisher: Publisher) -> None:
    with pytest.raises(BindFailed, match=str(publisher.port_number)):
        Publisher(f"tcp://*:{publisher.port_number}").start()


def test_subscribers_that_cannot_keep_up_are_counted_and_told_of() -> None:
    told: list[Publisher] = []
    text = str(Message("/a", "info", "x" * 100_000))

    with ExitStack() as stack:
        with config.set(send_high_water_mark=5, receive_high_water_mark=5):
            publisher = Publisher("tcp://*:0", on_overrun=told.append).start()
            stack.callback(publisher.stop)
            stack.enter_context(closing(connected(publisher)))
        for _ in range(2000):
            publisher.send(text)
            if publisher.overruns:
                break

    assert publisher.overruns == 1
    assert told == [publisher]


def test_a_publisher_and_a_subscriber_in_with_blocks_need_no_nameserver(free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"

    with (
        Publish("test", free_port, nameservers=False) as publisher,
        Subscribe("", "/a", addresses=[address], nameserver=False) as subscriber,
    ):
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
        publisher.send(Message("/a", "info", "text"))

        assert received(subscriber, 1)[0].data == "text"


def test_publisher_and_subscriber_can_be_made_from_dicts(free_port: int) -> None:
    publisher = create_publisher_from_dict_config({"port": free_port, "nameservers": False, "name": "test"})
    settings = {"addresses": [f"tcp://127.0.0.1:{free_port}"], "nameserver": False, "topics": ["/a"]}

    with closing(publisher.start()), closing(create_subscriber_from_dict_config(settings)) as subscriber:
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
        publisher.send(Message("/a", "info", "text"))

        assert received(subscriber, 1)[0].data == "text"
