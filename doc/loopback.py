"""A network for the examples: loopback only, on ports that nobody else uses."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

from posttroll.ns import NameServer, get_pub_address
from posttroll.settings import config
from posttroll.threads import Worker

_PORTS = ("nameserver_port", "secure_zmq_nameserver_port", "broadcast_port", "address_publish_port")
_BELOW_THE_SYSTEMS_OWN = range(15_000, 32_000)


def private_settings() -> dict[str, object]:
    """Return the settings of such a network."""
    ports = dict(zip(_PORTS, free_ports(), strict=False))
    return {"multicast_interface": "127.0.0.1", "advertised_host": "127.0.0.1"} | ports


def free_ports() -> Iterator[int]:
    """Give ports that nobody uses, and that the system gives to nobody else."""
    return filter(_is_free, random.sample(_BELOW_THE_SYSTEMS_OWN, 500))


def private_environment() -> dict[str, str]:
    """Return the environment of programs on such a network."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("POSTTROLL_")}
    return others | {f"POSTTROLL_{name.upper()}": str(value) for name, value in private_settings().items()}


@contextmanager
def private_network() -> Iterator[None]:
    """Let what is made meanwhile live on such a network, with a nameserver, and keep its journals apart."""
    with tempfile.TemporaryDirectory() as journals, config.set(**private_settings(), journal_directory=journals):
        nameserver = NameServer()
        worker = Worker("nameserver", lambda _: nameserver.run(), wake=nameserver.stop).start()
        try:
            get_pub_address("")
            yield
        finally:
            worker.stop()


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
