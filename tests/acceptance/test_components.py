"""Components as processes: commanded, ended, killed, and started anew with other code."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from posttroll.components import Command, Result
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.ns import get_pub_address
from posttroll.publisher import NoisyPublisher
from posttroll.settings import config
from posttroll.subscriber import Subscribe
from tests.acceptance.processes import PROGRAMS, ROOT, Process, Site
from tests.fixtures.waiting import UNIT, eventually

FOUND_WITHIN = 10 * UNIT
LONG = 2.0
TOO_LONG = 60.0

pytestmark = pytest.mark.timeout(120)


class Chain:
    """A publisher of files in this process, and components that work on them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.program = site.directory / "working.py"
        shutil.copy(PROGRAMS / "working.py", self.program)
        site.nameserver("--no-multicast")
        get_pub_address("", timeout=10 * UNIT)
        self.journal = MemoryJournal()
        self.files = NoisyPublisher("files", nameservers="localhost", journal=self.journal).start()
        self.operator = Messenger("operator", nameservers="localhost").start()

    def configuration(self, text: str = "", seconds: float = LONG) -> Path:
        file = self.site.directory / "worker.yaml"
        usual = f"""\
            name: worker
            services: files
            shared: workers
            nameservers: localhost
            publish_topic: /2a
            middleware: []
            settings: {{seconds: {seconds}}}
        """
        file.write_text(textwrap.dedent(usual) + text)
        return file

    def worker(self, name: str = "worker", text: str = "", seconds: float = LONG) -> Process:
        """Run a worker that is ready, and attached to what the files' publisher keeps for the group."""
        process = self.site.python(str(self.program), str(self.configuration(text, seconds)), name)
        process.expect_ready()
        self.ask("ping", name)
        eventually(self.journal.consumers, FOUND_WITHIN)
        return process

    def ask(self, command: str, name: str = "worker") -> Result:
        self.operator.put(name, Command(command=command).message())
        self.operator.recv(timeout=FOUND_WITHIN)
        message = self.operator.get()
        assert message is not None
        self.operator.accept(message)  # else a component that ends waits for that
        return Result.read(message)

    def publish(self, number: int, kind: str = "file") -> None:
        self.files.send(Message("/1b/viirs", kind, {"number": number}))

    def close(self) -> None:
        self.operator.stop()
        self.files.stop()


@pytest.fixture
def chain(site: Site) -> Iterator[Chain]:
    with config.set(**site.settings), closing(Chain(site)) as chain:
        yield chain


def test_a_component_answers_and_quits_when_it_is_commanded_to(chain: Chain) -> None:
    worker = chain.worker()

    assert chain.ask("ping").value == "pong"
    assert chain.ask("status").value["state"] == "running"
    assert chain.ask("quit").state == "success"
    assert worker.wait() == 0
    assert worker.lines[-1] == "stopped"


def test_a_result_is_published_under_the_components_name(chain: Chain) -> None:
    chain.worker()
    with Subscribe("worker", "/2a", nameserver="localhost", timeout=FOUND_WITHIN) as subscriber:
        chain.publish(1)
        message = next(subscriber.recv(timeout=FOUND_WITHIN))

    assert message is not None
    assert message.data == {"number": 1, "by": "worker"}


def test_sigterm_lets_a_job_come_to_its_end_and_leaves_the_rest_to_the_next_one(chain: Chain) -> None:
    worker = chain.worker()
    chain.publish(1, "long")
    worker.expect_word("began")
    chain.publish(2)

    worker.signal(signal.SIGTERM)

    assert worker.wait(LONG + 5 * UNIT) == 0
    assert worker.lines[-2:] == ["done 1 first", "stopped"]
    assert chain.worker("next").expect_word("done") == ["2", "first"]


def test_a_job_that_takes_too_long_is_given_to_another_worker(chain: Chain) -> None:
    worker = chain.worker("worker", "drain_timeout: 0.2\n", TOO_LONG)
    chain.publish(1, "long")
    worker.expect_word("began")

    worker.signal(signal.SIGTERM)

    assert worker.wait(10 * UNIT) == 0
    assert "handlers are still at work after 0.2 s" in worker.errors
    assert chain.worker("next", "drain_timeout: 0\n").expect_word("began") == ["1", "True"]


def test_a_second_signal_ends_it_at_once(chain: Chain) -> None:
    worker = chain.worker("worker", "drain_timeout: 100\n", TOO_LONG)
    chain.publish(1, "long")
    worker.expect_word("began")

    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGTERM)

    assert worker.wait(10 * UNIT) == 0


def test_a_restart_is_a_new_life_of_the_process_with_the_code_of_now(chain: Chain) -> None:
    worker = chain.worker()
    before = chain.ask("version")
    chain.program.write_text(chain.program.read_text().replace('"first"', '"second"'))

    chain.ask("restart")
    worker.expect_word("stopped")
    worker.expect_ready()

    after = chain.ask("version")
    assert (before.value, after.value) == ("first", "second")
    assert after.fingerprint["version"] == "second"
    assert after.fingerprint["pid"] == before.fingerprint["pid"] == worker.pid
    assert after.fingerprint["start_time"] > before.fingerprint["start_time"]
    chain.publish(1)
    assert worker.expect_word("done") == ["1", "second"]


def test_a_restart_is_done_once(chain: Chain) -> None:
    worker = chain.worker()
    for _ in range(3):
        chain.ask("restart")
        worker.expect_ready()

    chain.ask("quit")

    assert worker.wait() == 0
    assert worker.lines.count("ready") == 4


def test_what_a_killed_worker_was_at_is_done_by_another_one_of_its_group(chain: Chain) -> None:
    doomed = chain.worker("doomed")
    chain.publish(1, "long")
    doomed.expect_word("began")
    other = chain.worker("other")

    doomed.kill()

    assert other.expect_word("began", FOUND_WITHIN) == ["1", "True"]
    assert other.expect_word("done", FOUND_WITHIN) == ["1", "first"]


def test_a_handler_that_raises_leaves_the_component_running_and_its_message_is_set_aside(chain: Chain) -> None:
    worker = chain.worker()

    chain.publish(1, "bad")
    chain.publish(2)

    assert worker.expect_word("done", FOUND_WITHIN) == ["2", "first"]
    eventually(chain.journal.set_aside, FOUND_WITHIN)
    assert chain.ask("status").value["failed"] == {"fail": 10}


def test_a_component_is_run_by_the_name_of_its_class(chain: Chain) -> None:
    places = f"PYTHONPATH={ROOT}:{chain.site.directory}"
    command = [sys.executable, "-m", "posttroll.components", "working:Worker", str(chain.configuration())]
    worker = chain.site.run("env", places, *command, "--name", "by_name")

    worker.expect_ready()

    assert chain.ask("ping", "by_name").fingerprint["kind"] == "Worker"
    assert chain.ask("restart", "by_name").state == "success"
    worker.expect_ready()
    assert chain.ask("ping", "by_name").value == "pong"


def test_a_service_manager_learns_that_a_component_is_ready_and_that_it_ends(chain: Chain, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notices:
        notices.settimeout(FOUND_WITHIN)
        notices.bind(str(tmp_path / "notices"))
        place = f"NOTIFY_SOCKET={tmp_path / 'notices'}"
        worker = chain.site.run("env", place, sys.executable, str(chain.program), str(chain.configuration()))

        assert notices.recv(100) == b"READY=1"
        worker.signal(signal.SIGTERM)
        assert notices.recv(100) == b"STOPPING=1"
    assert worker.wait() == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("worker: 2\n", "unknown item 'worker' in {}; the nearest known one is workers"), ("workers: 0\n", "{}: workers")],
)
def test_a_wrong_configuration_is_told_in_a_line(site: Site, text: str, complaint: str) -> None:
    file = site.directory / "worker.yaml"
    file.write_text(f"name: worker\n{text}")

    worker = site.program("working.py", str(file))

    assert worker.wait(10 * UNIT) == 1
    assert worker.errors.startswith(f"working.py: {complaint.format(file)}")
    assert len(worker.errors.splitlines()) == 1
