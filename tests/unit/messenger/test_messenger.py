"""What a messenger does that needs no peer."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from posttroll.errors import (
    BindFailed,
    ConfigurationError,
    EncodeError,
    Interrupted,
    JournalError,
    LocalProtocolError,
    NotStarted,
    TimedOut,
)
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.publisher import NoisyPublisher, Publisher
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

pytestmark = pytest.mark.usefixtures("bus")

Wait = Callable[[Messenger], object]

WAITS = pytest.mark.parametrize(
    "wait",
    [
        Messenger.recv,
        Messenger.run,
        Messenger.work,
        lambda messenger: messenger.get(None),
        lambda messenger: messenger.put("nobody", note()) and messenger.send(),
        lambda messenger: messenger.put("nobody", note()).wait(),
    ],
    ids=["recv", "run", "work", "get", "send", "tracker"],
)


@pytest.fixture
def alice() -> Iterator[Messenger]:
    """Start a messenger that is alone."""
    with closing(Messenger("alice", nameservers=False)) as alice:
        yield alice.start()


@contextmanager
def in_a_moment(action: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread while the block waits for it."""
    timer = threading.Timer(0.05, action)
    timer.start()
    yield
    timer.join()


@contextmanager
def handled(handler: Callable[[], object]) -> Iterator[None]:
    """Have a signal come in a moment, and handled."""
    former = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        with in_a_moment(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            yield
    finally:
        signal.signal(signal.SIGUSR1, former)


@contextmanager
def keyboard_interrupt(messenger: Messenger) -> Iterator[None]:
    """Have a KeyboardInterrupt come as soon as the messenger waits, and not before."""

    def interrupt() -> None:
        eventually(lambda: messenger._news._bells)
        os.kill(os.getpid(), signal.SIGINT)

    with in_background(interrupt):
        yield


def note() -> Message:
    return Message("/note", "info", {"number": 1})


def test_its_name_is_a_uuid_if_none_is_given() -> None:
    names = {Messenger(nameservers=False).name for _ in range(2)}

    assert len(names) == 2
    assert all(str(uuid.UUID(name)) == name for name in names)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n", "tcp://a:1", "a:1", "a@b", "~a", "x" * 201])
def test_a_name_that_nobody_could_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Messenger(name)


@pytest.mark.parametrize("window", [-1, 200, 201])
def test_an_incoming_window_has_to_be_below_the_credit(window: int) -> None:
    with pytest.raises(ConfigurationError, match="below the credit of 200"):
        Messenger("alice", incoming_window=window)


@pytest.mark.parametrize(
    "limit",
    [
        {"outgoing_window": -1},
        {"bandwidth": 0},
        {"bandwidth": -1.0},
        {"bandwidth": float("nan")},
        {"silence": 0},
        {"silence": float("inf")},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limit))):
        Messenger("alice", **limit)


def test_it_is_stopped_before_the_start_and_after_the_stop() -> None:
    alice = Messenger("alice", nameservers=False)
    alice.stop()
    assert (alice.stopped, alice.address, alice.publisher, alice.peers) == (True, "", None, {})

    with alice:
        assert not alice.stopped
        assert alice.address.startswith("tcp://127.0.0.1:")

    alice.stop()
    alice.close()
    assert (alice.stopped, alice.address, alice.publisher, alice.peers) == (True, "", None, {})


def test_it_may_be_started_again(alice: Messenger) -> None:
    alice.put("nobody", note())
    for _ in range(2):
        alice.start()
        assert not alice.stopped

    assert alice.outgoing == 0


def test_it_listens_at_the_port_given(free_port: int) -> None:
    with Messenger("alice", nameservers=False, link_port=free_port) as alice:
        assert alice.address == f"tcp://127.0.0.1:{free_port}"


def test_a_start_that_fails_leaves_nothing_running(alice: Messenger) -> None:
    other = Messenger("other", nameservers=False, link_port=int(alice.address.rpartition(":")[2]))

    with pytest.raises(BindFailed):
        other.start()

    assert other.stopped
    with pytest.raises(NotStarted):
        other.put("alice", note())


def test_a_publisher_that_cannot_start_leaves_nothing_running(alice: Messenger) -> None:
    other = Messenger("other", nameservers=False, port=alice.publisher.port_number)

    with pytest.raises(BindFailed):
        other.start()

    assert (other.stopped, other.publisher) == (True, None)


def test_it_publishes_under_its_name_if_it_is_announced() -> None:
    with Messenger("alice", aliases="hello", broadcast_interval=0) as alice:
        assert isinstance(alice.publisher, NoisyPublisher)
        assert alice.publisher._services == ["alice", "hello"]


def test_it_publishes_without_announcing_itself_without_nameservers(alice: Messenger) -> None:
    assert isinstance(alice.publisher, Publisher)


@pytest.mark.parametrize("nameservers", [None, False])
def test_one_that_only_connects_does_not_publish(nameservers: Any) -> None:
    with Messenger("alice", nameservers=nameservers, listen=False) as alice:
        assert (alice.publisher, alice.address) == (None, "")


@pytest.mark.parametrize(
    "use",
    [
        lambda messenger: messenger.put("bob", note()),
        lambda messenger: messenger.connect("bob"),
        lambda messenger: messenger.disconnect("bob"),
    ],
)
def test_nobody_can_be_talked_to_before_the_start(use: Wait) -> None:
    with pytest.raises(NotStarted):
        use(Messenger("alice"))


@pytest.mark.parametrize("to", ["", "~bob", "tcp://~:0", "tcp://bob", "a b", "udp://bob:1", "bob:99999", "x" * 2000])
def test_what_cannot_be_an_address_is_refused(alice: Messenger, to: str) -> None:
    with pytest.raises(ConfigurationError):
        alice.put(to, note())
    with pytest.raises(ConfigurationError):
        alice.connect(to)

    assert alice.outgoing == 0


def test_nobody_sends_to_himself(alice: Messenger) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        alice.put("alice/inbox", note())


@pytest.mark.parametrize("options", [{"id": "x" * 201}, {"reply_to": "a b"}, {"correlation_id": "x" * 201}])
def test_properties_that_no_peer_would_take_are_refused(alice: Messenger, options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        alice.put("bob", note(), **options)

    assert alice.outgoing == 0


def test_only_a_message_can_be_put(alice: Messenger) -> None:
    with pytest.raises(TypeError, match="not str"):
        alice.put("bob", "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"data": "\ud800"}, {"data": object()}, {"sender": "\ud800"}, {"subject": "a b"}])
def test_what_cannot_be_written_is_refused(alice: Messenger, change: dict[str, Any]) -> None:
    message = note()
    vars(message).update(change)

    with pytest.raises(EncodeError):
        alice.put("bob", message)


def test_a_message_that_no_peer_would_take_for_its_size_is_refused() -> None:
    with config.set(max_message_size=1024), Messenger("alice", nameservers=False) as alice:
        alice.put("bob", Message("/note", "info", "x" * 500))

        with pytest.raises(EncodeError, match="more than max_message_size allows: 1024"):
            alice.put("bob", Message("/note", "info", "x" * 1024))


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), "soon"])
def test_a_message_lives_for_more_than_no_time(alice: Messenger, ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl"):
        alice.put("bob", note(), ttl=ttl)

    assert alice.outgoing == 0


def test_without_a_journal_nothing_can_be_persistent(alice: Messenger) -> None:
    with pytest.raises(ConfigurationError, match="no journal"):
        alice.put("bob", note(), persistent=True)

    assert alice.outgoing == 0


def test_a_directory_that_cannot_be_made_is_an_error_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(JournalError, match="cannot make the directory"):
        Messenger("alice", nameservers=False, journal=tmp_path / "file" / "kept").start()


def test_what_is_persistent_is_kept_in_its_directory(tmp_path: Path) -> None:
    with Messenger("alice", nameservers=False, journal=tmp_path / "new" / "kept") as alice:
        alice.put("bob", note(), persistent=True)

        assert [path.suffix for path in (tmp_path / "new" / "kept").iterdir() if "bob" in path.name].count(".journal")


def test_what_a_former_life_kept_and_nobody_can_read_is_told_of_too(tmp_path: Path) -> None:
    dropped: list[tuple[str, str, str]] = []
    with Messenger("alice", nameservers=False, journal=tmp_path) as alice:
        alice._link.put("bob", "messages", b"no properties", persistent=True)

    with Messenger("alice", nameservers=False, journal=tmp_path) as alice, Messenger("bob", nameservers=False) as bob:
        alice.on_drop(lambda tracker, reason: dropped.append((tracker.id, tracker.peer, reason)))
        bob.connect(alice.address)
        eventually(lambda: bob.work(0.01) or alice.outgoing == 0)
        alice.work(5 * UNIT)

    assert dropped == [("unknown", "bob", "no message: it has no properties")]


def test_a_message_that_came_otherwise_cannot_be_replied_to(alice: Messenger) -> None:
    with pytest.raises(LocalProtocolError, match="nobody to reply to"):
        alice.reply(note(), note())


def test_the_peer_is_who_the_first_route_that_fits_leads_to(alice: Messenger) -> None:
    alice.route("a%", "tcp://localhost:1/$1")
    alice.route("*", "bob")

    assert alice.put("a/x", note()).peer == "bob"
    assert alice.put("archive", note()).peer == "tcp://localhost:1"
    assert alice.put("archive", note()).to == "archive"


def test_user_and_password_are_not_seen_even_if_a_rule_says_so(alice: Messenger) -> None:
    alice.rewrite("bob", "user:password@bobby")

    assert alice.put("bob", note()).to == "bobby"
    assert alice.put("tcp://user:password@host:1/path", note()).to == "tcp://host:1/path"


def test_to_wait_in_vain_is_an_error_but_for_get_and_work(alice: Messenger) -> None:
    alice.put("nobody", note())
    for wait in (alice.recv, alice.send):
        with pytest.raises(TimedOut):
            wait(timeout=0.01)
        with pytest.raises(TimedOut):
            wait(timeout=0)

    assert alice.get(0.01) is None
    assert not alice.work(0.01)


def test_calls_that_are_given_no_time_take_the_messengers() -> None:
    with Messenger("alice", nameservers=False, timeout=0.01) as alice:
        alice.put("nobody", note())
        for wait in (alice.recv, alice.send):
            with pytest.raises(TimedOut):
                wait()
        assert alice.get(None) is None
        assert not alice.work()

        alice.timeout = None
        with in_background(alice.recv) as receiving:
            assert receiving.is_pending()
            alice.stop()


def test_without_blocking_calls_do_what_they_can_at_once() -> None:
    with Messenger("alice", nameservers=False, blocking=False) as alice:
        alice.put("nobody", note())

        assert (alice.send(), alice.recv(), alice.get(None), alice.work()) == (0, 0, None, False)
        with pytest.raises(TimedOut):
            alice.recv(timeout=0.01)


@WAITS
def test_interrupt_ends_the_call_that_waits(alice: Messenger, wait: Wait) -> None:
    with in_background(lambda: wait(alice)) as waiting:
        assert waiting.is_pending()
        began = time.monotonic()
        alice.interrupt()
        with pytest.raises(Interrupted, match="alice was interrupted"):
            waiting.result()

    assert time.monotonic() - began < 0.5 * UNIT


@WAITS
def test_interrupt_ends_the_next_call_if_none_waits(alice: Messenger, wait: Wait) -> None:
    for _ in range(3):
        alice.interrupt()

    with pytest.raises(Interrupted):
        wait(alice)
    assert not alice.work(0)


def test_interrupt_ends_calls_that_do_not_block_too() -> None:
    with Messenger("alice", nameservers=False, blocking=False) as alice:
        alice.interrupt()

        with pytest.raises(Interrupted):
            alice.recv()


@WAITS
def test_a_signal_handler_may_interrupt(alice: Messenger, wait: Wait) -> None:
    with handled(alice.interrupt), pytest.raises(Interrupted):
        wait(alice)


@WAITS
def test_a_signal_handler_may_stop_it(alice: Messenger, wait: Wait) -> None:
    took: list[float] = []

    def stop() -> None:
        began = time.monotonic()
        alice.stop()
        took.append(time.monotonic() - began)

    with handled(stop):
        wait(alice)

    assert alice.stopped
    assert took[0] < 0.5 * UNIT


def test_a_signal_handler_may_put_a_message(alice: Messenger) -> None:
    with handled(lambda: alice.put("bob", note())):
        assert not alice.work(0.2)

    assert alice.outgoing == 1


def test_a_signal_handler_may_stop_it_in_the_midst_of_anything(alice: Messenger) -> None:
    stop = threading.Event()

    def send_signals() -> None:
        while not stop.wait(0.001):
            os.kill(os.getpid(), signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, lambda *_: alice.stop())
    deadline = time.monotonic() + UNIT
    try:
        with in_background(send_signals):
            while time.monotonic() < deadline:
                try:
                    alice.start()
                    alice.put("bob", note(), ttl=0.001)
                    alice.get()
                    alice.work(0.0005)
                except NotStarted:
                    pass
            stop.set()
    finally:
        stop.set()
        signal.signal(signal.SIGUSR1, former)
    alice.stop()


def test_in_the_child_of_a_fork_nothing_is_waited_for(alice: Messenger) -> None:
    tracker = alice.put("nobody", note())

    told = [in_child(wait) for wait in (alice.send, alice.recv, tracker.wait, alice.stop)]

    assert told == [*["UsedAfterFork"] * 3, "None"]


@pytest.mark.parametrize("wait", [Messenger.recv, Messenger.work, lambda messenger: messenger.get(None)])
def test_keyboard_interrupt_ends_a_call_that_waits(alice: Messenger, wait: Wait) -> None:
    with keyboard_interrupt(alice), pytest.raises(KeyboardInterrupt):
        wait(alice)


def test_keyboard_interrupt_is_a_good_end_of_run(alice: Messenger) -> None:
    with keyboard_interrupt(alice):
        alice.run()

    assert not alice.stopped


def test_run_ends_after_its_time(alice: Messenger) -> None:
    began = time.monotonic()

    alice.run(runtime=0.1)

    assert 0.1 <= time.monotonic() - began < UNIT


def test_run_for_no_messages_and_when_stopped_ends_at_once(alice: Messenger) -> None:
    alice.run(count=0)
    alice.stop()

    alice.run()


def test_what_is_to_be_called_later_is_called_by_run(alice: Messenger) -> None:
    calls: list[str] = []
    alice.call_later(0.05, alice.stop)
    alice.call_later(0.0, lambda: calls.append("first"))
    alice.call_later(0.02, lambda: calls.append("second"))

    alice.run(runtime=5 * UNIT)

    assert calls == ["first", "second"]
    assert alice.stopped


def test_another_thread_may_have_something_called_later(alice: Messenger) -> None:
    with in_a_moment(lambda: alice.call_later(0.0, alice.stop)):
        alice.run(runtime=5 * UNIT)

    assert alice.stopped


def test_work_calls_what_is_due(alice: Messenger) -> None:
    calls: list[str] = []
    alice.call_later(0.02, lambda: calls.append("called"))

    assert alice.work(5 * UNIT)

    assert calls == ["called"]
    assert not alice.work(0)


def test_what_expires_is_told(alice: Messenger) -> None:
    dropped: list[str] = []
    alice.on_drop(lambda tracker, reason: dropped.append(reason))
    alice.put("nobody", note(), ttl=0.01)

    assert alice.work(5 * UNIT)

    assert (dropped, alice.outgoing, alice.send()) == (["expired"], 0, 1)


def test_the_first_of_many_messages_that_did_no_good_is_logged(
    alice: Messenger, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        alice.put("nobody", note(), ttl=0.01)

    alice.send(timeout=5 * UNIT)

    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert told[0].endswith("to nobody is expired: nobody came for it (1 so far)")


def test_two_programs_of_one_name_are_told_of(alice: Messenger, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    with Messenger("bob", nameservers=False) as bob, Messenger("bob", nameservers=False) as other:
        for place in (bob.address, other.address):
            alice.connect(place)

        eventually(told)
        assert len(told()) == 1
        assert "2 programs are called bob, each gets some of the messages" in told()[0]
        assert bob.address in told()[0]
        assert other.address in told()[0]


def test_calls_after_the_stop_return_at_once(alice: Messenger) -> None:
    tracker = alice.put("nobody", note())
    alice.stop()

    assert (alice.recv(), alice.send(), alice.get(None), alice.work()) == (0, 0, None, False)
    assert (tracker.wait(), tracker.cancel()) == ("pending", False)


def test_nothing_got_is_nothing_to_settle(alice: Messenger) -> None:
    assert alice.accept()
    assert alice.release()
    assert alice.reject(note(), reason="it came otherwise")
