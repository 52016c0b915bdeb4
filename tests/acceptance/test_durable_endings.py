"""Durable publishers and subscribers are stopped at once at any moment, and a fork does them no harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.publisher import Publisher
from posttroll.subscriber import Subscriber
from tests.acceptance.processes import Site
from tests.fixtures.background import in_background
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

PROMPT = 0.2 * UNIT
IN_TIME = 1.5 * UNIT
TIMES = 5

pytestmark = pytest.mark.usefixtures("network")


@contextmanager
def _sending(publisher: Publisher) -> Iterator[None]:
    """Send without a pause, until that is no longer possible."""
    over = threading.Event()

    def send() -> None:
        with suppress(PosttrollError):
            while not over.is_set():
                publisher.send(Message("/ending", "info", {"ballast": "x" * 1000}))

    with in_background(send):
        try:
            yield
        finally:
            over.set()


@contextmanager
def _receiving(subscriber: Subscriber) -> Iterator[threading.Event]:
    """Take all that comes, until the subscriber is stopped; give what is set at the first message."""
    has_begun = threading.Event()

    def receive() -> None:
        for message in subscriber.recv(1.0):
            if message is not None:
                has_begun.set()

    with in_background(receive):
        try:
            yield has_begun
        finally:
            subscriber.stop()


@contextmanager
def _traffic(journal: Path) -> Iterator[tuple[Publisher, Subscriber]]:
    """Give two ends between which durable messages flow."""
    publisher = Publisher("tcp://127.0.0.1:0", "ending", journal=journal).start()
    try:
        address = {"URI": f"tcp://127.0.0.1:{publisher.port_number}", "link": publisher.link_address}
        subscriber = Subscriber([address], "/ending", durable="ending", start_at="first")
        with _receiving(subscriber) as has_begun, _sending(publisher):
            assert has_begun.wait(10 * UNIT)
            yield publisher, subscriber
    finally:
        publisher.stop()


def _duration(stop: Callable[[], object]) -> float:
    start = time.monotonic()
    stop()
    return time.monotonic() - start


@pytest.mark.parametrize("which", ["publisher", "subscriber"])
def test_an_end_is_stopped_at_once_while_messages_flow(tmp_path: Path, which: str) -> None:
    durations = []
    for number in range(TIMES):
        with _traffic(tmp_path / f"journal{number}") as (publisher, subscriber):
            stop = publisher.stop if which == "publisher" else subscriber.stop

            durations.append(_duration(stop))

            assert _duration(stop) < PROMPT

    assert sorted(durations)[TIMES // 2] < PROMPT
    assert max(durations) < IN_TIME


@pytest.mark.parametrize("which", ["publisher", "subscriber"])
def test_an_end_is_stopped_from_several_threads_at_a_time(tmp_path: Path, which: str) -> None:
    with _traffic(tmp_path / "journal") as (publisher, subscriber):
        stop = publisher.stop if which == "publisher" else subscriber.stop

        with in_background(stop), in_background(stop), in_background(stop):
            stop()


def test_a_subscriber_that_waits_for_its_publisher_is_stopped_at_once(network: Network) -> None:
    address = {"URI": "tcp://127.0.0.1:1", "link": "tcp://127.0.0.1:2"}
    subscriber = Subscriber([address], "/ending", durable="ending")

    with _receiving(subscriber):
        assert _duration(subscriber.stop) < IN_TIME


def test_the_child_of_a_fork_can_neither_use_nor_harm_what_its_parent_goes_on_with(site: Site, tmp_path: Path) -> None:
    process = site.program("forking_durably.py", str(tmp_path / "journal"))

    assert process.wait(30 * UNIT) == 0, process.output + process.errors

    said = {who_and_what: outcome for who_and_what, _, outcome in (line.rpartition(" ") for line in process.lines)}
    assert said.pop("parent numbers") == ",".join(map(str, range(2, 101)))
    assert said == {
        "parent first": "1",
        "child send": "UsedAfterFork",
        "child receive": "UsedAfterFork",
        "child journal": "UsedAfterFork",
        "child stop_subscriber": "None",
        "child stop_publisher": "None",
        "parent child_status": "7",
        "parent pending": "[0]",
    }
