from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq

from posttroll.backends.zmq import context as contexts
from posttroll.backends.zmq.context import close_at_exit, destroy_context, get_context
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"


@pytest.fixture
def own_contexts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test destroy the context: what others made is put back at the end."""
    before = dict(contexts)
    contexts.clear()
    yield
    destroy_context(0)
    contexts.update(before)


def test_a_process_has_one_context() -> None:
    with in_background(get_context) as other_thread:
        assert get_context() is other_thread.result() is contexts[os.getpid()]


def test_the_context_allows_many_sockets() -> None:
    assert get_context().get(zmq.MAX_SOCKETS) == 65_000


def test_inproc_pairs_of_one_process_find_each_other() -> None:
    with get_context().socket(zmq.PAIR) as one, get_context().socket(zmq.PAIR) as other:
        one.bind("inproc://test-context")
        other.connect("inproc://test-context")
        other.send(b"frame")

        assert one.poll(int(1000 * UNIT))
        assert one.recv() == b"frame"


def test_the_child_of_a_fork_has_a_context_of_its_own() -> None:
    mine = get_context()

    def is_usable_and_new() -> bool:
        with get_context().socket(zmq.PUB) as socket:
            socket.bind("tcp://127.0.0.1:*")
        return get_context() is not mine

    assert in_child(is_usable_and_new) == "True"
    assert get_context() is mine
    assert not mine.closed


def test_the_child_of_a_fork_terminates_nothing_of_its_parent() -> None:
    with closing(ZMQPublisher(LOOPBACK).start()) as publisher, closing(ZMQSubscriber()) as subscriber:

        def close_all() -> None:
            destroy_context(0)
            publisher.close()
            subscriber.close()
            gc.collect()

        assert in_child(close_all) == "None"

        assert publisher.send(b"frame")
        assert not get_context().closed


def test_the_child_of_a_fork_gets_a_context_though_the_parent_held_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["posttroll.backends.zmq.context"]

    with module._lock:
        assert in_child(lambda: get_context().closed) == "False"


@pytest.mark.usefixtures("own_contexts")
def test_destroying_closes_the_context_and_its_sockets() -> None:
    context = get_context()
    socket = context.socket(zmq.PUB)

    destroy_context(0)

    assert (context.closed, socket.closed) == (True, True)
    assert get_context() is not context


@pytest.mark.usefixtures("own_contexts")
def test_destroying_ends_a_receiver_that_waits_for_ever() -> None:
    subscriber = ZMQSubscriber("tcp://127.0.0.1:9")

    with in_background(lambda: subscriber.receive(None)) as waiting:
        assert waiting.is_pending()

        destroy_context(0)

        assert waiting.result() is None
    assert subscriber.closed
    subscriber.close()


@pytest.mark.usefixtures("own_contexts")
def test_after_destroying_secured_publishers_can_be_opened_again(keys: Keys) -> None:
    with config.set(**keys.settings()):
        former = ZMQPublisher(LOOPBACK, backend="secure_zmq").start()
        destroy_context(0)
        former.close()

        publisher = ZMQPublisher(LOOPBACK, backend="secure_zmq").start()
        with closing(publisher), closing(ZMQSubscriber(publisher.address, backend="secure_zmq")):
            assert publisher.wait_for_subscriber(b"", 5 * UNIT)


@pytest.mark.usefixtures("own_contexts")
def test_destroying_nothing_is_harmless() -> None:
    destroy_context()

    assert not contexts


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20 * UNIT,
        check=False,
    )


def test_a_program_that_closes_nothing_ends() -> None:
    program = """
        from posttroll.publisher import Publisher
        from posttroll.subscriber import Subscriber

        publisher = Publisher("tcp://127.0.0.1:0").start()
        subscriber = Subscriber(f"tcp://127.0.0.1:{publisher.port_number}")
        publisher.wait_for_subscriber(timeout=5)
        publisher.send("unread")
    """

    ended = run(program)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_program_ends_though_a_socket_of_its_own_is_open() -> None:
    program = """
        import zmq
        from posttroll.backends.zmq import get_context

        socket = get_context().socket(zmq.PUSH)
        socket.connect("tcp://127.0.0.1:9")
        socket.send(b"never read")
    """

    ended = run(program)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_program_sent_last_leaves_it() -> None:
    program = """
        import sys
        from posttroll.publisher import Publisher

        publisher = Publisher(sys.argv[1]).start()
        publisher.wait_for_subscriber("", 10)
        for number in range(1000):
            publisher.send(f"pytroll://{number}")
    """
    with closing(ZMQPublisher(LOOPBACK).start()) as probe:
        address = probe.address
    with closing(ZMQSubscriber(address)) as subscriber:
        command = [sys.executable, "-c", textwrap.dedent(program), address]
        with subprocess.Popen(command) as process:
            received = [subscriber.receive(20 * UNIT) for _ in range(1000)]

    assert process.returncode == 0
    assert [each.frame for each in received if each] == [b"pytroll://%d" % number for number in range(1000)]


def test_what_is_registered_is_closed_only_while_it_is_there() -> None:
    class Channel:
        def close(self) -> None:
            raise AssertionError("closed")

    close_at_exit(Channel())
    gc.collect()

    sys.modules["posttroll.backends.zmq.context"]._close_channels()
