"""Components that run in a thread of the test, over each backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from posttroll.backends.base import Backend
from posttroll.components import Command, Component, Configuration, Result, Runner, command, on, request
from posttroll.components.orders import Order
from posttroll.errors import Refused
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.publisher import NoisyPublisher, Publish, Publisher
from posttroll.rpc import RpcClient
from posttroll.subscriber import Subscribe
from tests.fixtures.background import Outcome
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

SERVICE = "viirs_files"


def granule(number: int, kind: str = "file") -> Message:
    return Message("/1b/viirs", kind, {"number": number})


class Worker(Component):
    """Notes what it does; a job of type "long" goes on until it may end."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.life: list[str] = []
        self.began, self.may_end = threading.Event(), threading.Event()

    def start(self) -> None:
        self.life.append("start")

    def stop(self) -> None:
        self.life.append("stop")

    @on("file", "/1b")
    def work(self, data: Any) -> dict[str, Any]:
        self.done.append(data["number"])
        return {"result": data["number"] * 10}

    @on("long")
    def work_long(self, data: Any) -> None:
        self.began.set()
        assert self.may_end.wait(10 * UNIT)
        self.done.append(data["number"])

    @on("bad")
    def fail(self) -> None:
        raise ValueError("cannot do it")

    @on("refused")
    def refuse(self) -> None:
        raise Refused("not for me")

    @command("add")
    def add(self, one: int, other: int) -> int:
        return one + other

    @command("strange")
    def be_strange(self) -> object:
        return object()

    @command("stall")
    def stall(self) -> None:
        self.began.set()
        assert self.may_end.wait(10 * UNIT)

    @request("area")
    def area(self, name: str) -> dict[str, str]:
        if name != "euro4":
            raise LookupError(name)
        return {"name": name, "by": self.name}


@dataclass
class Running:
    """A component that runs."""

    runner: Runner
    outcome: Outcome[Order]
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        assert isinstance(self.runner.component, Worker)
        self.worker = self.runner.component

    def end(self) -> Order:
        self.worker.may_end.set()
        self.runner.stop()
        return self.outcome.result()


@contextmanager
def running(name: str = "worker", **items: Any) -> Iterator[Running]:
    """Run a component; it is ready at the beginning."""
    defaults = {"services": SERVICE, "publish_topic": "/2a", "nameservers": "localhost", "timeout": 0.1}
    runner = Runner(Worker, Configuration.load({"name": name, **defaults, **items}))
    ready = threading.Event()
    component = Running(runner, Outcome(lambda: runner.run(ready.set)))
    try:
        assert ready.wait(10 * UNIT)
        yield component
    finally:
        component.worker.may_end.set()
        runner.stop()
        component.outcome.end()


@pytest.fixture(autouse=True)
def nameserver(backend: Backend, network: Network) -> Iterator[None]:
    with running_nameserver(multicast_enabled=False):
        yield


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def publisher(journal: MemoryJournal) -> Iterator[Publisher | NoisyPublisher]:
    with Publish(SERVICE, nameservers="localhost", journal=journal) as publisher:
        yield publisher


@pytest.fixture
def operator() -> Iterator[Messenger]:
    with Messenger("operator", nameservers="localhost") as messenger:
        yield messenger


def ask(operator: Messenger, name: str, to: str = "worker", **parameters: Any) -> Result:
    operator.put(to, Command(command=name, parameters=parameters).message())
    operator.recv(timeout=5 * UNIT)
    message = operator.get()
    assert message is not None
    operator.accept(message)  # else the component that ends waits for that
    return Result.read(message)


def test_what_a_handler_returns_is_published_under_the_components_name(
    publisher: Publisher, journal: MemoryJournal
) -> None:
    with running() as component, Subscribe("worker", "/2a", nameserver="localhost", timeout=5 * UNIT) as subscriber:
        assert component.worker.messenger.publisher is not None
        assert component.worker.messenger.publisher.wait_for_subscriber("/2a", 5 * UNIT)
        assert publisher.wait_for_subscriber("/1b", 5 * UNIT)
        publisher.send(granule(5))
        message = next(subscriber.recv(timeout=5 * UNIT))

    assert message is not None
    assert (message.subject, message.type, message.data) == ("/2a", "file", {"result": 50})


def test_a_shared_message_goes_to_one_of_the_group_and_a_private_one_to_each(
    publisher: Publisher, journal: MemoryJournal
) -> None:
    with ExitStack() as components:
        sharing = [components.enter_context(running(f"sharing_{n}", shared="group")) for n in (1, 2)]
        alone = [components.enter_context(running(f"alone_{n}", private=f"alone_{n}")) for n in (1, 2)]
        eventually(lambda: len(journal.consumers()) == 3)

        for number in range(20):
            publisher.send(granule(number))

        eventually(lambda: [len(one.worker.done) for one in alone] == [20, 20])
        eventually(lambda: sum(len(one.worker.done) for one in sharing) >= 20)
        assert sorted(sharing[0].worker.done + sharing[1].worker.done) == list(range(20))


def test_while_one_of_a_group_is_at_work_the_other_one_gets_the_messages(
    publisher: Publisher, journal: MemoryJournal
) -> None:
    with running("one", shared="group") as one, running("other", shared="group") as other:
        eventually(journal.consumers)
        publisher.send(granule(0, "long"))
        eventually(lambda: one.worker.began.is_set() or other.worker.began.is_set())
        busy, free = (one, other) if one.worker.began.is_set() else (other, one)

        for number in range(1, 6):
            publisher.send(granule(number))

        eventually(lambda: sorted(free.worker.done) == [1, 2, 3, 4, 5])
        assert busy.worker.done == []


def test_what_was_published_before_a_durable_component_came_is_handled(
    publisher: Publisher, journal: MemoryJournal
) -> None:
    for number in range(3):
        publisher.send(granule(number))

    with running(shared="group", start_at="first") as component:
        eventually(lambda: component.worker.done == [0, 1, 2])


def test_an_addressed_message_is_handled_and_the_sender_learns_what_became_of_it(operator: Messenger) -> None:
    with running() as component:
        good = operator.put("worker", granule(1))
        refused = operator.put("worker", granule(2, "refused"))

        assert good.wait(5 * UNIT) == "accepted"
        assert refused.wait(5 * UNIT) == "rejected"
    assert refused.reason == "not for me"
    assert component.worker.done == [1]


def test_a_handler_that_raises_leaves_the_component_running_and_its_message_is_set_aside(
    publisher: Publisher, journal: MemoryJournal
) -> None:
    with running(shared="group", middleware=[]) as component:
        eventually(journal.consumers)
        publisher.send(granule(1, "bad"))
        publisher.send(granule(2))

        eventually(lambda: component.worker.done == [2])
        eventually(lambda: len(journal.set_aside()) == 1)


def test_commands_are_carried_out_and_answered(operator: Messenger) -> None:
    with running() as component:
        ping = ask(operator, "ping")

        assert (ping.state, ping.value) == ("success", "pong")
        assert ping.fingerprint == component.worker.fingerprint.as_dict()
        assert ask(operator, "add", one=1, other=2).value == 3
        assert ask(operator, "add", one=1).state == "exception"
        assert ask(operator, "dance").state == "error"
        assert ask(operator, "status").value["done"] == {"ping": 1, "add": 1}


def test_a_result_that_cannot_be_sent_is_an_exception(operator: Messenger) -> None:
    with running():
        result = ask(operator, "strange")

    assert (result.state, result.value) == ("exception", "EncodeError")


def test_a_command_whose_sender_cannot_be_answered_is_carried_out(operator: Messenger) -> None:
    with running() as component:
        operator.put("worker", Command(command="quit").message(), reply_to="tcp://~nowhere:1")

        assert component.outcome.result() == "quit"


@pytest.mark.parametrize("data", [None, "quit", {"command": ["quit"]}, {"command": "quit", "parameters": 5}, b"quit"])
def test_what_is_no_command_is_answered_and_changes_nothing(operator: Messenger, data: Any) -> None:
    with running() as component:
        operator.put("worker", Message("/command", "command", data, binary=isinstance(data, bytes)))
        operator.recv(timeout=5 * UNIT)
        message = operator.get()

        assert message is not None
        assert Result.read(message).state == "error"
        assert ask(operator, "ping").value == "pong"
        assert component.outcome.is_pending(0)


@pytest.mark.parametrize("order", ["quit", "restart"])
def test_a_component_ends_when_it_is_commanded_to(operator: Messenger, order: str) -> None:
    with running() as component:
        result = ask(operator, order)

        assert component.outcome.result() == order
    assert (result.state, result.command) == ("success", order)
    assert component.worker.life == ["start", "stop"]


@pytest.mark.parametrize("job", ["message", "command"])
def test_a_component_that_works_is_not_deaf_to_commands(operator: Messenger, job: str) -> None:
    with running() as component:
        operator.put("worker", granule(1, "long") if job == "message" else Command(command="stall").message())
        assert component.worker.began.wait(5 * UNIT)

        assert ask(operator, "status").value["in_hand"] == (job == "message")
        component.worker.may_end.set()
        if job == "command":
            assert operator.get(5 * UNIT) is not None
            operator.accept()


def test_no_message_is_accepted_before_it_is_handled_however_many_there_are(operator: Messenger) -> None:
    with running() as component, Messenger("sender", nameservers="localhost") as sender:
        operator.put("worker", granule(0, "long"))
        assert component.worker.began.wait(5 * UNIT)
        trackers = [messenger.put("worker", granule(1)) for messenger in (operator, sender) for _ in range(150)]
        with Messenger("observer", nameservers="localhost") as observer:
            eventually(lambda: ask(observer, "status").value["in_hand"] == 301)

        assert {tracker.state for tracker in trackers} == {"pending"}
        component.worker.may_end.set()
        assert {tracker.wait(5 * UNIT) for tracker in trackers} == {"accepted"}


def test_calls_are_answered(operator: Messenger) -> None:
    with running(), RpcClient(operator, timeout=5 * UNIT) as client:
        worker = client.proxy("worker")

        assert worker.area("euro4") == {"name": "euro4", "by": "worker"}
        with pytest.raises(LookupError, match="mars"):
            worker.area("mars")


def test_ending_lets_a_job_come_to_its_end(operator: Messenger) -> None:
    with running() as component:
        job = operator.put("worker", granule(1, "long"))
        waiting = operator.put("worker", granule(2))
        assert component.worker.began.wait(5 * UNIT)

        component.runner.stop()
        assert component.outcome.is_pending()
        assert ask(operator, "status").value["state"] == "ending"
        component.worker.may_end.set()

        assert job.wait(5 * UNIT) == "accepted"
        assert component.outcome.result() == "quit"
    assert component.worker.done == [1]
    assert waiting.state != "accepted"


@pytest.mark.parametrize(("drain_timeout", "orders"), [(0.1, 1), (100, 2)])
def test_a_job_that_takes_too_long_is_left_to_the_next_one(
    publisher: Publisher, journal: MemoryJournal, drain_timeout: float, orders: int
) -> None:
    with running(shared="group", drain_timeout=drain_timeout) as component:
        eventually(journal.consumers)
        publisher.send(granule(1, "long"))
        assert component.worker.began.wait(5 * UNIT)

        for _ in range(orders):
            component.runner.stop()

        assert component.outcome.result() == "quit"
        with running("next", shared="group") as follower:
            assert follower.worker.began.wait(5 * UNIT)


def test_a_retry_is_given_up_when_the_component_ends(operator: Messenger) -> None:
    with running(middleware=[{"retry": {"delay": 1000}}]) as component:
        job = operator.put("worker", granule(1, "bad"))
        eventually(lambda: ask(operator, "status").value["failed"] == {"fail": 1})

        assert component.end() == "quit"
    assert job.state != "accepted"
