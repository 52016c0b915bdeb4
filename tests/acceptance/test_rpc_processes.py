"""Calls between programs that are killed, frozen and cut off in the middle of one: answered, or said not to be."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient
from tests.acceptance.hosts import opened_network
from tests.acceptance.processes import Process, Site
from tests.acceptance.strangers import Stranger, request_payload
from tests.fixtures.hostile import RawPeer, no_leaks
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT

ANSWERED_WITHIN = 10 * UNIT
PINGS = {"connection_heartbeat_interval": 0.3, "connection_heartbeat_timeout": 1.0}
KIBIBYTE = 2**10
MEBIBYTE = 2**20

pytestmark = pytest.mark.timeout(90)


class Service:
    """A server called ``server`` and those who call it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._record = site.directory / "executions"
        self._lives = 0

    def server(self, *arguments: str, site: Site | None = None, **settings: object) -> Process:
        """Run the server, one life after the other, which is waited for."""
        self._lives += 1
        own = ["serve_calls.py", "server", str(self._record), "--life", f"life{self._lives}"]
        return (site or self._site).program(*own, *arguments, **settings)

    def caller(self, *arguments: str, name: str = "caller", site: Site | None = None, **settings: object) -> Process:
        """Run a caller."""
        return (site or self._site).program("call.py", name, "server", *arguments, **settings)

    def executions(self) -> Counter[str]:
        """Return how often each piece of work was begun."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return Counter(token for what, token, _ in map(str.split, lines) if what == "begun")


def _ask(caller: Process, method: str, *arguments: object, **options: object) -> None:
    caller.tell(json.dumps({"method": method, "arguments": arguments, "options": options}))


def _answer(caller: Process, method: str, timeout: float = ANSWERED_WITHIN) -> str:
    return " ".join(caller.expect_word(method, timeout))


@pytest.fixture
def service(site: Site) -> Service:
    """Give a service."""
    return Service(site)


@pytest.fixture
def nameserver(site: Site) -> Process:
    """Run the nameserver through which all find each other."""
    return site.nameserver()


@pytest.mark.usefixtures("nameserver")
def test_a_call_waits_for_its_peer_to_appear(service: Service) -> None:
    caller = service.caller()
    _ask(caller, "echo", "early")
    caller.expect_ready()

    service.server()

    assert _answer(caller, "echo") == 'returned "early"'


@pytest.mark.usefixtures("nameserver")
def test_an_idempotent_call_is_repeated_when_its_peer_is_killed_in_the_middle(service: Service) -> None:
    server, caller = service.server(), service.caller()
    _ask(caller, "work", "token", 1.5, idempotent=True)
    server.expect_word("begun")

    server.kill()
    service.server()

    assert _answer(caller, "work") == 'returned "life2"'
    assert service.executions() == {"token": 2}


@pytest.mark.usefixtures("nameserver")
def test_another_call_is_said_to_be_interrupted_and_is_not_run_again(service: Service) -> None:
    server, caller = service.server(), service.caller()
    _ask(caller, "work", "token", 60)
    server.expect_word("begun")

    server.kill()
    service.server().expect_ready()

    assert _answer(caller, "work").startswith("raised CallInterrupted")
    assert service.executions() == {"token": 1}


@pytest.mark.usefixtures("nameserver")
def test_of_many_calls_none_is_run_twice_and_none_is_without_an_end_when_the_peer_is_killed_again_and_again(
    service: Service,
) -> None:
    server, caller = service.server(), service.caller()
    answers = []
    for number in range(80):
        _ask(caller, "work", f"token{number}", 0.05)
        if number >= 8:
            answers.append(_answer(caller, "work"))
        if number in (20, 40, 60):
            server.kill()
            server = service.server()

    answers += [_answer(caller, "work") for _ in range(8)]

    returned = [answer for answer in answers if answer.startswith("returned")]
    interrupted = [answer for answer in answers if answer.startswith("raised CallInterrupted")]
    assert len(returned) + len(interrupted) == 80
    assert len(returned) >= 20
    assert max(service.executions().values()) == 1


@pytest.mark.usefixtures("nameserver")
def test_a_peer_told_to_end_finishes_the_call_under_way(service: Service) -> None:
    server, caller = service.server(), service.caller()
    _ask(caller, "work", "token", 1.0)
    server.expect_word("begun")

    server.signal(15)

    assert _answer(caller, "work") == 'returned "life1"'
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("seconds", "settings", "arguments"),
    [
        pytest.param(0.7, PINGS, [], id="too short to be noticed"),
        pytest.param(4.0, PINGS, [], id="until the connection is given up"),
        pytest.param(4.0, {}, ["--silence", "2"], id="until the peer counts as gone"),
    ],
)
def test_a_call_is_answered_though_the_network_is_cut_in_the_middle(
    tmp_path: Path, seconds: float, settings: dict[str, object], arguments: list[str]
) -> None:
    with opened_network(tmp_path, {}) as lan:
        near, far = lan.host(), lan.host()
        service = Service(near)
        near.nameserver()
        server = service.server(*arguments, **settings)
        caller = service.caller("--nameservers", near.address, *arguments, site=far, **settings)
        _ask(caller, "work", "token", 1.0, idempotent=True)
        server.expect_word("begun")

        far.cut_off()
        threading.Event().wait(seconds)
        far.heal()

        assert _answer(caller, "work", 2 * ANSWERED_WITHIN) == 'returned "life1"'


@pytest.mark.usefixtures("nameserver")
def test_the_handler_of_a_killed_caller_is_told_in_the_end(service: Service) -> None:
    server, caller = service.server(), service.caller()
    _ask(caller, "wait", "token", timeout=3)
    server.expect_word("waiting")

    caller.kill()

    server.expect_word("cancelled", 3 + ANSWERED_WITHIN)


@pytest.mark.usefixtures("nameserver")
def test_a_caller_killed_in_the_middle_is_no_loss_to_others(service: Service) -> None:
    server, killed, other = service.server(), service.caller(), service.caller(name="other")
    for number in range(100):
        _ask(killed, "work", f"token{number}", 0.2)
    server.expect_word("begun")

    killed.kill()
    _ask(other, "echo", "still there")

    assert _answer(other, "echo") == 'returned "still there"'


def test_callers_that_vanish_leave_nothing_but_a_little_memory_for_a_minute(
    service: Service, nameserver: Process, raw_peer: RawPeer
) -> None:
    server = service.server("--silence", "1")
    port = int(server.expect_ready()[0].rpartition(":")[2])

    def vanish(count: int) -> None:
        for number in range(count):
            socket = raw_peer.dealer(port)
            Stranger(socket).give("requests", [request_payload("echo", number, timeout=0.5)])
            socket.close(linger=1000)

    vanish(100)
    with no_leaks(server.pid, memory=1000 * 12 * KIBIBYTE):
        vanish(1000)

    caller = service.caller()
    _ask(caller, "echo", "still there")
    assert _answer(caller, "echo") == 'returned "still there"'
    assert nameserver.is_running()


def test_a_server_does_not_grow_with_calls(service: Service) -> None:
    server = service.server("--no-nameserver")
    (address,) = server.expect_ready()
    with Messenger("friend", listen=False, nameservers=False) as messenger:
        office = RpcClient(messenger).proxy(address, "office")
        for _ in range(1000):
            office.echo("warm")

        with no_leaks(server.pid, memory=4 * MEBIBYTE):
            for number in range(2000):
                assert office.echo(number) == number


@pytest.mark.usefixtures("nameserver")
def test_both_ends_call_each_other_at_the_same_time(service: Service) -> None:
    service.server()
    callers = [service.caller(name=f"caller{number}") for number in range(2)]
    count = 100

    for caller in callers:
        for number in range(count):
            _ask(caller, "ask_back", number)

    for caller in callers:
        answers = {_answer(caller, "ask_back", 2 * ANSWERED_WITHIN) for _ in range(count)}
        assert answers == {f"returned {number}" for number in range(count)}


@pytest.mark.usefixtures("nameserver")
def test_a_caller_whom_nobody_can_connect_to_is_answered_and_called_back(service: Service) -> None:
    service.server()
    caller = service.caller("--behind-nat")

    _ask(caller, "ask_back", "hidden")

    assert _answer(caller, "ask_back") == 'returned "hidden"'


def test_the_key_of_who_calls_is_seen_by_the_handler(site: Site, service: Service, keys: Keys) -> None:
    site.settings.update({"backend": "secure_zmq", **keys.settings()})
    site.nameserver()
    service.server()
    caller = service.caller()

    _ask(caller, "key")

    assert _answer(caller, "key") == f'returned "{keys.public_text("client")}"'
