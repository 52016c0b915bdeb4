"""Waiting for news in tasks."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from posttroll.asyncio.news import News
from posttroll.errors import LocalProtocolError
from tests.fixtures.waiting import UNIT


def test_all_who_wait_are_woken_by_news() -> None:
    async def work() -> None:
        news = News("it")
        waiting = [asyncio.create_task(news.wait(news.count)) for _ in range(2)]
        await asyncio.sleep(0)
        news.tell()

        assert await asyncio.gather(*waiting) == [True, True]

    asyncio.run(work())


def test_news_told_since_the_look_are_not_waited_for() -> None:
    async def work() -> None:
        news = News("it")
        since = news.count
        news.tell()

        assert await news.wait(since)
        assert not await news.wait(news.count, time.monotonic())

    asyncio.run(work())


def test_without_news_the_wait_ends_at_its_deadline() -> None:
    async def work() -> None:
        news, began = News("it"), time.monotonic()

        assert not await news.wait(news.count, began + 0.02)
        assert time.monotonic() - began >= 0.02

    asyncio.run(work())


def test_news_may_come_from_any_thread() -> None:
    async def work() -> None:
        news = News("it")
        waiting = asyncio.create_task(news.wait(news.count, time.monotonic() + 5 * UNIT))
        await asyncio.sleep(0)
        thread = threading.Thread(target=news.tell_from_outside)
        thread.start()

        assert await waiting
        thread.join()

    asyncio.run(work())


def test_news_that_nobody_waits_for_any_more_do_no_harm() -> None:
    news = News("it")

    async def work() -> None:
        waiting = asyncio.create_task(news.wait(news.count))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        news.tell()

    asyncio.run(work())
    news.tell_from_outside()


def test_they_are_those_of_one_loop() -> None:
    news = News("it")
    asyncio.run(news.wait(news.count, 0.0))

    with pytest.raises(LocalProtocolError, match="another event loop"):
        asyncio.run(news.wait(news.count))
