"""The servers of other systems, on loopback, on free ports, and with a directory of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Service, Unavailable

__all__ = ["SERVERS", "Server", "running"]

_START_TIMEOUT = 60.0
_END_TIMEOUT = 20.0
_STEP = 0.05
# Debian's program of RabbitMQ for everybody insists on its own user and directories.
_PLACES = ("/usr/lib/rabbitmq/bin", *os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin")


@dataclass(frozen=True)
class Server:
    """A program; `command` and `environment` give what it is started with on a port, in a directory."""

    program: str
    scheme: str
    command: Callable[[str, int, Path], list[str]]
    environment: Callable[[int, Path], Mapping[str, str]] = lambda port, directory: {}


def _mosquitto(program: str, port: int, directory: Path) -> list[str]:
    configuration = directory / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n"
    )
    return [program, "-c", str(configuration)]


def _nats(*settings: str) -> Callable[[str, int, Path], list[str]]:
    def command(program: str, port: int, directory: Path) -> list[str]:
        configuration = directory / "nats.conf"
        configuration.write_text(f"listen: 127.0.0.1:{port}\n" + "".join(f"{line}\n" for line in settings))
        return [program, "-c", str(configuration), "-sd", str(directory)]

    return command


def _rabbitmq(program: str, port: int, directory: Path) -> list[str]:
    # Erlang would start a port mapper that outlives it, so here is one that ends with the session.
    return ["/bin/sh", "-c", f"epmd & exec {program}"]


def _rabbitmq_environment(port: int, directory: Path) -> dict[str, str]:
    configuration = directory / "rabbitmq.conf"
    configuration.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\n")
    (directory / "enabled_plugins").write_text("[].\n")
    return {
        "HOME": str(directory),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(_free_port()),
        "RABBITMQ_CONFIG_FILE": str(configuration),
        "RABBITMQ_DIST_PORT": str(_free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
    }


SERVERS = {
    "NATS": Server("nats-server", "nats", _nats()),
    "JetStream": Server("nats-server", "nats", _nats("jetstream: enabled")),
    # Versions before 2.10 do not know this setting, and do not start.
    "JetStream, synced": Server("nats-server", "nats", _nats("jetstream { sync_interval: always }")),
    "Redis": Server(
        "redis-server",
        "redis",
        lambda program, port, directory: [program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""],
    ),
    "MQTT": Server("mosquitto", "mqtt", _mosquitto),
    "RabbitMQ": Server("rabbitmq-server", "amqp", _rabbitmq, _rabbitmq_environment),
}


@contextlib.contextmanager
def running(server: Server) -> Iterator[Service]:
    """Give the server, which is ended afterwards; `Unavailable`."""
    program = shutil.which(server.program, path=os.pathsep.join(_PLACES))
    if program is None:
        raise Unavailable(f"{server.program} is not installed")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="posttroll-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        log = directory / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                server.command(program, port, directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **server.environment(port, directory)},
                start_new_session=True,
            )
        try:
            _wait(process, port, server.program, log)
            yield Service(f"{server.scheme}://127.0.0.1:{port}", process.pid, directory)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, program: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _STEP):
            return
        time.sleep(_STEP)
    lines = log.read_text(errors="replace").split("\n")
    raise Unavailable(f"{program} does not start: {next(filter(None, reversed(lines)), 'it says nothing')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server with what it has started, which is its session."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_END_TIMEOUT)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_END_TIMEOUT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
