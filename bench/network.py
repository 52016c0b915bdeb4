"""A discovery of its own for a measurement: multicast on loopback, free ports, and a nameserver."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from dataclasses import dataclass

from bench.harness import Child, Contender, Failure

__all__ = ["Network", "start_nameserver"]

_BELOW_THE_SYSTEMS_OWN = range(15_000, 20_000)
_START_TIMEOUT = 10.0
_STEP = 0.002


@dataclass(frozen=True)
class Network:
    """The ports of one discovery."""

    nameserver: int
    secure_nameserver: int
    announcements: int
    addresses: int

    @classmethod
    def free(cls) -> Network:
        """Return one that nobody else uses."""
        candidates = random.sample(_BELOW_THE_SYSTEMS_OWN, 200)
        return cls(*[port for port in candidates if _is_free(port)][:4])

    def settings(self) -> dict[str, str]:
        """Return the environment of the processes that belong to it."""
        values = {
            "nameserver_port": self.nameserver,
            "secure_zmq_nameserver_port": self.secure_nameserver,
            "broadcast_port": self.announcements,
            "address_publish_port": self.addresses,
            "multicast_interface": "127.0.0.1",
            "advertised_host": "127.0.0.1",
        }
        return {f"POSTTROLL_{name.upper()}": str(value) for name, value in values.items()}


def start_nameserver(contender: Contender, network: Network, *options: str, **settings: str) -> Child:
    """Return a nameserver that listens, which has to be closed; `Failure`."""
    nameserver = Child(contender, "nameserver", *options, **network.settings(), **settings)
    deadline = time.monotonic() + _START_TIMEOUT
    while not _listens(network.nameserver):
        if time.monotonic() > deadline:
            nameserver.close()
            raise Failure(f"the nameserver of {contender.name} does not listen")
        time.sleep(_STEP)
    return nameserver


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with contextlib.closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
