"""The beginning and the end of a component; what lies between is in the conformance tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from posttroll.components.component import Component
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import on, request
from posttroll.components.middleware import CountMiddleware
from posttroll.components.runner import Runner
from posttroll.errors import ConfigurationError
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient
from posttroll.testing import memory_bus, patched_subscriber_recv
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually


@pytest.fixture(autouse=True)
def bus() -> Iterator[None]:
    with memory_bus():
        yield


def configured(**items: Any) -> Configuration:
    return Configuration.load({"name": "worker", "timeout": 0.01, **items})


class Failing(Component):
    def start(self) -> None:
        raise RuntimeError("no disk")


class Leaving(Component):
    stopped = False

    @on("file")
    def work(self) -> None:
        """Be there."""

    def stop(self) -> None:
        self.stopped = True


def test_a_component_is_told_who_it_is() -> None:
    component = Runner(Leaving, configured(settings={"colour": "red"}, fingerprint={"site": "Kiruna"})).component

    assert (component.name, component.settings) == ("worker", {"colour": "red"})
    assert (component.fingerprint.kind, component.fingerprint.own) == ("Leaving", {"site": "Kiruna"})


def test_a_module_of_handlers_is_a_component_too() -> None:
    module, done, counts = ModuleType("package.handlers"), threading.Event(), CountMiddleware()
    module.version = "1.5"  # type: ignore[attr-defined]
    module.work = on("file")(lambda component: done.set())  # type: ignore[attr-defined]
    runner = Runner(module, configured(), [counts])

    with in_background(runner.run), Messenger("sender") as sender:
        sender.put("worker", Message("/1b", "file", 1)).wait(5 * UNIT)
        runner.stop()

    assert done.is_set()
    assert sum(counts.done.values()) == 1
    assert (runner.component.fingerprint.kind, runner.component.fingerprint.version) == ("handlers", "1.5")


@pytest.mark.parametrize("target", [dict, "worker", Leaving()])
def test_what_is_no_component_is_refused(target: Any) -> None:
    with pytest.raises(ConfigurationError, match="neither a class derived from Component nor a module"):
        Runner(target, configured())


def test_what_is_wrong_at_the_start_is_raised_and_leaves_nothing_running() -> None:
    with pytest.raises(RuntimeError, match="no disk"):
        Runner(Failing, configured()).run()


def test_an_order_given_before_the_start_counts() -> None:
    runner = Runner(Leaving, configured())
    runner.stop("restart")

    assert runner.run() == "restart"


def test_what_goes_wrong_later_ends_the_component_and_is_raised() -> None:
    def messages() -> Iterator[Message]:
        raise RuntimeError("torn cable")
        yield

    runner = Runner(Leaving, configured())

    with patched_subscriber_recv(messages()), pytest.raises(RuntimeError, match="torn cable"):
        runner.run()
    assert isinstance(runner.component, Leaving)
    assert runner.component.stopped


def test_a_call_that_hangs_does_not_keep_a_component_that_is_told_to_end_again() -> None:
    began, may_end = threading.Event(), threading.Event()

    class Hanging(Component):
        @request("hang")
        def hang(self) -> None:
            began.set()
            may_end.wait(5 * UNIT)

    runner = Runner(Hanging, configured(drain_timeout=100))
    with Messenger("operator") as operator, RpcClient(operator) as client:
        with in_background(runner.run):
            call = client.proxy("worker").hang.start()
            assert began.wait(5 * UNIT)
            runner.stop()
            runner.stop()
        may_end.set()

        assert not call.done()


def test_a_status_tells_of_calls_and_of_who_is_there() -> None:
    began, may_end = threading.Event(), threading.Event()

    class Busy(Component):
        @request("work")
        def work(self) -> None:
            began.set()
            may_end.wait(5 * UNIT)

    runner = Runner(Busy, configured())
    with in_background(runner.run), Messenger("operator") as operator, RpcClient(operator) as client:
        call = client.proxy("worker").work.start()
        assert began.wait(5 * UNIT)
        operator.put("worker", Message("/command", "command", {"command": "status"}))
        message = operator.get(5 * UNIT)
        may_end.set()
        call.result(5 * UNIT)
        runner.stop()

    assert message is not None
    assert message.data["value"]["calls"] == 1
    assert message.data["value"]["peers"] == ["operator"]


def test_commands_are_answered_while_the_component_is_not_ready() -> None:
    may_start = threading.Event()

    class Slow(Component):
        def start(self) -> None:
            may_start.wait(5 * UNIT)

    runner = Runner(Slow, configured())
    with in_background(runner.run), Messenger("operator") as operator:
        operator.put("worker", Message("/command", "command", {"command": "status"}))
        eventually(lambda: operator.recv(timeout=5 * UNIT))
        message = operator.get()
        may_start.set()
        runner.stop()

    assert message is not None
    assert message.data["value"]["state"] == "starting"
