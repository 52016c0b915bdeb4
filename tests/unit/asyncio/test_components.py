"""Components that run in an event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from posttroll.asyncio.components import Command, Component, Configuration, Result, Runner, command, on, request, run
from posttroll.asyncio.components.openings import open_messenger
from posttroll.asyncio.components.outlet import Outlet
from posttroll.asyncio.components.pool import Pool
from posttroll.asyncio.components.threads import Threads
from posttroll.asyncio.messenger import Messenger
from posttroll.asyncio.publisher import Publish
from posttroll.asyncio.rpc import RpcClient
from posttroll.asyncio.subscriber import Subscribe, Subscriber
from posttroll.components import Component as ThreadedComponent
from posttroll.components import CountMiddleware, Middleware, RetryMiddleware, __main__
from posttroll.components import Runner as ThreadedRunner
from posttroll.components.orders import Order
from posttroll.errors import ConfigurationError, NotStarted, Refused
from posttroll.message import Message
from posttroll.testing import memory_bus
from tests.fixtures.cancelling import each_cancellation
from tests.fixtures.waiting import UNIT


@pytest.fixture(autouse=True)
def bus() -> Iterator[None]:
    with memory_bus():
        yield


def configured(**items: Any) -> Configuration:
    usual: dict[str, Any] = {
        "name": "worker",
        "services": None,
        "middleware": [],
        "publish_topic": "/2a",
        "timeout": 0.01,
    }
    return Configuration.load({**usual, **items})


def granule(number: int, kind: str = "file") -> Message:
    return Message("/1b/viirs", kind, {"number": number})


class Worker(Component):
    """Notes what it does; a job of type "long" goes on until it may end."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        self.done.append("start")

    async def stop(self) -> None:
        self.done.append("stop")
        await self.publish(Message("/status", "status", "bye"))

    @on("file")
    async def work(self, data: Any, component: Component) -> dict[str, Any]:
        assert component is self
        self.threads.add(threading.current_thread())
        await asyncio.sleep(0)
        self.done.append(data["number"])
        return {"result": data["number"] * 10}

    @on("plain")
    def work_in_thread(self, data: Any) -> int:
        self.threads.add(threading.current_thread())
        self.publish(Message("/2a/extra", "file", "published in a thread"))
        return int(data["number"])

    @on("dataset")
    async def split(self, data: Any) -> AsyncIterator[int]:
        for number in range(data["number"]):
            yield number

    @on("long")
    async def work_long(self, data: Any) -> None:
        self.began.set()
        await self.may_end.wait()
        self.done.append(data["number"])

    @on("bad")
    async def fail(self) -> None:
        self.done.append("failing")
        raise ValueError("cannot do it")

    @on("odd")
    async def await_what_is_cancelled(self) -> None:
        raise asyncio.CancelledError

    @on("refused")
    async def refuse(self) -> None:
        raise Refused("not for me")

    @command("add")
    async def add(self, one: int, other: int) -> int:
        return one + other

    @command("subtract")
    def subtract(self, one: int, other: int) -> int:
        return one - other

    @command("stall")
    async def stall(self) -> None:
        self.began.set()
        await self.may_end.wait()

    @request("area")
    async def area(self, name: str) -> str:
        if name != "euro4":
            raise LookupError(name)
        return name

    @request("areas")
    async def areas(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @request("plain_area")
    def plain_area(self) -> bool:
        return threading.current_thread() is not threading.main_thread()


@asynccontextmanager
async def running(runner: Runner) -> AsyncIterator[asyncio.Task[Order]]:
    """Run a component; it is ready at the beginning."""
    ready = asyncio.Event()
    task, is_ready = asyncio.create_task(runner.run(ready.set)), asyncio.create_task(ready.wait())
    await asyncio.wait([task, is_ready], return_when=asyncio.FIRST_COMPLETED)
    is_ready.cancel()
    try:
        yield task
    finally:
        if not task.done():
            runner.stop()
        async with asyncio.timeout(5 * UNIT):
            await asyncio.wait([task])


async def settled(*messages: Message) -> list[str]:
    """Put messages to the worker; return what became of them."""
    async with Messenger("sender") as sender:
        trackers = [await sender.put("worker", message) for message in messages]
        return [await tracker.wait(5 * UNIT) for tracker in trackers]


async def asked(name: str, **parameters: Any) -> Result:
    async with Messenger("operator") as operator:
        await operator.put("worker", Command(command=name, parameters=parameters).message())
        message = await operator.get(5 * UNIT)
        assert message is not None
        return Result.read(message)


@asynccontextmanager
async def published(runner: Runner) -> AsyncIterator[AsyncIterator[Message | None]]:
    """Give what a component publishes."""
    publisher: Any = runner.component.messenger.publisher
    async with Subscribe("worker", "/2a", timeout=5 * UNIT) as subscriber:
        assert await publisher.wait_for_subscriber("/2a", 5 * UNIT)
        yield subscriber.recv(5 * UNIT)


async def next_data(messages: AsyncIterator[Message | None], count: int) -> list[Any]:
    found = [await anext(messages) for _ in range(count)]
    return [message.data for message in found if message is not None]


def worker_of(runner: Runner) -> Worker:
    assert isinstance(runner.component, Worker)
    return runner.component


@pytest.mark.parametrize(
    ("kind", "data"),
    [("file", [{"result": 30}]), ("dataset", [0, 1, 2]), ("plain", ["published in a thread", 3])],
)
def test_what_handlers_return_or_yield_is_published(kind: str, data: list[Any]) -> None:
    async def main() -> None:
        runner = Runner(Worker, configured())
        async with running(runner), published(runner) as messages:
            assert await settled(granule(3, kind)) == ["accepted"]
            assert await next_data(messages, len(data)) == data

    asyncio.run(main())


def test_coroutines_run_in_the_loop_and_plain_functions_beside_it() -> None:
    async def main() -> set[threading.Thread]:
        runner = Runner(Worker, configured())
        async with running(runner):
            await settled(granule(1), granule(2, "plain"))
        return worker_of(runner).threads

    threads = asyncio.run(main())

    assert len(threads) == 2
    assert threading.current_thread() in threads


def test_what_a_subscriber_gets_is_handled() -> None:
    async def main() -> list[Any]:
        runner = Runner(Worker, configured(services="files", timeout=1))
        async with Publish("files") as publisher, running(runner), published(runner) as messages:
            assert await publisher.wait_for_subscriber("/1b", 5 * UNIT)
            for number in range(3):
                await publisher.send(granule(number))
            await next_data(messages, 3)
        return worker_of(runner).done

    assert asyncio.run(main()) == ["start", 0, 1, 2, "stop"]


def test_messages_are_settled_as_handlers_decide() -> None:
    async def main() -> list[str]:
        async with running(Runner(Worker, configured())):
            return await settled(granule(1), granule(2, "refused"), granule(3, "unknown"))

    assert asyncio.run(main()) == ["accepted", "rejected", "accepted"]


def test_a_handler_that_failed_releases_its_message_which_comes_again() -> None:
    async def main() -> list[Any]:
        runner = Runner(Worker, configured())
        async with running(runner):
            await settled(granule(1, "bad"))
        return worker_of(runner).done

    assert asyncio.run(main()).count("failing") > 1


def test_a_handler_that_awaits_what_is_cancelled_has_failed() -> None:
    counts = CountMiddleware()

    async def main() -> None:
        async with running(Runner(Worker, configured(), [counts])):
            await settled(granule(1, "odd"))

    asyncio.run(main())

    assert counts.failed["await_what_is_cancelled"] > 0


def test_so_many_handlers_are_under_way_as_there_are_workers() -> None:
    async def main() -> None:
        runner = Runner(Worker, configured(workers=2))
        async with running(runner), Messenger("sender") as sender:
            trackers = [await sender.put("worker", granule(number, "long")) for number in range(3)]
            await worker_of(runner).began.wait()
            assert (await asked("status")).value["in_hand"] == 3
            worker_of(runner).may_end.set()
            assert [await tracker.wait(5 * UNIT) for tracker in trackers] == ["accepted"] * 3

    asyncio.run(main())


class Recording(Middleware):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before(self, context: Any) -> None:
        self.calls.append(f"before {context.handler} {context.attempt}")

    def after(self, context: Any, result: Any) -> None:
        self.calls.append(f"after {context.handler}")

    def failure(self, context: Any, error: BaseException) -> None:
        self.calls.append(f"failure {error}")


def test_middleware_is_called_around_coroutines_and_retries_are_made() -> None:
    recording = Recording()
    retry = RetryMiddleware(max_retries=1, delay=0.001)

    async def main() -> None:
        async with running(Runner(Worker, configured(), [recording, retry])):
            await settled(granule(1))
            await settled(granule(1, "bad"))

    asyncio.run(main())

    first = ["before work 1", "after work", "before fail 1", "failure cannot do it", "before fail 2"]
    assert recording.calls[:5] == first


def test_commands_are_carried_out_and_answered_whatever_they_are() -> None:
    async def main() -> None:
        async with running(Runner(Worker, configured())):
            assert (await asked("ping")).value == "pong"
            assert (await asked("add", one=1, other=2)).value == 3
            assert (await asked("subtract", one=3, other=2)).value == 1
            assert (await asked("add", one=1)).state == "exception"
            assert (await asked("dance")).state == "error"
            assert (await asked("status")).value["done"] == {"ping": 1, "add": 1, "subtract": 1}

    asyncio.run(main())


@pytest.mark.parametrize("order", ["quit", "restart"])
def test_a_component_ends_when_it_is_commanded_to(order: str) -> None:
    async def main() -> Order:
        async with running(Runner(Worker, configured())) as task:
            assert (await asked(order)).state == "success"
            return await task

    assert asyncio.run(main()) == order


def test_a_restart_that_could_not_succeed_is_refused() -> None:
    def check() -> None:
        raise Refused("broken")

    async def main() -> None:
        async with running(Runner(Worker, configured(), check_restart=check)) as task:
            assert (await asked("restart")).text == "broken"
            assert not task.done()

    asyncio.run(main())


def test_a_component_that_carries_out_a_command_is_not_deaf() -> None:
    async def main() -> None:
        runner = Runner(Worker, configured())
        async with running(runner), Messenger("sender") as sender:
            await sender.put("worker", Command(command="stall").message())
            await worker_of(runner).began.wait()
            assert (await asked("ping")).value == "pong"
            worker_of(runner).may_end.set()
            assert await sender.get(5 * UNIT)

    asyncio.run(main())


def test_calls_are_answered_by_coroutines_and_by_plain_functions() -> None:
    async def main() -> None:
        async with (
            running(Runner(Worker, configured())),
            Messenger("caller") as caller,
            RpcClient(caller, timeout=5 * UNIT) as client,
        ):
            worker = client.proxy("worker")
            assert await worker.area("euro4") == "euro4"
            assert await worker.plain_area()
            assert [value async for value in worker.areas.stream(3)] == [0, 1, 2]
            with pytest.raises(LookupError, match="mars"):
                await worker.area("mars")

    asyncio.run(main())


def test_ending_lets_a_job_come_to_its_end() -> None:
    async def main() -> list[Any]:
        runner = Runner(Worker, configured())
        async with running(runner) as task, Messenger("sender") as sender:
            job = await sender.put("worker", granule(1, "long"))
            waiting = await sender.put("worker", granule(2))
            await worker_of(runner).began.wait()
            runner.stop()
            assert (await asked("status")).value["state"] == "ending"
            worker_of(runner).may_end.set()
            assert await task == "quit"
            assert job.state == "accepted"
            assert waiting.state != "accepted"
        return worker_of(runner).done

    assert asyncio.run(main()) == ["start", 1, "stop"]


@pytest.mark.parametrize(("drain_timeout", "orders"), [(0.01, 1), (100, 2)])
def test_a_job_that_takes_too_long_is_cancelled_and_left_to_the_next_one(drain_timeout: float, orders: int) -> None:
    async def main() -> None:
        runner = Runner(Worker, configured(drain_timeout=drain_timeout))
        async with running(runner) as task, Messenger("sender") as sender:
            job = await sender.put("worker", granule(1, "long"))
            await worker_of(runner).began.wait()
            for _ in range(orders):
                runner.stop()
            assert await task == "quit"
            assert job.state != "accepted"

    asyncio.run(main())


def test_who_cancels_it_ends_it() -> None:
    async def main() -> None:
        runner = Runner(Worker, configured())
        async with running(runner) as task, Messenger("sender") as sender:
            await sender.put("worker", granule(1, "long"))
            await worker_of(runner).began.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert worker_of(runner).done == ["start", "stop"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_wherever_it_is_cancelled_nothing_is_left_behind() -> None:
    async def live() -> None:
        runner = Runner(Worker, configured(services="files"))
        runner.stop()
        assert await runner.run() == "quit"

    async def main() -> None:
        for call in each_cancellation("run"):
            await call("run", live)
            assert asyncio.all_tasks() == {asyncio.current_task()}, call

    asyncio.run(main())


def test_a_retry_is_given_up_when_the_component_ends() -> None:
    async def main() -> None:
        recording = Recording()
        runner = Runner(Worker, configured(), [RetryMiddleware(delay=1000), recording])
        async with running(runner), Messenger("sender") as sender:
            await sender.put("worker", granule(1, "bad"))
            while len(recording.calls) < 2:
                await asyncio.sleep(0.001)

    asyncio.run(main())


class Failing(Component):
    async def start(self) -> None:
        raise RuntimeError("no disk")


class Exhausted(ThreadedComponent):
    def start(self) -> None:
        next(iter(()))

    @on("file")
    async def work(self) -> None:
        """Be there."""


@pytest.mark.parametrize(("component", "text"), [(Failing, "no disk"), (Exhausted, "raised StopIteration")])
def test_what_is_wrong_at_the_start_is_raised_and_leaves_nothing_running(component: Any, text: str) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=text):
            await Runner(component, configured()).run()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_goes_wrong_later_ends_the_component_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torn:
        def __init__(self, *_: object) -> None:
            """Be an iterator."""

        async def __anext__(self) -> Message:
            raise RuntimeError("torn cable")

    monkeypatch.setattr(Subscriber, "recv", Torn)
    runner = Runner(Worker, configured(services="files"))

    with pytest.raises(RuntimeError, match="torn cable"):
        asyncio.run(runner.run())

    assert worker_of(runner).done == ["start", "stop"]


def test_an_order_given_before_the_start_counts_and_one_given_afterwards_is_harmless() -> None:
    runner = Runner(Worker, configured())
    runner.stop("restart")

    assert asyncio.run(runner.run()) == "restart"
    runner.stop()


def test_nothing_is_published_after_the_end() -> None:
    async def main() -> None:
        runner = Runner(Worker, configured())
        async with running(runner):
            """Be ready."""
        with pytest.raises(NotStarted):
            runner.component.publish(granule(1))

    asyncio.run(main())


def test_components_that_start_at_the_same_time_have_their_own_journals(tmp_path: Path) -> None:
    async def main() -> list[bool]:
        wishes = {"one": str(tmp_path / "one.sqlite"), "other": False, "third": str(tmp_path / "third.sqlite")}
        configurations = [configured(name=name, journal=wish) for name, wish in wishes.items()]
        messengers = await asyncio.gather(*(open_messenger(one) for one in configurations))
        has_journal = [
            messenger.publisher is not None and bool(messenger.publisher.journal) for messenger in messengers
        ]
        await asyncio.gather(*(messenger.stop() for messenger in messengers))
        return has_journal

    assert asyncio.run(main()) == [True, False, True]


class Blocked:
    """Publishes nothing, as there is never any room."""

    name = "worker"

    def __init__(self) -> None:
        self.publisher = self

    async def send(self, message: Message) -> None:
        await asyncio.get_running_loop().create_future()


def test_what_waits_for_room_is_given_up_in_the_end() -> None:
    async def main() -> None:
        outlet: Any = Outlet(Blocked())  # type: ignore[arg-type]
        here, beside = outlet(granule(1)), asyncio.create_task(asyncio.to_thread(outlet, granule(2)))
        await asyncio.sleep(0)
        await outlet.close(timeout=0.01)
        assert here.cancelled()
        for refused in (beside, asyncio.to_thread(outlet, granule(3))):
            with pytest.raises(NotStarted, match="worker is not running"):
                await refused

    asyncio.run(main())


def test_threads_that_publish_when_all_ends_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    began, outcomes = threading.Event(), []

    class Publishing(ThreadedComponent):
        @on("file")
        def work(self) -> None:
            began.set()
            try:
                while True:
                    self.publish(Message("/2a", "file", 1))
            except NotStarted:
                outcomes.append("told")

        @on("other")
        async def work_otherwise(self) -> None:
            """Be a coroutine."""

    async def main() -> None:
        runner = Runner(Publishing, configured(drain_timeout=0))
        async with running(runner), Messenger("sender") as sender:
            await sender.put("worker", granule(1))
            assert await asyncio.to_thread(began.wait, 5 * UNIT)
            runner.stop()

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("posttroll-handlers"):
            thread.join(5 * UNIT)

    assert outcomes == ["told"]


def test_a_task_that_does_not_end_is_left_behind_with_a_complaint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("posttroll.asyncio.components.pool._END_TIMEOUT", 0.01)

    async def main() -> None:
        may_end = asyncio.Event()

        async def insist() -> None:
            while not may_end.is_set():
                try:
                    await may_end.wait()
                except asyncio.CancelledError:
                    continue

        pool = Pool("handlers", 1)
        pool.submit(insist)
        await asyncio.sleep(0)
        await pool.stop()
        may_end.set()
        await pool.wait_until_idle()

    asyncio.run(main())

    assert caplog.records[-1].getMessage() == "posttroll-handlers-1 does not end although it was cancelled"


def test_a_thread_that_was_deserted_is_given_nothing_more_to_do() -> None:
    async def main() -> None:
        threads, may_end, began = Threads("handlers"), threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            assert may_end.wait(5 * UNIT)

        first = asyncio.create_task(threads.call(work))
        assert await asyncio.to_thread(began.wait, 5 * UNIT)
        first.cancel()
        await asyncio.wait([first])
        names = {await threads.call(lambda: threading.current_thread().name) for _ in range(3)}
        may_end.set()
        threads.close()
        assert names == {"posttroll-handlers-2"}

    asyncio.run(main())


class Plain(ThreadedComponent):
    @on("file")
    def work(self) -> None:
        """Be no coroutine."""


class Derived(Component):
    """Has nothing, but is one for loops."""


@pytest.mark.parametrize("target", [Worker, Failing, Exhausted, Derived])
def test_a_runner_of_threads_refuses_what_takes_a_loop(target: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"posttroll\.asyncio\.components runs it"):
        ThreadedRunner(target, configured())


class Ending(Component):
    """Is ended by a signal at its very beginning."""

    number = signal.SIGTERM

    async def start(self) -> None:
        os.kill(os.getpid(), self.number)


class Interrupted(Ending):
    number = signal.SIGINT


class LeftByItsTerminal(Ending):
    number = signal.SIGHUP


@pytest.mark.parametrize("component", [Ending, Interrupted, LeftByItsTerminal])
def test_a_signal_ends_it_well_and_is_left_to_others_afterwards(component: type[Component]) -> None:
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    handlers = [signal.getsignal(number) for number in numbers]

    assert run(component, {"name": "worker", "nameservers": False}) == 0
    assert [signal.getsignal(number) for number in numbers] == handlers


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Ending", "in an event loop, as it has coroutines: start"),
        ("Derived", "in an event loop, as it derives from the Component for event loops"),
        ("Plain", "in threads, as it has no coroutines"),
    ],
)
def test_a_component_is_run_on_the_command_line_by_the_runner_that_can(
    name: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "component.yaml"
    file.write_text("name: worker\nnameservers: false\n")
    monkeypatch.setattr("posttroll.components.runner.Runner.run", lambda *_: "quit")
    monkeypatch.setattr("posttroll.asyncio.components.runner.Runner.run", _quit)
    caplog.set_level(logging.DEBUG)

    assert __main__.main([f"{__name__}:{name}", str(file)]) == 0

    assert f"worker runs {place}" in caplog.messages


async def _quit(*_: object) -> Order:
    return "quit"


def test_functions_of_a_module_may_be_coroutines_too() -> None:
    async def double(data: Any) -> Any:
        return data["number"] * 2

    module = ModuleType("handlers")
    module.double = on("file", "/1b")(double)  # type: ignore[attr-defined]

    async def main() -> None:
        runner = Runner(module, configured())
        async with running(runner), published(runner) as messages:
            await settled(granule(5))
            assert await next_data(messages, 1) == [10]

    asyncio.run(main())
