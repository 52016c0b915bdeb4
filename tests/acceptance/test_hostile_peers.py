"""Peers that keep no rules: what they say is dropped or refused, nothing of it is run, and others are served."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
import zmq

from posttroll.errors import MethodNotFound
from posttroll.message import Message
from posttroll.messenger import Messenger
from posttroll.protocol import calls, frames
from posttroll.protocol.frames import VERSION, Attach, Attached, Close, Disposition, Flow, Open, Transfer
from posttroll.rpc import RpcClient
from tests.acceptance.processes import Process, Site
from tests.acceptance.strangers import Stranger, message_payload, request_payload
from tests.fixtures.hostile import (
    LOOPBACK,
    ZMTP_GREETING,
    Footprint,
    RawPeer,
    connection,
    no_leaks,
    zmtp_connection,
    zmtp_frame,
)
from tests.fixtures.waiting import UNIT, eventually

AT_ONCE = 2 * UNIT
SILENCE = 2.0
LARGEST = 2**20
NOISE = random.Random(5).randbytes

Answer = calls.Content


class Victim:
    """A program that serves calls, and a friend of it that is served."""

    def __init__(self, process: Process, record: Path, messenger: Messenger) -> None:
        self.process = process
        self.address = process.expect_ready()[0]
        self.port = int(self.address.rpartition(":")[2])
        self._record = record
        self._friend = RpcClient(messenger, timeout=5 * UNIT).proxy(self.address, "office")

    @property
    def executed(self) -> list[str]:
        """What was run."""
        return self._record.read_text().splitlines()

    def serve(self, beside: str = "") -> float:
        """Have the friend served; return how many seconds that took."""
        begin = time.perf_counter()
        assert self._friend.echo(beside) == beside
        return time.perf_counter() - begin


@pytest.fixture
def victim(site: Site) -> Iterator[Victim]:
    """Run the victim; there is no trouble in its log in the end."""
    record = site.directory / "executions"
    own = ["serve_calls.py", "server", str(record), "--no-nameserver", "--silence", str(SILENCE)]
    process = site.program(*own, max_message_size=LARGEST)
    with Messenger("friend", listen=False, nameservers=False) as messenger:
        victim = Victim(process, record, messenger)
        victim.serve()
        yield victim
        victim.serve()
    assert process.is_running()
    assert "Traceback" not in process.errors


@pytest.fixture
def stranger(victim: Victim, raw_peer: RawPeer) -> Stranger:
    """Give a stranger that is connected to the victim."""
    return Stranger(raw_peer.dealer(victim.port), "stranger")


def _head(frame: object, *sizes: object) -> bytes:
    return json.dumps([[frame], sizes]).encode() + b"\n"


OPEN = {"frame": "open", "container": "stranger", "life": "life", "version": VERSION, "number": 1}
FLOW = {"frame": "flow", "receiver": "receiver", "session": 1, "sender": "sender", "number": 1}
TRANSFER = {"frame": "transfer", "receiver": "r", "session": 1, "sender": "s", "delivery": 0, "sequence": 1}

BAD_BUNDLES = {
    "empty": b"",
    "one byte": b"?",
    "random bytes": NOISE(1000),
    "a megabyte of zeros": bytes(10**6),
    "not UTF-8": b'[[{"frame": "\xff\xfe"}], []]\n',
    "no list": b"{}\n",
    "an empty list": b"[]\n",
    "no end of the line": json.dumps([[OPEN], []]).encode()[:-1],
    "deep JSON": b"[" * 100_000,
    "a frame of another kind": _head({**OPEN, "frame": "hello"}),
    "a frame without a kind": _head({}),
    "a frame that is a number": _head(7),
    "a name that is empty": _head({**OPEN, "container": ""}),
    "a name that is long": _head({**OPEN, "container": "x" * 10_000}),
    "a name that is none": _head({**OPEN, "container": None}),
    "a version that is text": _head({**OPEN, "version": "1"}),
    "a negative number": _head({**FLOW, "session": -1}),
    "a number beyond all": _head({**FLOW, "limit": 2**63}),
    "a number of 100,000 digits": _head(FLOW).replace(b'"session": 1', b'"session": 1' + b"0" * 100_000),
    "no number": _head({**FLOW, "limit": float("nan")}),
    "many queues": _head({**OPEN, "queues": {str(number): "requests" for number in range(10_000)}}),
    "many outcomes": _head({**FLOW, "frame": "disposition", "outcomes": {key: ["accepted"] for key in range(10**5)}}),
    "many frames": json.dumps([[FLOW] * 20_000, []]).encode(),
    "a payload of negative size": _head(TRANSFER, -1),
    "less payload than it says": _head(TRANSFER, 10) + b"x" * 9,
    "more payload than it says": _head(TRANSFER, 10) + b"x" * 11,
    "a transfer without payload": _head(TRANSFER),
    "a payload without transfer": _head(FLOW, 3) + b"xyz",
    "a payload larger than all": _head(TRANSFER, 2**62),
}


@pytest.mark.parametrize("is_open", [False, True], ids=["at first", "in a conversation"])
def test_what_is_no_bundle_of_frames_is_dropped(victim: Victim, stranger: Stranger, is_open: bool) -> None:
    if is_open:
        stranger.open()
        stranger.hear(Open)

    for name, bundle in BAD_BUNDLES.items():
        stranger.send(bundle)
        victim.serve(beside=name)

    stranger.open()
    assert stranger.hear(Open).container == "server"
    assert "dropped what came from" in victim.process.errors


def test_a_bundle_in_parts_is_dropped(victim: Victim, raw_peer: RawPeer) -> None:
    socket = raw_peer.dealer(victim.port)
    stranger = Stranger(socket)
    bundle = frames.encode([(Open("stranger", stranger.life, 99, 1, awaits=True), None)])

    for parts in ([bundle[:20], bundle[20:]], [b"", bundle], [bundle, b""], [bundle] * 1000):
        socket.send_multipart(parts)
        victim.serve(beside="parts")

    stranger.open()
    assert stranger.hear(Open).container == "server"


@pytest.mark.parametrize("version", [0, VERSION + 1, 10**9, -1])
def test_who_speaks_another_version_is_told_so(victim: Victim, stranger: Stranger, version: int) -> None:
    stranger.open(version=version)

    assert stranger.hear(Close).reason == f"version {VERSION} of the protocol is spoken here, not {version}"
    eventually(lambda: f"spoken here, not {version}" in victim.process.errors)


class Host:
    """A socket that a program has connected to, as it has something to send there."""

    def __init__(self, site: Site, router: zmq.Socket[bytes]) -> None:
        self._router = router
        self.address = f"tcp://{LOOPBACK}:{router.bind_to_random_port(f'tcp://{LOOPBACK}')}"
        own = ["send_addressed.py", "sender", self.address, "1", str(site.directory / "sent")]
        self.guest = site.program(*own, "--nameservers", "127.0.0.1:1")
        self._guest_id, _ = router.recv_multipart()

    def say(self, frame: frames.Frame | Open | Close) -> None:
        """Say something to the guest."""
        self._router.send_multipart([self._guest_id, frames.encode([(frame, None)])])

    def hear(self) -> list[object]:
        """Return the frames that the guest says next."""
        return [frame for frame, _ in frames.decode_conversation(self._router.recv_multipart()[1])]


@pytest.fixture
def host(site: Site, raw_peer: RawPeer) -> Host:
    return Host(site, raw_peer.socket(zmq.ROUTER, rcvtimeo=int(5000 * UNIT)))


def test_who_is_connected_to_and_speaks_another_version_is_told_so(host: Host) -> None:
    host.say(Open("other", "life", VERSION + 1, 1))

    reason = f"version {VERSION} of the protocol is spoken here, not {VERSION + 1}"
    eventually(lambda: Close(reason) in host.hear())
    eventually(lambda: f"{host.address} do not talk: version" in host.guest.errors)


def test_who_refuses_to_talk_is_not_talked_to_and_that_is_logged(host: Host) -> None:
    host.say(Close("version 7 is spoken here"))

    eventually(lambda: "do not talk: version 7 is spoken here" in host.guest.errors)


def test_nothing_is_taken_from_who_has_not_said_who_it_is(victim: Victim, stranger: Stranger) -> None:
    link = "receiver", 1, "sender"
    stranger.say(Attach(*link, "stranger", []), Flow(*link, 1, 0, 100))
    stranger.say(Attached(*link, "queue"), (Transfer(*link, 0, 1), request_payload("work", "hidden")))
    victim.serve(beside="nobody")

    assert victim.executed == []


def test_one_connection_has_one_name(victim: Victim, stranger: Stranger) -> None:
    stranger.open()
    stranger.hear(Open)

    stranger.name = "friend"
    stranger.open()

    assert stranger.hear(Close).reason == "the connection is that of stranger already"


def test_who_pretends_to_be_the_victim_is_not_talked_to(victim: Victim, stranger: Stranger) -> None:
    stranger.open()
    stranger.life = stranger.hear(Open).life

    impostor = Stranger(stranger.socket, "server")
    impostor.life = stranger.life
    impostor.open()

    victim.serve(beside="itself")


def test_a_bundle_beyond_all_sizes_costs_the_connection(victim: Victim, raw_peer: RawPeer) -> None:
    stranger = Stranger(raw_peer.dealer(victim.port))
    with no_leaks(victim.process.pid):
        stranger.open()
        stranger.hear(Open)
        stranger.send(_head(TRANSFER, 10 * LARGEST) + bytes(10 * LARGEST))
        victim.serve(beside="much")


def test_a_message_that_is_too_large_is_rejected(victim: Victim, stranger: Stranger) -> None:
    stranger.give("requests", [request_payload("work", "x" * 2 * LARGEST)])

    assert _outcomes(stranger)[0].state == "rejected"
    assert victim.executed == []


def _outcomes(stranger: Stranger, timeout: float = AT_ONCE) -> dict[int, frames.Outcome]:
    return stranger.hear(Disposition, timeout).outcomes


def test_more_than_there_is_credit_for_is_not_taken(victim: Victim, stranger: Stranger) -> None:
    count = 5000

    stranger.give("requests", [request_payload("work", "much", signal=True) for _ in range(count)])

    eventually(lambda: len(victim.executed) >= 100)
    victim.serve(beside="too much")
    assert stranger.hear(Flow, AT_ONCE).limit < count / 2


class Prober:
    """Asks for what a proxy would not ask for."""

    def __init__(self, messenger: Messenger, address: str) -> None:
        self._messenger = messenger
        self._address = address
        self._replies = messenger.open_target("replies", lambda: None)

    def ask(self, thing: str, method: str) -> Answer:
        """Call something; return the answer."""
        request = calls.Request(thing, method, [], {}, timeout=5.0)
        message = Message(calls.SUBJECT, *calls.encode(request))
        self._messenger.put(self._address, message, target="requests")
        reply = eventually(self._replies.take, AT_ONCE)
        self._replies.accept(reply)
        return calls.decode(reply.type, reply.data)


UNKNOWN = [
    ("office", "nothing"),
    ("office", ""),
    ("office", "_hidden"),
    ("office", "secret"),
    ("office", "public_number"),
    ("office", "__init__"),
    ("office", "__class__"),
    ("office", "__dict__"),
    ("office", "echo.__globals__"),
    ("office", "echo.__call__"),
    ("office.echo", "__call__"),
    ("", "echo"),
    ("", "print"),
    ("", "eval"),
    ("builtins", "eval"),
    ("os", "system"),
    ("__main__", "Office"),
    ("Office", "echo"),
    ("nobody", "echo"),
    ("ofﬁce", "echo"),
    ("office\0", "echo"),
    ("office/../office", "echo"),
]


def test_what_is_not_declared_cannot_be_called(victim: Victim) -> None:
    with Messenger("prober", listen=False, nameservers=False) as messenger:
        prober = Prober(messenger, victim.address)

        for thing, method in UNKNOWN:
            answer = prober.ask(thing, method)
            assert isinstance(answer, calls.Failure), (thing, method)
            assert answer.error == MethodNotFound.__name__, (thing, method)

    assert victim.executed == []


GOOD = {"object": "office", "method": "work", "arguments": ["bomb"], "keywords": {}, "timeout": 5.0}


def _request(data: Any, **pieces: str) -> bytes:
    """Return a request with the words in capitals replaced by pieces of JSON."""
    text = json.dumps(data)
    for word, piece in pieces.items():
        text = text.replace(f'"{word}"', piece)
    header = Message(calls.SUBJECT, "request", {}).encode().rpartition(" ")[0]
    return message_payload(f"{header} {text}".encode())


BOMBS = {
    "no message": message_payload(b"bomb"),
    "no properties": b"bomb",
    "deep properties": Message(calls.SUBJECT, "request", GOOD).encode().encode() + b"\n" + b"[" * 100_000,
    "another type": message_payload(Message(calls.SUBJECT, "result", {"value": 1}).encode().encode()),
    "no data": message_payload(Message(calls.SUBJECT, "request").encode().encode()),
    "a list": _request([GOOD]),
    "deep arguments": _request({**GOOD, "arguments": "DEEP"}, DEEP="[" * 100_000 + "]" * 100_000),
    "deeper objects": _request({**GOOD, "arguments": ["DEEP"]}, DEEP='{"a":' * 50_000 + "1" + "}" * 50_000),
    "no end of it": _request({**GOOD, "arguments": "DEEP"}, DEEP="[" * 500_000),
    "many arguments": _request({**GOOD, "arguments": [0] * 100_000}),
    "many keywords": _request({**GOOD, "keywords": dict.fromkeys(map(str, range(60_000)))}),
    "a number of many digits": _request({**GOOD, "arguments": ["HUGE"]}, HUGE="9" * 500_000),
    "a timeout of many digits": _request({**GOOD, "timeout": "HUGE"}, HUGE="9" * 500_000),
    "a timeout that is infinite": _request({**GOOD, "timeout": "HUGE"}, HUGE="1e400"),
    "a timeout that is none": _request({**GOOD, "timeout": float("nan")}),
    "a timeout that is text": _request({**GOOD, "timeout": "5"}),
    "a timeout below zero": _request({**GOOD, "timeout": -5}),
    "a window below zero": _request({**GOOD, "window": -1}),
    "a method that is a list": _request({**GOOD, "method": ["work"]}),
    "a name of a megabyte": _request({**GOOD, "method": "x" * 900_000}),
    "unknown encoder": _request({**GOOD, "encoder": "pickle"}),
    "arguments in text": _request(
        {**GOOD, "arguments": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAVmYWxzZZSFlFKULg=="}
    ),
    "arguments that are not taken": _request({**GOOD, "keywords": {"x": 1}}),
}


def test_bombs_do_not_go_off(victim: Victim, raw_peer: RawPeer) -> None:
    with no_leaks(victim.process.pid):
        for name, payload in BOMBS.items():
            with closing(raw_peer.dealer(victim.port)) as socket:
                Stranger(socket).give("requests", [payload])
                assert socket.poll(AT_ONCE * 1000), name
                victim.serve(beside=name)

    assert victim.executed == []


LARGE_VALUES = {
    "a deep list": "[" * 200 + "]" * 200,
    "many keys": json.dumps(dict.fromkeys(map(str, range(50_000)))),
    "many numbers": json.dumps([0] * 200_000),
    "much text": json.dumps("x" * 900_000),
    "not a number": "[NaN, Infinity, -Infinity]",
    "half a character": '"\\ud800"',
    "the same key again": '{"a": 1, "a": 2}',
}


def test_large_and_odd_values_delay_nobody(victim: Victim, raw_peer: RawPeer) -> None:
    with no_leaks(victim.process.pid, memory=128 * 2**20):
        for name, value in LARGE_VALUES.items():
            with closing(raw_peer.dealer(victim.port)) as socket:
                payload = _request({**GOOD, "method": "echo", "arguments": ["VALUE"]}, VALUE=value)
                Stranger(socket).give("requests", [payload] * 5)
                assert victim.serve(beside=name) < AT_ONCE, name


def test_who_goes_away_at_any_moment_leaves_nothing_behind(victim: Victim, raw_peer: RawPeer) -> None:
    def say_nothing() -> None:
        connection(victim.port).close()

    def greet() -> None:
        with closing(connection(victim.port)) as stranger:
            stranger.sendall(ZMTP_GREETING)

    def open_a_conversation() -> None:
        Stranger(socket).open()

    def offer() -> None:
        stranger = Stranger(socket)
        stranger.open({stranger.life: "requests"})
        stranger.hear(Attach)

    def ask() -> None:
        Stranger(socket).give("requests", [request_payload("echo", "nobody", timeout=0.5)])

    def ask_for_much() -> None:
        Stranger(socket).give("requests", [request_payload("echo", "x" * 1000, timeout=0.5)] * 100)

    victim.serve()
    with no_leaks(victim.process.pid):
        for go in (say_nothing, greet, open_a_conversation, offer, ask, ask_for_much):
            for _ in range(20):
                socket = raw_peer.dealer(victim.port)
                go()
                socket.close(linger=1000)
            victim.serve(beside=go.__name__)


def test_many_who_only_listen_are_no_burden(victim: Victim, raw_peer: RawPeer) -> None:
    with no_leaks(victim.process.pid):
        strangers = [Stranger(raw_peer.dealer(victim.port)) for _ in range(300)]
        for stranger in strangers:
            stranger.open({stranger.life: "requests"})
        for stranger in strangers:
            stranger.hear(Attach)

        assert victim.serve(beside="300 others") < AT_ONCE
        raw_peer.close()


PING = b"\x04\x07\x04PING\0\0"


def test_who_floods_pings_and_is_gone_does_not_take_the_victim_along(victim: Victim) -> None:
    for attempt in range(5):
        name = f"stranger{attempt}"
        queues = ({f"{name}/{number}/{index}": "requests" for index in range(50)} for number in range(2000))
        opens = [Open(name, "life", VERSION, number, queues=offer) for number, offer in enumerate(queues, 1)]
        with zmtp_connection(victim.port, b"DEALER") as socket:
            socket.sendall(b"".join(zmtp_frame(frames.encode([(frame, None)])) + PING for frame in opens))
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

        victim.serve(beside="pings")


@pytest.mark.parametrize("kind", ["calls", "slow_calls", "frames", "opens", "garbage"])
def test_a_flood_of_one_peer_does_not_starve_others(site: Site, victim: Victim, kind: str) -> None:
    flood = site.program("flood.py", str(victim.port), kind)
    flood.expect_word("flooding")
    before = Footprint.of(victim.process.pid)

    deadline = time.monotonic() + 3
    delays = []
    while time.monotonic() < deadline:
        delays.append(victim.serve(beside=kind))
    flood.kill()

    assert sorted(delays)[len(delays) // 2] < 0.25 * UNIT
    assert max(delays) < 3 * UNIT
    assert Footprint.of(victim.process.pid).memory < before.memory + 256 * 2**20
