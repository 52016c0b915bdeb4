import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from posttroll import ns
from posttroll.address_receiver import AddressReceiver
from posttroll.backends.base import Peer, ReplyChannel
from posttroll.backends.registry import find_backend
from posttroll.errors import BindFailed, UnknownBackend
from posttroll.lookup import NameserverClient, get_pub_address, get_pub_addresses
from posttroll.message import Message
from posttroll.ns import NameServer, get_active_address
from posttroll.protocol import search
from posttroll.publisher import Publish, Publisher
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.keys import Keys
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT, eventually

VIIRS = {"URI": "tcp://10.0.0.1:9000", "service": ["viirs"], "status": True, "name": "address"}
AVHRR = {"URI": "tcp://10.0.0.2:9000", "service": ["avhrr"], "status": True, "name": "address"}
TABLE = {"viirs": [VIIRS], "avhrr": [AVHRR], "": [VIIRS, AVHRR]}


@contextmanager
def serving(table: Any, address: str | None = None, **arguments: Any) -> Iterator[NameServer]:
    """Run a nameserver that knows what the table says, until the end of the block."""
    nameserver = NameServer(**arguments)
    ready = threading.Event()
    with in_background(lambda: nameserver.run(table, address, on_ready=ready.set)):
        try:
            assert ready.wait(5 * UNIT)
            yield nameserver
        finally:
            nameserver.stop()


@pytest.fixture
def served(network: Network) -> Iterator[NameServer]:
    with serving(TABLE) as nameserver:
        yield nameserver


def reply_to(frame: bytes, network: Network) -> bytes:
    peer = Peer(f"tcp://127.0.0.1:{network.nameserver}", "unsecure_zmq")
    with closing(find_backend("unsecure_zmq").open_request([peer])) as channel:
        return channel.request(frame, 5 * UNIT)[peer]


def test_the_ports_are_configured(network: Network) -> None:
    assert ns.get_configured_unsecure_zmq_nameserver_port() == network.nameserver
    assert ns.get_configured_secure_zmq_nameserver_port() == network.secure_nameserver
    assert ns.get_configured_nameserver_port() == network.nameserver
    assert (ns.DEFAULT_UNSECURE_ZMQ_NAMESERVER_PORT, ns.DEFAULT_SECURE_ZMQ_NAMESERVER_PORT) == (5557, 5558)


@pytest.mark.usefixtures("served")
def test_a_service_is_looked_up() -> None:
    assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]
    assert get_pub_address("", 5 * UNIT) == [VIIRS, AVHRR]
    assert get_pub_address("modis", 5 * UNIT) == ""


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [VIIRS, AVHRR]),
        ("viirs", [VIIRS]),
        (["viirs"], [VIIRS]),
        (["avhrr", "viirs"], [AVHRR, VIIRS]),
        (["viirs", ""], [VIIRS, AVHRR]),
    ],
)
def test_several_services_are_looked_up(names: Any, expected: list[Any]) -> None:
    assert get_pub_addresses(names, 5 * UNIT) == expected


@pytest.mark.usefixtures("served")
def test_without_time_nothing_is_found() -> None:
    assert get_pub_addresses(["viirs"], timeout=0) == []


@pytest.mark.usefixtures("served")
def test_what_is_unknown_is_asked_for_until_the_time_is_over() -> None:
    start = time.monotonic()

    assert get_pub_addresses(["viirs", "modis"], timeout=0.3) == [VIIRS]

    assert 0.3 <= time.monotonic() - start < 0.3 + UNIT


def test_a_publisher_that_comes_while_asking_is_found_soon(network: Network) -> None:
    table = {"viirs": [VIIRS]}
    with serving(table), in_background(lambda: get_pub_addresses(["viirs", "avhrr"], 10 * UNIT)) as call:
        assert call.is_pending(0.2)
        table["avhrr"] = [AVHRR]

        assert call.result(2 * UNIT) == [VIIRS, AVHRR]


def test_a_waiting_look_up_is_told_of_a_newcomer_by_the_address_feed(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FIRST_PAUSE", 100.0)
    monkeypatch.setattr(search, "_LONGEST_PAUSE", 100.0)
    table: dict[str, list[Any]] = {}
    with (
        closing(Publisher(f"tcp://127.0.0.1:{network.addresses}").start()) as feed,
        serving(table),
        in_background(lambda: get_pub_addresses(["avhrr"], timeout=2000)) as call,
    ):
        assert feed.wait_for_subscriber("/address", 5 * UNIT)
        assert call.is_pending(0.2)
        table["avhrr"] = [AVHRR]
        feed.send(Message("/address/avhrr", "info", AVHRR))

        assert call.result(5 * UNIT) == [AVHRR]


@pytest.mark.usefixtures("network")
def test_a_silent_nameserver_is_a_timeout() -> None:
    for look_up in (lambda: get_pub_address("viirs", 0.2), lambda: get_pub_addresses(["viirs"], 0.2)):
        with pytest.raises(TimeoutError, match=r"Didn't get an address after 0\.2 seconds\."):
            look_up()


def test_several_nameservers_are_asked_at_once_and_their_answers_merged(
    network: Network, free_ports: Callable[[int], list[int]]
) -> None:
    one, other, dead = (f"127.0.0.1:{port}" for port in free_ports(3))
    with (
        serving({"": [VIIRS, AVHRR]}, f"tcp://{one}"),
        serving({"": [AVHRR]}, f"tcp://{other}"),
        NameserverClient([dead, one, other]) as client,
    ):
        start = time.monotonic()
        entries = eventually(lambda: len(found := client.ask("", 5 * UNIT)) == 2 and found)

        assert sorted(entry["URI"] for entry in entries) == [VIIRS["URI"], AVHRR["URI"]]
        assert time.monotonic() - start < 2 * UNIT


@pytest.mark.parametrize("nameserver", ["localhost", "127.0.0.1", None, False, "tcp://localhost", ["localhost"]])
@pytest.mark.usefixtures("served")
def test_a_nameserver_can_be_named_in_many_ways(nameserver: Any) -> None:
    assert get_pub_address("viirs", 5 * UNIT, nameserver) == [VIIRS]


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xff\xfe",
        Message("/oper/ns", "info", "text").encode().encode(),
        Message("/oper/ns", "info", {"URI": "tcp://h:1"}).encode().encode(),
        Message("/oper/ns", "info", [5, None, {}, {"URI": 5}]).encode().encode(),
    ],
    ids=["empty", "no message", "text", "no list", "no entries"],
)
def test_an_unusable_reply_is_as_good_as_none(reply: bytes, network: Network) -> None:
    peer = Peer(f"tcp://127.0.0.1:{network.nameserver}", "unsecure_zmq")
    with (
        closing(find_backend("unsecure_zmq").open_reply([peer])) as channel,
        in_background(lambda: get_pub_address("viirs", 5 * UNIT)) as call,
    ):
        answer_with(channel, reply)

        assert call.result() == ""


def answer_with(channel: ReplyChannel, reply: bytes) -> None:
    question = channel.receive(5 * UNIT)
    assert question is not None
    channel.reply(question, reply)


@pytest.mark.parametrize("version", ["v1.01", "v1.2"])
def test_a_reply_is_of_the_version_of_the_request(version: str, network: Network, served: NameServer) -> None:
    request = Message("/oper/ns", "request", {"service": "viirs"}, version=version)

    reply = Message.decode(reply_to(request.encode().encode(), network))

    assert (reply.subject, reply.type, reply.version) == ("/oper/ns", "info", version)
    assert reply.data == [VIIRS]


def test_a_reply_without_addresses_has_no_data(network: Network, served: NameServer) -> None:
    reply = reply_to(Message("/oper/ns", "request", {"service": "modis"}).encode().encode(), network)

    assert reply.endswith(b" v1.01")


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff", b"GET / HTTP/1.1\r\n", Message("/oper/ns", "request", [1]).encode().encode(), b"x" * 100_000],
    ids=["empty", "no text", "HTTP", "no service", "long"],
)
def test_an_unusable_request_is_answered_too(frame: bytes, network: Network, served: NameServer) -> None:
    reply = Message.decode(reply_to(frame, network))

    assert (reply.subject, reply.type, reply.version, reply.data) == ("/oper/ns", "info", "v1.01", "")
    assert reply_to(frame, network)
    assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]


@pytest.mark.parametrize("name", ["modis", None, 0, ["viirs"]])
def test_an_unknown_name_is_answered_with_nothing(name: Any) -> None:
    assert get_active_address(name, TABLE, "v1.2").data == ""


@pytest.mark.parametrize("version", ["v1.01", "v1.2"])
@pytest.mark.parametrize("service", ["viirs", "modis", ""])
def test_a_reply_put_together_from_kept_texts_is_the_one_freshly_written(
    service: str, version: str, network: Network
) -> None:
    request = Message("/oper/ns", "request", {"service": service}, version=version).encode().encode()
    receiver = AddressReceiver()
    with closing(Publisher(f"tcp://127.0.0.1:{network.addresses}").start()) as feed:
        for number, extra in enumerate([{}, {"since": datetime(2026, 3, 1, tzinfo=UTC), "site": "Norrköping"}]):
            data = {"URI": f"tcp://10.0.0.1:{number}", "service": ["viirs", f"{number}"], **extra}
            receiver.process_address_message(Message("/address/viirs", "info", data).encode(), feed)

    with serving(receiver):
        reply = reply_to(request, network).decode()

    fresh = get_active_address(service, receiver, version).encode()
    assert reply.partition(" application/json")[1:] == fresh.partition(" application/json")[1:]
    assert reply.count("Norrk") == (service != "modis")


def test_an_unknown_backend_is_refused_at_construction() -> None:
    with config.set(backend="zqm"), pytest.raises(UnknownBackend):
        NameServer()


@pytest.mark.usefixtures("network")
def test_a_port_in_use_comes_out_of_run_after_the_receiver_was_stopped(network: Network) -> None:
    receiver = _Receiver()
    with socket.socket() as other:
        other.bind(("", network.nameserver))
        with pytest.raises(BindFailed, match=str(network.nameserver)):
            NameServer().run(receiver)

    assert receiver.is_stopped


class _Receiver:
    is_stopped = False

    def get(self, name: str) -> list[dict[str, Any]]:
        return []

    def stop(self) -> None:
        self.is_stopped = True


@pytest.mark.usefixtures("network")
def test_a_receiver_handed_in_is_stopped_at_the_end() -> None:
    receiver = _Receiver()
    with serving(receiver):
        pass

    assert receiver.is_stopped


@pytest.mark.usefixtures("network")
def test_a_nameserver_stopped_first_returns_at_once_and_can_run_later() -> None:
    nameserver = NameServer()
    nameserver.stop()
    nameserver.stop()
    nameserver.run(TABLE)

    ready = threading.Event()
    with in_background(lambda: nameserver.run(TABLE, on_ready=ready.set)):
        assert ready.wait(5 * UNIT)
        nameserver.stop()


@pytest.mark.usefixtures("network")
def test_a_nameserver_can_be_stopped_from_within_its_own_thread() -> None:
    """As a signal handler does."""
    nameserver = NameServer()

    start = time.monotonic()
    nameserver.run(TABLE, on_ready=nameserver.stop)

    assert time.monotonic() - start < 1.5 * UNIT


@pytest.mark.usefixtures("network")
def test_an_interrupt_ends_run_quietly() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    NameServer().run(_Receiver(), on_ready=interrupt)


def test_restricted_to_this_host_it_binds_loopback(network: Network) -> None:
    with serving(TABLE, restrict_to_localhost=True), socket.socket() as other:
        other.bind(("127.0.0.2", network.nameserver))
        assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]


@pytest.mark.parametrize("address", ["127.0.0.1", "tcp://127.0.0.1", "tcp://127.0.0.1:{}", "ipc://{}/nameserver"])
def test_the_address_can_be_given(address: str, network: Network, tmp_path: Path) -> None:
    place = address.format(tmp_path if address.startswith("ipc") else network.nameserver)

    with serving(TABLE, place):
        assert get_pub_address("viirs", 5 * UNIT, place) == [VIIRS]


def test_with_keys_both_ports_are_served(network: Network, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), config.set(**keys.settings()), serving(TABLE):
        assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]
        with config.set(backend="secure_zmq"):
            assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]

    assert f"tcp://*:{network.nameserver}, tcp://*:{network.secure_nameserver}" in caplog.text


def test_a_whole_address_is_bound_for_the_own_backend_only(network: Network, keys: Keys) -> None:
    place = f"tcp://127.0.0.1:{network.nameserver}"

    with config.set(**keys.settings()), serving(TABLE, place):
        assert get_pub_address("viirs", 5 * UNIT) == [VIIRS]


@pytest.mark.usefixtures("nameserver")
def test_a_real_publisher_is_found_within_a_moment() -> None:
    with Publish("viirs", aliases=["sdr"]) as publisher:
        (entry,) = get_pub_addresses(["sdr"], 5 * UNIT)

    assert entry["URI"] == f"tcp://127.0.0.1:{publisher.port_number}"
    assert entry["receive_time"].tzinfo is not None


def test_the_module_is_light_to_import() -> None:
    code = "import sys, posttroll.ns; print('zmq' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=30).strip() == "False"


@pytest.fixture
def bare_root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


@pytest.mark.parametrize(("verbose", "level"), [(False, logging.INFO), (True, logging.DEBUG)])
def test_logging_goes_to_the_file_in_the_known_format(
    verbose: bool, level: int, tmp_path: Path, bare_root_logger: logging.Logger
) -> None:
    path = tmp_path / "nameserver.log"

    logger = ns.setup_logging(Namespace(log=str(path), verbose=verbose))
    logger.warning("text")

    assert bare_root_logger.level == level
    assert path.read_text().startswith("[WARNING: 20")
    assert path.read_text().endswith(" : nameserver] text\n")


def test_logging_goes_to_standard_error(bare_root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    ns.setup_logging(Namespace(log=None, verbose=False)).info("text")

    assert "[INFO: " in capsys.readouterr().err


def test_running_says_goodbye(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    nameserver = NameServer()
    nameserver.stop()

    ns.run(nameserver, logging.getLogger("nameserver"))

    assert capsys.readouterr().out == ("Thanks for using pytroll/nameserver. See you soon on www.pytroll.org!\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-l", "/no/such/directory/log"], "/no/such/directory/log"),
        (["--pid-file", "/no/such/directory/pid"], "/no/such/directory/pid"),
        (["--pid-file", "{}/pid", "-d", "stop"], "not running"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        status = ns.main([argument.format(tmp_path) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)

    assert status == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_an_interrupt_while_starting_is_a_clean_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ns, "PidFile", interrupt)

    assert ns.main(["-d", "status"]) == 0
    assert "See you soon" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["-x"], ["-d"], ["-d", "sing"], ["extra"]])
def test_a_wrong_option_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        ns.main(arguments)

    assert raised.value.code == 2
