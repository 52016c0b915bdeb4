from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from zmq.utils import z85

from posttroll.backends.zmq.zap import Lease, Policy, lease
from tests.fixtures.waiting import UNIT, eventually
from tests.unit.backends.zmq.forking import in_child
from tests.unit.backends.zmq.handshakes import is_let_in

HOST, OTHER_HOST = "10.0.0.1", "10.0.0.2"
KEY, OTHER_KEY = bytes(range(32)), bytes(32)
KEYS = {z85.encode(KEY)}
NOBODY: set[str] = set()


@pytest.mark.parametrize(
    ("policy", "address", "mechanism", "credentials", "refusal"),
    [
        (Policy(), HOST, b"NULL", [], None),
        (Policy(), "", b"NULL", [], None),
        (Policy(), HOST, b"PLAIN", [b"user", b"password"], "mechanism not expected"),
        (Policy(), HOST, b"CURVE", [KEY], "mechanism not expected"),
        (Policy(hosts={HOST}), HOST, b"NULL", [], None),
        (Policy(hosts={HOST}), OTHER_HOST, b"NULL", [], "address not authorized"),
        (Policy(hosts=NOBODY), HOST, b"NULL", [], "address not authorized"),
        (Policy(keys=KEYS), HOST, b"CURVE", [KEY], None),
        (Policy(keys=KEYS), HOST, b"CURVE", [OTHER_KEY], "key not known"),
        (Policy(keys=KEYS), HOST, b"CURVE", [], "no CURVE key"),
        (Policy(keys=KEYS), HOST, b"CURVE", [KEY[:-1]], "no CURVE key"),
        (Policy(keys=KEYS), HOST, b"NULL", [], "no CURVE key"),
        (Policy(keys=KEYS), HOST, b"PLAIN", [KEY, b""], "no CURVE key"),
        (Policy(keys=set()), HOST, b"CURVE", [KEY], "key not known"),
        (Policy(hosts={HOST}, keys=KEYS), HOST, b"CURVE", [KEY], None),
        (Policy(hosts={HOST}, keys=KEYS), OTHER_HOST, b"CURVE", [KEY], "address not authorized"),
        (Policy(hosts={HOST}, keys=KEYS), HOST, b"CURVE", [OTHER_KEY], "key not known"),
    ],
)
def test_a_policy_decides_by_address_mechanism_and_key(
    policy: Policy, address: str, mechanism: bytes, credentials: list[bytes], refusal: str | None
) -> None:
    assert policy.refusal(address, mechanism, credentials) == refusal


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    """Make a context of the test's own."""
    with zmq.Context() as context:
        context.linger = 0
        yield context


@pytest.fixture
def server(context: zmq.Context[Any]) -> Iterator[zmq.Socket[bytes]]:
    """Make a socket that is not bound yet."""
    with context.socket(zmq.PUB) as socket:
        yield socket


def bind(socket: zmq.Socket[bytes], granted: Lease) -> str:
    """Bind under a lease and return the address."""
    socket.zap_domain = granted.domain
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.bind("tcp://127.0.0.1:*")
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))


def authenticators() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "posttroll-authenticator"]


def ask(context: zmq.Context[Any], *request: bytes) -> list[bytes]:
    """Ask the authenticator as libzmq does."""
    with context.socket(zmq.REQ) as socket:
        socket.connect("inproc://zeromq.zap.01")
        socket.send_multipart(request)
        assert socket.poll(int(5000 * UNIT))
        reply: list[bytes] = socket.recv_multipart()
        return reply


def test_who_the_policy_accepts_is_let_in(context: zmq.Context[Any], server: zmq.Socket[bytes]) -> None:
    granted = lease(context, Policy(hosts={"127.0.0.1"}))
    address = bind(server, granted)

    assert is_let_in(address)

    granted.give_back()


def test_who_the_policy_refuses_is_not_let_in_and_told_once_a_minute(
    context: zmq.Context[Any], server: zmq.Socket[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    granted = lease(context, Policy(hosts=NOBODY))
    address = bind(server, granted)

    assert not is_let_in(address)
    assert not is_let_in(address)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "connection from 127.0.0.1 refused: address not authorized (1 times so far)"
    granted.give_back()


def test_nobody_is_let_in_once_the_lease_is_given_back(context: zmq.Context[Any], server: zmq.Socket[bytes]) -> None:
    with_handler = lease(context, Policy())
    granted = lease(context, Policy())
    address = bind(server, granted)
    assert is_let_in(address)

    granted.give_back()
    assert not is_let_in(address)

    with_handler.give_back()
    assert not authenticators()
    assert not is_let_in(address, patience=0.5 * UNIT)  # libzmq does not even say no


def test_each_socket_has_a_policy_of_its_own(context: zmq.Context[Any]) -> None:
    open_lease, closed_lease = lease(context, Policy()), lease(context, Policy(hosts=NOBODY))

    with context.socket(zmq.PUB) as one, context.socket(zmq.PUB) as other:
        assert is_let_in(bind(one, open_lease))
        assert not is_let_in(bind(other, closed_lease))

    open_lease.give_back()
    closed_lease.give_back()


def test_one_thread_serves_a_context_until_its_last_lease_is_given_back(context: zmq.Context[Any]) -> None:
    leases = [lease(context, Policy()) for _ in range(3)]

    for granted in leases:
        assert len(authenticators()) == 1
        granted.give_back()
        granted.give_back()

    assert not authenticators()


def test_another_context_has_another_thread(context: zmq.Context[Any]) -> None:
    with zmq.Context() as other:
        leases = [lease(context, Policy()), lease(other, Policy())]

        assert len(authenticators()) == 2

        for granted in leases:
            granted.give_back()


def test_an_accepted_key_becomes_the_user(context: zmq.Context[Any]) -> None:
    granted = lease(context, Policy(keys=KEYS))

    reply = ask(context, b"1.0", b"7", granted.domain, HOST.encode(), b"", b"CURVE", KEY)

    assert reply == [b"1.0", b"7", b"200", b"OK", z85.encode(KEY), b""]
    granted.give_back()


@pytest.mark.parametrize("domain", [b"", b"global", b"posttroll-0"])
def test_an_unknown_domain_is_refused(context: zmq.Context[Any], domain: bytes) -> None:
    granted = lease(context, Policy())

    reply = ask(context, b"1.0", b"7", domain, HOST.encode(), b"", b"NULL")

    assert reply == [b"1.0", b"7", b"400", b"socket closed", b"", b""]
    granted.give_back()


class Broken:
    """Cannot tell what it contains."""

    def __contains__(self, host: object) -> bool:
        raise OSError("broken")


@pytest.mark.parametrize("request_", [(b"1.0", b"7"), (b"",), (b"1.0", b"7", b"", b"\xff", b"", b"NULL")])
def test_a_malformed_question_is_answered_and_the_next_one_too(
    context: zmq.Context[Any], request_: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    granted = lease(context, Policy())

    assert ask(context, *request_)[2] in (b"400", b"500")

    assert ask(context, b"1.0", b"8", granted.domain, HOST.encode(), b"", b"NULL")[2] == b"200"
    granted.give_back()


def test_a_policy_that_fails_refuses_and_is_told(context: zmq.Context[Any], caplog: pytest.LogCaptureFixture) -> None:
    granted = lease(context, Policy(hosts=Broken()))

    reply = ask(context, b"1.0", b"7", granted.domain, HOST.encode(), b"", b"NULL")

    assert reply == [b"1.0", b"7", b"500", b"internal error", b"", b""]
    assert "authentication failed" in caplog.text
    granted.give_back()


def test_the_thread_ends_with_its_context() -> None:
    context = zmq.Context()
    granted = lease(context, Policy())

    context.term()

    eventually(lambda: not authenticators())
    granted.give_back()


def test_the_child_of_a_fork_can_take_leases_though_the_parent_held_the_lock(context: zmq.Context[Any]) -> None:
    granted = lease(context, Policy())

    def is_served() -> bool:
        with zmq.Context() as own, own.socket(zmq.PUB) as socket:
            own_lease = lease(own, Policy())
            served = is_let_in(bind(socket, own_lease))
            own_lease.give_back()
            return served

    assert in_child(is_served) == "True"
    granted.give_back()
