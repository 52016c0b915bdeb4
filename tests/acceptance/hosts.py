"""Hosts with a network between them: network namespaces whose interfaces hang on one bridge."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import Site

_networks = itertools.count()


class Network:
    """A switch without hosts at first, in a namespace of its own."""

    def __init__(self, directory: Path, settings: Mapping[str, object]) -> None:
        self._directory = directory
        self._settings = settings
        self._name = f"posttroll-{os.getpid()}-{next(_networks)}"
        self._hosts: list[Host] = []
        self._namespaces: list[str] = []
        self._switch = self.add_namespace("switch")
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def add_namespace(self, name: str) -> str:
        """Make a namespace with loopback; return its full name."""
        namespace = f"{self._name}-{name}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def host(self, is_up: bool = True) -> Host:
        """Add a host, connected or not yet."""
        number = len(self._hosts) + 1
        namespace, port = self.add_namespace(f"host{number}"), f"port{number}"
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        directory = self._directory / f"host{number}"
        directory.mkdir()
        host = Host(directory, self._settings, namespace, self._switch, port, f"10.99.0.{number}")
        self._hosts.append(host)
        if is_up:
            host.come_up()
        return host

    def close(self) -> None:
        """End all that runs on the hosts, and take the network down."""
        for host in self._hosts:
            host.close()
        for namespace in self._namespaces:
            _ip("netns", "delete", namespace)


class Host(Site):
    """A host to run programs on."""

    def __init__(
        self, directory: Path, settings: Mapping[str, object], namespace: str, switch: str, port: str, address: str
    ) -> None:
        super().__init__(directory, settings, ["ip", "netns", "exec", namespace])
        self.address = address
        self._namespace = namespace
        self._switch = switch
        self._port = port

    def come_up(self) -> None:
        """Give the interface its address, and the routes."""
        _ip("-n", self._namespace, "link", "set", "eth0", "up")
        _ip("-n", self._namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self._namespace, "route", "add", "default", "dev", "eth0")

    def go_down(self) -> None:
        """Take address and routes away, as when the interface is unplugged and configured away."""
        _ip("-n", self._namespace, "address", "flush", "dev", "eth0")
        _ip("-n", self._namespace, "link", "set", "eth0", "down")

    def cut_off(self) -> None:
        """Lose all that goes to and from the host, without a sign of it on either side."""
        _ip("-n", self._switch, "link", "set", self._port, "nomaster")

    def heal(self) -> None:
        """Connect again."""
        _ip("-n", self._switch, "link", "set", self._port, "master", "bridge")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


@contextmanager
def opened_network(directory: Path, settings: Mapping[str, object]) -> Iterator[Network]:
    """Give a network; skip the test where none can be made."""
    if shutil.which("ip") is None:
        pytest.skip("the command ip is not there")
    try:
        network = Network(directory, settings)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces on this machine: {error.stderr.strip()}")
    try:
        yield network
    finally:
        network.close()
