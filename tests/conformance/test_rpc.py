"""Calls between messengers, over every backend."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from posttroll.backends.base import Backend
from posttroll.errors import LocalProtocolError, RequestTimeout
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.rpc import (
    CallCancelled,
    CallInterrupted,
    MethodNotFound,
    Proxy,
    RemoteError,
    RpcClient,
    RpcServer,
    current_call,
    public,
)
from tests.conformance.conftest import Nameservers
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("backend", "fronts")


class Areas:
    """What is called."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.runs = itertools.count(1)
        self.keys: list[str] = []

    @public
    def size(self, area: str) -> list[int]:
        return {"euro4": [1024, 1024]}[area]

    @public
    def echo(self, value: Any) -> Any:
        self.keys.append(current_call().key)
        return value

    @public
    def wait(self) -> int:
        """Return how often this was run, when the test says so, or when nobody is interested any more."""
        run = next(self.runs)
        self.began.release()
        while not self.may_end.wait(0.005) and not current_call().cancelled:
            pass
        return run

    @public
    def count(self, number: int) -> Iterator[int]:
        yield from range(number)


def address_of(messenger: Messenger) -> str:
    return f"tcp://127.0.0.1:{messenger.address.rpartition(':')[2]}"


@pytest.fixture
def thing() -> Iterator[Areas]:
    areas = Areas()
    yield areas
    areas.may_end.set()


@contextmanager
def serving(thing: Areas, **options: Any) -> Iterator[tuple[RpcServer, str]]:
    """Offer something as bob; give the server and its address."""
    with Messenger("bob", nameservers=False, **options) as messenger, RpcServer(messenger, workers=2) as server:
        server.register(thing, "areas")
        try:
            yield server, address_of(messenger)
        finally:
            server.stop(drain=0)


@pytest.fixture
def server(thing: Areas) -> Iterator[tuple[RpcServer, str]]:
    with serving(thing) as server:
        yield server


@pytest.fixture
def messenger() -> Iterator[Messenger]:
    """Return the messenger of who calls, whom nobody can connect to."""
    with Messenger("alice", listen=False, nameservers=False) as messenger:
        yield messenger


@pytest.fixture
def areas(messenger: Messenger, server: tuple[RpcServer, str]) -> Proxy:
    return RpcClient(messenger, timeout=10 * UNIT).proxy(server[1], "areas")


def test_a_method_is_called_at_an_address(areas: Proxy) -> None:
    assert areas.size("euro4") == [1024, 1024]
    assert areas.size(area="euro4") == [1024, 1024]


def test_a_method_is_called_by_the_name_of_the_peer(nameservers: Nameservers, thing: Areas) -> None:
    with ExitStack() as stack:
        bob = stack.enter_context(Messenger("bob", nameservers=nameservers))
        alice = stack.enter_context(Messenger("alice", nameservers=nameservers))
        stack.enter_context(RpcServer(bob)).register(thing, "areas")
        stack.enter_context(RpcServer(alice)).register(thing, "areas")

        there = RpcClient(alice, timeout=10 * UNIT).proxy("bob", "areas").echo("there")
        back = RpcClient(bob, timeout=10 * UNIT).proxy("alice", "areas").echo("and back")

    assert (there, back) == ("there", "and back")


def test_who_cannot_be_connected_to_can_be_called(server: tuple[RpcServer, str], messenger: Messenger) -> None:
    with RpcServer(messenger) as at_alice:
        at_alice.register_function(lambda number: number + 1, "increase")
        backwards = RpcClient(server[0]._messenger, timeout=10 * UNIT).proxy("alice")
        server[0].register_function(lambda number: 10 * backwards.increase(number), "increase_a_lot")

        result = RpcClient(messenger, timeout=10 * UNIT).proxy(server[1]).increase_a_lot(4)

    assert result == 50


def test_a_messenger_has_one_server_and_as_many_clients_as_wanted(
    server: tuple[RpcServer, str], messenger: Messenger
) -> None:
    clients = [RpcClient(messenger, timeout=10 * UNIT) for _ in range(3)]

    results = [client.proxy(server[1], "areas").echo(number) for number, client in enumerate(clients)]

    assert results == [0, 1, 2]
    with pytest.raises(LocalProtocolError, match="open already"):
        RpcServer(server[0]._messenger).start()


def test_the_key_of_who_calls_is_known_if_there_is_one(areas: Proxy, thing: Areas, backend: Backend) -> None:
    areas.echo(1)

    assert bool(thing.keys[0]) == (backend.strength > 0)


def test_exceptions_arrive_and_what_is_not_public_is_not_found(areas: Proxy) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        areas.size("nowhere")
    with pytest.raises(MethodNotFound):
        areas.began()


def test_large_arguments_and_results_are_carried(areas: Proxy) -> None:
    value = ["x" * 1000] * 2000

    assert areas.echo(value) == value


def test_calls_from_many_threads_all_get_their_own_result(areas: Proxy) -> None:
    def call(thread: int) -> bool:
        return all(areas.echo([thread, number]) == [thread, number] for number in range(50))

    with ExitStack() as stack:
        results = [stack.enter_context(in_background(functools.partial(call, thread))) for thread in range(8)]

        assert all(result.result(20 * UNIT) for result in results)


def test_many_calls_can_be_under_way(areas: Proxy) -> None:
    started = [areas.echo.start(number) for number in range(500)]

    assert [call.result() for call in started] == list(range(500))


def test_values_on_the_way_are_iterated_in_order(areas: Proxy) -> None:
    assert list(areas.count.stream(2000)) == list(range(2000))


def test_a_call_that_takes_too_long_ends_at_both_ends(areas: Proxy, server: tuple[RpcServer, str]) -> None:
    with pytest.raises(RequestTimeout):
        areas.options(timeout=0.2 * UNIT).wait()

    eventually(lambda: server[0].active == 0)


def test_what_is_asked_again_is_run_once(areas: Proxy, thing: Areas) -> None:
    with in_background(areas.options(timeout=0.1 * UNIT, max_retries=100).wait) as result:
        was_pending = result.is_pending(0.4 * UNIT)
        thing.may_end.set()

        assert result.result() == 1
    assert was_pending
    assert next(thing.runs) == 2


def test_a_cancellation_reaches_the_handler(areas: Proxy, thing: Areas, server: tuple[RpcServer, str]) -> None:
    call = areas.wait.start()
    thing.began.acquire(timeout=5 * UNIT)

    call.cancel()

    eventually(lambda: server[0].active == 0)
    with pytest.raises(CallCancelled):
        call.result()


def test_who_waits_for_a_call_is_told_when_the_messenger_is_stopped(
    areas: Proxy, thing: Areas, messenger: Messenger
) -> None:
    call = areas.wait.start()
    assert thing.began.acquire(timeout=5)

    with in_background(messenger.stop), pytest.raises(CallCancelled, match="messenger was stopped"):
        call.result(timeout=5)


def test_a_server_whose_messenger_is_started_anew_knows_nothing_of_former_calls(
    areas: Proxy, thing: Areas, server: tuple[RpcServer, str]
) -> None:
    areas.wait.start()
    assert thing.began.acquire(timeout=5)

    server[0]._messenger.stop()

    assert server[0].active == 0


def test_a_signal_is_carried_out(areas: Proxy, thing: Areas) -> None:
    areas.echo.signal("at once")

    eventually(lambda: len(thing.keys) == 1)


def test_a_call_waits_for_the_peer_to_appear(messenger: Messenger, thing: Areas) -> None:
    with serving(thing) as (_, address):
        port = int(address.rpartition(":")[2])
    areas = RpcClient(messenger, timeout=10 * UNIT).proxy(address, "areas")

    with in_background(lambda: areas.size("euro4")) as size:
        was_pending = size.is_pending(0.3 * UNIT)
        with serving(thing, link_port=port):
            assert size.result() == [1024, 1024]
    assert was_pending


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_restart_of_the_server_repeats_idempotent_calls_only(
    messenger: Messenger, thing: Areas, idempotent: bool
) -> None:
    with ExitStack() as first_life:
        _, address = first_life.enter_context(serving(thing))
        areas = RpcClient(messenger, timeout=20 * UNIT, idempotent=idempotent).proxy(address, "areas")
        call = areas.wait.start()
        thing.began.acquire(timeout=5 * UNIT)
    thing.may_end.set()

    with serving(thing, link_port=int(address.rpartition(":")[2])):
        if idempotent:
            assert call.result() == 2
        else:
            with pytest.raises(CallInterrupted):
                call.result()


def test_an_idempotent_stream_goes_on_after_a_restart_of_the_server(messenger: Messenger, thing: Areas) -> None:
    with ExitStack() as first_life:
        _, address = first_life.enter_context(serving(thing))
        areas = RpcClient(messenger, timeout=20 * UNIT, idempotent=True).proxy(address, "areas")
        values = areas.count.stream(1000)
        before = [next(values) for _ in range(300)]

    with serving(thing, link_port=int(address.rpartition(":")[2])):
        after = list(values)

    assert before + after == list(range(1000))


def test_a_flood_of_one_peer_does_not_starve_another(
    server: tuple[RpcServer, str], thing: Areas, messenger: Messenger
) -> None:
    flooder = RpcClient(messenger, timeout=30 * UNIT).proxy(server[1], "areas")
    flood = [flooder.wait.start() for _ in range(1000)]
    with Messenger("carol", listen=False, nameservers=False) as other:
        call = RpcClient(other, timeout=30 * UNIT).proxy(server[1], "areas").echo.start(1)
        eventually(lambda: not call._trackers[0].buffered)
        for pending in itertools.islice(flood, 4):
            pending.cancel()

        assert call.result(5 * UNIT) == 1
    for pending in flood:
        pending.cancel()


def test_a_caller_that_vanishes_leaves_nothing_behind(server: tuple[RpcServer, str], thing: Areas) -> None:
    with Messenger("carol", listen=False, nameservers=False) as vanishing:
        areas = RpcClient(vanishing, timeout=0.3 * UNIT).proxy(server[1], "areas")
        calls = [areas.wait.start() for _ in range(10)]
        thing.began.acquire(timeout=5 * UNIT)
        vanishing.stop()
    thing.may_end.set()

    eventually(lambda: server[0].active == 0)
    assert len(calls) == 10


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("body", ["not JSON", nested(300), nested(100_000), '{"object": "areas"}', "[]", '"text"'])
def test_requests_that_are_bombs_or_garbage_do_no_harm(
    areas: Proxy, messenger: Messenger, server: tuple[RpcServer, str], body: str
) -> None:
    message = Message("/rpc", "request", "")
    head = message.encode()
    message.encode = lambda: f"{head} application/json {body}"  # type: ignore[method-assign]

    tracker = messenger.put(server[1], message, target="requests")

    assert tracker.wait(5 * UNIT) == "rejected"
    assert areas.echo(1) == 1


def test_who_sends_more_arguments_than_are_taken_is_told(areas: Proxy) -> None:
    with pytest.raises(RemoteError, match="refused"):
        areas.echo(*range(5000))
