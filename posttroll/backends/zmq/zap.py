"""Who may connect: the ZeroMQ Authentication Protocol (RFC 27), answered by one thread for each context.

pyzmq's own authenticator keeps one list of addresses for the whole process and is stopped for all sockets at once;
here each bound socket has a policy of its own, under a domain of its own, until it gives it back. libzmq refuses
everybody while no thread answers, as the sockets enforce their domain.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from posttroll.protocol.drops import Drops
from posttroll.threads import Bell, Worker

__all__ = ["Lease", "Policy", "lease"]

logger = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_numbers = itertools.count(1)
_lock = threading.RLock()  # a signal handler may give a lease back while another one is taken
_authenticators: dict[int, _Authenticator] = {}


class Policy(NamedTuple):
    """What a bound socket asks of those who connect; None asks nothing."""

    hosts: Container[str] | None = None
    keys: Container[bytes] | None = None

    def refusal(self, address: str, mechanism: bytes, credentials: Sequence[bytes]) -> str | None:
        """Return why a client is refused, None if it is let in."""
        if self.hosts is not None and address not in self.hosts:
            return "address not authorized"
        if self.keys is None:
            return None if mechanism == b"NULL" else "mechanism not expected"
        if mechanism != b"CURVE" or not credentials or len(credentials[0]) != 32:
            return "no CURVE key"
        return None if z85.encode(credentials[0]) in self.keys else "key not known"


class _Authenticator:
    """The thread that answers libzmq's questions for one context."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.policies: dict[bytes, Policy] = {}
        self._drops = Drops()
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        try:
            self._socket.bind(_ENDPOINT)
            self._bell = Bell()
        except BaseException:
            self._socket.close()
            raise
        self._worker = Worker("posttroll-authenticator", self._run, self._bell.ring).start()

    def stop(self) -> None:
        """End the thread, which closes its socket."""
        self._worker.stop()
        self._bell.close()

    def answer(self, request: Sequence[bytes]) -> list[bytes]:
        """Return the reply to one request of libzmq's."""
        version, number, domain, address, _, mechanism, *credentials = request
        policy = self.policies.get(domain)
        if policy is None:
            reason: str | None = "socket closed"
        else:
            reason = policy.refusal(address.decode(), mechanism, credentials)
        if reason is None:
            user = z85.encode(credentials[0]) if mechanism == b"CURVE" else b""
            return [version, number, b"200", b"OK", user, b""]
        if self._drops.add(reason, time.monotonic()):
            logger.warning(
                "connection from %s refused: %s (%d times so far)",
                address.decode(),
                reason,
                self._drops.counts[reason],
            )
        return [version, number, b"400", reason.encode(), b"", b""]

    def _run(self, worker: Worker) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._bell.fileno(), zmq.POLLIN)
        with self._socket, contextlib.suppress(zmq.ContextTerminated):
            while not worker.stopping:
                poller.poll()
                self._bell.silence()
                with contextlib.suppress(zmq.Again):
                    while True:
                        self._reply(self._socket.recv_multipart(zmq.NOBLOCK))
            self._socket.unbind(_ENDPOINT)  # closing alone frees it some time later, too late for the next one

    def _reply(self, request: list[bytes]) -> None:
        try:
            reply = self.answer(request)
        except Exception:
            logger.exception("authentication failed")
            reply = [b"1.0", request[1] if len(request) > 1 else b"", b"500", b"internal error", b"", b""]
        self._socket.send_multipart(reply)


class Lease(NamedTuple):
    """A policy in force, under its domain, until it is given back."""

    domain: bytes
    context: zmq.Context[Any]

    def give_back(self) -> None:
        """Let nobody in under this domain any more; the last lease of a context ends its thread."""
        with _lock:
            authenticator = _authenticators.get(id(self.context))
            if authenticator is None or authenticator.policies.pop(self.domain, None) is None:
                return
            if not authenticator.policies:
                del _authenticators[id(self.context)]
                authenticator.stop()


def lease(context: zmq.Context[Any], policy: Policy) -> Lease:
    """Put a policy in force for the sockets of a context that are given the lease's domain."""
    domain = f"posttroll-{next(_numbers)}".encode()
    with _lock:
        authenticator = _authenticators.get(id(context))
        if authenticator is None:
            authenticator = _authenticators[id(context)] = _Authenticator(context)
        authenticator.policies[domain] = policy
    return Lease(domain, context)


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
