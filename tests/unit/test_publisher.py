from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
import zmq

from posttroll import publisher as module
from posttroll.backends import memory
from posttroll.backends.base import Peer
from posttroll.errors import BindFailed, ConfigurationError, EncodeError, NotStarted, TransportError
from posttroll.journal import MemoryJournal
from posttroll.message import Message
from posttroll.publisher import (
    NoisyPublisher,
    Publish,
    Publisher,
    create_publisher_from_dict_config,
    get_own_ip,
)
from posttroll.settings import config
from tests.fixtures.background import in_background
from tests.fixtures.network import Network
from tests.fixtures.waiting import UNIT

TEXT = "pytroll://a info me@here 2026-01-01T00:00:00 v1.01"


@pytest.fixture(autouse=True)
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Publish within the process."""
    monkeypatch.setattr(memory.backend, "bus", memory.Bus())
    with config.set(backend="memory", advertised_host="127.0.0.1"):
        yield


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """Start a publisher."""
    with closing(Publisher("tcp://*:0", "test")) as publisher:
        yield publisher.start()


class Heard:
    """What a publisher says."""

    def __init__(self, port: int | None) -> None:
        self.channel = memory.backend.open_subscribe()
        self.channel.connect(Peer(f"tcp://127.0.0.1:{port}", "memory"), [b""])

    def messages(self) -> list[Message]:
        return [Message.decode(received.frame) for received in iter(lambda: self.channel.receive(0.05), None)]

    def close(self) -> None:
        self.channel.close()


@pytest.fixture
def heard(publisher: Publisher) -> Iterator[Heard]:
    """Hear what the publisher says."""
    with closing(Heard(publisher.port_number)) as heard:
        yield heard


class Probe:
    """Stands in for the socket that the own address is looked up with."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.closed = False

    def connect(self, address: tuple[str, int]) -> None:
        if self.address is None:
            raise OSError("unreachable")

    def getsockname(self) -> tuple[str | None, int]:
        return self.address, 1

    def close(self) -> None:
        self.closed = True


class System:
    """Stands in for the module socket."""

    AF_INET, SOCK_DGRAM = socket.AF_INET, socket.SOCK_DGRAM

    def __init__(self, address: str | None, resolved: str | None = None) -> None:
        self.probe = Probe(address)
        self.resolved = resolved

    def socket(self, *arguments: int) -> Probe:
        return self.probe

    def gethostname(self) -> str:
        return "here"

    def gethostbyname(self, name: str) -> str:
        if self.resolved is None:
            raise OSError("no such host")
        return self.resolved


@pytest.mark.parametrize(
    ("address", "resolved", "own"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        (None, "10.0.0.2", "10.0.0.2"),
        (None, "127.0.0.1", "127.0.0.1"),
        (None, None, "127.0.0.1"),
    ],
)
def test_the_own_address_is_that_of_the_route_or_of_the_host_or_of_loopback(
    monkeypatch: pytest.MonkeyPatch, address: str | None, resolved: str | None, own: str
) -> None:
    system = System(address, resolved)
    monkeypatch.setattr(module, "socket", system)

    assert get_own_ip() == own
    assert system.probe.closed


def test_the_own_address_is_one() -> None:
    assert len(get_own_ip().split(".")) == 4


def test_an_unknown_backend_is_refused_when_made() -> None:
    with config.set(backend="pigeons"):
        for make in (lambda: Publisher("tcp://*:0"), lambda: NoisyPublisher("name"), lambda: Publish("name")):
            with pytest.raises(NotImplementedError, match="pigeons"):
                make()


@pytest.mark.parametrize("when_full", ["", "explode"])
def test_an_unknown_way_to_treat_full_queues_is_refused_when_made(when_full: str) -> None:
    with pytest.raises(ConfigurationError, match="must be drop or block"):
        Publisher("tcp://*:0", when_full=when_full)


def test_nothing_is_bound_before_the_start(free_port: int) -> None:
    publisher = Publisher(f"tcp://*:{free_port}", "test")
    assert publisher.port_number is None
    assert publisher.name == "test"

    with closing(Publisher(f"tcp://*:{free_port}").start()) as other:
        assert other.port_number == free_port
        with pytest.raises(BindFailed):
            publisher.start()


def test_starting_gives_the_publisher(publisher: Publisher) -> None:
    port = publisher.port_number

    assert publisher.start() is publisher
    assert isinstance(port, int)


@pytest.mark.parametrize("configured", [True, False])
def test_a_free_port_is_taken_from_the_range(free_port: int, configured: bool) -> None:
    if configured:
        with config.set(pub_min_port=str(free_port), pub_max_port=str(free_port + 1)):
            publisher = Publisher("tcp://*:0")
    else:
        publisher = Publisher("tcp://*:0", "", free_port, free_port + 1)

    with closing(publisher.start()):
        assert publisher.port_number == free_port


def test_an_address_without_a_port_has_none() -> None:
    with closing(Publisher("ipc:///tmp/posttroll-test").start()) as publisher:
        assert publisher.port_number is None


@pytest.mark.parametrize("send", [Publisher.send, Publisher.send_string])
def test_texts_and_messages_are_sent(publisher: Publisher, heard: Heard, send: Any) -> None:
    message = Message("/b", "info", {"ä": 1})

    assert send(publisher, TEXT) is None
    send(publisher, message)

    assert [str(each) for each in heard.messages()] == [TEXT, str(message)]


@pytest.mark.parametrize("what", [b"bytes", None, 1, {"a": 1}])
def test_nothing_else_is_sent(publisher: Publisher, what: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(what).__name__}"):
        publisher.send(what)


def test_text_that_cannot_be_written_is_refused(publisher: Publisher) -> None:
    with pytest.raises(EncodeError):
        publisher.send(TEXT + " text/ascii \ud800")


def test_before_the_start_nothing_can_be_sent() -> None:
    publisher = Publisher("tcp://*:0")

    for use in (lambda: publisher.send(TEXT), publisher.heartbeat, lambda: publisher.wait_for_subscriber(timeout=0)):
        with pytest.raises(NotStarted) as caught:
            use()
        assert isinstance(caught.value, AttributeError)


def test_after_the_stop_sending_is_an_error_of_zeromq() -> None:
    with config.set(backend="unsecure_zmq"):
        publisher = Publisher("tcp://127.0.0.1:0").start()
    publisher.stop()

    with pytest.raises(zmq.ZMQError):
        publisher.send(TEXT)


def test_a_publisher_may_be_stopped_before_its_start_and_twice_and_started_again(free_port: int) -> None:
    publisher = Publisher(f"tcp://*:{free_port}")
    publisher.stop()

    for stop in (publisher.stop, publisher.close, publisher.stop):
        publisher.start()
        stop()
        stop()
    with closing(publisher.start()), closing(Heard(free_port)) as heard:
        publisher.send(TEXT)

        assert len(heard.messages()) == 1


def test_a_start_while_it_runs_is_a_restart(free_port: int) -> None:
    with closing(Publisher(f"tcp://*:{free_port}").start()) as publisher:
        publisher.start()

        assert publisher.port_number == free_port


class Clock:
    """Stands in for the module time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the test move the publishers' clock."""
    clock = Clock()
    monkeypatch.setattr("posttroll.publication.time", clock)
    return clock


def test_the_heart_beats_no_more_often_than_it_should(publisher: Publisher, heard: Heard, clock: Clock) -> None:
    for now in (0.0, 29.9, 30.0, 59.9, 60.0):
        clock.now = now
        publisher.heartbeat(30)

    beats = heard.messages()
    assert len(beats) == 3
    assert {(beat.subject, beat.type, beat.version) for beat in beats} == {("/heartbeat/test", "beat", "v1.01")}
    assert beats[0].data == {"min_interval": 30}


@pytest.mark.parametrize("min_interval", [0, None])
def test_the_heart_beats_whenever_asked_without_an_interval(
    publisher: Publisher, heard: Heard, min_interval: Any
) -> None:
    for _ in range(3):
        publisher.heartbeat(min_interval)

    assert [beat.data for beat in heard.messages()] == [{"min_interval": min_interval}] * 3


def test_a_beat_that_was_not_sent_does_not_count(heard: Heard) -> None:
    publisher = Publisher("tcp://*:0")
    with suppress(NotStarted):
        publisher.heartbeat(30)

    with closing(publisher.start()), closing(Heard(publisher.port_number)) as heard_now:
        publisher.heartbeat(30)

        assert len(heard_now.messages()) == 1


@pytest.mark.parametrize(("name", "subject"), [("", "/heartbeat/"), ("my own name", "/heartbeat/my_own_name")])
def test_the_subject_of_a_beat_has_the_name_without_white_space(name: str, subject: str) -> None:
    with closing(Publisher("tcp://*:0", name).start()) as publisher, closing(Heard(publisher.port_number)) as heard:
        publisher.heartbeat()

        assert [beat.subject for beat in heard.messages()] == [subject]


def test_a_subscriber_can_be_waited_for(publisher: Publisher) -> None:
    assert not publisher.wait_for_subscriber("/a", 0.05)

    with (
        in_background(lambda: publisher.wait_for_subscriber("/a", 5 * UNIT)) as waiting,
        closing(Heard(publisher.port_number)),
    ):
        assert waiting.result()


def overrun(publisher: Publisher) -> None:
    """Send to a subscriber that does not read until its queue is full."""
    for _ in range(100):
        publisher.send(TEXT)


@pytest.fixture
def short_queues() -> Iterator[None]:
    """Keep one message for a slow subscriber."""
    with config.set(send_high_water_mark=1, receive_high_water_mark=1):
        yield


@pytest.mark.usefixtures("short_queues")
def test_overruns_are_counted_told_and_logged_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Publisher] = []
    with closing(Publisher("tcp://*:0", "test", on_overrun=told.append).start()) as publisher:
        with closing(Heard(publisher.port_number)):
            overrun(publisher)
            clock.now = 60.0
            overrun(publisher)

        overruns = publisher.overruns
        assert overruns > 100
        assert told == [publisher] * overruns
    first, second = (record for record in caplog.records if record.levelno == logging.WARNING)
    for text in ("publisher test", "cannot keep up", "dropped for it", "1 "):
        assert text in first.getMessage()
    assert "cannot keep up" in second.getMessage()


@pytest.mark.usefixtures("short_queues")
def test_a_callback_that_fails_does_not_keep_messages_from_being_sent(caplog: pytest.LogCaptureFixture) -> None:
    def fail(publisher: Publisher) -> None:
        raise RuntimeError("callback failed")

    with closing(Publisher("tcp://*:0", on_overrun=fail).start()) as publisher, closing(Heard(publisher.port_number)):
        overrun(publisher)

        assert publisher.overruns > 1
    assert "callback failed" in caplog.text


@pytest.mark.usefixtures("short_queues")
@pytest.mark.parametrize("by_setting", [True, False])
def test_a_publisher_may_wait_for_the_slow(by_setting: bool, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        if by_setting:
            stack.enter_context(config.set(when_full="block"))
        publisher = Publisher("tcp://*:0", when_full=None if by_setting else "block").start()
        stack.enter_context(closing(publisher))
        heard = stack.enter_context(closing(Heard(publisher.port_number)))

        with in_background(lambda: overrun(publisher)) as sending:
            assert sending.is_pending()
            assert len(heard.messages()) == 100
            sending.result()

        assert publisher.overruns > 0
        assert "messages are delayed" in caplog.text


class Announcer:
    """Stands in for what announces, and notes what it is told."""

    made: list[Announcer]

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[str] = []
        self.made.append(self)

    def start(self) -> Announcer:
        self.calls.append("start")
        return self

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def announcers(monkeypatch: pytest.MonkeyPatch) -> list[Announcer]:
    """Have nothing announced, and give what would have been."""
    Announcer.made = []
    monkeypatch.setattr(module, "sendaddressservice", Announcer)
    return Announcer.made


@pytest.mark.parametrize(
    ("aliases", "services"),
    [(None, ["name"]), ("alias", ["name", "alias"]), (["a", "b"], ["name", "a", "b"]), (("a",), ["name", "a"])],
)
def test_a_noisy_publisher_announces_its_address_under_its_name_and_aliases(
    announcers: list[Announcer], aliases: Any, services: list[str]
) -> None:
    with closing(NoisyPublisher("name", aliases=aliases)) as publisher:
        assert publisher.start() is publisher
        address = f"tcp://127.0.0.1:{publisher.port_number}"

    (announcer,) = announcers
    assert announcer.arguments == ("name", address, services, 2, [])
    assert announcer.calls == ["start", "stop"]


@pytest.mark.parametrize(
    ("nameservers", "told"), [(None, []), (False, []), ("one", ["one"]), (["one", "two"], ["one", "two"]), ([], [])]
)
def test_the_nameservers_to_register_at_are_one_or_several_or_none(
    announcers: list[Announcer], nameservers: Any, told: list[str]
) -> None:
    with closing(NoisyPublisher("name", broadcast_interval=0.5, nameservers=nameservers).start()):
        assert announcers[0].arguments[3:] == (0.5, told)


def test_the_own_address_is_announced_unless_a_host_is_configured(
    announcers: list[Announcer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_own_ip", lambda: "10.0.0.9")

    with config.set(advertised_host=None), closing(NoisyPublisher("name").start()) as publisher:
        assert announcers[0].arguments[1] == f"tcp://10.0.0.9:{publisher.port_number}"


def test_a_noisy_publisher_takes_a_free_port_of_the_range(announcers: list[Announcer], free_port: int) -> None:
    with closing(NoisyPublisher("name", min_port=free_port, max_port=free_port + 1)) as publisher:
        before = publisher.port_number
        publisher.start()

        assert (before, publisher.port_number) == (None, free_port)
        assert (publisher.min_port, publisher.max_port) == (free_port, free_port + 1)


def test_a_noisy_publisher_sends_and_beats(announcers: list[Announcer]) -> None:
    with closing(NoisyPublisher("name").start()) as publisher, closing(Heard(publisher.port_number)) as heard:
        assert publisher.wait_for_subscriber("/a", 5 * UNIT)
        publisher.send(TEXT)
        publisher.send_string(TEXT)
        publisher.heartbeat(30)
        publisher.heartbeat(30)

        assert [message.subject for message in heard.messages()] == ["/a", "/a", "/heartbeat/name"]
        assert publisher.overruns == 0


def test_a_noisy_publisher_may_be_stopped_before_its_start_and_twice_and_started_again(
    announcers: list[Announcer],
) -> None:
    publisher = NoisyPublisher("name")
    publisher.stop()
    publisher.start()
    publisher.start()
    publisher.stop()
    publisher.close()

    assert [announcer.calls for announcer in announcers] == [["start", "stop"]] * 2
    with pytest.raises(TransportError):
        publisher.send(TEXT)


def test_nothing_runs_on_when_announcing_fails(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    def refuse(*arguments: Any) -> None:
        raise ConfigurationError("too long")

    monkeypatch.setattr(module, "sendaddressservice", refuse)
    publisher = NoisyPublisher("name", free_port)

    with pytest.raises(ConfigurationError, match="too long"):
        publisher.start()

    Publisher(f"tcp://*:{free_port}").start().stop()


def test_the_address_is_given_back_though_saying_goodbye_fails(
    announcers: list[Announcer], monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    def fail(announcer: Announcer) -> Any:
        raise RuntimeError("no goodbye")

    publisher = NoisyPublisher("name", free_port).start()
    monkeypatch.setattr(Announcer, "stop", fail)

    with pytest.raises(RuntimeError):
        publisher.stop()

    Publisher(f"tcp://*:{free_port}").start().stop()


def test_a_publisher_that_was_replaced_by_one_without_a_socket_announces_nothing(
    announcers: list[Announcer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher, "start", lambda self: self)

    with closing(NoisyPublisher("name").start()):
        assert announcers == []


def test_the_class_of_the_inner_publisher_can_be_replaced(announcers: list[Announcer]) -> None:
    class Special(Publisher):
        pass

    class Noisy(NoisyPublisher):
        _publisher_class = Special

    assert type(Noisy("name")._publisher) is Special


def test_a_noisy_publisher_really_announces_itself(network: Network) -> None:
    listening = memory.backend.listen_with(network.announcements)
    assert listening is not None
    with closing(listening()) as receiver, closing(NoisyPublisher("name", aliases="alias").start()) as publisher:
        receiver.settimeout(5 * UNIT)
        announcement = Message.decode(receiver()[0])

        assert announcement.subject == "/address/name"
        assert announcement.data["URI"] == f"tcp://127.0.0.1:{publisher.port_number}"
        assert announcement.data["service"] == ["name", "alias"]


def test_publish_gives_a_started_publisher_and_stops_it(announcers: list[Announcer]) -> None:
    with Publish("name", aliases=["alias"], broadcast_interval=1) as publisher:
        assert isinstance(publisher, NoisyPublisher)
        assert publisher.port_number is not None
        assert announcers[0].calls == ["start"]

    assert announcers[0].calls == ["start", "stop"]


def test_publish_does_not_hide_errors(announcers: list[Announcer]) -> None:
    with pytest.raises(KeyError), Publish("name"):
        raise KeyError

    assert announcers[0].calls == ["start", "stop"]


def test_publish_takes_its_arguments_by_position(announcers: list[Announcer], free_port: int) -> None:
    with Publish("name", free_port, ["alias"], 1, ["one"], None, None) as publisher:
        assert publisher.port_number == free_port
        assert announcers[0].arguments[2:] == (["name", "alias"], 1, ["one"])


def test_publish_with_a_port_and_without_nameservers_is_silent(announcers: list[Announcer], free_port: int) -> None:
    publish = Publish("name", free_port, nameservers=False, when_full="block")

    with publish as publisher:
        assert publisher is publish.publisher
        assert type(publisher) is Publisher
        assert (publisher.name, publisher.port_number) == ("name", free_port)
        assert announcers == []


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"port": 9000, "nameservers": False}, Publisher),
        ({"address": "tcp://*:9000", "nameservers": False}, Publisher),
        ({"address": "tcp://*:9000", "nameservers": False, "name": "n", "min_port": 1, "max_port": 9}, Publisher),
        ({"port": 9000, "nameservers": False, "aliases": ["a"], "broadcast_interval": 1}, Publisher),
        ({"name": "n"}, NoisyPublisher),
        ({"name": "n", "port": 9000}, NoisyPublisher),
        ({"name": "n", "port": 9000, "nameservers": None}, NoisyPublisher),
        ({"name": "n", "port": 9000, "nameservers": []}, NoisyPublisher),
        ({"name": "n", "nameservers": False}, NoisyPublisher),
        ({"name": "n", "port": 0, "nameservers": False}, NoisyPublisher),
        ({"name": "n", "address": "tcp://*:9000", "unknown": 1}, NoisyPublisher),
    ],
)
def test_a_dict_describes_a_silent_publisher_or_a_noisy_one(settings: dict[str, Any], kind: type) -> None:
    before = dict(settings)

    publisher = create_publisher_from_dict_config(settings)

    assert type(publisher) is kind
    assert settings == before


def test_unknown_items_are_refused_for_a_silent_publisher() -> None:
    with pytest.raises(TypeError, match="unknown"):
        create_publisher_from_dict_config({"port": 9000, "nameservers": False, "unknown": 1})


def test_a_noisy_publisher_needs_a_name() -> None:
    with pytest.raises(KeyError) as caught:
        create_publisher_from_dict_config({"port": 9000})

    assert str(caught.value) == "NoisyPublisher requires a name"


Made = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Replace the classes in the module, as others do in their tests; give what they are called with."""
    made: Made = []

    def noting(name: str) -> Callable[..., None]:
        return lambda *arguments, **keywords: made.append((name, arguments, keywords))

    for name in ("Publisher", "NoisyPublisher"):
        monkeypatch.setattr(module, name, noting(name))
    return made


NOISY_DEFAULTS = {
    "port": 0,
    "aliases": None,
    "broadcast_interval": 2,
    "nameservers": None,
    "min_port": None,
    "max_port": None,
}


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"port": 9000, "nameservers": False, "name": "n"}, ("Publisher", ("tcp://*:9000",), {"name": "n"})),
        ({"address": "ipc://x", "port": 9000, "nameservers": False}, ("Publisher", ("ipc://x",), {})),
        ({"name": "n"}, ("NoisyPublisher", ("n",), NOISY_DEFAULTS)),
        (
            {"name": "n", "port": 9000, "aliases": "a", "when_full": "block", "unknown": 1},
            ("NoisyPublisher", ("n",), {**NOISY_DEFAULTS, "port": 9000, "aliases": "a", "when_full": "block"}),
        ),
    ],
)
def test_the_classes_are_looked_up_in_the_module_and_called_so(made: Made, settings: dict[str, Any], call: Any) -> None:
    create_publisher_from_dict_config(settings)

    assert made == [call]


def test_several_threads_may_send(publisher: Publisher, heard: Heard) -> None:
    def send_all() -> None:
        for _ in range(100):
            publisher.send(TEXT)

    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(in_background(send_all))

    assert len(heard.messages()) == 800


@pytest.mark.parametrize("journal", [None, MemoryJournal])
def test_what_else_is_to_be_announced_goes_with_the_address_and_the_journal(
    monkeypatch: pytest.MonkeyPatch, journal: Any
) -> None:
    announced: list[dict[str, str]] = []

    def announce(*arguments: Any, extra: Any) -> Announcer:
        announced.append(extra(arguments[1]))
        return Announcer(*arguments)

    Announcer.made = []
    monkeypatch.setattr(module, "sendaddressservice", announce)
    options = {} if journal is None else {"journal": journal()}

    with closing(NoisyPublisher("name", extra=lambda address: {"peer": f"{address}0"}, **options).start()) as publisher:
        address = f"tcp://127.0.0.1:{publisher.port_number}"

    assert announced[0]["peer"] == f"{address}0"
    assert ("link" in announced[0]) == ("journal" in announced[0]) == (journal is not None)
