"""Waiting for news."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from posttroll.news import News
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually


@pytest.fixture
def news() -> Iterator[News]:
    with closing(News()) as news:
        yield news


def in_a_moment() -> float:
    return time.monotonic() + 0.05


def test_who_waits_is_woken_by_news(news: News) -> None:
    with in_background(lambda: news.wait(news.count, None)) as waiting:
        assert waiting.is_pending()

        news.tell()

        assert waiting.result()


def test_there_is_no_deadline_that_is_too_far(news: News) -> None:
    with in_background(lambda: news.wait(news.count, time.monotonic() + 1e9)) as waiting:
        assert waiting.is_pending()

        news.tell()

        assert waiting.result()


def test_news_told_since_the_look_are_not_waited_for(news: News) -> None:
    since = news.count
    news.tell()

    assert news.wait(since, None)


def test_without_news_the_wait_ends_at_its_deadline(news: News) -> None:
    assert not news.wait(news.count, in_a_moment())
    assert not news.wait(news.count, 0.0)


def test_old_news_wake_nobody_later(news: News) -> None:
    news.wait(news.count, in_a_moment())
    for _ in range(1000):
        news.tell()

    assert not news.wait(news.count, in_a_moment())


def test_all_who_wait_are_woken(news: News) -> None:
    with (
        in_background(lambda: news.wait(news.count, None)) as one,
        in_background(lambda: news.wait(news.count, None)) as other,
    ):
        assert one.is_pending()
        assert other.is_pending()

        news.tell()

        assert (one.result(), other.result()) == (True, True)


def test_a_signal_handler_may_tell_news_to_who_it_interrupted(news: News) -> None:
    former = signal.signal(signal.SIGUSR1, lambda *_: news.tell())
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        assert news.wait(news.count, time.monotonic() + 5 * UNIT)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, former)


def test_a_signal_handler_that_raises_ends_the_wait(news: News) -> None:
    def interrupt() -> None:
        eventually(lambda: news._bells)
        os.kill(os.getpid(), signal.SIGINT)

    with in_background(interrupt), pytest.raises(KeyboardInterrupt):
        news.wait(news.count, time.monotonic() + 5 * UNIT)


def test_nothing_is_left_open_by_who_waits_while_it_is_closed(news: News) -> None:
    with in_background(lambda: news.wait(news.count, None)) as waiting:
        assert waiting.is_pending()
        news.tell()
        news.close()
        waiting.result()


def test_it_may_be_opened_again(news: News) -> None:
    news.close()
    news.open()

    assert not news.wait(news.count, in_a_moment())
