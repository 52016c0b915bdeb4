"""Calls between messengers of one loop, over a bus in memory."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from posttroll import messenger as blocking_messenger
from posttroll import rpc as blocking
from posttroll.asyncio.messenger import Messenger
from posttroll.asyncio.rpc import (
    CallCancelled,
    CallContext,
    CallInterrupted,
    MethodNotFound,
    Proxy,
    RemoteError,
    RpcClient,
    RpcServer,
    current_call,
    public,
)
from posttroll.asyncio.rpc.errands import Errands
from posttroll.errors import ConfigurationError, EncodeError, LocalProtocolError, NotStarted, RequestTimeout, TimedOut
from tests.fixtures.cancelling import Canceller, each_cancellation
from tests.fixtures.waiting import UNIT

SHORT = 0.05 * UNIT

pytestmark = pytest.mark.usefixtures("bus")


class Areas:
    """What is called."""

    def __init__(self) -> None:
        self.sizes = {"euro4": [1024, 1024]}
        self.called: list[Any] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended: list[str] = []
        self.calls: list[CallContext] = []

    @public
    async def size(self, area: str) -> list[int]:
        return self.sizes[area]

    @public
    async def echo(self, value: Any) -> Any:
        self.called.append(value)
        return value

    @public
    async def wait(self) -> str:
        """Go on until the test says so, or this is cancelled."""
        self.called.append("wait")
        self.calls.append(current_call())
        self.began.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("waited")
        return "waited"

    @public
    async def count(self, number: int) -> AsyncIterator[int]:
        try:
            for value in range(number):
                self.called.append(value)
                yield value
        finally:
            self.ended.append("counted")

    @public
    async def numbers(self) -> Iterator[int]:
        return iter([1, 2, 3])

    @public
    async def tell(self, number: int) -> str:
        for value in range(number):
            await current_call().progress(value)
        return "told"

    @public
    async def fail(self, kind: str) -> None:
        errors = [ValueError("one"), KeyError("two")]
        raise {"exit": SystemExit(3), "group": ExceptionGroup("both", errors), "cancel": asyncio.CancelledError()}[kind]

    @public
    async def unspeakable(self) -> object:
        return object()

    @public
    def plain(self, value: Any) -> Any:
        self.called.append(threading.current_thread().name)
        return value

    @public
    def plain_count(self, number: int) -> Iterator[int]:
        for value in range(number):
            self.called.append(value)
            yield value

    @public
    def plain_tell(self, number: int) -> str:
        for value in range(number):
            blocking.current_call().progress(value)
        return blocking.current_call().peer

    @public
    def plain_wait(self) -> bool:
        self.called.append("wait")
        is_over = blocking.current_call().wait(5 * UNIT)
        self.ended.append("waited")
        return is_over


class Ends:
    """Both ends of calls."""

    def __init__(self, bob: Messenger, alice: Messenger, server: RpcServer, client: RpcClient) -> None:
        self.bob, self.alice, self.server, self.client = bob, alice, server, client
        self.thing = Areas()
        server.register(self.thing, "areas")

    @property
    def areas(self) -> Proxy:
        return self.client.proxy(address_of(self.bob), "areas")

    @property
    def functions(self) -> Proxy:
        return self.client.proxy(address_of(self.bob))


def address_of(messenger: Any) -> str:
    return f"tcp://127.0.0.1:{messenger.address.rpartition(':')[2]}"


@asynccontextmanager
async def opened(journal: Path | None = None, **options: Any) -> AsyncIterator[Ends]:
    async with (
        Messenger("bob", nameservers=False, journal=journal and journal / "bob") as bob,
        Messenger("alice", listen=False, nameservers=False, journal=journal and journal / "alice") as alice,
        RpcServer(bob, **options) as server,
        RpcClient(alice, timeout=5 * UNIT) as client,
    ):
        ends = Ends(bob, alice, server, client)
        yield ends
        await server.stop(drain=0)


def run(test: Callable[[Ends], Awaitable[None]], **options: Any) -> None:
    """Run a test with both ends; no task may be left over, nor the loop have had something to complain of."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with opened(**options) as ends:
            await test(ends)
        left_over = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left_over
        gc.collect()

    asyncio.run(main())
    assert not complaints


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5 * UNIT):
        while not is_so():
            await asyncio.sleep(0.001)


def test_a_call_returns_what_the_coroutine_returns() -> None:
    async def test(ends: Ends) -> None:
        assert await ends.areas.size("euro4") == [1024, 1024]
        assert await ends.areas.size(area="euro4") == [1024, 1024]

    run(test)


def test_plain_functions_are_called_in_threads_that_are_started_for_them_only() -> None:
    async def test(ends: Ends) -> None:
        await ends.areas.echo(1)
        before = [thread.name for thread in threading.enumerate() if "handlers" in thread.name]

        assert await ends.areas.plain("euro4") == "euro4"

        assert before == []
        assert ends.thing.called == [1, "posttroll-handlers-1"]

    run(test)
    assert not [thread for thread in threading.enumerate() if "handlers" in thread.name]


def test_any_kind_of_callable_can_be_offered() -> None:
    class Doubler:
        async def __call__(self, number: int) -> int:
            return 2 * number

    async def test(ends: Ends) -> None:
        ends.server.register_function(Doubler(), "double")
        ends.server.register_function(functools.partial(ends.thing.echo, "bound"), "bound")
        ends.server.register_function(lambda: ends.thing.plain(7), "seven")

        assert await ends.functions.double(21) == 42
        assert await ends.functions.bound() == "bound"
        assert await ends.functions.seven() == 7

    run(test)


def test_exceptions_travel() -> None:
    async def test(ends: Ends) -> None:
        with pytest.raises(KeyError, match="nowhere") as caught:
            await ends.areas.size("nowhere")
        assert any("sizes[area]" in note for note in caught.value.__notes__)
        with pytest.raises(RemoteError, match="SystemExit: 3"):
            await ends.areas.fail("exit")
        with pytest.raises(RemoteError, match=r"ExceptionGroup: both \(2 sub-exceptions\)"):
            await ends.areas.fail("group")
        with pytest.raises(RemoteError, match="CancelledError"):
            await ends.areas.fail("cancel")
        with pytest.raises(RemoteError, match="EncodeError"):
            await ends.areas.unspeakable()
        with pytest.raises(MethodNotFound):
            await ends.areas.sizes()
        with pytest.raises(TypeError):
            await ends.areas.size()
        assert ends.server.dropped == {"unknown method": 1}
        await until(lambda: ends.server.active == 0)

    run(test)


def test_what_cannot_be_called_is_told_of_here() -> None:
    async def test(ends: Ends) -> None:
        with pytest.raises(EncodeError):
            await ends.areas.echo(object())
        with pytest.raises(ConfigurationError):
            ends.areas.options(encoder="msgpack")
        with pytest.raises(AttributeError):
            _ = ends.areas._private
        with pytest.raises(LocalProtocolError):
            current_call()
        with pytest.raises(LocalProtocolError, match="open already"):
            await RpcServer(ends.bob).start()

    run(test)


def test_a_result_can_be_waited_for_later_and_by_several() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.wait.start()
        with pytest.raises(TimedOut, match=r"has not answered areas.wait after"):
            await call.result(timeout=SHORT)
        is_done = call.done()
        ends.thing.may_end.set()

        results = [*await asyncio.gather(call, call.result(), call.result(5 * UNIT))]

        assert not is_done
        assert results == ["waited"] * 3
        assert call.done()
        assert await call == await call.result(timeout=0) == "waited"

    run(test)


def test_a_thousand_calls_are_under_way_at_once() -> None:
    async def test(ends: Ends) -> None:
        results = await asyncio.gather(*(ends.areas.echo(number) for number in range(1000)))

        assert results == list(range(1000))

    run(test)


def test_messengers_with_a_journal_can_be_used(tmp_path: Path) -> None:
    async def test(ends: Ends) -> None:
        assert await asyncio.gather(*(ends.areas.echo(number) for number in range(20))) == [*range(20)]
        assert [value async for value in ends.areas.count.stream(200)] == [*range(200)]
        task = asyncio.create_task(ends.areas.wait())
        await ends.thing.began.wait()
        task.cancel()
        await until(lambda: ends.thing.ended == ["counted", "cancelled"])
        for canceller in each_cancellation("call"):
            assert await canceller("call", ends.areas.echo, 1) == 1

    run(test, journal=tmp_path)


def test_both_ends_can_call_each_other_in_a_handler() -> None:
    async def test(ends: Ends) -> None:
        async with RpcServer(ends.alice) as at_alice, RpcClient(ends.bob, timeout=5 * UNIT) as backwards:
            at_alice.register_function(ends.thing.echo, "echo")

            @ends.server.function
            async def ask_back(value: int) -> Any:
                return [await backwards.proxy("alice").echo(value), current_call().peer]

            assert await ends.functions.ask_back(4) == [4, "alice"]

    run(test)


def test_a_call_waits_for_the_peer_to_appear() -> None:
    async def test(ends: Ends) -> None:
        address = address_of(ends.bob)
        await ends.bob.stop()
        call = await ends.client.proxy(address, "areas").echo.start(1)
        async with Messenger("bob", link_port=int(address.rpartition(":")[2]), nameservers=False) as bob:
            server = RpcServer(bob)
            server.register(ends.thing, "areas")
            async with server:
                assert await call == 1

    run(test)


def test_a_signal_is_not_waited_for() -> None:
    async def test(ends: Ends) -> None:
        await ends.areas.echo.signal(1)
        await until(lambda: ends.thing.called == [1])
        await until(lambda: ends.server.active == 0)

    run(test)


@pytest.mark.parametrize("method", ["count", "plain_count"])
def test_what_is_yielded_is_iterated_with_as_much_ahead_as_there_is_room_for(method: str) -> None:
    async def test(ends: Ends) -> None:
        async with aclosing(getattr(ends.areas, method).stream(250)) as values:
            first = await anext(values)
            await until(lambda: len(ends.thing.called) == 101)
            await asyncio.sleep(SHORT)
            ahead = len(ends.thing.called)

            rest = [value async for value in values]

        assert (first, ahead, rest) == (0, 101, list(range(1, 250)))

    run(test)


def test_the_result_alone_can_be_asked_for() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.count.start(1500)

        assert await call is None
        assert len(ends.thing.called) == 1500
        with pytest.raises(TypeError, match="yields values: call it by stream or start"):
            await ends.areas.count(3)
        assert ends.thing.called == list(range(1500))

    run(test)


def test_an_iterator_that_a_coroutine_returns_is_iterated() -> None:
    async def test(ends: Ends) -> None:
        assert [value async for value in ends.areas.numbers.stream()] == [1, 2, 3]

    run(test)


@pytest.mark.parametrize(("method", "result"), [("tell", "told"), ("plain_tell", "alice")])
def test_a_handler_tells_how_far_it_is(method: str, result: str) -> None:
    async def test(ends: Ends) -> None:
        call = await getattr(ends.areas, method).start(3)

        assert [value async for value in call.progress()] == [0, 1, 2]
        assert await call == result
        assert await getattr(ends.areas, method)(1000) == result

    run(test)


def test_waiting_for_progress_can_be_cancelled_and_begun_again() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.wait.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await anext(call.progress())
        ends.thing.may_end.set()

        assert [value async for value in call.progress()] == []
        assert await call == "waited"

    run(test)


def test_who_cancels_the_task_that_waits_has_the_handler_cancelled() -> None:
    async def test(ends: Ends) -> None:
        task = asyncio.create_task(ends.areas.wait())
        await ends.thing.began.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: ends.server.active == 0)
        assert ends.thing.ended == ["cancelled"]
        assert ends.thing.calls[0].cancelled

    run(test)


def test_a_call_is_cancelled_once() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.wait.start()
        await ends.thing.began.wait()

        assert (call.cancel(), call.cancel()) == (True, False)
        with pytest.raises(CallCancelled):
            await call
        await until(lambda: ends.thing.ended == ["cancelled"])

    run(test)


def test_what_was_cancelled_before_it_began_is_not_run() -> None:
    async def test(ends: Ends) -> None:
        waiting = await ends.areas.wait.start()
        second = await ends.areas.echo.start(1)
        await ends.thing.began.wait()
        second.cancel()
        await until(lambda: ends.server._early)
        ends.thing.may_end.set()

        assert await waiting == "waited"
        assert await ends.areas.echo(2) == 2
        assert ends.thing.called == ["wait", 2]

    run(test, workers=1)


def test_who_leaves_a_stream_cancels_the_call() -> None:
    async def test(ends: Ends) -> None:
        async for value in ends.areas.count.stream(10**9):
            if value == 5:
                break

        await until(lambda: ends.server.active == 0)
        assert ends.thing.ended == ["counted"]

    run(test)


def test_a_plain_function_is_told_of_the_cancellation() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.plain_wait.start()
        await until(lambda: ends.thing.called)
        call.cancel()

        await until(lambda: ends.thing.ended == ["waited"])
        await until(lambda: ends.server.active == 0)

    run(test)


def test_the_deadline_ends_a_call_at_both_ends() -> None:
    async def test(ends: Ends) -> None:
        with pytest.raises(RequestTimeout, match=r"did not answer areas.wait within .* s$"):
            await ends.areas.options(timeout=SHORT).wait()

        await until(lambda: ends.server.active == 0)
        assert ends.thing.ended == ["cancelled"]

    run(test)


def test_a_call_ends_in_time_even_if_nobody_waits_for_it() -> None:
    async def test(ends: Ends) -> None:
        nobody = ends.client.proxy("tcp://127.0.0.1:1", "areas", timeout=SHORT, max_retries=1)
        call = await nobody.echo.start(1)

        await until(call.done)

        with pytest.raises(RequestTimeout, match="it was not reached"):
            await call

    run(test)


def test_what_is_asked_again_is_run_once() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.options(timeout=SHORT, max_retries=100).wait.start()
        await until(lambda: len(call._trackers) >= 3)
        ends.thing.may_end.set()

        assert await call == "waited"
        assert ends.thing.called == ["wait"]

    run(test)


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_call_whose_server_went_down_is_run_again_if_it_may_be(idempotent: bool) -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.options(idempotent=idempotent).wait.start()
        await ends.thing.began.wait()

        await ends.server.stop(drain=0)
        ended = list(ends.thing.ended)
        ends.thing.may_end.set()
        await ends.server.start()

        assert ended == ["cancelled"]
        if idempotent:
            assert await call == "waited"
        else:
            with pytest.raises(CallInterrupted):
                await call

    run(test)


def test_a_call_that_nobody_holds_is_forgotten() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.wait.start()
        known = len(ends.client._replies.calls)
        del call
        gc.collect()

        assert (known, len(ends.client._replies.calls)) == (1, 0)
        ends.thing.may_end.set()

    run(test)


def test_a_call_ends_when_its_client_or_its_messenger_stops() -> None:
    async def test(ends: Ends) -> None:
        first = await ends.areas.wait.start()
        await ends.thing.began.wait()
        await ends.client.stop()
        with pytest.raises(CallCancelled):
            await first
        await until(lambda: ends.thing.ended == ["cancelled"])

        second = await ends.areas.wait.start()
        await ends.alice.stop()
        with pytest.raises(CallCancelled, match="the messenger was stopped"):
            await second
        with pytest.raises(NotStarted):
            await ends.areas.wait()

    run(test)


def test_no_more_calls_are_handled_at_a_time_than_there_are_workers() -> None:
    async def test(ends: Ends) -> None:
        waiting = [await ends.areas.wait.start() for _ in range(3)]
        plain = await ends.areas.plain.start(1)
        await until(lambda: len(ends.thing.called) == 2)
        await asyncio.sleep(SHORT)
        before = list(ends.thing.called)
        ends.thing.may_end.set()

        assert await asyncio.gather(*waiting, plain) == ["waited"] * 3 + [1]
        assert before == ["wait"] * 2

    run(test, workers=2)


def test_each_peer_gets_its_turn() -> None:
    async def test(ends: Ends) -> None:
        async with (
            Messenger("carol", listen=False, nameservers=False) as carol,
            RpcClient(carol, timeout=5 * UNIT) as other,
        ):
            flood = [await ends.areas.wait.start() for _ in range(1)]
            await ends.thing.began.wait()
            flood += [await ends.areas.echo.start("alice") for _ in range(50)]
            single = await other.proxy(address_of(ends.bob), "areas").echo.start("carol")
            await until(lambda: "carol" in ends.bob.peers)
            await until(lambda: not single._trackers[0].buffered)
            await asyncio.sleep(SHORT)
            ends.thing.may_end.set()

            await asyncio.gather(single, *flood)

        assert ends.thing.called.index("carol") < 10

    run(test, workers=1)


def test_a_stop_waits_for_calls_under_way_and_their_answers() -> None:
    async def test(ends: Ends) -> None:
        calls = [await ends.areas.wait.start() for _ in range(2)]
        await ends.thing.began.wait()
        stop = asyncio.create_task(ends.server.stop())
        await asyncio.sleep(SHORT)
        is_waiting = not stop.done()
        ends.thing.may_end.set()
        await stop

        assert is_waiting
        assert await asyncio.gather(*calls) == ["waited"] * 2
        await ends.server.stop()

    run(test)


def test_a_stop_that_is_cancelled_ends_all_the_same() -> None:
    async def test(ends: Ends) -> None:
        await ends.areas.plain(1)
        call = await ends.areas.wait.start()
        await ends.thing.began.wait()
        stop = asyncio.create_task(ends.server.stop(drain=60))
        await asyncio.sleep(0)
        stop.cancel()

        with pytest.raises(asyncio.CancelledError):
            await stop

        assert ends.thing.ended == ["cancelled"]
        assert (call.done(), ends.server.active) == (False, 0)
        assert not [thread for thread in threading.enumerate() if "handlers" in thread.name]

    run(test)


def test_a_handler_may_stop_its_server() -> None:
    async def test(ends: Ends) -> None:
        stopped = asyncio.Event()

        @ends.server.function
        async def quit() -> None:
            await ends.server.stop(drain=60)
            stopped.set()

        other = await ends.areas.echo.start(1)
        await ends.functions.quit.signal()

        await asyncio.wait_for(stopped.wait(), 5 * UNIT)
        assert await other == 1

    run(test)


def test_a_handler_that_does_not_end_is_told_of_at_the_stop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttroll.asyncio.rpc.server._END_TIMEOUT", SHORT)
    may_end = threading.Event()

    async def test(ends: Ends) -> None:
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        @ends.server.function
        def dawdle() -> None:
            loop.call_soon_threadsafe(began.set)
            may_end.wait()

        await ends.functions.dawdle.signal()
        await began.wait()
        await ends.server.stop(drain=0)

    try:
        run(test)
    finally:
        may_end.set()
    assert "did not end within" in caplog.text


def test_a_handler_whose_messenger_stops_is_cancelled() -> None:
    async def test(ends: Ends) -> None:
        call = await ends.areas.wait.start()
        await ends.thing.began.wait()

        await ends.bob.stop()

        await until(lambda: ends.thing.ended == ["cancelled"])
        call.cancel()

    run(test)


def test_other_tasks_of_a_handler_can_wait_for_the_end_of_its_call() -> None:
    waited: list[bool] = []

    async def test(ends: Ends) -> None:
        tasks: list[asyncio.Task[None]] = []

        @ends.server.function
        async def watch() -> None:
            call = current_call()
            waited.append(await call.wait(SHORT))

            async def look() -> None:
                waited.append(await call.wait())

            tasks.append(asyncio.create_task(look()))
            await asyncio.sleep(60)

        call = await ends.functions.watch.start()
        await until(lambda: tasks)
        call.cancel()
        await tasks[0]

    run(test)
    assert waited == [False, True]


def test_a_handler_is_as_usable_after_its_cancellation_as_before() -> None:
    async def test(ends: Ends) -> None:
        ended = asyncio.Event()

        @ends.server.function
        async def clean_up() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                async with asyncio.timeout(5 * UNIT):
                    await asyncio.sleep(0)
                ended.set()

        call = await ends.functions.clean_up.start()
        await until(lambda: ends.server.active)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5 * UNIT)

    run(test)


def test_a_caller_cancelled_at_any_step_leaves_nothing_behind() -> None:
    async def test(ends: Ends) -> None:
        names = {
            "call": ends.areas.echo,
            "plain": ends.areas.plain,
        }
        for name, method in names.items():
            for canceller in each_cancellation(name):
                assert await canceller(name, method, canceller._step) == canceller._step
        for canceller in each_cancellation("stream"):
            assert await canceller("stream", count_to_three, ends.areas) == [0, 1, 2]
        for canceller in each_cancellation("signal"):
            await canceller("signal", ends.areas.echo.signal, "signalled")
        await until(lambda: ends.server.active == 0)

    run(test)


async def count_to_three(areas: Proxy) -> list[int]:
    return [value async for value in areas.count.stream(3)]


def test_a_stop_cancelled_at_any_step_leaves_nothing_behind() -> None:
    async def stop_and_start(canceller: Canceller, ends: Ends) -> None:
        call = await ends.areas.options(idempotent=True).wait.start()
        await until(lambda: ends.server.active)
        await canceller("server", ends.server.stop, 0)
        await canceller("client", ends.client.stop)
        with pytest.raises(CallCancelled):
            await call
        await canceller("start", ends.server.start)
        assert await ends.areas.echo(1) == 1

    async def test(ends: Ends) -> None:
        for name in ("server", "client", "start"):
            for canceller in each_cancellation(name):
                await stop_and_start(canceller, ends)

    run(test)


def test_a_blocking_client_calls_an_asyncio_server() -> None:
    async def test(ends: Ends) -> None:
        address = address_of(ends.bob)

        def call() -> list[Any]:
            with (
                blocking_messenger.Messenger("carol", listen=False, nameservers=False) as carol,
                blocking.RpcClient(carol, timeout=5 * UNIT) as client,
            ):
                areas = client.proxy(address, "areas")
                waiting = areas.wait.start()
                waiting.cancel()
                return [areas.echo(1), areas.plain(2), list(areas.count.stream(300))[-1]]

        assert await asyncio.to_thread(call) == [1, 2, 299]

    run(test)


def test_an_asyncio_client_calls_a_blocking_server() -> None:
    async def main() -> list[Any]:
        async with (
            Messenger("alice", listen=False, nameservers=False) as alice,
            RpcClient(alice, timeout=5 * UNIT) as client,
        ):
            functions = client.proxy(address)
            numbers = [value async for value in functions.count.stream(300)]
            waiting = await functions.wait.start()
            waiting.cancel()
            return [await functions.echo(1), numbers[-1]]

    def count(number: int) -> Iterator[int]:
        yield from range(number)

    def wait() -> bool:
        return blocking.current_call().wait(5 * UNIT)

    with blocking_messenger.Messenger("bob", nameservers=False) as bob, blocking.RpcServer(bob) as server:
        address = address_of(bob)
        server.register_function(count)
        server.register_function(wait)
        server.register_function(lambda value: value, "echo")

        assert asyncio.run(main()) == [1, 299]


def test_a_loop_that_ends_in_the_midst_of_a_call_leaves_it_to_another_life() -> None:
    ended: list[str] = []

    async def main() -> None:
        async with opened() as ends:
            ends.thing.ended = ended
            await ends.areas.wait.start()
            await ends.thing.began.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if task.get_name() == "posttroll-handlers":
                    task.cancel()
            await until(lambda: ends.server.active == 0)

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_several_loops_can_be_used_one_after_the_other() -> None:
    async def test(ends: Ends) -> None:
        assert await ends.areas.echo(1) == 1

    run(test)
    run(test)


def test_an_errand_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("in vain")

    async def main() -> bool:
        errands = Errands("posttroll-test")
        errands.run(fail)
        return await errands.finish()

    assert asyncio.run(main())
    assert "posttroll-test ended by an error" in caplog.text


def test_both_fronts_offer_the_same_names() -> None:
    for name in ("Call", "CallContext", "Proxy", "RemoteMethod", "RpcClient", "RpcServer"):
        there, here = getattr(blocking, name), getattr(inspect.getmodule(RpcServer), name, None)
        here = here or getattr(inspect.getmodule(RpcClient), name)
        missing = {one for one in dir(there) if not one.startswith("_")} - set(dir(here))

        assert not missing, name


@pytest.mark.parametrize(
    ("make", "messenger"),
    [
        (RpcClient, blocking_messenger.Messenger),
        (RpcServer, blocking_messenger.Messenger),
        (blocking.RpcClient, Messenger),
        (blocking.RpcServer, Messenger),
    ],
)
def test_the_messenger_has_to_be_of_the_same_kind(
    make: Callable[[Any], object], messenger: Callable[[str], Any]
) -> None:
    with pytest.raises(ConfigurationError, match="does not work on a posttroll"):
        make(messenger("caller"))
