"""Components with coroutines as processes, met by blocking publishers and subscribers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from posttroll.components import Command, Result
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.ns import get_pub_address
from posttroll.publisher import NoisyPublisher
from posttroll.rpc import RpcClient
from posttroll.settings import config
from posttroll.subscriber import Subscribe
from tests.acceptance.processes import PROGRAMS, ROOT, Process, Site
from tests.fixtures.waiting import UNIT

FOUND_WITHIN = 10 * UNIT

pytestmark = pytest.mark.timeout(120)


class Chain:
    """A publisher of files and an operator in this process, and a component that works on the files in another."""

    def __init__(self, site: Site) -> None:
        self._site = site
        site.nameserver("--no-multicast")
        get_pub_address("", timeout=10 * UNIT)
        self.files = NoisyPublisher("files", nameservers="localhost").start()
        self.operator = Messenger("operator", nameservers="localhost").start()

    def worker(self, seconds: float, drain_timeout: float = 30) -> Process:
        """Run a component that is ready."""
        file = self._site.directory / "worker.yaml"
        file.write_text(
            "{name: worker, services: files, nameservers: localhost, publish_topic: /2a,"
            f" drain_timeout: {drain_timeout}, settings: {{seconds: {seconds}}}}}"
        )
        places = f"PYTHONPATH={ROOT}:{PROGRAMS}"
        command = [sys.executable, "-m", "posttroll.components", "waiting:Worker", str(file)]
        worker = self._site.run("env", places, *command)
        worker.expect_ready()
        assert self.files.wait_for_subscriber("/1b", FOUND_WITHIN)
        return worker

    def publish(self, kind: str, **data: object) -> None:
        self.files.send(Message("/1b/viirs", kind, data))

    def ask(self, command: str) -> Result:
        self.operator.put("worker", Command(command=command).message())
        self.operator.recv(timeout=FOUND_WITHIN)
        message = self.operator.get()
        assert message is not None
        return Result.read(message)

    def close(self) -> None:
        self.operator.stop()
        self.files.stop()


@pytest.fixture
def chain(site: Site) -> Iterator[Chain]:
    with config.set(**site.settings), closing(Chain(site)) as chain:
        yield chain


def test_a_component_with_coroutines_works_answers_starts_anew_and_ends_when_its_work_is_done(chain: Chain) -> None:
    worker = chain.worker(seconds=0.2)

    with Subscribe("worker", "/2a", nameserver="localhost", timeout=FOUND_WITHIN) as subscriber:
        messages = subscriber.recv(timeout=FOUND_WITHIN)
        chain.publish("file", number=1)
        chain.publish("dataset", numbers=[2, 3])
        chain.publish("plain")
        results = [message.data for _, message in zip(range(4), messages, strict=False) if message is not None]
    with RpcClient(chain.operator, timeout=FOUND_WITHIN) as client:
        doubled = client.proxy("worker").double(4)

    assert results == [{"number": 1, "by": "worker"}, 2, 3, False]
    assert doubled == 8
    before = chain.ask("restart").fingerprint
    worker.expect_ready()
    after = chain.ask("ping").fingerprint
    assert after["pid"] == before["pid"] == worker.pid
    assert after["start_time"] > before["start_time"]

    assert chain.files.wait_for_subscriber("/1b", FOUND_WITHIN)
    chain.publish("long", number=5)
    worker.expect_word("began")
    worker.signal(signal.SIGTERM)

    assert worker.wait(5 * UNIT) == 0
    assert worker.lines[-2:] == ["done 5", "stopped"]


def test_a_second_signal_ends_it_at_once(chain: Chain) -> None:
    worker = chain.worker(seconds=60, drain_timeout=100)
    chain.publish("long", number=1)
    worker.expect_word("began")

    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGTERM)

    assert worker.wait(5 * UNIT) == 0
    assert worker.lines[-1] == "stopped"
    assert "Traceback" not in worker.errors
