import json
import logging
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posttroll.errors import MessageError, RemoteProtocolError
from posttroll.protocol import codec
from posttroll.protocol.addresses import AddressBook, Limits
from posttroll.protocol.discovery import Announcer, Registrar, announcement_subject, read_request

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
URI = "tcp://10.0.0.1:9000"


def compose(subject: str, type: str, data: Any, version: str | None = None) -> str:
    return codec.encode(subject, type, "nobody@nowhere", NOON, version, data)


def announcement(uri: str = URI, service: Any = ("viirs",), subject: str = "/address/viirs", **more: Any) -> bytes:
    return compose(subject, "info", {"URI": uri, "service": service, **more}).encode()


def goodbye(uri: str = URI) -> bytes:
    return compose("/address/viirs", "goodbye", {"URI": uri, "service": ["viirs"]}).encode()


def make_book(**limits: int) -> AddressBook:
    return AddressBook(600.0, lambda: NOON, Limits(**limits))


def registrar_and_book(**limits: int) -> tuple[Registrar, AddressBook]:
    book = make_book(**limits)
    return Registrar(book, compose), book


def data_of(messages: list[str]) -> list[Any]:
    return [codec.decode(message).data for message in messages]


def times_of(announcer: Announcer, until: float) -> list[float]:
    """Run an announcer with a clock that jumps from one deadline to the next."""
    times = []
    now = 0.0
    while now <= until:
        if announcer.due(now):
            times.append(round(now, 6))
        deadline = announcer.next_timeout()
        assert deadline is not None
        assert deadline > now
        now = deadline
    return times


def test_announcements_are_quick_at_first_then_at_the_interval() -> None:
    announcer = Announcer("hello", None, interval=2.0)

    assert times_of(announcer, until=10.0) == [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1, 9.1]


def test_a_short_interval_is_kept_from_the_start() -> None:
    assert times_of(Announcer("hello", None, interval=0.05), until=0.2) == [0.0, 0.05, 0.1, 0.15, 0.2]


def test_nothing_is_due_between_announcements() -> None:
    announcer = Announcer("hello", None, interval=2.0)

    assert announcer.next_timeout() == -math.inf
    assert announcer.due(1000.0) == "hello"
    assert announcer.next_timeout() == 1000.1
    assert announcer.due(1000.05) is None


@pytest.mark.parametrize("interval", [0, -1.0])
def test_without_an_interval_nothing_is_announced(interval: float) -> None:
    announcer = Announcer("hello", "bye", interval)

    assert announcer.due(0.0) is None
    assert announcer.next_timeout() is None
    assert announcer.stopped() is None


def test_a_goodbye_is_said_once_and_only_after_a_hello() -> None:
    silent, noisy = Announcer("hello", "bye", 2.0), Announcer("hello", "bye", 2.0)
    noisy.due(0.0)

    assert silent.stopped() is None
    assert noisy.stopped() == "bye"
    assert noisy.due(100.0) is None


def test_white_space_in_a_name_does_not_break_the_subject() -> None:
    assert announcement_subject("my own\tpublisher") == "/address/my_own_publisher"


def test_a_new_address_is_published_as_it_was_announced_with_its_status() -> None:
    registrar, book = registrar_and_book()

    (message,) = registrar.datagram(announcement(site="Kangerlussuaq"), "10.0.0.1", now=0.0)

    fields = codec.decode(message)
    assert (fields.subject, fields.type, fields.sender) == ("/address/viirs", "info", "nobody@nowhere")
    assert fields.time == NOON.replace(tzinfo=None)
    assert fields.version == "v1.01"
    assert fields.data == {"URI": URI, "service": ["viirs"], "status": True, "site": "Kangerlussuaq"}
    assert book.look_up("viirs")[0]["site"] == "Kangerlussuaq"


def test_a_repeated_announcement_is_not_published() -> None:
    registrar, book = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)

    assert registrar.datagram(announcement(), "10.0.0.1", now=2.0) == []
    assert registrar.next_timeout() == 602.0
    assert len(book) == 1


def test_a_repeated_announcement_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    registrar, _ = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)
    monkeypatch.setattr(codec, "decode", None)

    assert registrar.datagram(announcement(), "10.0.0.1", now=2.0) == []


def test_an_announcement_after_the_goodbye_is_published_again() -> None:
    registrar, _ = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)
    registrar.datagram(goodbye(), "10.0.0.1", now=1.0)

    assert len(registrar.datagram(announcement(), "10.0.0.1", now=2.0)) == 1


def test_ever_new_announcements_do_not_fill_the_memory() -> None:
    registrar, book = registrar_and_book(total=10)
    for number in range(5000):
        registrar.datagram(announcement(f"tcp://10.0.0.1:{number}"), "10.0.0.1", now=0.0)

    assert len(book) == 10
    assert len(book._by_fingerprint) == 10


@pytest.mark.parametrize("service", ["viirs", ["viirs"]])
def test_followers_always_get_a_list_of_services(service: Any) -> None:
    registrar, _ = registrar_and_book()

    messages = registrar.datagram(announcement(service=service), "10.0.0.1", now=0.0)

    assert data_of(messages)[0]["service"] == ["viirs"]


def test_an_address_not_heard_of_any_more_is_published_as_gone() -> None:
    registrar, _ = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)

    assert registrar.handle_timeout(now=599.0) == []
    (message,) = registrar.handle_timeout(now=601.0)

    fields = codec.decode(message)
    assert (fields.subject, fields.type) == ("/address/address", "info")
    assert fields.data == {"status": False, "URI": URI, "service": ["viirs"]}
    assert registrar.next_timeout() is None


def test_a_goodbye_is_published_as_a_removal() -> None:
    registrar, book = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)

    messages = registrar.datagram(goodbye(), "10.0.0.1", now=1.0)

    assert data_of(messages) == [{"status": False, "URI": URI, "service": ["viirs"]}]
    assert len(book) == 0


def test_a_goodbye_of_another_host_is_counted_and_not_honoured() -> None:
    registrar, book = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)

    assert registrar.datagram(goodbye(), "10.6.6.6", now=1.0) == []
    assert registrar.drops.total() == 1
    assert len(book) == 1


def test_who_gives_way_and_who_comes_are_both_published() -> None:
    registrar, _ = registrar_and_book(total=1)
    registrar.datagram(announcement("tcp://h:1"), "h", now=0.0)

    messages = registrar.datagram(announcement("tcp://h:2"), "h", now=1.0)

    assert [(data["URI"], data["status"]) for data in data_of(messages)] == [("tcp://h:1", False), ("tcp://h:2", True)]


def test_addresses_without_room_are_counted() -> None:
    registrar, book = registrar_and_book(total=1)
    for now in (0.0, 1.0):
        registrar.datagram(announcement("tcp://h:1"), "h", now)

    assert registrar.datagram(announcement("tcp://h:2"), "h", now=2.0) == []
    assert registrar.drops.counts == {"too many addresses": 1}
    assert len(book) == 1


def test_an_address_without_room_is_read_again_only_when_there_may_be_room(monkeypatch: pytest.MonkeyPatch) -> None:
    registrar, book = registrar_and_book(total=1)
    for _ in range(2):
        registrar.datagram(announcement("tcp://h:1"), "10.0.0.1", now=0.0)
    registrar.datagram(announcement("tcp://h:2"), "10.0.0.1", now=0.0)

    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", None)
        registrar.datagram(announcement("tcp://h:2"), "10.0.0.1", now=1.0)
    registrar.datagram(goodbye("tcp://h:1"), "10.0.0.1", now=2.0)
    registrar.datagram(announcement("tcp://h:2"), "10.0.0.1", now=3.0)

    assert registrar.drops.counts == {"too many addresses": 2}
    assert [entry["URI"] for entry in book.look_up()] == ["tcp://h:2"]


def test_what_there_is_no_room_for_from_one_host_is_taken_from_another() -> None:
    registrar, book = registrar_and_book(per_source=1)
    for _ in range(2):
        registrar.datagram(announcement("tcp://10.0.0.9:1"), "10.0.0.9", now=0.0)
    registrar.datagram(announcement("tcp://10.0.0.1:1"), "10.0.0.9", now=1.0)

    registrar.datagram(announcement("tcp://10.0.0.1:1"), "10.0.0.1", now=2.0)

    assert [entry["URI"] for entry in book.look_up()] == ["tcp://10.0.0.9:1", "tcp://10.0.0.1:1"]


def test_only_accepted_hosts_are_listened_to() -> None:
    book = make_book()
    registrar = Registrar(book, compose, accepts=lambda source: source == "10.0.0.1")

    registrar.datagram(announcement("tcp://h:1"), "10.6.6.6", now=0.0)
    registrar.datagram(announcement("tcp://h:2"), "10.0.0.1", now=0.0)

    assert [entry["URI"] for entry in book.look_up()] == ["tcp://h:2"]
    assert registrar.drops.counts == {"source not allowed": 1}


def test_the_subject_is_compared_without_case() -> None:
    registrar, book = registrar_and_book()

    registrar.datagram(announcement(subject="/ADDRESS/viirs"), "h", now=0.0)

    assert book.look_up()[0]["name"] == "ADDRESS"


def test_an_announcement_of_60_kilobytes_is_used_whole() -> None:
    registrar, book = registrar_and_book()
    services = [f"service-{number:06}" for number in range(3300)]

    registrar.datagram(announcement(service=services), "h", now=0.0)

    assert book.look_up("service-003299")[0]["service"] == services


UNUSABLE = [
    b"",
    b"\xff\xfe\xfd",
    b"pytroll:/",
    b"nonsense",
    announcement()[:-1],
    announcement().replace(b"v1.01", b"v2.00"),
    announcement().replace(b"2026-", b"26-"),
    announcement(subject="/oper/viirs"),
    announcement(subject="a"),
    announcement(uri=""),
    announcement(service=5),
    compose("/address/viirs", "beat", {"URI": URI}).encode(),
    compose("/address/viirs", "info", [URI]).encode(),
    compose("/address/viirs", "info", "").encode(),
    compose("/address/viirs", "info", {"service": ["viirs"]}).encode(),
    compose("/address/viirs", "goodbye", {}).encode(),
    b"pytroll://address/a info u@h 2026-01-01T00:00:00 v1.01 application/json " + b"[" * 30_000,
    announcement(extra=json.loads("[" * 50 + "]" * 50)),
    announcement(extra="x" * 70_000),
]


@pytest.mark.parametrize("data", UNUSABLE)
def test_what_cannot_be_used_is_counted_and_harms_nobody(data: bytes) -> None:
    registrar, book = registrar_and_book()
    registrar.datagram(announcement(), "10.0.0.1", now=0.0)

    assert registrar.datagram(data, "10.6.6.6", now=1.0) == []
    assert registrar.drops.counts == {"unusable announcement": 1}
    assert len(book) == 1


def test_drops_are_logged_with_their_source_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    registrar, _ = registrar_and_book()

    with caplog.at_level(logging.WARNING):
        for now in (0.0, 1.0, 59.0, 61.0):
            registrar.datagram(b"nonsense", "10.6.6.6", now)

    assert len(caplog.records) == 2
    assert "10.6.6.6" in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_datagram_whatsoever_makes_the_registrar_raise(data: bytes | str) -> None:
    registrar, _ = registrar_and_book()

    registrar.datagram(data, "10.6.6.6", now=0.0)


@given(
    data=JSON
    | st.dictionaries(st.sampled_from(["URI", "service", "backend", "name", "status", "x"]), JSON | st.just(URI)),
    subject=st.sampled_from(["/address", "/address/x", "/addressx", "/address/\ud800"]),
    type=st.sampled_from(["info", "goodbye"]),
)
@example(data={"URI": URI, "service": ["\ud800"]}, subject="/address/x", type="info")
@example(data={"URI": URI, "x": "2026-01-01T00:00:00+23:59"}, subject="/address/x", type="info")
def test_whatever_an_announcement_says_all_entries_can_be_told(data: Any, subject: str, type: str) -> None:
    registrar, book = registrar_and_book()
    text = f"pytroll:/{subject} {type} u@h 2026-01-01T00:00:00 v1.01 application/json {json.dumps(data)}"

    registrar.datagram(text, "10.6.6.6", now=0.0)
    messages = registrar.datagram(announcement("tcp://good:1"), "10.0.0.1", now=0.0)

    assert len(messages) == 1
    for version in ("v1.01", "v1.2"):
        reply = codec.decode(compose("/oper/ns", "info", book.look_up(), version))
        assert "tcp://good:1" in [entry["URI"] for entry in reply.data]


@pytest.mark.parametrize("version", ["v1.01", "v1.2"])
@pytest.mark.parametrize("service", ["viirs", ""])
def test_a_request_tells_service_and_version(service: str, version: str) -> None:
    frame = compose("/oper/ns", "request", {"service": service}, version).encode()

    assert read_request(frame) == (service, version)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        b"",
        b"\xff",
        b"nonsense",
        compose("/oper/ns", "request", "").encode(),
        compose("/oper/ns", "request", ["viirs"]).encode(),
        compose("/oper/ns", "request", {}).encode(),
        compose("/oper/ns", "request", {"service": None}).encode(),
        compose("/oper/ns", "request", {"service": 0}).encode(),
        compose("/oper/ns", "request", {"service": ["viirs"]}).encode(),
        compose("/oper/ns", "request", {"service": "viirs"}).replace("2026", "26").encode(),
        compose("/oper/ns", "request", {"service": "x" * 100_000}).encode(),
    ],
)
def test_a_request_that_cannot_be_understood_is_refused(frame: bytes | None) -> None:
    with pytest.raises((MessageError, RemoteProtocolError)):
        read_request(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(frame: bytes) -> None:
    with suppress(MessageError, RemoteProtocolError):
        read_request(frame)


def test_who_comes_and_goes_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registrar, _ = registrar_and_book()

    registrar.datagram(announcement(), "10.0.0.1", now=0.0)
    registrar.datagram(announcement(), "10.0.0.1", now=1.0)
    registrar.handle_timeout(now=1e6)

    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert caplog.messages == [
        f"new: {URI} of 'viirs', announced by 10.0.0.1",
        f"gone: {URI} of 'viirs', not heard of any more",
    ]


def test_a_flood_of_addresses_is_not_a_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registrar, _ = registrar_and_book()

    for number in range(1000):
        registrar.datagram(announcement(f"tcp://10.0.0.1:{number}", [f"{number}"]), "10.0.0.1", now=1.0)
    lines = len(caplog.records)
    registrar.datagram(announcement("tcp://10.0.0.1:5000"), "10.0.0.1", now=100.0)

    assert lines == 301
    assert "tcp://10.0.0.1:5000" in caplog.messages[-1]
