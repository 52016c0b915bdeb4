"""What every backend's channels tell who waits for several things at once: by one descriptor, and a time."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol, TypeVar

import pytest

from posttroll.backends.base import (
    Backend,
    Exchange,
    LinkChannel,
    PublishChannel,
    ReplyChannel,
    RequestChannel,
    SubscribeChannel,
)
from posttroll.errors import ConnectionLost
from posttroll.settings import config
from tests.conformance.conftest import Channels
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

NOBODY = "tcp://127.0.0.1:9"
PROMPTLY = 5 * UNIT
AT_ONCE = 0.2 * UNIT

Found = TypeVar("Found")


@pytest.fixture
def channels(backend: Backend) -> Iterator[Channels]:
    """Open channels of the backend themselves, and close them at the end."""
    with closing(Channels(backend)) as channels:
        yield channels


class Describable(Protocol):
    """What has a descriptor."""

    def fileno(self) -> int: ...


Receiving = SubscribeChannel | LinkChannel


def is_readable(channel: Describable, timeout: float = 0.0) -> bool:
    """Wait for the descriptor; return whether it is readable."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def next_of(channel: Describable, look: Callable[[], Found | None]) -> Found:
    """Return what is found by waiting for the descriptor alone."""
    deadline = time.monotonic() + PROMPTLY
    while (found := look()) is None:
        assert is_readable(channel, deadline - time.monotonic()), "nobody tells that there is something"
    return found


def frame_of(channel: SubscribeChannel) -> bytes:
    """Return the next frame, waited for by the descriptor alone."""
    return next_of(channel, lambda: channel.receive(0)).frame


def settle(channel: Receiving) -> None:
    """Take what comes until the channel is silent."""

    def is_silent() -> bool:
        return channel.receive(0) is None and not is_readable(channel) and channel.next_timeout() > time.monotonic()

    eventually(is_silent)


def finish(channel: RequestChannel, exchange: Exchange) -> None:
    """Advance the exchange until it is over."""
    deadline = time.monotonic() + PROMPTLY
    while not exchange.advance():
        assert time.monotonic() < deadline
        is_readable(channel, min(max(exchange.next_timeout() - time.monotonic(), 0.0), PROMPTLY))


def is_over(exchange: Exchange) -> bool | None:
    """Advance the exchange; return whether it is over, None if not."""
    return exchange.advance() or None


def answer(replies: ReplyChannel, reply: bytes = b"reply") -> bytes | None:
    """Answer the next question; return it."""
    question = replies.receive(PROMPTLY)
    assert question is not None
    replies.reply(question, reply)
    return question.frame


@pytest.fixture(params=["subscribe", "links"])
def receiving(request: pytest.FixtureRequest, channels: Channels) -> Receiving:
    """Open a channel that receives, and is not yet connected."""
    return channels.subscribe() if request.param == "subscribe" else channels.links(None)


def test_who_hears_nothing_is_silent(receiving: Receiving) -> None:
    settle(receiving)

    assert not is_readable(receiving, 0.1)


def test_waking_is_told_once(receiving: Receiving) -> None:
    settle(receiving)

    receiving.wake()

    assert is_readable(receiving)
    assert receiving.receive(0) is None
    settle(receiving)


def test_a_look_takes_no_time(receiving: Receiving) -> None:
    start = time.monotonic()

    for _ in range(20):
        assert receiving.receive(0) is None

    assert time.monotonic() - start < AT_ONCE


def test_once_closed_there_is_nothing_to_wait_for(receiving: Receiving) -> None:
    receiving.fileno()
    receiving.close()

    assert receiving.receive(0) is None
    assert receiving.next_timeout() == -math.inf


def test_a_frame_is_told(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)

    for number in range(50):
        settle(subscriber)
        publisher.send(b"%d" % number)
        assert frame_of(subscriber) == b"%d" % number


def test_frames_that_were_left_are_due(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    for number in range(1000):
        publisher.send(b"%d" % number)

    assert [frame_of(subscriber) for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert is_readable(subscriber) or subscriber.next_timeout() <= time.monotonic()
    assert [frame_of(subscriber) for _ in range(990)] == [b"%d" % number for number in range(10, 1000)]


def test_batches_are_told_like_frames(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    settle(subscriber)

    for number in range(300):
        publisher.send(b"%d" % number)
    frames: list[bytes] = []
    while len(frames) < 300:
        frames += next_of(subscriber, lambda: subscriber.receive_batch(0)).frames

    assert frames == [b"%d" % number for number in range(300)]


def test_there_is_one_descriptor_for_all_connections(channels: Channels) -> None:
    publishers = [channels.publish() for _ in range(5)]
    subscriber = channels.subscribe()
    descriptor = subscriber.fileno()
    for publisher in publishers:
        subscriber.connect(channels.peer(publisher.address), [b""])
        assert publisher.wait_for_subscriber(b"", PROMPTLY)
    settle(subscriber)

    for number, publisher in enumerate(publishers):
        publisher.send(b"%d" % number)
        assert frame_of(subscriber) == b"%d" % number
    subscriber.disconnect(channels.peer(publishers[0].address))

    assert subscriber.fileno() == descriptor


def test_who_connects_in_another_thread_is_heard(channels: Channels) -> None:
    publisher, subscriber = channels.publish(), channels.subscribe()
    settle(subscriber)

    with in_background(lambda: subscriber.connect(channels.peer(publisher.address), [b""])) as connecting:
        connecting.result()
    assert publisher.wait_for_subscriber(b"", PROMPTLY)
    publisher.send(b"frame")

    assert frame_of(subscriber) == b"frame"


def test_the_news_of_a_connection_is_told(channels: Channels, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    subscriber = channels.subscribe()
    subscriber.connect(channels.peer(address), [b""], tell_connected=True)
    settle(subscriber)

    channels.publish(address)

    assert next_of(subscriber, lambda: subscriber.receive(0)).connected


def linked(channels: Channels) -> tuple[LinkChannel, LinkChannel, Hashable]:
    """Return one that connected, one that is bound, and how the latter calls the former."""
    server, client = channels.links(), channels.links(None)
    peer = channels.peer(server.address)
    client.connect(peer)
    assert next_of(client, lambda: client.receive(0)).connected
    assert client.send(peer, b"hello")
    return client, server, next_of(server, lambda: server.receive(0)).peer


def test_bundles_are_told_at_both_ends_of_a_link(channels: Channels) -> None:
    client, server, guest = linked(channels)
    peer = channels.peer(server.address)

    for number in range(50):
        settle(client)
        settle(server)
        assert client.send(peer, b"there %d" % number)
        assert next_of(server, lambda: server.receive(0)).bundle == b"there %d" % number
        assert server.send(guest, b"back %d" % number)
        assert next_of(client, lambda: client.receive(0)).bundle == b"back %d" % number


def test_to_send_hides_no_arrival(channels: Channels) -> None:
    """To send may take the news of what arrives, whether in the same thread or in another one."""
    client, server, guest = linked(channels)
    peer = channels.peer(server.address)
    settle(client)

    def send_all() -> None:
        for number in range(200):
            server.send(guest, b"%d" % number)

    with in_background(send_all):
        for number in range(200):
            client.send(peer, b"in between")
            assert next_of(client, lambda: client.receive(0)).bundle == b"%d" % number


def test_the_news_that_a_link_was_cut_is_told(channels: Channels) -> None:
    client, server, guest = linked(channels)
    settle(server)

    client.close()

    arrival = next_of(server, lambda: server.receive(0))
    assert (arrival.peer, arrival.bundle, arrival.connected) == (guest, b"", False)


def test_an_exchange_advances_by_the_descriptor(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])

    for number in range(20):
        exchange = requests.begin(b"%d" % number, 2 * PROMPTLY)
        with in_background(lambda: answer(replies)) as answering:
            next_of(requests, partial(is_over, exchange))
            assert answering.result() == b"%d" % number

        assert exchange.replies == {channels.peer(replies.addresses[0]): b"reply"}
        assert exchange.advance()


def test_an_exchange_reaches_a_replier_that_comes_later(channels: Channels, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    requests = channels.request(address)
    exchange = requests.begin(b"question", PROMPTLY)
    assert not exchange.advance()

    replies = channels.reply(address)
    with in_background(lambda: answer(replies)):
        finish(requests, exchange)

    assert list(exchange.replies.values()) == [b"reply"]


def test_an_exchange_without_anybody_is_over_in_time_and_idle_until_then(channels: Channels) -> None:
    requests = channels.request(NOBODY)
    start = time.monotonic()
    exchange = requests.begin(b"question", 0.3)
    advances = 0

    while not exchange.advance():
        advances += 1
        is_readable(requests, max(exchange.next_timeout() - time.monotonic(), 0.0))

    assert exchange.replies == {}
    assert 0.29 < time.monotonic() - start < 0.3 + UNIT
    assert advances < 20


def test_an_exchange_with_nobody_is_over_at_once(channels: Channels) -> None:
    assert channels.request().begin(b"question", 60).advance()


def test_an_exchange_waits_for_the_others_as_long_as_the_grace_says(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(NOBODY, replies.addresses[0])
    exchange = requests.begin(b"question", 60, grace=0.1)

    with in_background(lambda: answer(replies)):
        finish(requests, exchange)

    assert list(exchange.replies.values()) == [b"reply"]


def test_an_exchange_that_is_let_be_is_over_and_the_next_one_gets_its_replies(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])
    former = requests.begin(b"former", 60)
    with in_background(lambda: replies.receive(PROMPTLY)) as asked:
        eventually(lambda: former.advance() or not asked.is_pending(0))
    question = asked.result()
    assert question is not None

    latter = requests.begin(b"latter", 60)
    replies.reply(question, b"to the former")
    with in_background(lambda: answer(replies, b"to the latter")):
        finish(requests, latter)

    assert list(latter.replies.values()) == [b"to the latter"]
    assert former.advance()


def test_closing_ends_an_exchange(channels: Channels) -> None:
    requests = channels.request(NOBODY)
    exchange = requests.begin(b"question", 60)
    assert not exchange.advance()

    requests.close()

    assert exchange.advance()
    assert exchange.replies == {}


def fill(publisher: PublishChannel) -> int:
    """Send until there is no room even after a while; return how many frames were taken."""
    count = refusals = 0
    while refusals < 3:
        start = time.monotonic()
        if publisher.try_send(bytes(100_000)):
            count, refusals = count + 1, 0
        else:
            refusals += 1
            assert time.monotonic() - start < AT_ONCE
            is_readable(publisher, 0.05)
    return count


def try_until_sent(publisher: PublishChannel, frame: bytes) -> None:
    """Send as one does who waits for room."""
    deadline = time.monotonic() + PROMPTLY
    while not publisher.try_send(frame):
        assert time.monotonic() < deadline
        is_readable(publisher, 0.05)


@pytest.mark.parametrize("when_full", ["drop", "block"])
def test_what_there_is_no_room_for_is_not_sent_and_can_be_sent_later(channels: Channels, when_full: str) -> None:
    with config.set(send_high_water_mark=5, receive_high_water_mark=5):
        publisher = channels.publish(when_full=when_full)
        subscriber = channels.subscribe(publisher)
        count = fill(publisher)

    frames = [frame_of(subscriber) for _ in range(count)]
    try_until_sent(publisher, b"last")

    assert set(frames) == {bytes(100_000)}
    assert frame_of(subscriber) == b"last"


def test_what_one_has_no_room_for_is_sent_to_none(channels: Channels) -> None:
    with config.set(send_high_water_mark=5, receive_high_water_mark=5):
        publisher = channels.publish()
        reading = channels.subscribe(publisher)
        channels.subscribe(publisher)
        while publisher.try_send(bytes(100_000)):
            frame_of(reading)

    assert reading.receive(0.1) is None


def test_a_closed_publisher_refuses_to_try(channels: Channels) -> None:
    publisher = channels.publish()
    publisher.close()

    with pytest.raises(ConnectionLost):
        publisher.try_send(b"frame")


def test_a_subscriber_that_comes_is_told(channels: Channels) -> None:
    publisher = channels.publish()
    assert not publisher.wait_for_subscriber(b"topic", 0)
    subscriber = channels.subscribe()
    while is_readable(publisher):
        assert not publisher.wait_for_subscriber(b"topic", 0)

    subscriber.connect(channels.peer(publisher.address), [b"topic"])

    next_of(publisher, lambda: publisher.wait_for_subscriber(b"topic", 0) or None)
