"""What every backend's request and reply channels do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from posttroll.backends.base import ReplyChannel
from posttroll.errors import BindFailed, TransportError
from posttroll.threads import Worker
from tests.conformance.conftest import Channels, awaited_too
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

pytestmark = awaited_too

NOBODY = "tcp://127.0.0.1:9"


def answer(channel: ReplyChannel, reply: Callable[[bytes | None], bytes]) -> None:
    """Answer the next question."""
    question = channel.receive(5 * UNIT)
    assert question is not None
    channel.reply(question, reply(question.frame))


def upper(frame: bytes | None) -> bytes:
    return (frame or b"malformed").upper()


@contextmanager
def answering(channel: ReplyChannel, reply: Callable[[bytes | None], bytes] = upper) -> Iterator[None]:
    """Answer all questions in the background."""

    def answer_all(worker: Worker) -> None:
        while not worker.stopping:
            if question := channel.receive(None):
                channel.reply(question, reply(question.frame))

    worker = Worker("posttroll-answers", answer_all, wake=channel.close).start()
    try:
        yield
    finally:
        worker.stop()


@pytest.mark.parametrize("frame", [b"question", b"", b"\x00\xff", bytes(500_000)])
def test_a_request_gets_its_reply(channels: Channels, frame: bytes) -> None:
    replies = channels.reply()
    address = replies.addresses[0]

    with answering(replies, lambda asked: b"re: " + (asked or b"")):
        answers = channels.request(address).request(frame, 5 * UNIT)

    assert answers == {channels.peer(address): b"re: " + frame}


def test_one_channel_asks_many_times(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])

    with answering(replies):
        answers = [list(requests.request(b"q%d" % number, 5 * UNIT).values()) for number in range(20)]

    assert answers == [[b"Q%d" % number] for number in range(20)]


def test_a_question_tells_the_host_it_comes_from(channels: Channels) -> None:
    replies = channels.reply()

    with in_background(lambda: replies.receive(5 * UNIT)) as waiting:
        channels.request(replies.addresses[0]).request(b"question", 0.2)
        question = waiting.result()

    assert question is not None
    assert (question.frame, question.source) == (b"question", "127.0.0.1")


def test_a_request_without_anybody_there_ends_in_time(channels: Channels) -> None:
    start = time.monotonic()

    answers = channels.request(NOBODY).request(b"question", 0.2)

    assert answers == {}
    assert 0.2 <= time.monotonic() - start < UNIT


def test_a_request_to_nobody_ends_at_once(channels: Channels) -> None:
    assert channels.request().request(b"question", 60) == {}


def test_a_request_reaches_a_replier_that_comes_in_time(channels: Channels, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    requests = channels.request(address)

    with in_background(lambda: requests.request(b"question", 5 * UNIT)) as asking:
        assert asking.is_pending()
        with answering(channels.reply(address)):
            answers = asking.result()

    assert list(answers.values()) == [b"QUESTION"]


def test_a_late_reply_is_not_taken_for_one_to_the_next_request(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])
    with in_background(lambda: replies.receive(5 * UNIT)) as waiting:
        assert requests.request(b"first", 0.3) == {}
        first = waiting.result()
    assert first is not None

    with in_background(lambda: requests.request(b"second", 5 * UNIT)) as asking:
        replies.reply(first, b"late")
        answer(replies, upper)

        assert list(asking.result().values()) == [b"SECOND"]


def test_a_request_that_nobody_took_is_not_asked_later(channels: Channels, free_port: int) -> None:
    address = f"tcp://127.0.0.1:{free_port}"
    requests = channels.request(address)
    requests.request(b"given up", 0.1)
    replies = channels.reply(address)

    with in_background(lambda: requests.request(b"second", 5 * UNIT)):
        answer(replies, upper)

    assert replies.receive(0.2) is None


def test_all_peers_are_asked(channels: Channels) -> None:
    one, other = channels.reply(), channels.reply()

    with answering(one, lambda _: b"one"), answering(other, lambda _: b"other"):
        answers = channels.request(one.addresses[0], other.addresses[0]).request(b"question", 5 * UNIT)

    assert answers == {channels.peer(one.addresses[0]): b"one", channels.peer(other.addresses[0]): b"other"}


def test_a_dead_peer_delays_the_others_by_the_grace_time_only(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(NOBODY, replies.addresses[0])

    with answering(replies):
        start = time.monotonic()
        answers = requests.request(b"question", 60, grace=0.1)

    assert list(answers.values()) == [b"QUESTION"]
    assert time.monotonic() - start < 5 * UNIT


def test_grace_does_not_outlast_the_timeout(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(NOBODY, replies.addresses[0])

    with answering(replies):
        start = time.monotonic()
        answers = requests.request(b"question", 0.5, grace=60)

    assert list(answers.values()) == [b"QUESTION"]
    assert time.monotonic() - start < 0.5 + 2 * UNIT


def test_a_reply_within_the_grace_time_counts(channels: Channels) -> None:
    quick, slow = channels.reply(), channels.reply()
    requests = channels.request(quick.addresses[0], slow.addresses[0])

    with in_background(lambda: requests.request(b"question", 60, grace=5 * UNIT)) as asking:
        answer(quick, lambda _: b"quick")
        assert asking.is_pending()
        answer(slow, lambda _: b"slow")

        assert set(asking.result().values()) == {b"quick", b"slow"}


def test_closing_ends_a_request_that_is_under_way(channels: Channels) -> None:
    requests = channels.request(NOBODY)

    with in_background(lambda: requests.request(b"question", 60)) as asking:
        assert asking.is_pending()

        requests.close()

        assert asking.result(UNIT) == {}


def test_closing_wakes_a_replier_that_waits_for_ever(channels: Channels) -> None:
    replies = channels.reply()

    with in_background(lambda: replies.receive(None)) as waiting:
        assert waiting.is_pending()
        assert not replies.closed

        replies.close()

        assert waiting.result(UNIT) is None

    assert replies.closed


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_a_replier_that_is_not_asked_keeps_its_time(channels: Channels, timeout: float) -> None:
    start = time.monotonic()

    assert channels.reply().receive(timeout) is None

    assert timeout <= time.monotonic() - start < timeout + UNIT


def test_an_asker_that_is_gone_harms_nobody(channels: Channels) -> None:
    replies = channels.reply()
    leaving, staying = (channels.request(replies.addresses[0]) for _ in range(2))
    with in_background(lambda: leaving.request(b"leaving", 60)):
        question = replies.receive(5 * UNIT)
        leaving.close()
    assert question is not None

    replies.reply(question, b"too late")

    with answering(replies):
        assert list(staying.request(b"staying", 5 * UNIT).values()) == [b"STAYING"]


def test_questions_can_be_answered_in_any_order(channels: Channels) -> None:
    replies = channels.reply()
    askers = [channels.request(replies.addresses[0]) for _ in range(2)]

    with (
        in_background(lambda: askers[0].request(b"first", 5 * UNIT)) as first,
        in_background(lambda: askers[1].request(b"second", 5 * UNIT)) as second,
    ):
        questions = [replies.receive(5 * UNIT) for _ in range(2)]
        for question in reversed(questions):
            assert question is not None
            replies.reply(question, upper(question.frame))

        assert list(first.result().values()) == [b"FIRST"]
        assert list(second.result().values()) == [b"SECOND"]


def test_one_replier_serves_several_addresses(channels: Channels) -> None:
    replies = channels.reply("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")

    with answering(replies):
        answers = [list(channels.request(each).request(b"q", 5 * UNIT).values()) for each in replies.addresses]

    assert answers == [[b"Q"], [b"Q"]]


def test_a_replier_binds_all_its_addresses_or_none(channels: Channels, free_port: int) -> None:
    free, taken = f"tcp://127.0.0.1:{free_port}", channels.reply().addresses[0]

    with pytest.raises(BindFailed, match=taken.rpartition(":")[2]):
        channels.reply(free, taken)

    def bind_the_free_one() -> ReplyChannel | None:
        with suppress(BindFailed):
            return channels.reply(free)
        return None

    assert eventually(bind_the_free_one)


def test_a_pause_of_a_replier_is_survived(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])

    def is_resumed() -> bool:
        with suppress(TransportError):
            replies.resume()
            return True
        return False

    with answering(replies):
        for _ in range(2):
            replies.pause()
            eventually(is_resumed)

            assert list(requests.request(b"q", 10 * UNIT).values()) == [b"Q"]


def test_a_malformed_address_is_refused(channels: Channels) -> None:
    with pytest.raises(BindFailed):
        channels.reply("nonsense")
    with pytest.raises(TransportError):
        channels.request("nonsense")


def test_channels_can_be_closed_twice(channels: Channels) -> None:
    replies = channels.reply()
    requests = channels.request(replies.addresses[0])

    for channel in (replies, requests, replies, requests):
        channel.close()

    assert replies.receive(None) is None
