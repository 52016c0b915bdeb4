"""The commands: what they say, how they end, and what they leave behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.processes import FOUND_WITHIN, Process, Site
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually

FAREWELL = "Thanks for using pytroll/nameserver. See you soon on www.pytroll.org!"
GENERATE_KEYS = "import sys; from posttroll.backends.zmq import generate_keys; sys.exit(generate_keys())"
ENDS = pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])


def _await_failure(process: Process, *words: str) -> str:
    """Wait for an end with a status that is not 0 and one line of error with these words; return it."""
    assert process.wait(10 * UNIT) != 0
    *logged, line = process.errors.splitlines()
    assert all(told.startswith(("[WARNING: ", "[ERROR: ")) for told in logged), process.errors
    assert process.lines == []
    for word in words:
        assert word in line
    return line


def _is_answering(port: int, host: str = "127.0.0.1") -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.fixture
def serving(site: Site) -> Process:
    """Run a nameserver with a log on standard error, and wait until it is ready."""
    process = site.nameserver()
    eventually(lambda: "nameserver answers" in process.errors, FOUND_WITHIN)
    return process


def test_the_help_of_the_nameserver_names_all_its_options(site: Site) -> None:
    process = site.nameserver("-h")

    assert process.wait() == 0
    for option in ("-d", "--daemon", "-l", "--log", "-v", "--verbose", "--no-multicast", "-L", "--local-only"):
        assert option in process.output
    assert process.errors == ""


@ENDS
def test_the_nameserver_ends_cleanly_and_says_farewell(serving: Process, end: signal.Signals) -> None:
    start = time.monotonic()

    serving.signal(end)

    assert serving.wait(1.5 * UNIT) == 0
    assert time.monotonic() - start < 1.5 * UNIT
    assert serving.lines[-1] == FAREWELL
    assert "Traceback" not in serving.errors


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2])
@ENDS
def test_the_nameserver_can_be_ended_at_any_moment_of_its_start(site: Site, end: signal.Signals, delay: float) -> None:
    # Not measured, as the measuring handles the signal from the very start.
    unmeasured = ["env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START"]
    process = site.run(*unmeasured, sys.executable, "-m", "posttroll.ns")
    eventually(lambda: _handles(process.pid, signal.SIGTERM), FOUND_WITHIN)
    time.sleep(delay)

    process.signal(end)

    assert process.wait(2 * UNIT) == 0, process.errors
    assert process.lines[-1] == FAREWELL
    assert "Traceback" not in process.errors


def _handles(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


@pytest.mark.parametrize("setting", ["nameserver_port", "address_publish_port"])
@pytest.mark.parametrize("way", [[], ["--no-multicast"]], ids=["multicast", "no-multicast"])
def test_a_port_in_use_is_told_in_one_line(site: Site, setting: str, way: list[str]) -> None:
    port = int(site.settings[setting])
    with closing(socket.create_server(("", port))):
        process = site.nameserver(*way)

        line = _await_failure(process, "nameserver: ", str(port))

    assert "in use" in line
    assert not _is_answering(int(site.settings["nameserver_port"]))


def test_a_registration_port_in_use_is_told_in_one_line(site: Site) -> None:
    port = int(site.settings["broadcast_port"])
    with closing(socket.create_server(("", port))):
        _await_failure(site.nameserver("--no-multicast"), str(port), "in use")


def test_an_announcement_port_in_use_is_told_in_one_line(site: Site) -> None:
    port = int(site.settings["broadcast_port"])
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as holder:
        holder.bind(("", port))

        _await_failure(site.nameserver(), str(port), "in use")


def test_a_second_nameserver_is_refused_and_leaves_the_first_alone(site: Site, serving: Process) -> None:
    _await_failure(site.nameserver(), site.settings["nameserver_port"], "in use")

    assert serving.is_running()
    assert _is_answering(int(site.settings["nameserver_port"]))


SETTINGS = {
    "nameserver_port": "abc",
    "broadcast_port": "70000",
    "address_publish_port": "-1",
    "multicast_interface": "eth0",
    "mc_group": "10.0.0.1",
    "backend": "unsecure_zqm",
    "max_addresses": "0",
    "authorized_announcer_addresses": "no.such.host.invalid",
    "authorized_client_addresses": "no.such.host.invalid",
    "tcp_keepalive": "yes",
}


@pytest.mark.parametrize("arguments", [[], ["--no-multicast"]])
def test_a_backend_that_reaches_no_other_process_is_refused(site: Site, arguments: list[str]) -> None:
    process = site.nameserver(*arguments, backend="memory")

    _await_failure(process, "'memory'", "no other process")


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_bad_setting_is_told_in_one_line_that_names_it(site: Site, setting: str) -> None:
    process = site.nameserver(**{setting: SETTINGS[setting]})

    line = _await_failure(process, SETTINGS[setting])
    assert setting in line or setting == "backend"
    assert not _is_answering(int(site.settings["nameserver_port"]))


@pytest.mark.parametrize("missing", ["server_secret_key_file", "clients_public_keys_directory"])
def test_missing_keys_are_told_in_one_line_that_names_the_setting(site: Site, keys: Keys, missing: str) -> None:
    settings = {name: value for name, value in keys.settings().items() if name != missing}

    _await_failure(site.nameserver(backend="secure_zmq", **settings), missing)


def test_a_key_file_that_is_not_there_is_told_in_one_line_that_names_it(site: Site, keys: Keys) -> None:
    settings = {**keys.settings(), "server_secret_key_file": "/no/such/server.key_secret"}

    _await_failure(site.nameserver(backend="secure_zmq", **settings), "/no/such/server.key_secret")


def test_a_log_that_cannot_be_written_is_told_in_one_line(site: Site) -> None:
    _await_failure(site.nameserver("-l", "/no/such/directory/log"), "/no/such/directory/log")


@pytest.mark.parametrize("arguments", [["--no-multicats"], ["-d", "begin"], ["surplus"], ["-l"]])
def test_a_bad_argument_is_refused_with_the_usage(site: Site, arguments: list[str]) -> None:
    process = site.nameserver(*arguments)

    assert process.wait() == 2
    assert process.errors.startswith("usage: nameserver")
    assert process.errors.splitlines()[-1].startswith("nameserver: error: ")


def test_a_log_file_takes_all_there_is_to_say(site: Site) -> None:
    log = site.directory / "nameserver.log"

    process = site.nameserver("-l", str(log))
    eventually(lambda: log.exists() and "nameserver answers" in log.read_text(), FOUND_WITHIN)
    size = log.stat().st_size
    process.signal(signal.SIGTERM)

    assert process.wait() == 0
    assert log.stat().st_size > size
    assert process.errors == ""
    assert process.lines == [FAREWELL]


@pytest.mark.parametrize(("arguments", "tells"), [([], False), (["-v"], True)])
def test_debug_lines_come_with_verbose_only(site: Site, arguments: list[str], tells: bool) -> None:
    process = site.nameserver(*arguments)
    eventually(lambda: "nameserver answers" in process.errors, FOUND_WITHIN)
    process.signal(signal.SIGTERM)
    process.wait()

    assert ("[DEBUG: " in process.errors) is tells
    assert "[INFO: " in process.errors


@pytest.mark.parametrize(("arguments", "joins"), [([], True), (["--no-multicast"], False)])
def test_without_multicast_no_group_is_joined(site: Site, arguments: list[str], joins: bool) -> None:
    group = f"225.7.{os.getpid() % 251}.{time.monotonic_ns() % 251}"
    process = site.nameserver(*arguments, mc_group=group)
    eventually(lambda: "nameserver answers" in process.errors, FOUND_WITHIN)

    memberships = Path("/proc/net/igmp").read_text()

    assert (socket.inet_aton(group)[::-1].hex().upper() in memberships) is joins


def test_local_only_binds_nothing_where_others_could_reach_it(site: Site) -> None:
    process = site.nameserver("-L")
    eventually(lambda: "nameserver answers" in process.errors, FOUND_WITHIN)
    site.publisher("local").expect_ready()
    with closing(site.program("watch.py")) as watcher:
        watcher.expect(lambda line: line not in ("[]", "silent"), FOUND_WITHIN)

    listening = {local for local, state in _tcp_sockets() if state == "0A"}

    for setting in ("nameserver_port", "address_publish_port"):
        port = int(site.settings[setting])
        assert {host for host, bound in listening if bound == port} == {"127.0.0.1"}


def _tcp_sockets() -> Iterator[tuple[tuple[str, int], str]]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        host, port = local.split(":")
        yield (socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)), state


@pytest.fixture
def notices(site: Site) -> Iterator[socket.socket]:
    """Be the service manager that the site's programs tell their state."""
    path = str(site.directory / "notices")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notices:
        notices.bind(path)
        notices.settimeout(10 * UNIT)
        yield notices


@pytest.mark.parametrize("way", [[], ["--no-multicast"]], ids=["multicast", "no-multicast"])
def test_a_service_manager_is_told_when_all_ports_are_bound_and_when_it_ends(
    site: Site, notices: socket.socket, way: list[str]
) -> None:
    environment = [f"NOTIFY_SOCKET={notices.getsockname()}", sys.executable, "-m", "posttroll.ns", *way]
    process = site.run("/usr/bin/env", *environment)

    assert notices.recv(100) == b"READY=1"

    tcp = ["nameserver_port", "address_publish_port", *["broadcast_port"] * bool(way)]
    assert all(_is_answering(int(site.settings[setting])) for setting in tcp)
    process.signal(signal.SIGTERM)
    assert notices.recv(100) == b"STOPPING=1"
    assert process.wait() == 0


class Daemon:
    """The nameserver in the background."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pid_file = site.directory / "nameserver.pid"

    def __call__(self, action: str, *arguments: str) -> Process:
        """Run the command, and wait for its end."""
        process = self.site.nameserver("-d", action, "--pid-file", str(self.pid_file), *arguments)
        process.wait(15 * UNIT)
        return process

    @property
    def pid(self) -> int:
        """The process id of the one in the background."""
        return int(self.pid_file.read_text())

    def is_answering(self) -> bool:
        """Return whether its port takes connections."""
        return _is_answering(int(self.site.settings["nameserver_port"]))


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """Give the command, and end what it may have left."""
    daemon = Daemon(site)
    yield daemon
    daemon("stop")


def test_it_can_be_started_in_the_background_and_stopped(daemon: Daemon) -> None:
    log = daemon.site.directory / "log"

    started = daemon("start", "-l", str(log))

    assert (started.wait(), started.lines, started.errors) == (0, [], "")
    assert daemon.is_answering()
    pid = daemon.pid
    status = daemon("status")
    assert (status.wait(), status.lines) == (0, [f"running (pid {pid})"])
    stopped = daemon("stop")
    assert (stopped.wait(), stopped.lines, stopped.errors) == (0, [], "")
    assert not daemon.is_answering()
    eventually(lambda: _has_ended(pid))
    assert "nameserver stopped" in log.read_text()
    assert "Traceback" not in log.read_text()


def _has_ended(pid: int) -> bool:
    """Return whether it is gone, or a zombie that nobody collects."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_is_not_there_is_told(daemon: Daemon) -> None:
    status, stopped = daemon("status"), daemon("stop")

    assert (status.wait(), status.lines, status.errors) == (1, ["not running"], "")
    assert (stopped.wait(), stopped.lines, stopped.errors) == (1, [], "not running\n")


def test_a_second_start_is_refused_and_leaves_the_first_alone(daemon: Daemon) -> None:
    daemon("start")
    pid = daemon.pid

    second = daemon("start")

    _await_failure(second, "already running", str(pid))
    assert daemon.pid == pid
    assert daemon.is_answering()


def test_a_restart_gives_another_process(daemon: Daemon) -> None:
    daemon("start")
    first = daemon.pid

    restarted = daemon("restart")

    assert (restarted.wait(), restarted.errors) == (0, "")
    assert daemon.pid != first
    assert daemon.is_answering()


def test_a_restart_starts_what_did_not_run(daemon: Daemon) -> None:
    assert daemon("restart").wait() == 0
    assert daemon.is_answering()


@pytest.mark.parametrize("content", ["{own}", "999999999", "", "rubbish"])
def test_a_stale_pid_file_hinders_nothing(daemon: Daemon, content: str) -> None:
    daemon.pid_file.write_text(content.format(own=os.getpid()))

    assert daemon("status").wait() == 1
    assert daemon("stop").wait() == 1
    assert daemon("start").wait() == 0
    assert daemon.is_answering()


def test_one_that_was_killed_can_be_started_again(daemon: Daemon) -> None:
    daemon("start")
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not daemon.is_answering())

    assert daemon("status").wait() == 1
    assert daemon("start").wait() == 0


def test_a_start_that_fails_says_why_and_leaves_nothing(daemon: Daemon) -> None:
    port = int(daemon.site.settings["nameserver_port"])
    with closing(socket.create_server(("", port))):
        started = daemon("start")

    _await_failure(started, "nameserver: ", str(port), "in use")
    assert daemon("status").wait() == 1


@pytest.mark.parametrize("log", ["/no/such/directory/log"])
def test_a_start_with_a_bad_log_says_so(daemon: Daemon, log: str) -> None:
    _await_failure(daemon("start", "-l", log), log)


def test_keys_are_written_for_their_owner_alone_and_never_overwritten(site: Site) -> None:
    arguments = ("-c", GENERATE_KEYS, "host", "-d", str(site.directory))
    secret = site.directory / "host.key_secret"

    made = site.python(*arguments)

    assert (made.wait(), made.lines, made.errors) == (0, [], "")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    content = secret.read_text()
    again = site.python(*arguments)
    _await_failure(again, "host.key", "--force")
    assert secret.read_text() == content
    forced = site.python(*arguments, "--force")
    assert (forced.wait(), forced.errors) == (0, "")
    assert secret.read_text() != content


@pytest.mark.parametrize("directory", ["/no/such/directory", "/proc"])
def test_keys_that_cannot_be_written_are_told_in_one_line(site: Site, directory: str) -> None:
    _await_failure(site.python("-c", GENERATE_KEYS, "host", "-d", directory), directory)


@pytest.fixture
def collecting(site: Site) -> Callable[..., Process]:
    """Return how to run the logger beside a nameserver."""
    site.nameserver()
    return lambda *arguments: site.python("-m", "posttroll.logger", *arguments)


@ENDS
def test_the_logger_ends_cleanly_and_says_farewell(collecting: Callable[..., Process], end: signal.Signals) -> None:
    process = collecting()
    eventually(lambda: _blocks(process.pid, signal.SIGTERM), FOUND_WITHIN)

    process.signal(end)

    assert process.wait(2.5 * UNIT) == 0
    assert "www.pytroll.org" in process.lines[-1]
    assert "Traceback" not in process.errors


def _blocks(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_the_logger_writes_the_records_of_others_at_their_level_and_messages_when_verbose(
    site: Site, collecting: Callable[..., Process]
) -> None:
    log = site.directory / "collected.log"
    plain, verbose = collecting("-r", str(log)), collecting("-v")
    site.publisher("counted")
    site.program("log.py", "water is rising").expect_ready()

    eventually(lambda: log.exists() and "water is rising" in log.read_text(), FOUND_WITHIN)
    eventually(lambda: "water is rising" in verbose.errors and "/counter" in verbose.errors, FOUND_WITHIN)

    assert "WARNING" in log.read_text()
    assert "/counter" not in log.read_text()
    assert plain.errors == ""


def test_the_logger_tells_a_log_that_cannot_be_written_in_one_line(collecting: Callable[..., Process]) -> None:
    _await_failure(collecting("-r", "/no/such/directory/log"), "pytroll-logger: ", "/no/such/directory/log")


def test_the_logger_tells_a_bad_setting_in_one_line(site: Site) -> None:
    process = site.python("-m", "posttroll.logger", address_publish_port="abc")

    _await_failure(process, "pytroll-logger: ", "address_publish_port", "abc")


def test_the_logger_waits_for_a_nameserver_that_comes_later(site: Site) -> None:
    process = site.python("-m", "posttroll.logger", "-v")
    site.publisher("counted").expect_ready()

    site.nameserver()

    eventually(lambda: "/counter" in process.errors, FOUND_WITHIN)
