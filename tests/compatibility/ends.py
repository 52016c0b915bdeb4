"""Ends of conversations as processes: this version or a released one, each in the same isolated discovery."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.compatibility.peer import pack, unpack
from tests.compatibility.releases import REPOSITORY, Release
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

__all__ = ["End", "Site"]

_SCRIPT = Path(__file__).with_name("peer.py")
_ASYNCIO_SCRIPT = Path(__file__).with_name("asyncio_peer.py")
_CALL_TIMEOUT = 20 * UNIT


class End:
    """A process that does what it is called for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self._call(name, arguments)

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"name": name, "arguments": arguments}, default=pack), file=self._process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_CALL_TIMEOUT):
                raise TimeoutError(f"{name} took more than {_CALL_TIMEOUT:g} s")
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}', object_hook=unpack)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


@dataclass
class Site:
    """A place where ends meet: its ports, and how the processes there are started."""

    network: Network
    release: Release
    interpreter: Path
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    processes: ExitStack = field(default_factory=ExitStack)

    def end(self, is_new: bool, **settings: str) -> End:
        """Start a process that can be called."""
        return End(self._start(is_new, [_SCRIPT], settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def asyncio_end(self) -> End:
        """Start such a process of this version whose front ends are those of asyncio."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return End(self._start(True, [_ASYNCIO_SCRIPT], {"advertised_host": "127.0.0.1"}, **pipes))

    def nameserver(self, is_new: bool, *options: str) -> str:
        """Start a nameserver, wait until it listens, and return where to ask it with the site's backend."""
        self._start(is_new, [_SCRIPT, "nameserver", "-v", *options], {}, stdin=subprocess.DEVNULL)
        has_secure_port = self.settings and (is_new or self.release.has_two_nameserver_ports)
        port = self.network.secure_nameserver if has_secure_port else self.network.nameserver
        eventually(lambda: _listens(port), 10 * UNIT)
        return f"tcp://127.0.0.1:{port}" if self.settings else "localhost"

    def _start(
        self, is_new: bool, command: Sequence[str | Path], settings: dict[str, str], **pipes: Any
    ) -> subprocess.Popen[Any]:
        interpreter = sys.executable if is_new else str(self.interpreter)
        log = self.processes.enter_context((self.directory / "log").open("a"))
        process = subprocess.Popen(
            [interpreter, "-P", *map(str, command)],
            env=self._environment(is_new, settings),
            stderr=log,
            **{"stdout": log, **pipes},
        )
        self.processes.callback(_end, process)
        return process

    def _environment(self, is_new: bool, settings: dict[str, str]) -> dict[str, str]:
        values = {
            "nameserver_port": self.network.nameserver,
            "secure_zmq_nameserver_port": self.network.secure_nameserver,
            "broadcast_port": self.network.announcements,
            "address_publish_port": self.network.addresses,
            "multicast_interface": "127.0.0.1",
            **self.settings,
            **settings,
        }
        environment = {f"POSTTROLL_{name.upper()}": str(value) for name, value in values.items()}
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**inherited, **environment, **({"PYTHONPATH": str(REPOSITORY)} if is_new else {})}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[Any]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(3 * UNIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
