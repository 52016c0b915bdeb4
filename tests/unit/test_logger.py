"""Log records that travel as messages, and the program that writes them down."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from posttroll.errors import ConfigurationError
from posttroll.logger import (
    COLOR_SEQ,
    COLORS,
    LOGGER,
    RESET_SEQ,
    ColoredFormatter,
    Logger,
    PytrollFormatter,
    PytrollHandler,
)
from posttroll.message import Message
from posttroll.publisher import Publish, Publisher
from posttroll.testing import memory_bus, patched_publisher
from tests.fixtures.nameservers import running_nameserver
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

PROGRAM = [sys.executable, "-P", "-c", "import sys; from posttroll.logger import run; sys.exit(run())"]


def record(level: int = logging.WARNING, name: str = "chain.reader", text: str = "hello %s") -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, ("you",), None)


def test_a_record_becomes_the_text_of_a_message() -> None:
    message = Message.decode(PytrollFormatter("[%(levelname)s] %(message)s", "%Y").format(record()))

    assert (message.subject, message.type, message.data) == ("log/WARNING/chain.reader", "log.warning", "hello you")


@pytest.mark.parametrize(
    ("level", "name", "subject", "type"),
    [
        (15, "reader", "log/Level_15/reader", "log.level_15"),
        (logging.INFO, "my reader", "log/INFO/my_reader", "log.info"),
    ],
)
def test_names_with_blanks_make_valid_subjects(level: int, name: str, subject: str, type: str) -> None:
    message = Message.decode(PytrollFormatter().format(record(level, name)))

    assert (message.subject, message.type) == (subject, type)


@contextmanager
def handled_by(handler: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("chain.handled")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        handler.close()


def test_the_handler_publishes_records() -> None:
    with patched_publisher() as sent, handled_by(PytrollHandler("log_publisher")) as logger:
        logger.error("oh %d", 1)

    assert [Message.decode(text).data for text in sent] == ["oh 1"]


def test_a_formatter_may_be_given_to_the_handler() -> None:
    with patched_publisher() as sent, handled_by(PytrollHandler("log_publisher")) as logger:
        logger.handlers[0].setFormatter(PytrollFormatter("%(message)s", "%Y"))
        logger.error("oh")

    assert Message.decode(sent[0]).subject == "log/ERROR/chain.handled"


def test_a_record_that_cannot_be_sent_does_not_hurt_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with patched_publisher(), handled_by(PytrollHandler("log_publisher")) as logger:
        logger.error("%d", "no number")

    assert "no number" in capsys.readouterr().err


@pytest.mark.parametrize("name", COLORS)
def test_the_names_of_the_usual_levels_are_coloured(name: str) -> None:
    line = ColoredFormatter("%(levelname)s|%(message)s").format(record(getattr(logging, name)))

    assert line == f"{COLOR_SEQ % (30 + COLORS[name])}{name}{RESET_SEQ}|hello you"


def test_other_levels_and_other_handlers_get_the_plain_name() -> None:
    formatter = ColoredFormatter("%(levelname)s")
    warning = record()

    formatter.format(warning)

    assert warning.levelname == "WARNING"
    assert formatter.format(record(15)) == "Level 15"
    assert ColoredFormatter("%(levelname)s", use_color=False).format(warning) == "WARNING"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG, logger=LOGGER.name)
    return lambda: [(entry.levelname, entry.getMessage()) for entry in caplog.records if entry.name == LOGGER.name]


def test_messages_are_logged_at_the_level_of_their_type(lines: Callable[[], list[tuple[str, str]]]) -> None:
    messages = [
        Message("log/WARNING/a", "log.warning", "careful"),
        Message("/a", "file", {"a": 1}),
        Message("/a", "file", "01", binary=True),
        Message("/a", "log.odd", "text"),
    ]
    with memory_bus(), Publish("reader") as publisher:
        collector = Logger().start()
        try:
            assert publisher.wait_for_subscriber("", 5 * UNIT)
            for message in messages:
                publisher.send(message)
            eventually(lambda: len(lines()) == len(messages))
        finally:
            collector.stop()

    sender = messages[0].sender
    times = [str(message.time.replace(tzinfo=None)) for message in messages]
    assert lines() == [
        ("WARNING", f"log/WARNING/a {sender} careful {times[0]}"),
        ("DEBUG", f"/a {sender} file {{'a': 1}} {times[1]}"),
        ("DEBUG", f"/a {sender} file [binary] {times[2]}"),
        ("DEBUG", f"/a {sender} log.odd text {times[3]}"),
    ]


def test_a_collector_can_be_stopped_twice_and_before_its_start() -> None:
    collector = Logger()
    collector.stop()
    collector.log()

    with memory_bus():
        collector.start()
        collector.stop()
        collector.stop()


def test_the_port_given_is_that_of_the_address_feed(network: Network, free_port: int) -> None:
    with closing(Publisher(f"tcp://127.0.0.1:{free_port}").start()) as feed:
        collector = Logger("127.0.0.1", free_port).start()
        try:
            assert feed.wait_for_subscriber("/address", 5 * UNIT)
        finally:
            collector.stop()


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="address_publish_port"):
        Logger("localhost", 70_000).start()


@contextmanager
def program(network: Network, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    settings = {
        "POSTTROLL_NAMESERVER_PORT": str(network.nameserver),
        "POSTTROLL_ADDRESS_PUBLISH_PORT": str(network.addresses),
    }
    command = [*PROGRAM, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **settings}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_program_logs_what_is_published_until_a_signal(network: Network, end: signal.Signals) -> None:
    with running_nameserver(), Publish("reader") as publisher, program(network, "-v", "-s", "127.0.0.1") as process:
        assert publisher.wait_for_subscriber("", 10 * UNIT)
        publisher.send(Message("/a", "info", "text"))
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(end)
        farewell, rest = process.communicate(timeout=5 * UNIT)

    assert re.match(r"\[\S+ \S+ DEBUG *\] /a \S+ info text ", line), "colours are for terminals"
    assert "pytroll/logger" in farewell
    assert (process.returncode, rest) == (0, "")


def test_the_program_logs_to_a_file(network: Network, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_nameserver(), Publish("reader") as publisher, program(network, "-r", str(log)) as process:
        assert publisher.wait_for_subscriber("", 10 * UNIT)
        publisher.send(Message("/a", "info", "not in the log without -v"))
        publisher.send(Message("/a", "log.error", "oh"))
        eventually(lambda: "oh" in log.read_text())
        process.terminate()
        process.communicate(timeout=5 * UNIT)

    assert "-v" not in log.read_text()


def test_the_program_ends_at_once_while_there_is_no_nameserver(network: Network) -> None:
    with program(network) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        process.communicate(timeout=5 * UNIT)

    assert "does not answer" in line
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["-r", "/nowhere/log"], 1, "/nowhere/log"),
        (["-p", "70000"], 1, "address_publish_port"),
        (["-p", "x"], 2, "-p"),
        (["-x"], 2, "-x"),
    ],
)
def test_an_operators_mistake_is_told_in_one_line(arguments: list[str], status: int, complaint: str) -> None:
    command = [*PROGRAM, *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=20 * UNIT, check=False)

    assert outcome.returncode == status
    assert complaint in outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr
