from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any

import pytest

from posttroll.asyncio import ns
from posttroll.asyncio.lookup import NameserverClient, get_pub_address, get_pub_addresses
from posttroll.backends import memory
from posttroll.backends.base import Peer
from posttroll.backends.registry import configured_backend
from posttroll.errors import RequestTimeout
from posttroll.message import Message
from posttroll.ns import NameServer
from posttroll.protocol import search
from posttroll.publisher import Publisher
from posttroll.settings import config
from posttroll.threads import Worker
from tests.fixtures.background import in_background
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

VIIRS = {"URI": "tcp://10.0.0.1:9000", "service": ["viirs"]}
AVHRR = {"URI": "tcp://10.0.0.2:9000", "service": ["avhrr"]}


@pytest.fixture(autouse=True, params=["memory", "unsecure_zmq"])
def backend(request: pytest.FixtureRequest, network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    with config.set(backend=request.param):
        yield


@contextmanager
def serving(table: Any, address: str | None = None) -> Iterator[None]:
    """Run a nameserver that knows what the table says, until the end of the block."""
    nameserver = NameServer()
    worker = Worker("posttroll-nameserver", lambda _: nameserver.run(table, address), wake=nameserver.stop).start()
    try:
        asyncio.run(get_pub_address("", 5 * UNIT, address or "localhost"))
        yield
    finally:
        worker.stop()


@pytest.fixture
def table() -> Iterator[dict[str, list[Any]]]:
    """Run a nameserver, and give what it knows."""
    table = {"viirs": [VIIRS], "": [VIIRS, AVHRR]}
    with serving(table):
        yield table


@pytest.mark.usefixtures("table")
def test_services_are_looked_up() -> None:
    async def look_up() -> None:
        assert await get_pub_address("viirs", 5 * UNIT) == [VIIRS]
        assert await get_pub_address("", 5 * UNIT) == [VIIRS, AVHRR]
        assert await get_pub_address("modis", 5 * UNIT) == ""
        assert await get_pub_addresses(None, 5 * UNIT) == [VIIRS, AVHRR]
        assert await get_pub_addresses(["viirs", ""], 5 * UNIT) == [VIIRS, AVHRR]
        assert await get_pub_addresses("viirs", timeout=0) == []

    asyncio.run(look_up())


@pytest.mark.usefixtures("table")
def test_what_is_unknown_is_asked_for_until_the_time_is_over() -> None:
    start = time.monotonic()

    assert asyncio.run(get_pub_addresses(["viirs", "modis"], timeout=0.2)) == [VIIRS]

    assert 0.2 <= time.monotonic() - start < 0.2 + UNIT


def test_a_waiting_look_up_is_told_of_a_newcomer_by_the_address_feed(
    network: Network, monkeypatch: pytest.MonkeyPatch, table: dict[str, list[Any]]
) -> None:
    monkeypatch.setattr(search, "_FIRST_PAUSE", 100.0)
    monkeypatch.setattr(search, "_LONGEST_PAUSE", 100.0)
    with (
        closing(Publisher(f"tcp://127.0.0.1:{network.addresses}").start()) as feed,
        in_background(lambda: asyncio.run(get_pub_addresses(["avhrr"], timeout=2000))) as call,
    ):
        assert feed.wait_for_subscriber("/address", 5 * UNIT)
        feed.send(Message("/address/viirs", "info", VIIRS))
        assert call.is_pending(0.1)
        table["avhrr"] = [AVHRR]
        feed.send(Message("/address/avhrr", "info", AVHRR))

        assert call.result(5 * UNIT) == [AVHRR]


def test_a_silent_nameserver_is_a_timeout() -> None:
    for look_up in (get_pub_address, get_pub_addresses):
        with pytest.raises(TimeoutError, match=r"Didn't get an address after 0\.1 seconds\."):
            asyncio.run(look_up("viirs", 0.1))


def test_a_client_is_usable_after_a_question_was_given_up(table: dict[str, list[Any]]) -> None:
    async def look_up() -> None:
        with closing(NameserverClient()) as client:
            for _ in range(3):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await client.ask("", 100)
                assert await client.ask("viirs", 5 * UNIT) == [VIIRS]

    asyncio.run(look_up())


def test_several_tasks_may_share_a_client(table: dict[str, list[Any]]) -> None:
    async def look_up() -> list[Any]:
        with closing(NameserverClient()) as client:
            return await asyncio.gather(*(client.ask(name, 5 * UNIT) for name in ["viirs", "", "modis"] * 3))

    assert asyncio.run(look_up()) == [[VIIRS], [VIIRS, AVHRR], []] * 3


def test_closing_ends_a_question_under_way() -> None:
    async def look_up() -> None:
        client = NameserverClient()
        question = asyncio.create_task(client.ask("viirs", 100))
        await asyncio.sleep(0)
        client.close()
        client.close()
        with pytest.raises(RequestTimeout):
            await question

    asyncio.run(look_up())


def test_several_nameservers_are_asked_at_once_and_their_answers_merged(
    free_ports: Callable[[int], list[int]],
) -> None:
    one, other, dead = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
    with serving({"": [VIIRS, AVHRR]}, one), serving({"": [AVHRR]}, other):
        start = time.monotonic()
        found = asyncio.run(get_pub_addresses(None, 5 * UNIT, [dead, one, other]))

    assert sorted(entry["URI"] for entry in found) == [VIIRS["URI"], AVHRR["URI"]]
    assert time.monotonic() - start < 2 * UNIT


@pytest.mark.parametrize("table", [None, {"viirs": [VIIRS], "modis": []}], ids=["no answer", "no news"])
def test_a_look_up_may_be_cancelled_while_it_waits(table: Any) -> None:
    """That nothing is left behind is checked for every test."""

    async def look_up() -> None:
        task = asyncio.create_task(get_pub_addresses(["viirs", "modis"], 100))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with nullcontext() if table is None else serving(table):
        asyncio.run(look_up())


def test_an_unusable_reply_is_as_good_as_none(network: Network) -> None:
    peer = Peer(f"tcp://127.0.0.1:{network.nameserver}", configured_backend().name)
    with (
        closing(configured_backend().open_reply([peer])) as channel,
        in_background(lambda: asyncio.run(get_pub_address("viirs", 5 * UNIT))) as call,
    ):
        question = channel.receive(5 * UNIT)
        assert question is not None
        channel.reply(question, b"\xff")

        assert call.result() == ""


def test_the_functions_have_their_old_place_too() -> None:
    assert (ns.get_pub_address, ns.get_pub_addresses) == (get_pub_address, get_pub_addresses)
