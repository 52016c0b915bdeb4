"""What a publisher may send to those who trusted it with a subscription."""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from posttroll.errors import MessageError
from posttroll.listener import ListenerContainer
from posttroll.message import Message
from posttroll.publisher import Publish, Publisher
from posttroll.settings import config
from posttroll.subscriber import Subscriber
from tests.fixtures.hostile import Footprint, RawPeer, environment, message_bytes, program, warnings_in
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

NOISE = random.Random(3).randbytes
TOPIC = b"pytroll://"
GOOD = message_bytes({"uid": "good"}, subject="/good/news")
FAR_TOO_DEEP = 100_000


def publication(body: str = "", **parts: str) -> bytes:
    return message_bytes(body=body, subject="/evil/news", **parts)


MALFORMED = {
    "topic only": TOPIC,
    "random bytes": TOPIC + bytes(byte for byte in NOISE(1000) if chr(byte).isalnum()),
    "not UTF-8": TOPIC + b"\xff\xfe \x80",
    "too few parts": TOPIC + b"evil/news file user@host 2026-01-01T00:00:00",
    "white space after the version": publication(" "),
    "bad time": publication(time="yesterday"),
    "a day that is not in the calendar": publication(time="2026-02-30T00:00:00"),
    "a time of 60 KB": publication(time="2" * 60_000),
    "version of the future": publication(version="v1.3"),
    "version of 60 KB": publication(version="w" * 60_000),
    "mime type without data": publication(" application/json"),
    "mime type and a blank": publication(" application/json "),
    "unknown mime type": publication(" application/pickle gASVBQAAAAAAAABLAS4="),
    "cut JSON": publication(' application/json {"uid": "'),
    "bad JSON": publication(" application/json {'uid': 1}"),
    "JSON of nothing": publication(" application/json  "),
    "lists 100,000 deep": publication(" application/json " + "[" * FAR_TOO_DEEP + "]" * FAR_TOO_DEEP),
    "objects 100,000 deep": publication(" application/json " + '{"a":' * FAR_TOO_DEEP + "1" + "}" * FAR_TOO_DEEP),
    "lists without an end": publication(" application/json " + "[" * FAR_TOO_DEEP),
    "objects without an end": publication(" application/json " + '{"a":' * FAR_TOO_DEEP),
    "lists 500 deep": publication(" application/json " + "[" * 500 + "]" * 500),
    "a number without an end": publication(" application/json " + "9" * 100_000),
    "JSON in UTF-16": publication(" application/json ") + json.dumps({"a": 1}).encode("utf-16"),
}


class Sender:
    """A publisher that sends bytes of any kind."""

    def __init__(self, raw_peer: RawPeer) -> None:
        self._socket, self.address = raw_peer.publisher()

    def wait_for_subscriber(self) -> None:
        """Wait for a subscription."""
        while self._socket.recv()[:1] != b"\x01":
            pass

    def send(self, *frames: bytes) -> None:
        """Publish a message of one or more frames."""
        self._socket.send_multipart(frames)


@pytest.fixture
def sender(raw_peer: RawPeer) -> Sender:
    """Give a publisher of anything."""
    return Sender(raw_peer)


@pytest.fixture
def subscriber(sender: Sender) -> Iterator[Subscriber]:
    """Give a subscriber that is connected to it."""
    with closing(Subscriber(sender.address)) as subscriber:
        sender.wait_for_subscriber()
        yield subscriber


def receive(subscriber: Subscriber) -> Message:
    message = next(subscriber.recv(20 * UNIT))
    assert message is not None
    return message


def assert_it_goes_on(sender: Sender, subscriber: Subscriber) -> None:
    sender.send(GOOD)

    assert receive(subscriber).data == {"uid": "good"}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_message_is_counted_and_the_next_one_received(
    sender: Sender, subscriber: Subscriber, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        sender.send(frame)

    assert_it_goes_on(sender, subscriber)
    assert subscriber.drops == {"not a message": 3}
    (line,) = warnings_in(caplog.records, sender.address)
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize("frame", [b"", b"\0", NOISE(1000), b"\xff" * 100, GOOD[5:], *MALFORMED.values()])
def test_what_follows_a_message_in_further_frames_is_counted(
    sender: Sender, subscriber: Subscriber, frame: bytes
) -> None:
    sender.send(GOOD, frame)

    assert receive(subscriber).data == {"uid": "good"}
    assert_it_goes_on(sender, subscriber)
    assert subscriber.drops == {"not a message": 1}


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b' application/json {"date": "2026-02-30T00:00:00"}', {"date": "2026-02-30T00:00:00"}),
        (b' application/json {"date": "9999-99-99T99:99:99"}', {"date": "9999-99-99T99:99:99"}),
        (b' application/json {"date": "2026-01-01T00:00:00+99:99"}', {"date": "2026-01-01T00:00:00+99:99"}),
        (b' application/json {"text": "\\ud800"}', {"text": "\ud800"}),
        (b' application/json {"\\udfff": ["\\ud800\\ud800"]}', {"\udfff": ["\ud800\ud800"]}),
        (b" text/ascii caf\xe9", "caf\xe9"),
        (b" text/ascii \xed\xa0\x80", "\xed\xa0\x80"),
        (b' application/json {"a": 1, "a": 2}', {"a": 2}),
        (b' application/json {"a": 1e999}', {"a": float("inf")}),
        (b" application/json " + b"9" * 4000, int("9" * 4000)),
    ],
)
def test_what_is_odd_but_a_message_is_received(
    sender: Sender, subscriber: Subscriber, body: bytes, data: object
) -> None:
    sender.send(publication() + body)

    assert receive(subscriber).data == data
    assert_it_goes_on(sender, subscriber)
    assert not subscriber.drops


def test_random_mutations_of_a_message_end_no_subscriber(sender: Sender, subscriber: Subscriber) -> None:
    chance = random.Random(4)
    original = message_bytes({"start_time": "2026-01-01T00:00:00", "files": [{"uri": "x", "uid": 1}] * 3})
    for _ in range(3000):
        mutant = bytearray(original)
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(TOPIC), len(mutant))
            mutant[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        sender.send(bytes(mutant))
    sender.send(GOOD)

    received = 0
    for message in subscriber.recv(20 * UNIT):
        assert message is not None
        if message.subject == "/good/news":
            break
        received += 1

    assert received + subscriber.drops["not a message"] == 3000
    assert subscriber.drops["not a message"] > 100


@pytest.mark.parametrize(
    ("frame", "is_message"),
    [
        (publication(" text/ascii " + "x" * 50_000_000), True),
        (publication(" binary/octet-stream " + "x" * 50_000_000), True),
        (publication(' application/json {"text": "' + "x" * 50_000_000 + '"}'), True),
        (publication(' application/json {"text": "' + "x" * 50_000_000), False),
        (TOPIC + bytes(50_000_000), False),
        (TOPIC + b"\xff" * 50_000_000, False),
        (publication(" application/json " + "[" * 50_000_000), False),
        (publication(" text/ascii " + "x" * 70_000_000), False),
    ],
    ids=["text", "binary", "JSON", "cut JSON", "zeros", "not UTF-8", "deep JSON", "more than is allowed"],
)
def test_frames_of_50_mb_are_taken_or_dropped(
    sender: Sender, subscriber: Subscriber, frame: bytes, is_message: bool
) -> None:
    sender.send(frame)

    if is_message:
        assert len(str(receive(subscriber).data)) >= 50_000_000
    assert_it_goes_on(sender, subscriber)
    assert sum(subscriber.drops.values()) == (0 if is_message else 1)


def test_frames_of_50_mb_leave_no_memory_behind(sender: Sender, subscriber: Subscriber) -> None:
    assert_it_goes_on(sender, subscriber)
    before = Footprint.of().memory
    for start in (TOPIC, publication(" application/json ["), publication(' application/json {"a": "')):
        for _ in range(3):
            sender.send(start + b"x" * 50_000_000)
            assert_it_goes_on(sender, subscriber)

    eventually(lambda: Footprint.of().memory < before + 200 * 2**20)


def test_frames_beyond_all_measure_cut_the_connection_only_for_a_moment(raw_peer: RawPeer) -> None:
    sender = Sender(raw_peer)
    with config.set(max_message_size=1_000_000), closing(Subscriber(sender.address)) as subscriber:
        sender.wait_for_subscriber()
        sender.send(TOPIC + bytes(5_000_000))

        sender.wait_for_subscriber()
        assert_it_goes_on(sender, subscriber)


def lines_run_by(function: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs."""
    count = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(former)
    return count


def nesting_bomb(depth: int, texts: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    """Return a message whose data hold many texts at the bottom of some depth."""
    bottom = json.dumps([{"t": "12"}] * texts)
    return publication(f" application/json {opening * depth}{bottom}{closing * depth}")


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")])
def test_the_work_of_decoding_grows_with_the_size_alone(opening: str, closing: str) -> None:
    levels = 195 // (len(closing))
    small = nesting_bomb(levels, 4_000, opening, closing)
    large = nesting_bomb(levels, 32_000, opening, closing)
    flat = nesting_bomb(0, 32_000, opening, closing)

    work_small, work_large, work_flat = (
        lines_run_by(functools.partial(Message.decode, frame)) for frame in (small, large, flat)
    )

    assert 50_000 < len(small) < 60_000
    assert len(large) > 400_000
    assert work_large < 1.2 * work_small * len(large) / len(small)
    assert work_large < 1.2 * work_flat + 50 * levels


@pytest.mark.parametrize("depth", [201, 400, 5000])
def test_data_nested_deeper_than_allowed_are_refused_with_as_little_work(depth: int) -> None:
    bomb = nesting_bomb(depth, 30_000)

    def decode() -> None:
        with pytest.raises(MessageError):
            Message.decode(bomb)

    assert lines_run_by(decode) < 100_000


def test_a_listener_container_goes_on_filling_its_queue(sender: Sender, caplog: pytest.LogCaptureFixture) -> None:
    container = ListenerContainer(topics=[""], addresses=[sender.address], nameserver=False)
    try:
        sender.wait_for_subscriber()
        for frame in MALFORMED.values():
            sender.send(frame)
            sender.send(GOOD, frame)

        received = [container.output_queue.get(timeout=20 * UNIT).data for _ in MALFORMED]
    finally:
        container.stop()

    assert received == [{"uid": "good"}] * len(MALFORMED)
    assert len(warnings_in(caplog.records, sender.address)) == 1


def test_a_listener_container_survives_a_hostile_publisher_found_by_name(
    network: Network, sender: Sender, raw_peer: RawPeer
) -> None:
    with running_nameserver(), Publish("good") as publisher:
        container = ListenerContainer(topics=["/good"], services=["good"])
        try:
            container.listener.subscriber.add(sender.address)  # type: ignore[union-attr]
            sender.wait_for_subscriber()
            assert publisher.wait_for_subscriber("/good", 5 * UNIT)
            for frame in MALFORMED.values():
                sender.send(frame.replace(b"evil", b"good"))
            publisher.send(Message("/good/news", "info", "x"))

            assert container.output_queue.get(timeout=5 * UNIT).data == "x"
        finally:
            container.stop()


def test_the_logger_goes_on_logging(network: Network, raw_peer: RawPeer, tmp_path: Path) -> None:
    log = tmp_path / "collected.log"
    hostile = [*MALFORMED.values(), publication(' application/json "\\ud800"', kind="log.error")]
    with running_nameserver():
        process = subprocess.Popen(
            program("posttroll.logger", "--rotated", str(log)), env=environment(), stderr=subprocess.PIPE, text=True
        )
        try:
            with Publish("good") as publisher, Publish("evil") as evil:
                eventually(log.exists, 20 * UNIT)
                for each in (publisher, evil):
                    assert each.wait_for_subscriber("", 20 * UNIT)
                for frame in hostile:
                    evil._publisher._channel.send(frame)  # type: ignore[union-attr]
                evil.send(Message("/log", "log.info", "last of evil"))
                eventually(lambda: "last of evil" in log.read_text())
                publisher.send(Message("/log", "log.info", "still there"))
                eventually(lambda: "still there" in log.read_text())
            text = log.read_text()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10 * UNIT)
        finally:
            process.kill()
            process.wait()

    assert "\\ud800" in text
    assert (process.returncode, errors) == (0, "")


class Misbehaviour(Exception):
    """What the callbacks of these tests raise."""


def misbehave(*_: object) -> None:
    raise Misbehaviour("on purpose")


def test_a_filter_that_raises_drops_the_message_only(
    network: Network, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    def choose(message: Message) -> bool:
        if message.subject != "/good/news":
            misbehave()
        return True

    with closing(Subscriber(sender.address, message_filter=choose)) as subscriber:
        sender.wait_for_subscriber()
        for _ in range(5):
            sender.send(publication(" text/ascii x"))

        assert_it_goes_on(sender, subscriber)

    assert subscriber.drops == {"filter failed": 5}
    assert len(warnings_in(caplog.records, "on purpose")) == 1


@pytest.mark.parametrize("kind", ["subscribed", "pulled"])
def test_a_hook_that_raises_ends_nothing(
    sender: Sender, subscriber: Subscriber, raw_peer: RawPeer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "pulled":
        queue = raw_peer.socket(zmq.PUSH)
        queue.bind("tcp://127.0.0.1:*")
        subscriber.add_hook_pull(queue.getsockopt_string(zmq.LAST_ENDPOINT), misbehave)
        send: Callable[[bytes], object] = queue.send
    else:
        other = Sender(raw_peer)
        subscriber.add_hook_sub(other.address, [""], misbehave)
        other.wait_for_subscriber()
        send = other.send
    for _ in range(5):
        send(GOOD)

    def is_counted() -> bool:
        assert_it_goes_on(sender, subscriber)
        return subscriber.drops == {"hook failed": 5}

    eventually(is_counted)
    assert len(warnings_in(caplog.records, "hook failed")) == 1


@pytest.mark.parametrize("frame", [b"", b"\0", NOISE(1000), *MALFORMED.values()])
def test_rubbish_for_a_hook_is_counted(sender: Sender, subscriber: Subscriber, raw_peer: RawPeer, frame: bytes) -> None:
    given: list[Message] = []
    queue = raw_peer.socket(zmq.PUSH)
    queue.bind("tcp://127.0.0.1:*")
    subscriber.add_hook_pull(queue.getsockopt_string(zmq.LAST_ENDPOINT), given.append)
    queue.send(frame)
    queue.send(GOOD)

    def is_received() -> bool:
        assert_it_goes_on(sender, subscriber)
        return len(given) == 1

    eventually(is_received)
    assert subscriber.drops == {"not a message": 1}


def test_an_on_overrun_that_raises_ends_no_publisher(raw_peer: RawPeer, caplog: pytest.LogCaptureFixture) -> None:
    with config.set(send_high_water_mark=10):
        publisher = Publisher("tcp://127.0.0.1:0", on_overrun=misbehave).start()
    slow = raw_peer.socket(zmq.SUB, rcvhwm=1)
    slow.connect(f"tcp://127.0.0.1:{publisher.port_number}")
    slow.subscribe(b"pytroll://")
    with closing(publisher):
        assert publisher.wait_for_subscriber("", 5 * UNIT)
        for _ in range(300):
            publisher.send(Message("/a", "info", "x" * 100_000))

    assert publisher.overruns > 0
    assert len(warnings_in(caplog.records, "on_overrun")) == 1


def test_a_flood_of_malformed_messages_does_not_overrun_the_time_of_recv(
    sender: Sender, subscriber: Subscriber
) -> None:
    for _ in range(20_000):
        sender.send(publication(" "))

    start = time.monotonic()
    message = next(subscriber.recv(0.1))

    assert message is None
    assert time.monotonic() - start < UNIT
