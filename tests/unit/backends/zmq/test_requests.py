from __future__ import annotations

import select
import socket as system_sockets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import zmq

from posttroll.backends.base import Peer, Question
from posttroll.backends.zmq import requests as module
from posttroll.backends.zmq import socket as sockets
from posttroll.backends.zmq.requests import ZMQReplies, ZMQRequests
from posttroll.errors import BindFailed, ConnectionLost, TransportError
from posttroll.threads import Worker
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child

LOOPBACK = "tcp://127.0.0.1:0"
NOBODY = "tcp://127.0.0.1:9"


def open_peer(address: str) -> Peer:
    return Peer(address, "unsecure_zmq")


@pytest.fixture
def replies() -> Iterator[ZMQReplies]:
    """Open an answering end."""
    with closing(ZMQReplies([open_peer(LOOPBACK)])) as replies:
        yield replies


@pytest.fixture
def requests(replies: ZMQReplies) -> Iterator[ZMQRequests]:
    """Open an asking end that is connected to it."""
    with closing(ZMQRequests([open_peer(replies.addresses[0])])) as requests:
        yield requests


@contextmanager
def answering(replies: ZMQReplies) -> Iterator[None]:
    """Answer everything with its capitals in the background."""

    def answer_all(worker: Worker) -> None:
        while not worker.stopping:
            if question := replies.receive(None):
                replies.reply(question, (question.frame or b"malformed").upper())

    worker = Worker("posttroll-answers", answer_all, wake=replies.close).start()
    try:
        yield
    finally:
        worker.stop()


@contextmanager
def stranger(kind: int, address: str) -> Iterator[zmq.Socket[bytes]]:
    """Connect a client of another make."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        socket.connect(address)
        yield socket


@contextmanager
def other_make(answer: Callable[[zmq.Socket[bytes], list[bytes]], None]) -> Iterator[str]:
    """Run a server of another make, which answers one request in its own way; give its address."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            if socket.poll(int(10_000 * UNIT)):
                answer(socket, socket.recv_multipart())

        with in_background(serve):
            yield f"tcp://127.0.0.1:{port}"


def asked(replies: ZMQReplies) -> Question:
    question = replies.receive(5 * UNIT)
    assert question is not None
    return question


def test_a_request_is_answered(replies: ZMQReplies, requests: ZMQRequests) -> None:
    with answering(replies):
        assert requests.request(b"question", 5 * UNIT) == {open_peer(replies.addresses[0]): b"QUESTION"}


def test_without_peers_there_are_no_replies() -> None:
    with closing(ZMQRequests([])) as requests:
        assert requests.request(b"question", 60) == {}


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_clients_of_other_makes_are_answered_on_their_terms(replies: ZMQReplies, kind: int) -> None:
    with answering(replies), stranger(kind, replies.addresses[0]) as client:
        client.send(b"question")

        assert client.poll(int(5000 * UNIT))
        assert client.recv_multipart() == [b"QUESTION"]


@pytest.mark.parametrize(
    ("frames", "question", "reply"),
    [
        ([b""], b"", [b"reply"]),
        ([b"", b""], b"", [b"", b"reply"]),
        ([b"", b"question"], b"question", [b"", b"reply"]),
        ([b"1", b"", b"question"], b"question", [b"1", b"", b"reply"]),
        ([b"two", b"parts"], None, [b"reply"]),
        ([b"", b"two", b"parts"], None, [b"", b"reply"]),
        ([b"question", b""], None, [b"reply"]),
        ([b"\xff" * 100] * 5, None, [b"reply"]),
    ],
)
def test_whatever_is_asked_is_answered(
    replies: ZMQReplies, frames: list[bytes], question: bytes | None, reply: list[bytes]
) -> None:
    with stranger(zmq.DEALER, replies.addresses[0]) as client:
        client.send_multipart(frames)
        received = asked(replies)
        replies.reply(received, b"reply")

        assert (received.frame, received.source) == (question, "127.0.0.1")
        assert client.poll(int(5000 * UNIT))
        assert client.recv_multipart() == reply


def test_a_request_that_is_too_long_harms_nobody_else(
    replies: ZMQReplies, requests: ZMQRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(replies), stranger(zmq.DEALER, replies.addresses[0]) as client:
        client.send(bytes(module._MAX_REQUEST_SIZE + 1))

        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]
        assert not client.poll(0)


@pytest.mark.parametrize("rubbish", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 100, b"\xff" + bytes(8) + b"\x7f"])
def test_connections_that_do_not_speak_zeromq_harm_nobody(
    replies: ZMQReplies, requests: ZMQRequests, rubbish: bytes
) -> None:
    port = int(replies.addresses[0].rpartition(":")[2])

    with answering(replies), ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(system_sockets.create_connection(("127.0.0.1", port)))
            connection.sendall(rubbish)

        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_requests_that_were_abandoned_harm_nobody(replies: ZMQReplies, requests: ZMQRequests) -> None:
    for _ in range(20):
        with stranger(zmq.REQ, replies.addresses[0]) as client:
            client.send(b"abandoned")
            question = asked(replies)
        replies.reply(question, b"too late")

    with answering(replies):
        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_an_asker_that_does_not_read_harms_nobody(replies: ZMQReplies, requests: ZMQRequests) -> None:
    with stranger(zmq.DEALER, replies.addresses[0]) as client:
        client.send(b"question")
        question = asked(replies)
        for _ in range(200):
            replies.reply(question, bytes(100_000))

        with answering(replies):
            assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_one_asker_in_a_hurry_does_not_keep_another_port_from_being_answered() -> None:
    with closing(ZMQReplies([open_peer(LOOPBACK), open_peer(LOOPBACK)])) as replies:
        busy, quiet = replies.addresses
        with stranger(zmq.DEALER, busy) as hurried, stranger(zmq.DEALER, quiet) as patient:
            for _ in range(500):
                hurried.send(b"hurried")
            asked(replies)
            patient.send(b"patient")

            eventually(lambda: asked(replies).frame == b"patient")


def test_a_dead_peer_delays_the_others_by_the_grace_time_only(replies: ZMQReplies) -> None:
    peers = [open_peer(NOBODY), open_peer(replies.addresses[0])]

    with answering(replies), closing(ZMQRequests(peers)) as requests:
        start = time.monotonic()
        answers = requests.request(b"question", 60, grace=0.1)

        assert answers == {peers[1]: b"QUESTION"}
        assert time.monotonic() - start < 2 * UNIT


def test_a_dead_peer_is_waited_for_until_the_timeout_without_grace() -> None:
    with closing(ZMQRequests([open_peer(NOBODY)])) as requests:
        start = time.monotonic()

        assert requests.request(b"question", 0.3) == {}

        assert 0.3 <= time.monotonic() - start < 0.3 + UNIT


def test_all_connections_are_asked_anew_each_time(replies: ZMQReplies, requests: ZMQRequests) -> None:
    with answering(replies):
        for number in range(50):
            assert list(requests.request(b"q%d" % number, 5 * UNIT).values()) == [b"Q%d" % number]


def test_a_peer_that_does_not_answer_for_long_is_connected_anew(
    replies: ZMQReplies, requests: ZMQRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PATIENCE", "_PATIENCE_TO_CONNECT"):
        monkeypatch.setattr(module, name, 0.2)
    (former,) = requests._sockets.values()
    with in_background(lambda: requests.request(b"unanswered", 0.5)) as asking:
        question = asked(replies)
        assert asking.result() == {}
    replies.reply(question, b"too late")

    assert former.closed
    with answering(replies):
        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_a_peer_that_answers_late_keeps_its_connection(replies: ZMQReplies, requests: ZMQRequests) -> None:
    """One beyond a slow line would else never get through, as each request would begin with a new connection."""
    (former,) = requests._sockets.values()
    with in_background(lambda: requests.request(b"unanswered", 0.2)) as asking:
        question = asked(replies)
        assert asking.result() == {}
    replies.reply(question, b"too late")

    assert not former.closed
    with answering(replies):
        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_a_peer_that_is_not_there_keeps_its_socket_and_is_not_asked_later(free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    with closing(ZMQRequests([open_peer(address)])) as requests:
        sockets_before = list(requests._sockets.values())
        requests.request(b"given up", 0.2)
        assert list(requests._sockets.values()) == sockets_before

        with (
            closing(ZMQReplies([open_peer(address)])) as replies,
            in_background(lambda: requests.request(b"q", 5 * UNIT)),
        ):
            question = asked(replies)
            replies.reply(question, b"reply")
            assert question.frame == b"q"
            assert replies.receive(0.1) is None


@pytest.mark.parametrize("reply", [[b"x"], [b""], [b"99", b"", b"x"], [b"1"], [b"", b"x"]])
def test_a_malformed_reply_is_no_reply(reply: list[bytes]) -> None:
    def answer(socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        socket.send_multipart([frames[0], *reply])

    with other_make(answer) as address, closing(ZMQRequests([open_peer(address)])) as requests:
        assert requests.request(b"question", 0.5) == {}


def test_a_reply_after_malformed_ones_is_found() -> None:
    def answer(socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        for reply in ([b"x"], [b"99", b"", b"other"], [*frames[1:-1], b"reply"], [*frames[1:-1], b"second"]):
            socket.send_multipart([frames[0], *reply])

    with other_make(answer) as address, closing(ZMQRequests([open_peer(address)])) as requests:
        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"reply"]


def test_one_who_floods_the_asker_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 5)

    def answer(socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        for reply in ([b"99", b"", b"other"],) * 50 + ([*frames[1:-1], b"reply"],):
            socket.send_multipart([frames[0], *reply])

    with other_make(answer) as address, closing(ZMQRequests([open_peer(address)])) as requests:
        exchange = requests.begin(b"question", 5 * UNIT)
        advances = 0
        while not exchange.advance():
            advances += 1
            select.select([requests], [], [], max(0.0, exchange.next_timeout() - time.monotonic()))

    assert list(exchange.replies.values()) == [b"reply"]
    assert advances >= 50 // 5


def test_a_new_connection_is_waited_for_like_the_former_one(
    replies: ZMQReplies, requests: ZMQRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PATIENCE", "_PATIENCE_TO_CONNECT"):
        monkeypatch.setattr(module, name, 0.2)
    descriptor, (former,) = requests.fileno(), requests._sockets.values()
    exchange = requests.begin(b"question", 5 * UNIT)

    def has_renewed() -> bool:
        exchange.advance()
        return former.closed

    eventually(has_renewed)

    with answering(replies):
        while not exchange.advance():
            select.select([requests], [], [], max(0.0, exchange.next_timeout() - time.monotonic()))
    assert list(exchange.replies.values()) == [b"QUESTION"]
    assert requests.fileno() == descriptor


def test_closing_ends_a_request_at_once(requests: ZMQRequests) -> None:
    with in_background(lambda: requests.request(b"question", 60)) as asking:
        assert asking.is_pending()
        requests.close()

        assert asking.result(0.2 * UNIT) == {}
    assert requests.request(b"question", 60) == {}


def test_closing_ends_a_receiver_at_once(replies: ZMQReplies) -> None:
    with in_background(lambda: replies.receive(None)) as waiting:
        assert waiting.is_pending()
        replies.close()

        assert waiting.result(0.2 * UNIT) is None
    assert replies.receive(None) is None


def test_a_reply_from_a_closed_end_is_harmless(replies: ZMQReplies) -> None:
    with stranger(zmq.DEALER, replies.addresses[0]) as client:
        client.send(b"question")
        question = asked(replies)
        replies.close()

        replies.reply(question, b"too late")


def test_a_request_within_the_process_has_no_source() -> None:
    peers = [open_peer("inproc://test-requests")]

    with (
        closing(ZMQReplies(peers)) as replies,
        closing(ZMQRequests(peers)) as requests,
        in_background(lambda: requests.request(b"question", 5 * UNIT)),
    ):
        question = asked(replies)
        replies.reply(question, b"reply")

    assert question.source == ""


def test_malformed_addresses_leave_nothing_behind(free_port: int) -> None:
    with pytest.raises(BindFailed):
        ZMQReplies([open_peer(f"tcp://127.0.0.1:{free_port}"), open_peer("nonsense")])
    with pytest.raises(TransportError):
        ZMQRequests([open_peer(NOBODY), open_peer("nonsense")])

    def bind_again() -> bool:
        try:
            ZMQReplies([open_peer(f"tcp://127.0.0.1:{free_port}")]).close()
        except BindFailed:
            return False
        return True

    eventually(bind_again)


def test_the_child_of_a_fork_cannot_use_them(replies: ZMQReplies, requests: ZMQRequests) -> None:
    assert in_child(lambda: requests.request(b"question", 1)) == "UsedAfterFork"
    assert in_child(lambda: replies.receive(0)) == "UsedAfterFork"
    assert in_child(lambda: (requests.close(), replies.close())) == "(None, None)"  # type: ignore[func-returns-value]

    with answering(replies):
        assert list(requests.request(b"question", 5 * UNIT).values()) == [b"QUESTION"]


def test_a_terminated_context_ends_both_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    context = zmq.Context()
    monkeypatch.setattr(sockets, "get_context", lambda: context)
    replies = ZMQReplies([open_peer(LOOPBACK)])
    requests = ZMQRequests([open_peer(NOBODY)])
    terminating = threading.Thread(target=context.term, daemon=True)

    with in_background(lambda: replies.receive(None)) as waiting, in_background(lambda: ask(requests)) as asking:
        assert waiting.is_pending()
        terminating.start()

        assert waiting.result() is None
        assert isinstance(asking.result(), ConnectionLost)
    requests.close()
    replies.close()
    terminating.join(5 * UNIT)
    assert not terminating.is_alive()


def ask(requests: ZMQRequests) -> object:
    """Return the reply, or the error."""
    try:
        return requests.request(b"question", 60)
    except TransportError as error:
        return error


def test_a_connection_that_cannot_be_renewed_stays_as_it_is(
    replies: ZMQReplies, requests: ZMQRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key file may be missing for a moment while keys are replaced."""
    with monkeypatch.context() as patches:
        for name in ("_PATIENCE", "_PATIENCE_TO_CONNECT"):
            patches.setattr(module, name, 0.2)
        patches.setattr(sockets, "_check_port", _raise_invalid)
        with pytest.raises(TransportError):
            requests.request(b"unanswered", 5 * UNIT)

    with answering(replies):
        assert list(requests.request(b"hello", 5 * UNIT).values()) == [b"HELLO"]


def _raise_invalid(address: str) -> None:
    raise zmq.ZMQError(zmq.EINVAL)


def test_a_nameserver_is_reached_though_another_kind_of_server_had_its_port_for_a_while(free_port: int) -> None:
    uri = f"tcp://127.0.0.1:{free_port}"
    with closing(ZMQRequests([open_peer(uri)])) as requests:
        with (
            closing(system_sockets.create_server(("127.0.0.1", free_port))) as listener,
            in_background(lambda: requests.request(b"question", 0.5)) as asking,
        ):
            visitor, _ = listener.accept()
            with visitor:
                visitor.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01NONSENSE" + bytes(60))
                assert asking.result() == {}
        with closing(ZMQReplies([open_peer(uri)])) as replies, answering(replies):
            assert list(requests.request(b"question", 10 * UNIT).values()) == [b"QUESTION"]


def test_a_closed_replier_can_neither_pause_nor_resume(replies: ZMQReplies) -> None:
    replies.close()

    for act in (replies.pause, replies.resume):
        with pytest.raises(TransportError, match="it is stopped"):
            act()
