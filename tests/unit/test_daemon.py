import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from posttroll.daemon import PidFile, complaint, log_file, notify, reopen, silence_stderr, start_detached, stop_holder
from posttroll.errors import ConfigurationError, TimedOut
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

HOLD = """
import signal, sys
from posttroll.daemon import PidFile, notify, silence_stderr
{before}
with PidFile({path!r}).held():
    notify("READY=1")
    silence_stderr()
    signal.pause()
"""


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[PidFile]:
    """Give a pid file; whoever holds it at the end is killed."""
    pid_file = PidFile(tmp_path / "program.pid")
    yield pid_file
    with suppress(OSError, ConfigurationError):
        if (pid := pid_file.holder()) is not None:
            os.kill(pid, signal.SIGKILL)


def holding(pid_file: PidFile, before: str = "") -> list[str]:
    """Return the command of a program that holds the file until it is ended."""
    return [sys.executable, "-c", HOLD.format(path=str(pid_file.path), before=before)]


def test_a_pid_file_tells_who_holds_it(pid_file: PidFile) -> None:
    assert pid_file.holder() is None

    with pid_file.held():
        assert pid_file.holder() == os.getpid()

    assert pid_file.holder() is None


def test_a_stale_pid_file_fools_nobody(pid_file: PidFile) -> None:
    pid_file.path.write_text("1\n")

    assert pid_file.holder() is None
    assert stop_holder(pid_file) is False
    with pid_file.held():
        assert pid_file.holder() == os.getpid()


def test_a_pid_file_is_held_once(pid_file: PidFile) -> None:
    with (
        pid_file.held(),
        pytest.raises(ConfigurationError, match=f"already running .pid {os.getpid()}"),
        pid_file.held(),
    ):
        pass


def test_a_link_in_place_of_the_pid_file_is_refused(pid_file: PidFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    pid_file.path.symlink_to(victim)

    with pytest.raises(OSError, match="symbolic"), pid_file.held():
        pass
    with pytest.raises(OSError, match="symbolic"):
        pid_file.holder()

    assert victim.read_text() == "precious"


def test_something_else_than_a_file_is_refused(pid_file: PidFile) -> None:
    os.mkfifo(pid_file.path)

    with pytest.raises(ConfigurationError, match="not a file of this user"):
        pid_file.holder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_file_of_another_user_is_refused(pid_file: PidFile) -> None:
    pid_file.path.write_text("1\n")
    os.chown(pid_file.path, 65534, 65534)

    with pytest.raises(ConfigurationError, match="not a file of this user"):
        stop_holder(pid_file)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_is_started_and_stopped(pid_file: PidFile) -> None:
    start_detached(holding(pid_file))
    pid = pid_file.holder()

    assert pid is not None
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    eventually(lambda: {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)} == {os.devnull})
    assert stop_holder(pid_file) is True
    assert pid_file.holder() is None


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_fails_to_start_says_why(pid_file: PidFile) -> None:
    with pytest.raises(ConfigurationError, match=r"^port in use$"):
        start_detached(holding(pid_file, before="sys.exit('port in use')"))
    with pytest.raises(ConfigurationError, match="without a word"):
        start_detached(holding(pid_file, before="sys.exit(1)"))

    assert pid_file.holder() is None


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_is_never_ready_is_ended(pid_file: PidFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttroll.daemon._START_TIMEOUT", 0.3)

    with pytest.raises(TimedOut, match=r"not ready within 0\.3 s"):
        start_detached([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_does_not_end_is_told_of(pid_file: PidFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttroll.daemon._STOP_TIMEOUT", 0.2)
    start_detached(holding(pid_file, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))

    with pytest.raises(TimedOut, match="did not end"):
        stop_holder(pid_file)


@pytest.mark.parametrize("is_abstract", [True, False])
def test_the_service_manager_is_told(is_abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"@posttroll-test-{os.getpid()}" if is_abstract else str(tmp_path / "notices")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if is_abstract else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        notify("READY=1")

        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/no/such/socket"])
def test_without_a_service_manager_nobody_is_told(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify("READY=1")


def test_standard_error_can_be_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    saved = os.dup(2)
    try:
        silence_stderr()
        os.write(2, b"nobody reads this")
    finally:
        os.dup2(saved, 2)
        os.close(saved)

    assert capfd.readouterr().err == ""


@pytest.fixture
def environment(network: Network, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a nameserver on free ports of loopback, with a temporary directory of its own."""
    ports = {
        "NAMESERVER_PORT": network.nameserver,
        "BROADCAST_PORT": network.announcements,
        "ADDRESS_PUBLISH_PORT": network.addresses,
        "MULTICAST_INTERFACE": "127.0.0.1",
    }
    return {**os.environ, "TMPDIR": str(tmp_path), **{f"POSTTROLL_{name}": str(port) for name, port in ports.items()}}


def nameserver(arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Run the program; return its status and what it wrote to standard output and error."""
    command = [sys.executable, "-m", "posttroll.ns", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_nameserver_in_the_background_lives_from_start_to_stop(
    environment: dict[str, str], tmp_path: Path, network: Network
) -> None:
    log = tmp_path / "nameserver.log"
    assert nameserver(["-d", "status"], environment) == (1, "not running\n", "")
    try:
        assert nameserver(["-d", "start", "-l", str(log), "-v"], environment) == (0, "", "")
        pid = PidFile(tmp_path / "nameserver.pid").holder()
        assert nameserver(["-d", "status"], environment) == (0, f"running (pid {pid})\n", "")
        status, _, error = nameserver(["-d", "start"], environment)
        assert (status, error.count("\n")) == (1, 1)
        assert f"already running (pid {pid}" in error

        assert nameserver(["-d", "restart"], environment) == (0, "", "")
        assert PidFile(tmp_path / "nameserver.pid").holder() not in (None, pid)
    finally:
        stopped = nameserver(["-d", "stop"], environment)
    assert stopped == (0, "", "")
    assert nameserver(["-d", "stop"], environment) == (1, "", "not running\n")
    assert f"answers at tcp://*:{network.nameserver}" in log.read_text()


def test_a_nameserver_whose_port_is_in_use_does_not_start_in_the_background(
    environment: dict[str, str], network: Network
) -> None:
    with socket.socket() as other:
        other.bind(("", network.nameserver))
        status, output, error = nameserver(["-d", "start"], environment)

    assert (status, output, error.count("\n")) == (1, "", 1)
    assert str(network.nameserver) in error
    assert nameserver(["-d", "status"], environment)[0] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [[], ["-L", "--no-multicast"]])
def test_a_signal_ends_a_nameserver_cleanly(
    number: signal.Signals, flags: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "notices"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, "-m", "posttroll.ns", *flags],
            env={**environment, "NOTIFY_SOCKET": str(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            start = time.monotonic()
            process.send_signal(number)
            output, error = process.communicate(timeout=30)
        finally:
            process.kill()

        assert time.monotonic() - start < 1.5 * UNIT
        assert manager.recv(100) == b"STOPPING=1"
    assert process.returncode == 0
    assert output == "Thanks for using pytroll/nameserver. See you soon on www.pytroll.org!\n"
    assert "Traceback" not in error


def test_a_log_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "program.log"
    handler = log_file(str(path))
    handler.emit(logging.makeLogRecord({"msg": "before"}))

    path.rename(tmp_path / "old.log")
    reopen(handler)
    handler.emit(logging.makeLogRecord({"msg": "after"}))
    handler.close()

    assert (path.read_text(), (tmp_path / "old.log").read_text()) == ("after\n", "before\n")


def test_a_file_that_cannot_be_opened_is_told_by_its_name() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        log_file("/nonexistent/program.log")

    assert complaint(caught.value) == "cannot open /nonexistent/program.log: No such file or directory"


def test_a_complaint_is_one_line() -> None:
    assert complaint(ConfigurationError("one\n  two")) == "one two"
