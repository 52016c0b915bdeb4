"""The queue that messages come through, and the thread behind it."""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from posttroll.backends.memory import Bus
from posttroll.errors import ConfigurationError
from posttroll.listener import Listener, ListenerContainer
from posttroll.message import Message
from posttroll.publisher import Publish, Publisher
from posttroll.settings import config
from posttroll.testing import memory_bus, patched_subscriber_recv
from tests.fixtures.background import in_background
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually


@pytest.fixture
def bus() -> Iterator[Bus]:
    with memory_bus() as bus:
        yield bus


@pytest.fixture
def publisher(bus: Bus) -> Iterator[Publisher]:
    with closing(Publisher("inproc://data_provider").start()) as publisher:
        yield publisher


@contextmanager
def listening(topics: list[str], **arguments: object) -> Iterator[ListenerContainer]:
    container = ListenerContainer(topics, **{"addresses": ["inproc://data_provider"], "nameserver": False, **arguments})  # type: ignore[arg-type]
    try:
        yield container
    finally:
        container.stop()


def received(container: ListenerContainer) -> Message:
    return container.output_queue.get(timeout=5 * UNIT)


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_messages_of_the_topic_come_through_the_queue(publisher: Publisher) -> None:
    with listening(["/wanted"]) as container:
        assert publisher.wait_for_subscriber("/wanted", 5 * UNIT)
        publisher.send(Message("/other", "info", 1))
        publisher.send(Message("/wanted", "info", 2))

        assert received(container).data == 2
        assert container.output_queue.empty()


def test_publishers_of_a_service_are_found_whether_they_come_before_or_after(bus: Bus) -> None:
    with (
        Publish("granules") as early,
        listening([""], addresses=None, nameserver="localhost", services="granules") as container,
        Publish("granules") as late,
    ):
        for number, publisher in enumerate((early, late)):
            assert publisher.wait_for_subscriber("", 5 * UNIT)
            publisher.send(Message("/a", "info", {"number": number}))

        assert sorted(received(container).data["number"] for _ in range(2)) == [0, 1]


def test_the_thread_is_a_named_daemon_and_alive_until_the_stop(publisher: Publisher) -> None:
    with listening(["/a"]) as container:
        thread = container.thread

        assert thread is not None
        assert (thread.name, thread.daemon, thread.is_alive()) == ("posttroll-listener", True, True)

    assert not thread.is_alive()
    assert container.thread is None


def test_stop_takes_no_time(publisher: Publisher) -> None:
    with listening(["/a"]) as container:
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
        started = time.monotonic()
        container.stop()

        assert time.monotonic() - started < 0.2 * UNIT


def test_stop_is_harmless_twice_and_without_topics(publisher: Publisher) -> None:
    with listening(["/a"]) as container:
        container.stop()
        container.stop()

    ListenerContainer().stop()


def test_a_container_without_topics_starts_nothing() -> None:
    container = ListenerContainer()

    assert container.listener is None
    assert container.thread is None
    assert "posttroll-listener" not in names_of_threads()


def test_what_was_received_stays_on_the_queue_after_the_stop(publisher: Publisher) -> None:
    with listening(["/a"]) as container:
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
        publisher.send(Message("/a", "info", "kept"))
        eventually(lambda: not container.output_queue.empty())

    assert container.output_queue.get_nowait().data == "kept"


def test_restarting_for_other_topics_keeps_queue_addresses_and_nameserver(publisher: Publisher) -> None:
    with listening(["/old"]) as container:
        same_queue = container.output_queue
        container.restart_listener(["/new"])
        assert publisher.wait_for_subscriber("/new", 5 * UNIT)
        publisher.send(Message("/old", "info"))
        publisher.send(Message("/new", "info"))

        assert received(container).subject == "/new"
        assert container.output_queue is same_queue
        assert names_of_threads().count("posttroll-listener") == 1


def test_a_state_is_the_arguments_to_start_with(publisher: Publisher) -> None:
    container = ListenerContainer()

    container.__setstate__({"topics": ["/a"], "addresses": ["inproc://data_provider"], "nameserver": False})

    try:
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
    finally:
        container.stop()


def test_a_nameserver_that_starts_last_is_found(network: Network) -> None:
    with (
        Publish("granules") as publisher,
        in_background(lambda: ListenerContainer([""], services="granules")) as starting,
        running_nameserver(),
    ):
        container = starting.result(10 * UNIT)
        try:
            assert publisher.wait_for_subscriber("", 5 * UNIT)
        finally:
            container.stop()


@pytest.mark.parametrize("arguments", [{"nameserver": "localhost:not a port"}, {"addresses": [1], "nameserver": False}])
def test_mistakes_in_the_arguments_come_out_of_the_constructor(network: Network, arguments: dict[str, object]) -> None:
    with pytest.raises((ConfigurationError, NotImplementedError, OSError)):
        ListenerContainer(["/a"], **arguments)  # type: ignore[arg-type]

    assert "posttroll-listener" not in names_of_threads()


def test_an_unknown_backend_comes_out_of_the_constructor() -> None:
    with config.set(backend="pigeons"), pytest.raises(NotImplementedError, match="pigeons"):
        ListenerContainer(["/a"])


def test_a_pause_never_puts_none_on_the_queue(publisher: Publisher) -> None:
    message = Message("/a", "info")

    with patched_subscriber_recv([None, message, None]), listening(["/a"]) as container:
        eventually(lambda: container.thread is None or not container.thread.is_alive())

    assert container.output_queue.get_nowait() is message
    assert container.output_queue.empty()


def test_a_listener_runs_in_the_callers_thread(publisher: Publisher) -> None:
    messages: queue.Queue[Message] = queue.Queue()
    listener = Listener(["/a"], messages, ["inproc://data_provider"], nameserver=False)

    with in_background(listener.run):
        eventually(lambda: listener.running)
        publisher.send(Message("/a", "info", "text"))

        assert messages.get(timeout=5 * UNIT).data == "text"
        listener.stop()

    assert not listener.running


def test_a_listener_that_was_stopped_before_it_runs_returns_at_once(publisher: Publisher) -> None:
    listener = Listener(["/a"], queue.Queue(), ["inproc://data_provider"], nameserver=False)

    listener.stop()

    listener.run()


def test_a_restarted_listener_connects_anew_and_runs(publisher: Publisher) -> None:
    messages: queue.Queue[Message] = queue.Queue()
    listener = Listener(["/a"], messages, ["inproc://data_provider"], nameserver=False)
    former = listener.subscriber
    listener.stop()

    with in_background(listener.restart):
        eventually(lambda: listener.running)
        publisher.send(Message("/a", "info", "text"))

        assert messages.get(timeout=5 * UNIT).data == "text"
        assert listener.subscriber is not former
        listener.stop()


def test_a_listener_without_topics_is_not_connected() -> None:
    listener = Listener()

    assert listener.subscriber is None
    assert list(listener.recv()) == []


def test_loggers_go_by_the_names_of_the_classes() -> None:
    assert ListenerContainer.logger.name == "posttroll.listener.ListenerContainer"
    assert Listener.logger.name == "posttroll.listener.Listener"


def test_the_arguments_keep_their_order() -> None:
    container = list(inspect.signature(ListenerContainer).parameters)
    listener = list(inspect.signature(Listener).parameters)

    assert container[:4] == ["topics", "addresses", "nameserver", "services"]
    assert listener[:5] == ["topics", "queue", "addresses", "nameserver", "services"]
