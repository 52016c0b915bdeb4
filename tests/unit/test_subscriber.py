from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq

from posttroll import subscriber as module
from posttroll.backends import memory
from posttroll.backends.base import Peer, PublishChannel
from posttroll.backends.zmq import get_context
from posttroll.errors import RequestTimeout, TransportError
from posttroll.message import Message
from posttroll.publisher import Publisher
from posttroll.settings import Ports, config
from posttroll.subscriber import NSSubscriber, Subscribe, Subscriber, create_subscriber_from_dict_config
from tests.fixtures.background import in_background
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually

Entry = dict[str, Any]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[memory.MemoryBackend]:
    """Receive within the process."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    with config.set(backend="memory"):
        yield memory.backend


@pytest.fixture
def publisher(backend: memory.MemoryBackend) -> Iterator[PublishChannel]:
    """Open a publisher."""
    with closing(backend.open_publish("tcp://127.0.0.1:0", Ports.read())) as publisher:
        yield publisher


@pytest.fixture
def other(backend: memory.MemoryBackend) -> Iterator[PublishChannel]:
    """Open another one."""
    with closing(backend.open_publish("tcp://127.0.0.1:0", Ports.read())) as publisher:
        yield publisher


def publish(publisher: PublishChannel, subject: str, data: Any = "") -> None:
    publisher.send(str(Message(subject, "info", data)).encode())


def subjects(subscriber: Subscriber) -> list[str]:
    """Return the subjects of all that has arrived."""
    return [
        message.subject for message in itertools.takewhile(lambda each: each is not None, subscriber.recv(0)) if message
    ]


def uris(subscriber: Subscriber) -> list[str]:
    return [address["URI"] for address in subscriber.addresses]


def test_messages_of_the_address_arrive(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        publish(publisher, "/a")

        assert subjects(subscriber) == ["/a"]


@pytest.mark.parametrize(
    ("topics", "arrive"),
    [
        ("", ["/a", "/b"]),
        ("/", ["/a", "/b"]),
        ("a", ["/a"]),
        ("pytroll:/", ["/a", "/b", "c"]),
        ("pytroll://b", ["/b"]),
        (["/b", "pytroll:/c"], ["/b", "c"]),
        (iter(("/b",)), ["/b"]),
        ([], []),
    ],
)
def test_messages_of_the_topics_arrive(publisher: PublishChannel, topics: Any, arrive: list[str]) -> None:
    with closing(Subscriber(publisher.address, topics)) as subscriber:
        for subject in ("/a", "/b", "c"):
            publish(publisher, subject)

        assert subjects(subscriber) == arrive


def test_topics_that_are_none_are_refused(publisher: PublishChannel) -> None:
    topics: Any = None

    with pytest.raises(TypeError):
        Subscriber(publisher.address, topics)


@pytest.mark.parametrize(
    ("addresses", "count"),
    [
        ("tcp://h:1", 1),
        ({"URI": "tcp://h:1"}, 1),
        ({"URI": "tcp://h:1", "backend": "memory", "supported_message_version": "v1.2", "more": 1}, 1),
        (["tcp://h:1", {"URI": "tcp://h:2"}], 2),
        (["tcp://h:1", "tcp://h:1"], 1),
        (("tcp://h:1",), 1),
        (iter(("tcp://h:1",)), 1),
        ([], 0),
        (None, 0),
    ],
)
def test_addresses_are_texts_or_dicts_one_or_several(addresses: Any, count: int) -> None:
    with closing(Subscriber(addresses)) as subscriber:
        assert len(subscriber.addresses) == count
        assert all(address["backend"] == "memory" for address in subscriber.addresses)


def test_an_address_keeps_what_else_is_known_of_it() -> None:
    address = {"URI": "tcp://h:1", "backend": "memory", "more": 1}

    with closing(Subscriber(address)) as subscriber:
        assert list(subscriber.addresses) == [address]


@pytest.mark.parametrize(
    ("addresses", "error"),
    [
        ([1], NotImplementedError),
        ([None], NotImplementedError),
        (1, NotImplementedError),
        ({"uri": "tcp://h:1"}, KeyError),
        ("nonsense", TransportError),
        (["tcp://h:1", "tcp://h:99999999"], TransportError),
    ],
)
def test_addresses_that_are_none_are_refused(addresses: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Subscriber(addresses)


def test_an_unknown_backend_is_refused_when_made() -> None:
    with config.set(backend="pigeons"), pytest.raises(NotImplementedError, match="pigeons"):
        Subscriber([])


def test_a_host_and_port_without_a_scheme_are_of_tcp(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address.removeprefix("tcp://"))) as subscriber:
        publish(publisher, "/a")

        assert subjects(subscriber) == ["/a"]
        assert uris(subscriber) == [publisher.address.removeprefix("tcp://")]


def test_the_filter_decides_what_arrives(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address, message_filter=lambda message: message.data)) as subscriber:
        publish(publisher, "/a", 0)
        publish(publisher, "/b", 1)

        assert subjects(subscriber) == []
        assert subjects(subscriber) == ["/b"]


def test_a_filter_that_fails_drops_the_message_and_ends_nothing(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address, message_filter=lambda message: message.data["number"])) as subscriber:
        publish(publisher, "/a", "text")
        publish(publisher, "/b", {"number": 1})

        messages = subscriber.recv(UNIT)
        assert next(messages, None) is not None
        assert subscriber.drops == {"filter failed": 1}


def test_translation_puts_the_host_of_the_address_into_the_sender(publisher: PublishChannel) -> None:
    with closing(Subscriber({"URI": publisher.address}, translate=True)) as subscriber:
        publish(publisher, "/a")

        message = next(subscriber.recv(UNIT))
        assert message is not None
        assert message.host == "127.0.0.1"


RUBBISH = [
    b"",
    b"pytroll:/",
    b"\xff\xfe",
    b"pytroll://a b c@d yesterday v1.01",
    b"pytroll://a b c@d 2020-01-01T00:00:00 v9",
    b"pytroll://a b c@d 2020-01-01T00:00:00 v1.01 text/ascii",
    b"pytroll://a b c@d 2020-01-01T00:00:00 v1.01 application/json " + b"[" * 100_000,
    b'pytroll://a b c@d 2020-01-01T00:00:00 v1.01 application/json {"a": ',
]


def test_rubbish_is_dropped_and_counted_and_ends_nothing(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address, "pytroll:/")) as subscriber:
        subscriber.add_hook_sub(publisher.address, "", lambda message: None)
        subscriber._channel.connect(Peer(publisher.address, "memory", "all"), [b""])
        for frame in RUBBISH:
            publisher.send(frame)
        publish(publisher, "/end")

        eventually(lambda: "/end" in subjects(subscriber))
        assert subscriber.drops["not a message"] >= len(RUBBISH)


def test_bytes_that_are_not_utf_8_are_read_as_iso_8859_1(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        publisher.send("pytroll://a b c@d 2020-01-01T00:00:00 v1.01 text/ascii ÿ".encode("iso-8859-1"))

        message = next(subscriber.recv(UNIT))
        assert message is not None
        assert message.data == "ÿ"


def test_a_message_longer_than_configured_is_dropped(publisher: PublishChannel) -> None:
    with config.set(max_message_size=1024):
        subscriber = Subscriber(publisher.address)

    with closing(subscriber):
        publish(publisher, "/long", "x" * 1024)
        publish(publisher, "/short")

        eventually(lambda: "/short" in subjects(subscriber))
        assert subscriber.drops == {"not a message": 1}


def test_nothing_is_none_after_the_timeout_each_time(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        start = time.monotonic()

        assert list(itertools.islice(subscriber.recv(timeout=0.05), 3)) == [None] * 3

        assert 0.15 <= time.monotonic() - start < UNIT


def test_without_waiting_nothing_is_none_at_once(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        assert list(itertools.islice(subscriber.recv(0), 100)) == [None] * 100


@pytest.mark.parametrize("kind", ["filtered", "hooked", "rubbish"])
def test_what_does_not_arrive_does_not_prolong_the_time(publisher: PublishChannel, kind: str) -> None:
    is_over = threading.Event()

    def disturb() -> None:
        while not is_over.wait(0.02):
            publisher.send(b"pytroll://rubbish" if kind == "rubbish" else str(Message("/a", "info")).encode())

    with closing(Subscriber([], message_filter=lambda message: False)) as subscriber:
        if kind == "hooked":
            subscriber.add_hook_sub(publisher.address, "", lambda message: None)
        else:
            subscriber.add(publisher.address)
        with in_background(disturb):
            start = time.monotonic()
            message = next(subscriber.recv(timeout=0.2))
            took = time.monotonic() - start
            is_over.set()

    assert message is None
    assert 0.2 <= took < 0.2 + 0.5 * UNIT


def test_calling_is_receiving(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        publish(publisher, "/a")

        message = next(subscriber(timeout=1))
        assert message is not None
        assert message.subject == "/a"
        assert next(subscriber(timeout=0)) is None


def test_a_new_loop_goes_on_where_the_former_ended(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        for subject in ("/a", "/b"):
            publish(publisher, subject)

        heard = [message.subject for message in (next(subscriber.recv(UNIT)) for _ in range(2)) if message]

    assert heard == ["/a", "/b"]


@pytest.fixture
def batches() -> Iterator[tuple[Publisher, Subscriber]]:
    """Connect a subscriber over a network, which brings many messages at a time."""
    with (
        config.set(backend="unsecure_zmq"),
        closing(Publisher("tcp://127.0.0.1:0").start()) as publisher,
        closing(Subscriber(f"tcp://127.0.0.1:{publisher.port_number}")) as subscriber,
    ):
        assert publisher.wait_for_subscriber("", 5 * UNIT)
        yield publisher, subscriber


def test_a_loop_that_is_left_in_the_middle_of_a_batch_loses_nothing(batches: tuple[Publisher, Subscriber]) -> None:
    publisher, subscriber = batches
    for number in range(500):
        publisher.send(Message("/a", "info", number))

    heard = [message.data for message in (next(subscriber.recv(5 * UNIT)) for _ in range(500)) if message]

    assert heard == list(range(500))


def test_stopping_in_the_middle_of_a_batch_ends_the_loop(batches: tuple[Publisher, Subscriber]) -> None:
    publisher, subscriber = batches
    for number in range(500):
        publisher.send(Message("/a", "info", number))
    messages = subscriber.recv()
    for _ in range(3):
        next(messages)

    with in_background(subscriber.stop) as stopping:
        stopping.result()

    assert list(messages) == []


def test_a_hook_that_stops_in_the_middle_of_a_batch_is_not_called_again(batches: tuple[Publisher, Subscriber]) -> None:
    publisher, subscriber = batches
    hooked: list[Message] = []

    def stop(message: Message) -> None:
        hooked.append(message)
        subscriber.stop()

    subscriber.add_hook_sub(f"tcp://127.0.0.1:{publisher.port_number}", "/hook", stop)
    assert publisher.wait_for_subscriber("/hook", 5 * UNIT)
    subscriber.remove(f"tcp://127.0.0.1:{publisher.port_number}")
    eventually(lambda: not publisher.wait_for_subscriber("/other", 0))
    for number in range(500):
        publisher.send(Message("/hook", "info", number))

    assert list(subscriber.recv()) == []
    assert len(hooked) == 1


def test_a_hook_may_receive_from_its_subscriber_and_nothing_gets_lost(batches: tuple[Publisher, Subscriber]) -> None:
    publisher, subscriber = batches
    received: list[Any] = []

    def receive_one(hooked: Message) -> None:
        received.extend(message.data for message in itertools.islice(subscriber.recv(UNIT), 1) if message)

    subscriber.add_hook_sub(f"tcp://127.0.0.1:{publisher.port_number}", "/hook", receive_one)
    assert publisher.wait_for_subscriber("/hook", 5 * UNIT)
    for number in range(500):
        publisher.send(Message("/file", "info", number))
        if number % 100 == 0:
            publisher.send(Message("/hook", "info", "hook"))

    for message in subscriber.recv(UNIT):
        if message is None:
            break
        received.append(message.data)

    assert sorted(data for data in received if data != "hook") == list(range(500))


def test_a_slow_filter_does_not_prolong_the_time_by_a_whole_batch() -> None:
    never = threading.Event()

    with (
        config.set(backend="unsecure_zmq"),
        closing(Publisher("tcp://127.0.0.1:0").start()) as publisher,
        closing(
            Subscriber(f"tcp://127.0.0.1:{publisher.port_number}", message_filter=lambda message: never.wait(0.05))
        ) as subscriber,
    ):
        assert publisher.wait_for_subscriber("", 5 * UNIT)
        for number in range(500):
            publisher.send(Message("/a", "info", number))
        start = time.monotonic()

        assert next(subscriber.recv(0.2)) is None

        assert time.monotonic() - start < 0.2 + 0.5 * UNIT


def test_it_runs_from_the_first_message_until_it_is_closed(publisher: PublishChannel) -> None:
    subscriber = Subscriber(publisher.address)
    before = subscriber.running
    next(subscriber.recv(0))
    meanwhile = subscriber.running
    subscriber.close()

    assert (before, meanwhile, subscriber.running) == (None, True, False)
    assert list(subscriber.recv()) == []


@pytest.mark.parametrize("stop", [Subscriber.stop, Subscriber.close])
def test_stopping_from_another_thread_ends_a_loop_that_waits_for_ever(
    publisher: PublishChannel, stop: Callable[[Subscriber], None]
) -> None:
    subscriber = Subscriber(publisher.address)

    with in_background(lambda: list(subscriber.recv())) as receiving:
        assert receiving.is_pending()
        start = time.monotonic()
        stop(subscriber)

        assert receiving.result() == []
        assert time.monotonic() - start < 0.2 * UNIT
    stop(subscriber)


def test_stopping_in_the_loop_ends_it(publisher: PublishChannel) -> None:
    subscriber = Subscriber(publisher.address)
    for _ in range(3):
        publish(publisher, "/a")

    count = 0
    for _ in subscriber.recv():
        count += 1
        subscriber.stop()

    assert count == 1


def test_an_address_is_added_with_its_own_topics_or_the_subscribers(
    publisher: PublishChannel, other: PublishChannel
) -> None:
    with closing(Subscriber([], "/a")) as subscriber:
        subscriber.add(publisher.address)
        subscriber.add({"URI": other.address}, ["/b"])
        for channel in (publisher, other):
            publish(channel, "/a")
            publish(channel, "/b")

        assert subjects(subscriber) == ["/a", "/b"]


def test_a_known_address_stays_as_it_is(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address, "/a")) as subscriber:
        subscriber.add(publisher.address, "/b")
        publish(publisher, "/b")
        publish(publisher, "/a")

        assert subjects(subscriber) == ["/a"]
        assert len(subscriber.addresses) == 1


def test_an_address_that_cannot_be_added_is_not_listed() -> None:
    with closing(Subscriber([])) as subscriber:
        with pytest.raises(TransportError):
            subscriber.add("nonsense")

        assert uris(subscriber) == []


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_removed_address_is_heard_no_longer(publisher: PublishChannel, as_dict: bool) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        subscriber.remove({"URI": publisher.address} if as_dict else publisher.address)
        publish(publisher, "/a")

        assert subjects(subscriber) == []
        assert uris(subscriber) == []


def test_to_whom_it_connects_and_disconnects_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "posttroll.subscriber")

    with closing(Subscriber("tcp://h:1")) as subscriber:
        subscriber.remove("tcp://h:1")

    assert caplog.messages == ["connected to tcp://h:1", "disconnected from tcp://h:1"]


def test_an_unknown_address_may_be_removed() -> None:
    with closing(Subscriber([])) as subscriber:
        subscriber.remove("tcp://h:1")
        subscriber.part({"URI": "tcp://h:1"})


def test_what_is_under_way_from_an_address_that_parts_still_arrives(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        publish(publisher, "/a")
        subscriber.part({"URI": publisher.address, "status": False})

        assert uris(subscriber) == []
        assert subjects(subscriber) == ["/a"]


@pytest.mark.parametrize(
    ("before", "addresses", "changed", "after"),
    [
        (["tcp://h:1"], ["tcp://h:1"], False, ["tcp://h:1"]),
        (["tcp://h:1"], "tcp://h:1", False, ["tcp://h:1"]),
        (["tcp://h:1"], {"URI": "tcp://h:1"}, False, ["tcp://h:1"]),
        (["tcp://h:1"], "tcp://h:2", True, ["tcp://h:2"]),
        (["tcp://h:1"], [{"URI": "tcp://h:1"}, "tcp://h:2"], True, ["tcp://h:1", "tcp://h:2"]),
        (["tcp://h:1", "tcp://h:2"], ("tcp://h:2",), True, ["tcp://h:2"]),
        (["tcp://h:1"], [], True, []),
        (["tcp://h:1"], None, True, []),
        ([], [], False, []),
    ],
)
def test_updating_leaves_exactly_the_addresses_given(
    before: list[str], addresses: Any, changed: bool, after: list[str]
) -> None:
    with closing(Subscriber(before)) as subscriber:
        assert subscriber.update(addresses) is changed
        assert uris(subscriber) == after


def test_updating_keeps_the_connections_that_stay(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        publish(publisher, "/a")
        subscriber.update([publisher.address, "tcp://h:1"])

        assert subjects(subscriber) == ["/a"]


def test_updating_takes_over_where_a_journal_is_now() -> None:
    before = {"URI": "tcp://h:1", "link": "tcp://h:2", "journal": "a", "backend": "memory"}
    with closing(Subscriber(before, durable="archive")) as subscriber:
        changes = [subscriber.update(before), subscriber.update({**before, "link": "tcp://h:3"})]

        assert changes == [False, True]
        assert list(subscriber.addresses) == [{**before, "link": "tcp://h:3"}]


def test_a_durable_subscriber_hears_plain_messages_while_durable_ones_never_end(
    publisher: PublishChannel, tmp_path: Path
) -> None:
    def wake(_: Message) -> bool:
        subscriber._channel.wake()  # as if there were news of durable messages all the time
        return True

    with closing(Publisher("tcp://127.0.0.1:0", journal=tmp_path / "journal").start()) as durable:
        addresses = [{"URI": f"tcp://127.0.0.1:{durable.port_number}", "link": durable.link_address}, publisher.address]
        for _ in range(150):
            durable.send(Message("/durable", "info"))
        arguments = {"message_filter": wake, "durable": "archive", "start_at": "first"}
        with closing(Subscriber(addresses, **arguments)) as subscriber:
            received = subscriber.recv(5 * UNIT)
            next(received)
            publish(publisher, "/plain")
            following = [next(received).subject for _ in range(140)]

    assert "/plain" in following


def test_a_hook_hears_its_own_topics_in_the_thread_that_receives(publisher: PublishChannel) -> None:
    hooked: list[tuple[str, threading.Thread]] = []

    with closing(Subscriber(publisher.address, "/loop")) as subscriber:
        subscriber.add_hook_sub(
            {"URI": publisher.address},
            ["/hook"],
            lambda message: hooked.append((message.subject, threading.current_thread())),
        )
        for subject in ("/hook", "/loop", "/else"):
            publish(publisher, subject)
        assert hooked == []

        eventually(lambda: "/loop" in subjects(subscriber))
        eventually(lambda: subjects(subscriber) == [] and hooked)

    assert hooked == [("/hook", threading.current_thread())]


def test_two_hooks_on_one_address_are_told_apart(publisher: PublishChannel) -> None:
    one: list[Message] = []
    other: list[Message] = []

    with closing(Subscriber([])) as subscriber:
        subscriber.add_hook_sub(publisher.address, "/a", one.append)
        subscriber.add_hook_sub(publisher.address, "", other.append)
        publish(publisher, "/a")
        publish(publisher, "/b")
        eventually(lambda: subjects(subscriber) == [] and len(other) == 2)

    assert [message.subject for message in one] == ["/a"]
    assert [message.subject for message in other] == ["/a", "/b"]


def test_a_hook_that_fails_or_closes_ends_nothing_but_what_it_closed(publisher: PublishChannel) -> None:
    def fail(message: Message) -> None:
        raise RuntimeError("hook failed")

    with closing(Subscriber([])) as subscriber:
        subscriber.add_hook_sub(publisher.address, "/fail", fail)
        subscriber.add_hook_sub(publisher.address, "/stop", lambda message: subscriber.stop())
        publish(publisher, "/fail")
        assert next(subscriber.recv(0.05)) is None
        publish(publisher, "/stop")

        assert list(subscriber.recv()) == []
        assert subscriber.drops == {"hook failed": 1}


def test_the_sockets_are_listed_where_the_backend_has_some(publisher: PublishChannel) -> None:
    with closing(Subscriber(publisher.address)) as subscriber:
        assert subscriber.subscribers == []
    with config.set(backend="unsecure_zmq"), closing(Subscriber("tcp://127.0.0.1:9")) as subscriber:
        (socket,) = subscriber.subscribers
        assert not socket.closed


def test_orders_are_pulled_from_a_queue_within_the_process() -> None:
    pulled: list[Message] = []

    with (
        config.set(backend="unsecure_zmq"),
        closing(Subscriber([])) as subscriber,
        get_context().socket(zmq.PUSH) as pushing,
    ):
        pushing.bind("inproc://test-orders")
        subscriber.add_hook_pull("inproc://test-orders", pulled.append)
        pushing.send_string(str(Message("/order", "info")))
        eventually(lambda: next(subscriber.recv(0.01)) is None and pulled)

    assert [message.subject for message in pulled] == ["/order"]


@pytest.mark.parametrize(
    ("topics", "prefixes"),
    [(None, None), ("a", ["pytroll://a"]), (["/a", "pytroll:/b"], ["pytroll://a", "pytroll:/b"])],
)
def test_topics_are_completed_by_the_name_that_others_use(topics: Any, prefixes: list[str] | None) -> None:
    assert Subscriber._magickfy_topics(topics) == prefixes


def test_an_address_that_was_discovered_is_connected_once(publisher: PublishChannel) -> None:
    entry = {"URI": publisher.address, "service": ["a"], "backend": "memory", "supported_message_version": "v1.2"}

    with closing(Subscriber([])) as subscriber:
        subscriber.meet(entry)
        subscriber.meet(entry)
        publish(publisher, "/a")

        assert subjects(subscriber) == ["/a"]
        assert list(subscriber.addresses) == [entry]
        assert not subscriber.drops


@pytest.mark.parametrize(
    "entry",
    [
        {},
        None,
        1,
        {"URI": None},
        {"URI": 1},
        {"URI": []},
        {"URI": ""},
        {"URI": "nonsense"},
        {"URI": "\ud800"},
        {"URI": "tcp://h:99999"},
        {"URI": "tcp://h:1", "backend": "pigeons"},
        {"URI": "tcp://h:1", "backend": []},
        {"URI": "tcp://h:1", "backend": 1},
        {"URI": "tcp://h:1", "backend": None},
        {"URI": "tcp://h:1", "supported_message_version": "v1.3"},
        {"URI": "tcp://h:1", "supported_message_version": "v2"},
    ],
)
@pytest.mark.parametrize("backend_name", ["memory", "unsecure_zmq"])
def test_a_discovered_address_that_cannot_be_used_is_refused_and_counted(entry: Any, backend_name: str) -> None:
    with config.set(backend=backend_name), closing(Subscriber([])) as subscriber:
        subscriber.meet(entry)

        assert uris(subscriber) == []
        assert subscriber.drops == {"address refused": 1}


def test_a_discovered_address_of_a_weaker_backend_is_refused() -> None:
    with config.set(backend="secure_zmq"), closing(Subscriber([])) as subscriber:
        subscriber.meet({"URI": "tcp://127.0.0.1:9", "backend": "unsecure_zmq"})

        assert uris(subscriber) == []
        assert subscriber.drops == {"address refused": 1}


def test_a_known_address_does_not_become_one_of_a_weaker_backend(keys: Keys) -> None:
    address = {"URI": "tcp://127.0.0.1:9", "link": "tcp://127.0.0.1:10", "backend": "secure_zmq"}
    with (
        config.set(backend="secure_zmq", **keys.settings()),
        closing(Subscriber(address, durable="archive")) as subscriber,
    ):
        subscriber.meet({**address, "link": "tcp://127.0.0.1:11", "backend": "unsecure_zmq"})

        assert list(subscriber.addresses) == [address]
        assert subscriber.drops == {"address refused": 1}


def test_a_known_address_is_kept_when_its_new_link_is_none() -> None:
    address = {"URI": "tcp://127.0.0.1:9", "link": "tcp://127.0.0.1:10", "backend": "memory"}
    with closing(Subscriber(address, durable="archive")) as subscriber:
        subscriber.meet({**address, "link": "nonsense"})

        assert list(subscriber.addresses) == [address]
        assert subscriber.drops == {"address refused": 1}


def test_no_more_discovered_addresses_are_connected_than_allowed() -> None:
    with config.set(max_connections=2), closing(Subscriber("tcp://h:1")) as subscriber:
        for port in range(1, 5):
            subscriber.meet({"URI": f"tcp://h:{port}"})

        assert uris(subscriber) == ["tcp://h:1", "tcp://h:2"]
        assert subscriber.drops == {"address refused": 2}


class Nameserver:
    """Stands in for looking up, and notes what is asked."""

    def __init__(self) -> None:
        self.known: dict[str, list[Entry]] = {}
        self.asked: list[tuple[str, float, Any]] = []
        self.error: Exception | None = None

    def get_pub_addresses(self, name: str, timeout: float, nameserver: Any) -> list[Entry]:
        self.asked.append((name, timeout, nameserver))
        if self.error is not None:
            raise self.error
        return self.known.get(name, [])


class Listener:
    """Stands in for what follows the address feed."""

    made: list[Listener]

    def __init__(self, subscriber: Subscriber, services: Any, nameserver: Any) -> None:
        self.services, self.nameserver = services, nameserver
        self.calls: list[str] = []
        self.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def nameserver(monkeypatch: pytest.MonkeyPatch) -> Nameserver:
    """Replace the functions that others replace too."""
    nameserver = Nameserver()
    Listener.made = []
    monkeypatch.setattr(module, "get_pub_addresses", nameserver.get_pub_addresses)
    monkeypatch.setattr(module, "_AddressListener", Listener)
    return nameserver


def test_what_the_nameserver_knows_is_connected(nameserver: Nameserver, publisher: PublishChannel) -> None:
    nameserver.known = {"a": [{"URI": publisher.address}], "b": [{"URI": "tcp://h:1"}, {"URI": publisher.address}]}

    with closing(NSSubscriber(["a", "b"], timeout=3, nameserver="there").start()) as subscriber:
        publish(publisher, "/a")

        assert uris(subscriber) == [publisher.address, "tcp://h:1"]
        assert subjects(subscriber) == ["/a"]
    assert nameserver.asked == [("a", 3, "there"), ("b", 3, "there")]


@pytest.mark.parametrize(
    ("services", "asked"), [("", [""]), ("a", ["a"]), (["a", "b"], ["a", "b"]), (None, []), ([], [])]
)
def test_each_service_is_asked_for(nameserver: Nameserver, services: Any, asked: list[str]) -> None:
    NSSubscriber(services).start().close()

    assert [name for name, *_ in nameserver.asked] == asked


def test_a_service_that_nobody_publishes_is_warned_about(
    nameserver: Nameserver, caplog: pytest.LogCaptureFixture
) -> None:
    NSSubscriber("nothing").start().close()

    assert "no publisher of 'nothing' found" in caplog.text


def test_all_subjects_arrive_by_default(nameserver: Nameserver, publisher: PublishChannel) -> None:
    with closing(NSSubscriber(None, addresses=publisher.address).start()) as subscriber:
        publish(publisher, "no/slash")

        assert subjects(subscriber) == ["no/slash"]


@pytest.mark.parametrize("error", [RequestTimeout("silent"), TimeoutError("silent")])
def test_a_silent_nameserver_is_told_and_nothing_is_left_open(nameserver: Nameserver, error: Exception) -> None:
    nameserver.error = error
    finder = NSSubscriber("a")

    with pytest.raises(TimeoutError):
        finder.start()

    assert finder._subscriber is not None
    assert finder._subscriber.running is False


def test_with_an_address_listener_a_silent_nameserver_is_waited_for(
    nameserver: Nameserver, caplog: pytest.LogCaptureFixture
) -> None:
    nameserver.error = TimeoutError("silent")

    with closing(NSSubscriber(["a", "b"], addr_listener=True).start()):
        assert len(nameserver.asked) == 1
        assert "does not answer, still looking for it" in caplog.text


def test_an_address_listener_lives_as_long_as_its_subscriber(nameserver: Nameserver) -> None:
    subscriber = NSSubscriber("a", addr_listener=True, nameserver=["one", "two"]).start()
    (listener,) = Listener.made
    assert (listener.services, listener.nameserver) == (["a"], ["one", "two"])
    assert listener.calls == ["start"]

    subscriber.close()

    assert listener.calls == ["start", "stop"]


def test_without_services_there_is_no_address_listener(nameserver: Nameserver) -> None:
    NSSubscriber(None, addr_listener=True).start().close()

    assert Listener.made == []


def test_a_finder_may_be_stopped_before_its_start_and_twice_and_started_again(nameserver: Nameserver) -> None:
    finder = NSSubscriber("a")
    finder.stop()

    first = finder.start()
    second = finder.start()
    assert (first.running, second.running) == (False, None)

    finder.stop()
    finder.close()
    assert second.running is False


def test_filter_and_translation_are_passed_on(nameserver: Nameserver, publisher: PublishChannel) -> None:
    arguments: Any = {
        "addresses": [publisher.address],
        "translate": True,
        "message_filter": lambda message: message.data,
    }

    with closing(NSSubscriber(None, **arguments).start()) as subscriber:
        publish(publisher, "/a", "")
        publish(publisher, "/b", 1)
        message = eventually(lambda: next(subscriber.recv(0)))

    assert message is not None
    assert (message.subject, message.host) == ("/b", "127.0.0.1")


def test_subscribe_is_connected_when_made_and_stopped_at_the_end(
    nameserver: Nameserver, publisher: PublishChannel
) -> None:
    nameserver.known = {"a": [{"URI": publisher.address}]}
    subscribe = Subscribe("a", "/x", True, [], 3, False, "there")
    assert uris(subscribe.subscriber) == [publisher.address]

    with subscribe as subscriber:
        assert subscriber is subscribe.subscriber

    assert subscriber.running is False
    assert nameserver.asked == [("a", 3, "there")]


def test_subscribe_does_not_hide_errors(nameserver: Nameserver) -> None:
    with pytest.raises(KeyError), Subscribe(None) as subscriber:
        raise KeyError

    assert subscriber.running is False


def test_subscribe_without_a_nameserver_asks_nobody(nameserver: Nameserver, publisher: PublishChannel) -> None:
    arguments: Any = {"addresses": [publisher.address], "message_filter": lambda message: message.data}

    with Subscribe("ignored", "/a", nameserver=False, **arguments) as subscriber:
        publish(publisher, "/a", 1)

        assert subjects(subscriber) == ["/a"]
    assert nameserver.asked == []


Made = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Replace the classes in the module, as others do in their tests; give what they are called with."""
    made: Made = []

    class Direct:
        def __init__(self, **keywords: Any) -> None:
            made.append(("Subscriber", keywords))

    class Finder:
        def __init__(self, **keywords: Any) -> None:
            made.append(("NSSubscriber", keywords))

        def start(self) -> None:
            made.append(("start", {}))

    monkeypatch.setattr(module, "Subscriber", Direct)
    monkeypatch.setattr(module, "NSSubscriber", Finder)
    return made


FINDER_DEFAULTS = {
    "services": "",
    "topics": "pytroll:/",
    "addr_listener": False,
    "addresses": None,
    "timeout": 10,
    "translate": False,
    "nameserver": "localhost",
}


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        (
            {
                "addresses": ["a"],
                "nameserver": False,
                "topics": "t",
                "port": 1,
                "services": "s",
                "addr_listener": True,
                "timeout": 1,
                "translate": True,
            },
            [("Subscriber", {"addresses": ["a"], "topics": "t", "translate": True})],
        ),
        (
            {"addresses": [], "nameserver": False},
            [("NSSubscriber", {**FINDER_DEFAULTS, "addresses": []}), ("start", {})],
        ),
        ({"addresses": ["a"]}, [("NSSubscriber", {**FINDER_DEFAULTS, "addresses": ["a"]}), ("start", {})]),
        ({}, [("NSSubscriber", FINDER_DEFAULTS), ("start", {})]),
        ({"nameserver": None, "unknown": 1}, [("NSSubscriber", FINDER_DEFAULTS), ("start", {})]),
        ({"nameserver": ""}, [("NSSubscriber", FINDER_DEFAULTS), ("start", {})]),
        (
            {"nameserver": ["a", "b"], "services": ["s"], "message_filter": print},
            [
                (
                    "NSSubscriber",
                    {**FINDER_DEFAULTS, "nameserver": ["a", "b"], "services": ["s"], "message_filter": print},
                ),
                ("start", {}),
            ],
        ),
    ],
)
def test_a_dict_describes_a_subscriber(made: Made, settings: dict[str, Any], calls: Made) -> None:
    before = dict(settings)

    create_subscriber_from_dict_config(settings)

    assert made == calls
    assert settings == before


def test_unknown_items_are_refused_without_a_nameserver() -> None:
    with pytest.raises(TypeError, match="unknown"):
        create_subscriber_from_dict_config({"addresses": ["tcp://h:1"], "nameserver": False, "unknown": 1})


def test_the_same_dict_makes_the_same_subscriber_twice(publisher: PublishChannel) -> None:
    settings = {"addresses": [publisher.address], "nameserver": False, "services": "a", "topics": ["/a"]}

    for _ in range(2):
        with closing(create_subscriber_from_dict_config(settings)) as subscriber:
            assert uris(subscriber) == [publisher.address]


def test_data_arrive_as_they_were_sent(publisher: PublishChannel) -> None:
    data = {"time": datetime(2026, 3, 1, tzinfo=UTC), "uid": "20260301", "list": [{}, None, "ä"]}

    with closing(Subscriber(publisher.address)) as subscriber:
        publish(publisher, "/a", data)
        message = next(subscriber.recv(UNIT))

    assert message is not None
    assert message.data == data


def test_names_that_others_replace_are_there() -> None:
    assert {"get_pub_address", "get_pub_addresses", "_AddressListener"} <= vars(module).keys()


def test_a_helper_that_cannot_be_stopped_leaves_nothing_open(publisher: PublishChannel) -> None:
    class Helper:
        def stop(self) -> None:
            raise ValueError("died earlier")

    subscriber = Subscriber(publisher.address)
    subscriber._helpers.append(Helper())

    with pytest.raises(ValueError, match="died earlier"):
        subscriber.stop()

    assert subscriber._channel.closed
