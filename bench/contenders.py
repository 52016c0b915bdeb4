"""Who is measured: this package, released versions, the bare sockets, and other systems."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq.auth

from bench import environments
from bench.harness import Contender, Service, Unavailable
from bench.servers import SERVERS, running

__all__ = [
    "ASYNCIO",
    "AWAITED",
    "AWAITED_ORJSON",
    "BROKERS",
    "CALL_PEERS",
    "DROPPING",
    "DURABLE_PEERS",
    "FED_RAW",
    "FROM_RELEASED",
    "JETSTREAM",
    "JETSTREAM_SYNCED",
    "LISTENER",
    "MEMORY",
    "ORJSON",
    "OURS",
    "PEERS",
    "POLLED",
    "QUORUM",
    "RABBITMQ",
    "RAW",
    "RAW_DROPPING",
    "RELEASED",
    "RELEASED_LISTENER",
    "RELEASED_SECURE",
    "RPYC",
    "SECURE",
    "SYNCED",
    "SYSTEMS",
    "TO_RELEASED",
    "ZENOH",
    "ZERORPC",
    "beside",
    "made",
]

OURS = "this package"
DROPPING = "this package, dropping"
SECURE = "this package, secure"
SYNCED = "this package, synced"
MEMORY = "this package, memory"
LISTENER = "this package, ListenerContainer"
ASYNCIO = "this package, asyncio"
RELEASED = "released"
RELEASED_SECURE = "released, secure"
RELEASED_LISTENER = "released, ListenerContainer"
FROM_RELEASED = "released to this package"
TO_RELEASED = "this package to released"
RAW = "pyzmq"
RAW_DROPPING = "pyzmq, dropping"
ORJSON = "pyzmq + orjson"
POLLED = "pyzmq + orjson, polled"
AWAITED = "zmq.asyncio + json"
AWAITED_ORJSON = "zmq.asyncio + orjson"
FED_RAW = "pyzmq to this package"
ZENOH = "Zenoh"
RABBITMQ = "RabbitMQ"
QUORUM = "RabbitMQ, quorum"
JETSTREAM = "JetStream"
JETSTREAM_SYNCED = "JetStream, synced"
RPYC = "RPyC"
ZERORPC = "zerorpc"
BROKERS = ("NATS", "Redis", "MQTT", RABBITMQ)
PEERS = (*BROKERS, ZENOH)
DURABLE_PEERS = (JETSTREAM, JETSTREAM_SYNCED, RABBITMQ, QUORUM)
CALL_PEERS = (RPYC, ZERORPC)
SYSTEMS = tuple(dict.fromkeys((*PEERS, *DURABLE_PEERS, *CALL_PEERS)))

# A publisher that waits for its subscribers; by default it drops what they have no room for.
_BLOCKING = {"POSTTROLL_WHEN_FULL": "block"}


class _Place(contextlib.ExitStack):
    """Where contenders are made: it ends what they need, of which servers may be needed by several."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: dict[str, Service] = {}

    def server(self, name: str) -> Service:
        """Return a server, started if it is not running here; `Unavailable`."""
        if name not in self._servers:
            self._servers[name] = self.enter_context(running(SERVERS[name]))
        return self._servers[name]


Maker = Callable[[_Place], Contender]


def _ours(place: _Place) -> Contender:
    return Contender(OURS, environments.own(), "posttroll", environment=_BLOCKING)


def _released(place: _Place) -> Contender:
    return Contender(RELEASED, environments.released(), "posttroll")


def _bare(name: str, ends: str, when_full: str) -> Maker:
    return lambda place: Contender(name, environments.own(), ends, options={"when_full": when_full})


def _pair(name: str, sender: Maker, receiver: Maker) -> Maker:
    return lambda place: _changed(sender(place), name, receiver=receiver(place))


def _variant(name: str, maker: Maker, **changes: object) -> Maker:
    return lambda place: _changed(maker(place), name, **changes)


def _secure(name: str, maker: Maker) -> Maker:
    def make(place: _Place) -> Contender:
        contender = maker(place)
        directory = place.enter_context(tempfile.TemporaryDirectory(prefix="posttroll-bench-"))
        return _changed(contender, name, environment={**contender.environment, **_keys(Path(directory))})

    return make


def _keys(directory: Path) -> dict[str, str]:
    """Make keys; return the settings of a process that is both server and client."""
    clients = directory / "clients"
    clients.mkdir()
    server_public, server_secret = zmq.auth.create_certificates(directory, "server")
    client_public, client_secret = zmq.auth.create_certificates(directory, "client")
    Path(client_public).rename(clients / "client.key")
    for secret in (server_secret, client_secret):
        Path(secret).chmod(0o600)
    return {
        "POSTTROLL_BACKEND": "secure_zmq",
        "POSTTROLL_SERVER_PUBLIC_KEY_FILE": str(server_public),
        "POSTTROLL_SERVER_SECRET_KEY_FILE": str(server_secret),
        "POSTTROLL_CLIENT_SECRET_KEY_FILE": str(client_secret),
        "POSTTROLL_CLIENTS_PUBLIC_KEYS_DIRECTORY": str(clients),
    }


def _broker(name: str, server: str, ends: str, **options: str) -> Maker:
    def make(place: _Place) -> Contender:
        interpreter, service = environments.clients(), place.server(server)
        return Contender(name, interpreter, ends, options={"address": service.address, **options}, server=service)

    return make


def _library(name: str) -> Maker:
    return lambda place: Contender(name, environments.clients(), name.lower())


def _changed(contender: Contender, name: str, **changes: object) -> Contender:
    return dataclasses.replace(contender, name=name, **changes)


_MAKERS: dict[str, Maker] = {
    OURS: _ours,
    RELEASED: _released,
    DROPPING: _variant(DROPPING, _ours, environment={}),
    SECURE: _secure(SECURE, _ours),
    SYNCED: _variant(SYNCED, _ours, environment={**_BLOCKING, "POSTTROLL_JOURNAL_SYNC": "full"}),
    MEMORY: _variant(MEMORY, _ours, environment={"POSTTROLL_BACKEND": "memory"}),
    RELEASED_SECURE: _secure(RELEASED_SECURE, _released),
    LISTENER: _variant(LISTENER, _ours, ends="listener"),
    ASYNCIO: _variant(ASYNCIO, _ours, ends="posttroll_asyncio"),
    RELEASED_LISTENER: _variant(RELEASED_LISTENER, _released, ends="listener"),
    FROM_RELEASED: _pair(FROM_RELEASED, _released, _ours),
    TO_RELEASED: _pair(TO_RELEASED, _ours, _released),
    ORJSON: _bare(ORJSON, "zmq_orjson", "block"),
    POLLED: _bare(POLLED, "zmq_polled", "block"),
    AWAITED: _bare(AWAITED, "zmq_asyncio", "block"),
    AWAITED_ORJSON: _bare(AWAITED_ORJSON, "zmq_asyncio_orjson", "block"),
    RAW: _bare(RAW, "zmq_raw", "block"),
    RAW_DROPPING: _bare(RAW_DROPPING, "zmq_raw", "drop"),
    FED_RAW: _pair(FED_RAW, _bare(RAW, "zmq_raw", "block"), _ours),
    **{name: _broker(name, name, name.lower()) for name in BROKERS},
    **{name: _library(name) for name in (ZENOH, *CALL_PEERS)},
    QUORUM: _broker(QUORUM, RABBITMQ, "rabbitmq_durable", queue_type="quorum"),
    **{name: _broker(name, name, "jetstream") for name in (JETSTREAM, JETSTREAM_SYNCED)},
}


def made(names: Iterable[str], stack: contextlib.ExitStack, tell: Callable[[str], object]) -> list[Contender]:
    """Make those contenders, with what they need, which the stack ends; tell which are not to be had here."""
    wanted, contenders, place = set(names), [], stack.enter_context(_Place())
    for name, maker in _MAKERS.items():
        if name in wanted:
            try:
                contenders.append(maker(place))
            except Unavailable as reason:
                tell(f"{name} is left out: {reason}")
    return contenders


def beside(description: str) -> Contender:
    """Return what is measured beside this package, from ``NAME=INTERPRETER[:DIRECTORY]``; `ValueError`."""
    name, separator, place = description.partition("=")
    interpreter, _, path = place.partition(":")
    if not (name and separator and interpreter):
        raise ValueError(f"{description!r} is not NAME=INTERPRETER[:DIRECTORY]")
    if not Path(interpreter).is_file():
        raise ValueError(f"there is no interpreter {interpreter!r}")
    if path and not Path(path, "posttroll").is_dir():
        raise ValueError(f"there is no package in {path!r}")
    checkout = str(Path(path).absolute()) if path else ""
    return Contender(name, Path(interpreter).absolute(), "posttroll", checkout, _BLOCKING, like=OURS)
