"""What every backend's publish and subscribe channels do."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from pathlib import Path

import pytest

from posttroll.backends.base import PublishChannel, SubscribeChannel
from posttroll.errors import BindFailed, TransportError
from posttroll.settings import Ports, config
from tests.conformance.conftest import LOOPBACK, Channels, awaited_too
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

pytestmark = awaited_too

LARGE = bytes(200_000)
SILENCE = 0.2


def frames(subscriber: SubscribeChannel, timeout: float = SILENCE) -> list[bytes]:
    """Return all that comes until nothing does for a while."""
    return [received.frame for received in iter(lambda: subscriber.receive(timeout), None)]


def publish_again(channels: Channels, address: str) -> PublishChannel:
    """Open a publish channel where another one was just closed; the system may take a moment to free the port."""

    def attempt() -> PublishChannel | None:
        with suppress(BindFailed):
            return channels.publish(address)
        return None

    channel = eventually(attempt)
    assert channel is not None
    return channel


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("frame", [b"text", b"", b"\x00\xff\x00", LARGE])
def test_a_frame_arrives_as_it_was_sent(channels: Channels, frame: bytes) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)

    assert publisher.send(frame)

    assert subscriber.receive(5 * UNIT) == (frame, channels.peer(publisher.address), False)


def test_frames_of_one_publisher_arrive_in_order(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    sent = [b"%d" % number for number in range(1000)]

    for frame in sent:
        publisher.send(frame)

    assert frames(subscriber) == sent


def test_a_batch_holds_frames_of_one_publisher_in_order(channels: Channels) -> None:
    publishers = channels.publish(), channels.publish()
    subscriber = channels.subscribe(*publishers)
    sent = [b"%d" % number for number in range(500)]

    for frame in sent:
        for publisher in publishers:
            publisher.send(frame)
    batches = list(iter(lambda: subscriber.receive_batch(SILENCE), None))

    for publisher in publishers:
        mine = [batch.frames for batch in batches if batch.peer.uri == publisher.address]
        assert list(itertools.chain.from_iterable(mine)) == sent
    assert all(batch.frames and not batch.connected for batch in batches)


def test_single_frames_and_batches_can_be_had_in_turn(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    sent = [b"%d" % number for number in range(500)]
    for frame in sent:
        publisher.send(frame)

    arrived: list[bytes] = []
    while len(arrived) < len(sent):
        single = subscriber.receive(5 * UNIT)
        assert single is not None
        arrived.append(single.frame)
        batch = subscriber.receive_batch(SILENCE)
        arrived.extend(batch.frames if batch is not None else [])

    assert arrived == sent


def test_only_frames_that_begin_with_a_topic_arrive(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher, topics=[b"/a", b"/b"])

    for frame in (b"/a1", b"/c1", b"x/a", b"/b2", b"/"):
        publisher.send(frame)

    assert frames(subscriber) == [b"/a1", b"/b2"]


def test_a_frame_that_begins_with_two_topics_arrives_once(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher, topics=[b"/a", b"/a/b"])

    publisher.send(b"/a/b/c")

    assert frames(subscriber) == [b"/a/b/c"]


def test_without_topics_nothing_arrives(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe()
    subscriber.connect(channels.peer(publisher.address), [])

    assert not publisher.wait_for_subscriber(b"", SILENCE)
    publisher.send(b"anything")

    assert frames(subscriber) == []


def test_every_subscriber_gets_every_frame(channels: Channels) -> None:
    publisher = channels.publish()
    one, other = channels.subscribe(publisher), channels.subscribe()
    other.connect(channels.peer(publisher.address), [b"t"])
    eventually(lambda: publisher.send(b"tick") and other.receive(0.01))

    publisher.send(b"tock")

    assert frames(one)[-1] == frames(other)[-1] == b"tock"


def test_a_subscriber_hears_several_publishers_and_knows_them_apart(channels: Channels) -> None:
    publishers = channels.publish(), channels.publish()
    subscriber = channels.subscribe(*publishers)

    for publisher in publishers:
        publisher.send(publisher.address.encode())

    received = [subscriber.receive(5 * UNIT) for _ in publishers]
    assert {each.peer.uri for each in received if each} == {publisher.address for publisher in publishers}
    assert all(each.peer.uri.encode() == each.frame for each in received if each)


def test_two_connections_to_one_publisher_are_told_apart_by_their_tags(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher, topics=[b"/a"])
    subscriber.connect(channels.peer(publisher.address, tag="second"), [b"/a", b"/b"])
    assert publisher.wait_for_subscriber(b"/b", 5 * UNIT)

    publisher.send(b"/a")
    received = [subscriber.receive(5 * UNIT) for _ in range(2)]
    subscriber.disconnect(channels.peer(publisher.address))
    publisher.send(b"/b")

    assert {each.peer.tag for each in received if each} == {"", "second"}
    assert frames(subscriber) == [b"/b"]


def test_a_second_connection_to_the_same_peer_changes_nothing(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    subscriber.connect(channels.peer(publisher.address), [b""])

    publisher.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_a_subscriber_may_connect_before_the_publisher_binds(channels: Channels, free_port: int) -> None:
    subscriber = channels.subscribe()
    subscriber.connect(channels.peer(f"tcp://127.0.0.1:{free_port}"), [b""])
    publisher = channels.publish(f"tcp://127.0.0.1:{free_port}")

    assert publisher.wait_for_subscriber(b"", 5 * UNIT)
    publisher.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_a_publisher_that_comes_back_to_its_port_is_heard_again(channels: Channels) -> None:
    first = channels.publish()
    subscriber = channels.subscribe(first)
    first.close()
    second = publish_again(channels, first.address)

    eventually(lambda: subscriber.receive(0) or second.wait_for_subscriber(b"", 0.01))
    second.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_the_news_of_a_connection_comes_when_asked_for(channels: Channels, free_port: int) -> None:
    peer = channels.peer(f"tcp://127.0.0.1:{free_port}")
    subscriber = channels.subscribe()
    subscriber.connect(peer, [b""], tell_connected=True)
    assert subscriber.receive(SILENCE) is None

    channels.publish(peer.uri)

    assert subscriber.receive(5 * UNIT) == (b"", peer, True)


def test_the_news_of_a_connection_comes_again_when_it_is_made_again(channels: Channels) -> None:
    first = channels.publish()
    peer = channels.peer(first.address)
    subscriber = channels.subscribe()
    subscriber.connect(peer, [b""], tell_connected=True)
    assert subscriber.receive(5 * UNIT) == (b"", peer, True)

    first.close()
    assert subscriber.receive(SILENCE) is None
    publish_again(channels, first.address)

    assert subscriber.receive(5 * UNIT) == (b"", peer, True)


@pytest.mark.parametrize("scheme", ["ipc", "inproc"])
def test_addresses_without_a_port_work(channels: Channels, scheme: str, tmp_path: Path) -> None:
    address = f"{scheme}://{tmp_path}/end"
    publisher = channels.publish(address)
    subscriber = channels.subscribe(publisher)

    publisher.send(b"frame")

    assert publisher.address == address
    assert frames(subscriber) == [b"frame"]


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_receive_gives_none_when_its_time_is_over(channels: Channels, timeout: float) -> None:
    subscriber = channels.subscribe(channels.publish())

    start = time.monotonic()
    received = subscriber.receive(timeout)

    assert received is None
    assert timeout <= time.monotonic() - start < timeout + UNIT


def test_receive_of_a_channel_without_peers_keeps_its_time(channels: Channels) -> None:
    start = time.monotonic()

    assert channels.subscribe().receive(0.2) is None

    assert 0.2 <= time.monotonic() - start < UNIT


def test_closing_wakes_a_receiver_that_waits_for_ever(channels: Channels) -> None:
    subscriber = channels.subscribe(channels.publish())

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        start = time.monotonic()
        subscriber.close()

        assert waiting.result() is None

    assert time.monotonic() - start < 0.5 * UNIT
    assert subscriber.closed
    assert subscriber.receive(None) is None
    assert subscriber.receive_batch(None) is None


def test_connecting_reaches_a_receiver_that_waits_for_ever(channels: Channels) -> None:
    publisher, subscriber = channels.publish(), channels.subscribe()

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        subscriber.connect(channels.peer(publisher.address), [b""])
        assert publisher.wait_for_subscriber(b"", 5 * UNIT)
        publisher.send(b"frame")

        received = waiting.result()

    assert received is not None
    assert received.frame == b"frame"


def test_disconnecting_reaches_a_receiver_that_waits_for_ever(channels: Channels) -> None:
    leaving, staying = channels.publish(), channels.publish()
    subscriber = channels.subscribe(leaving, staying)

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()
        subscriber.disconnect(channels.peer(leaving.address))
        eventually(lambda: not leaving.wait_for_subscriber(b"", 0))
        leaving.send(b"leaving")
        staying.send(b"staying")

        received = waiting.result()

    assert received is not None
    assert received.frame == b"staying"


def test_disconnecting_throws_away_what_is_under_way(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    publisher.send(b"frame")

    subscriber.disconnect(channels.peer(publisher.address))

    assert frames(subscriber) == []


def test_disconnecting_with_linger_keeps_what_is_under_way(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    sent = [b"%d" % number for number in range(500)]
    for frame in sent:
        publisher.send(frame)

    subscriber.disconnect(channels.peer(publisher.address), linger=0.5)

    assert frames(subscriber) == sent
    eventually(lambda: subscriber.receive(0.01) is None and not publisher.wait_for_subscriber(b"", 0))


def test_what_a_publisher_sent_before_it_closed_arrives(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)

    publisher.send(b"last words")
    publisher.close()

    assert frames(subscriber) == [b"last words"]


def test_an_unknown_peer_can_be_disconnected(channels: Channels) -> None:
    subscriber = channels.subscribe()

    subscriber.disconnect(channels.peer("tcp://127.0.0.1:9"))

    assert subscriber.receive(0) is None


def test_a_peer_can_be_connected_again_after_it_was_disconnected(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    subscriber.disconnect(channels.peer(publisher.address))
    eventually(lambda: not publisher.wait_for_subscriber(b"", 0))

    subscriber.connect(channels.peer(publisher.address), [b""])
    assert publisher.wait_for_subscriber(b"", 5 * UNIT)
    publisher.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_channels_can_be_closed_twice(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)

    for channel in (publisher, subscriber, publisher, subscriber):
        channel.close()

    assert subscriber.closed


def test_a_closed_publisher_refuses_to_send(channels: Channels) -> None:
    publisher = channels.publish()
    publisher.close()

    with pytest.raises(TransportError, match="it is stopped"):
        publisher.send(b"frame")


def test_a_closed_subscriber_refuses_to_connect(channels: Channels) -> None:
    publisher, subscriber = channels.publish(), channels.subscribe()
    subscriber.close()

    with pytest.raises(TransportError):
        subscriber.connect(channels.peer(publisher.address), [b""])


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:port", "tcp://127.0.0.1:70000", ""])
def test_a_malformed_address_is_refused(channels: Channels, address: str) -> None:
    with pytest.raises(BindFailed):
        channels.publish(address)
    with pytest.raises(TransportError):
        channels.subscribe().connect(channels.peer(address), [b""])


def test_an_address_in_use_cannot_be_bound(channels: Channels) -> None:
    publisher = channels.publish()

    with pytest.raises(BindFailed, match=str(port_of(publisher.address))):
        channels.publish(publisher.address)


def test_a_closed_publisher_gives_its_address_back(channels: Channels) -> None:
    first = channels.publish()

    first.close()

    assert publish_again(channels, first.address).address == first.address


def test_publishers_may_follow_each_other_at_once(channels: Channels) -> None:
    for _ in range(50):
        channels.publish().close()

    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)
    publisher.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_a_free_port_is_taken_from_the_range(channels: Channels, free_port: int) -> None:
    publisher = channels.publish(ports=Ports(free_port, free_port + 1))

    assert port_of(publisher.address) == free_port


def test_a_range_without_a_free_port_is_told(channels: Channels, free_port: int) -> None:
    ports = Ports(free_port, free_port + 1)
    channels.publish(ports=ports)

    with pytest.raises(BindFailed, match=str(free_port)):
        channels.publish(ports=ports)


def test_a_publisher_that_binds_all_interfaces_is_reached_on_loopback(channels: Channels) -> None:
    publisher = channels.publish("tcp://*:0")
    subscriber = channels.subscribe()
    subscriber.connect(channels.peer(f"tcp://127.0.0.1:{port_of(publisher.address)}"), [b""])
    assert publisher.wait_for_subscriber(b"", 5 * UNIT)

    publisher.send(b"frame")

    assert frames(subscriber) == [b"frame"]


def test_waiting_for_a_subscriber_ends_in_time_without_one(channels: Channels) -> None:
    publisher = channels.publish()

    start = time.monotonic()
    found = publisher.wait_for_subscriber(b"", 0.2)

    assert not found
    assert 0.2 <= time.monotonic() - start < UNIT


def test_waiting_for_a_subscriber_ends_when_one_comes(channels: Channels) -> None:
    publisher, subscriber = channels.publish(), channels.subscribe()

    with in_background(lambda: publisher.wait_for_subscriber(b"/a", None)) as waiting:
        assert waiting.is_pending()
        subscriber.connect(channels.peer(publisher.address), [b"/a"])

        assert waiting.result()


@pytest.mark.parametrize(("topic", "is_found"), [(b"/a", True), (b"", True), (b"/a/b/c", True), (b"/b", False)])
def test_a_subscriber_is_found_when_its_topic_overlaps(channels: Channels, topic: bytes, is_found: bool) -> None:
    publisher = channels.publish()
    channels.subscribe(publisher, topics=[topic])

    assert publisher.wait_for_subscriber(b"/a/b", 0) == is_found


def test_a_subscriber_that_left_is_not_found(channels: Channels) -> None:
    publisher = channels.publish()
    subscriber = channels.subscribe(publisher)

    subscriber.close()

    eventually(lambda: not publisher.wait_for_subscriber(b"", 0))


def fill(publisher: PublishChannel, most: int = 2000) -> int:
    """Send until a queue is full; return how many frames were taken."""
    for number in range(most):
        if not publisher.send(LARGE):
            return number
    raise AssertionError(f"the queue is not full after {most} frames")


def test_a_full_queue_is_told_and_its_frames_are_dropped(channels: Channels) -> None:
    """A backend may tell once of a queue that stays full, as libzmq does."""
    with config.set(send_high_water_mark=10, receive_high_water_mark=10):
        publisher = channels.publish()
        subscriber = channels.subscribe(publisher)

    had_room = [publisher.send(b"%d " % number + LARGE) for number in range(200)]
    arrived = [int(frame.split(b" ")[0]) for frame in frames(subscriber, timeout=0.5 * UNIT)]

    first_told = had_room.index(False)
    assert arrived[:first_told] == list(range(first_told))
    assert len(arrived) < 200


def test_a_full_queue_takes_frames_again_once_it_is_read(channels: Channels) -> None:
    with config.set(send_high_water_mark=10, receive_high_water_mark=10):
        publisher = channels.publish()
        subscriber = channels.subscribe(publisher)
    fill(publisher)
    frames(subscriber)

    assert publisher.send(b"small")

    assert frames(subscriber) == [b"small"]


def test_one_full_queue_keeps_nothing_from_the_others(channels: Channels) -> None:
    with config.set(send_high_water_mark=10, receive_high_water_mark=10):
        publisher = channels.publish()
        channels.subscribe(publisher, topics=[b"\x00"])
    fast = channels.subscribe(publisher, topics=[b"f"])
    fill(publisher)

    publisher.send(b"fast")

    assert frames(fast) == [b"fast"]


def test_a_blocking_publisher_waits_for_its_slowest_subscriber(channels: Channels) -> None:
    count = 300
    with config.set(send_high_water_mark=10, receive_high_water_mark=10):
        publisher = channels.publish(when_full="block")
        subscriber = channels.subscribe(publisher)

    with in_background(lambda: [publisher.send(LARGE) for _ in range(count)]) as sending:
        assert sending.is_pending(0.5)
        received = [subscriber.receive(5 * UNIT) for _ in range(count)]

        told = sending.result()

    assert None not in received
    assert not all(told)


def test_a_blocked_publisher_can_be_closed(channels: Channels) -> None:
    with config.set(send_high_water_mark=10, receive_high_water_mark=10):
        publisher = channels.publish(when_full="block")
        channels.subscribe(publisher)

    def send_until_refused() -> None:
        with suppress(TransportError):
            while True:
                publisher.send(LARGE)

    with in_background(send_until_refused) as sending:
        assert sending.is_pending(0.5)

        publisher.close()

        sending.result(2 * UNIT)


def test_several_threads_can_send_on_one_channel(channels: Channels) -> None:
    publisher = channels.publish(LOOPBACK)
    subscriber = channels.subscribe(publisher)

    def send(thread: int) -> None:
        for number in range(100):
            publisher.send(b"%d %d" % (thread, number))

    with in_background(lambda: send(0)), in_background(lambda: send(1)), in_background(lambda: send(2)):
        received = [subscriber.receive(5 * UNIT) for _ in range(300)]

    assert {each.frame for each in received if each} == {b"%d %d" % (t, n) for t in range(3) for n in range(100)}
