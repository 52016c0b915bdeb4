import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.errors import RemoteProtocolError
from posttroll.protocol import codec
from posttroll.protocol.addresses import AddressBook, Limits, Outcome, PublisherAddress, host_of, nameserver_uri

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VIIRS = PublisherAddress("tcp://10.0.0.1:9000", ("viirs", "sdr"), "unsecure_zmq", "v1.2")
AVHRR = PublisherAddress("tcp://10.0.0.2:9000", ("avhrr",))


def make_book(max_age: float = 600.0, **limits: int) -> AddressBook:
    return AddressBook(max_age, lambda: NOON, Limits(**limits))


def numbered(number: int, service: str = "flood") -> PublisherAddress:
    return PublisherAddress(f"tcp://10.9.9.9:{number}", (service,))


def uris(book: AddressBook, service: str = "") -> list[str]:
    return [entry["URI"] for entry in book.look_up(service)]


@pytest.mark.parametrize(
    ("nameserver", "uri"),
    [
        ("localhost", "tcp://localhost:5557"),
        ("10.0.0.1", "tcp://10.0.0.1:5557"),
        ("host:6000", "tcp://host:6000"),
        ("tcp://host", "tcp://host:5557"),
        ("tcp://host:6000", "tcp://host:6000"),
        ("*", "tcp://*:5557"),
        ("[::1]", "tcp://[::1]:5557"),
        ("[::1]:6000", "tcp://[::1]:6000"),
        ("ipc:///run/nameserver", "ipc:///run/nameserver"),
        ("inproc://nameserver", "inproc://nameserver"),
    ],
)
def test_a_nameserver_can_be_given_in_any_common_form(nameserver: str, uri: str) -> None:
    assert nameserver_uri(nameserver, 5557) == uri


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("tcp://host:5557", "host"),
        ("tcp://host", "host"),
        ("host:5557", "host"),
        ("host", "host"),
        ("tcp://[::1]:5557", "[::1]"),
        ("ipc:///run/nameserver", "localhost"),
    ],
)
def test_the_host_is_found_in_any_form(uri: str, host: str) -> None:
    assert host_of(uri) == host


def test_an_address_survives_the_way_through_an_announcement() -> None:
    data = {
        "URI": "tcp://10.0.0.1:9000",
        "service": ["viirs", "sdr"],
        "supported_message_version": "v1.2",
        "backend": "unsecure_zmq",
        "site": {"name": "Norrköping"},
    }

    address = PublisherAddress.from_data(data)

    assert address.uri == "tcp://10.0.0.1:9000"
    assert address.services == ("viirs", "sdr")
    assert address.backend == "unsecure_zmq"
    assert address.version == "v1.2"
    assert address.as_data() == data


@pytest.mark.parametrize(("service", "services"), [("viirs", ("viirs",)), (None, ()), ([], ())])
def test_a_single_service_is_a_list_of_one_and_a_missing_one_an_empty_list(
    service: object, services: tuple[str, ...]
) -> None:
    assert PublisherAddress.from_data({"URI": "tcp://h:1", "service": service}).services == services


def test_an_old_announcement_without_service_and_scheme_is_taken() -> None:
    assert PublisherAddress.from_data({"URI": "10.0.0.1:9000"}).as_data() == {"URI": "10.0.0.1:9000", "service": []}


def test_what_the_nameserver_itself_adds_is_not_taken_from_an_announcement() -> None:
    data = {"URI": "tcp://h:1", "status": False, "name": "x", "receive_time": "never"}

    assert PublisherAddress.from_data(data).as_data() == {"URI": "tcp://h:1", "service": []}


@pytest.mark.parametrize(
    "data",
    [
        None,
        "tcp://h:1",
        [],
        {},
        {"URI": ""},
        {"URI": 5},
        {"URI": "tcp://h :1"},
        {"URI": "tcp://h:1\n"},
        {"URI": "tcp://h\u2003:1"},
        {"URI": "tcp://" + "h" * 2000},
        {"URI": "tcp://h:1", "service": 5},
        {"URI": "tcp://h:1", "service": {"viirs": 1}},
        {"URI": "tcp://h:1", "service": ["viirs", 5]},
        {"URI": "tcp://h:1", "backend": 5},
        {"URI": "tcp://h:1", "supported_message_version": [1, 2]},
    ],
)
def test_unusable_data_are_refused(data: object) -> None:
    with pytest.raises(RemoteProtocolError):
        PublisherAddress.from_data(data)


def test_an_entry_is_looked_up_by_each_of_its_services() -> None:
    book = make_book()

    change = book.heard(VIIRS, "10.0.0.1", now=0.0)

    assert change == (Outcome.ADDED, ())
    expected = {
        "URI": "tcp://10.0.0.1:9000",
        "service": ["viirs", "sdr"],
        "supported_message_version": "v1.2",
        "backend": "unsecure_zmq",
        "status": True,
        "name": "address",
        "receive_time": "2026-03-01T12:00:00+00:00",
    }
    assert book.look_up("viirs") == book.look_up("sdr") == book.look_up("") == [expected]


def test_services_are_matched_whole() -> None:
    book = make_book()
    book.heard(PublisherAddress.from_data({"URI": "tcp://h:1", "service": "viirs"}), "h", now=0.0)

    assert book.look_up("vii") == []


def test_entries_come_in_the_order_in_which_they_were_added() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(AVHRR, "10.0.0.2", now=1.0)
    book.heard(VIIRS, "10.0.0.1", now=2.0)

    assert uris(book) == [VIIRS.uri, AVHRR.uri]
    assert len(book) == 2


def test_a_silent_publisher_is_forgotten_after_max_age() -> None:
    book = make_book(max_age=600.0)
    book.heard(VIIRS, "10.0.0.1", now=0.0)

    assert book.expire(now=599.9) == []
    assert book.expire(now=600.1) == [VIIRS]
    assert book.look_up("viirs") == []
    assert book.next_timeout() is None


def test_an_announcement_makes_the_entry_young_again() -> None:
    book = make_book(max_age=600.0)
    book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(AVHRR, "10.0.0.2", now=1.0)

    change = book.heard(PublisherAddress.from_data(VIIRS.as_data()), "10.0.0.1", now=500.0)

    assert change.outcome is Outcome.REFRESHED
    assert book.next_timeout() == 601.0
    assert book.expire(now=602.0) == [AVHRR]
    assert book.next_timeout() == 1100.0


def test_the_time_of_receipt_is_that_of_the_last_announcement() -> None:
    times = iter([NOON, NOON + timedelta(seconds=2)])
    book = AddressBook(600.0, lambda: next(times))
    book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(VIIRS, "10.0.0.1", now=2.0)

    assert book.look_up()[0]["receive_time"] == "2026-03-01T12:00:02+00:00"


def test_a_publisher_with_other_services_at_a_known_place_replaces_the_former() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0)
    restarted = PublisherAddress(VIIRS.uri, ("modis",))

    change = book.heard(restarted, "10.0.0.1", now=1.0)

    assert change == (Outcome.CHANGED, (VIIRS,))
    assert book.look_up("viirs") == []
    assert uris(book, "modis") == [VIIRS.uri]


def test_a_publisher_that_only_gains_a_service_is_not_reported_as_gone() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0)

    change = book.heard(PublisherAddress(VIIRS.uri, (*VIIRS.services, "edr")), "10.0.0.1", now=1.0)

    assert change == (Outcome.CHANGED, ())


def test_a_goodbye_takes_effect_at_once() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0)

    assert book.goodbye(VIIRS.uri, "10.0.0.1") == VIIRS
    assert book.goodbye(VIIRS.uri, "10.0.0.1") is None
    assert len(book) == 0


def test_a_goodbye_is_honoured_only_from_the_host_that_announced_the_entry() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(VIIRS, "10.6.6.6", now=1.0)

    assert book.goodbye(VIIRS.uri, "10.6.6.6") is None
    assert uris(book) == [VIIRS.uri]


@pytest.mark.parametrize("limit", ["total", "per_source", "per_service"])
def test_the_eldest_unconfirmed_entry_gives_way_to_a_newcomer(limit: str) -> None:
    book = make_book(**{limit: 3})
    for number in range(3):
        book.heard(numbered(number), "10.9.9.9", now=number)
    book.heard(numbered(0), "10.9.9.9", now=3.0)

    change = book.heard(numbered(3), "10.9.9.9", now=4.0)

    assert change == (Outcome.ADDED, (numbered(1),))
    assert uris(book) == [numbered(number).uri for number in (0, 2, 3)]


@pytest.mark.parametrize("limit", ["total", "per_source", "per_service"])
def test_a_newcomer_is_refused_when_all_others_are_confirmed(limit: str) -> None:
    book = make_book(**{limit: 2})
    for number in (0, 1, 0, 1):
        book.heard(numbered(number), "10.9.9.9", now=0.0)

    change = book.heard(numbered(2), "10.9.9.9", now=1.0)

    assert change == (Outcome.REFUSED, ())
    assert uris(book) == [numbered(0).uri, numbered(1).uri]


def test_a_flood_from_one_host_leaves_room_for_the_others() -> None:
    book = make_book(per_source=10)
    for number in range(1000):
        book.heard(numbered(number), "10.9.9.9", now=0.0)

    book.heard(VIIRS, "10.0.0.1", now=1.0)

    assert len(book) == 11
    assert uris(book, "viirs") == [VIIRS.uri]


def test_nothing_gives_way_to_a_newcomer_that_another_limit_refuses() -> None:
    book = make_book(total=3, per_service=1)
    for _ in range(2):
        book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(numbered(1, "one"), "10.9.9.9", now=0.0)
    book.heard(numbered(2, "two"), "10.9.9.9", now=0.0)

    change = book.heard(PublisherAddress("tcp://10.6.6.6:1", ("viirs",)), "10.6.6.6", now=1.0)

    assert change == (Outcome.REFUSED, ())
    assert len(book) == 3


def test_a_changed_entry_without_room_is_forgotten() -> None:
    book = make_book(per_service=1)
    for _ in range(2):
        book.heard(VIIRS, "10.0.0.1", now=0.0)
    book.heard(AVHRR, "10.0.0.2", now=0.0)

    change = book.heard(PublisherAddress(AVHRR.uri, ("viirs",)), "10.0.0.2", now=1.0)

    assert change == (Outcome.REFUSED, (AVHRR,))
    assert uris(book) == [VIIRS.uri]


def test_long_announcements_count_as_several() -> None:
    book = make_book(total=10)
    for number in range(3):
        book.heard(numbered(number), "10.9.9.9", now=0.0, size=4000)

    assert uris(book) == [numbered(1).uri, numbered(2).uri]


def test_addresses_with_many_services_count_as_several_but_once_for_each_service() -> None:
    services = tuple(f"s{number}" for number in range(24))
    roomy, narrow = make_book(per_service=3), make_book(per_source=10)
    for number in range(3):
        for book in (roomy, narrow):
            book.heard(PublisherAddress(f"tcp://h:{number}", services), "h", now=0.0)

    assert len(roomy) == 3
    assert len(narrow) == 2


def test_an_announcement_may_name_a_service_twice() -> None:
    book = make_book()
    address = PublisherAddress("tcp://h:1", ("viirs", "viirs"))

    book.heard(address, "h", now=0.0)
    book.heard(address, "h", now=1.0)

    assert uris(book, "viirs") == ["tcp://h:1"]
    assert book.expire(now=1000.0) == [address]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
            st.sampled_from(["h1", "h2"]),
            st.sampled_from(["heard", "heard", "goodbye", "expire"]),
        ),
        max_size=60,
    )
)
def test_the_book_agrees_with_itself_whatever_happens(
    events: list[tuple[int, list[str], str, str]],
) -> None:
    book = make_book(max_age=10.0, total=4, per_source=3, per_service=2)
    expected: dict[str, PublisherAddress] = {}
    for now, (number, services, source, event) in enumerate(events):
        address = PublisherAddress(f"tcp://h:{number}", tuple(services))
        if event == "heard":
            change = book.heard(address, source, now)
            for gone in change.removed:
                expected.pop(gone.uri, None)
            if change.outcome is not Outcome.REFUSED:
                expected[address.uri] = address
        elif event == "goodbye" and (left := book.goodbye(address.uri, source)):
            del expected[left.uri]
        elif event == "expire":
            for gone in book.expire(now):
                del expected[gone.uri]

        assert set(uris(book)) == set(expected)
        assert len(book) == len(expected) <= 4
        for service in "abc":
            offered = {uri for uri, known in expected.items() if service in known.services}
            assert set(uris(book, service)) == offered
            assert len(offered) <= 2


SERVICES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)
EXTRA = st.dictionaries(
    st.sampled_from(["site", "über"]), st.text(max_size=5) | st.integers() | st.just([NOON]), max_size=2
)


@given(st.lists(st.tuples(st.integers(0, 5), SERVICES, EXTRA), max_size=10), st.sampled_from(["v1.01", "v1.2"]))
def test_entries_that_were_written_beforehand_are_those_that_a_message_would_write(
    announced: list[tuple[int, list[str], dict[str, Any]]], version: str
) -> None:
    moments = (NOON + timedelta(seconds=number, microseconds=number % 2) for number in itertools.count())
    book = AddressBook(600.0, lambda: next(moments))
    for now, (number, services, extra) in enumerate(announced):
        book.heard(PublisherAddress(f"tcp://h:{number}", tuple(services), extra=extra), "h", now)

    for service in ("", "a", "b", "c"):
        _, written = codec.encode_body(version, book.look_up(service))
        assert f" application/json [{', '.join(book.look_up_texts(service, version))}]" == written


def test_a_repeated_announcement_is_known_by_its_fingerprint() -> None:
    book = make_book(max_age=600.0)
    book.heard(VIIRS, "10.0.0.1", now=0.0, fingerprint=1)
    book.heard(AVHRR, "10.0.0.2", now=0.0, fingerprint=2)

    assert book.heard_again(1, now=10.0)
    assert not book.heard_again(3, now=10.0)
    assert book.expire(now=600.0) == [AVHRR]
    assert not book.heard_again(2, now=601.0)


def test_only_the_last_announcement_of_an_address_is_known_by_its_fingerprint() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0, fingerprint=1)
    book.heard(VIIRS, "10.0.0.1", now=1.0, fingerprint=2)
    same, other = book.heard_again(2, now=2.0), book.heard_again(1, now=2.0)
    book.heard(PublisherAddress(VIIRS.uri, ("modis",)), "10.0.0.1", now=3.0, fingerprint=3)

    assert (same, other) == (True, False)
    assert (book.heard_again(2, now=4.0), book.heard_again(3, now=4.0)) == (False, True)
    assert uris(book) == [VIIRS.uri]


def test_a_fingerprint_is_forgotten_with_the_goodbye() -> None:
    book = make_book()
    book.heard(VIIRS, "10.0.0.1", now=0.0, fingerprint=1)

    book.goodbye(VIIRS.uri, "10.0.0.1")

    assert not book.heard_again(1, now=1.0)


def test_being_heard_again_confirms_an_entry() -> None:
    book = make_book(total=1)
    book.heard(VIIRS, "10.0.0.1", now=0.0, fingerprint=1)
    book.heard_again(1, now=1.0)

    assert book.heard(AVHRR, "10.0.0.2", now=2.0).outcome is Outcome.REFUSED


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_addresses_expire_in_the_order_in_which_they_were_last_heard(numbers: list[int]) -> None:
    book = make_book(max_age=100.0)
    for now, number in enumerate(numbers):
        book.heard(numbered(number), "10.9.9.9", now, fingerprint=number)

    expected = list(reversed(dict.fromkeys(reversed(numbers))))
    for number in expected:
        deadline = book.next_timeout()
        assert deadline is not None
        assert book.expire(deadline) == [numbered(number)]
    assert book.next_timeout() is None


def test_all_is_forgotten_with_the_last_entry() -> None:
    book = make_book(max_age=10.0)
    for number in range(20):
        address = PublisherAddress(f"tcp://h:{number}", ("all", f"{number}"))
        book.heard(address, f"10.0.0.{number % 3}", now=0.0, fingerprint=number)

    book.expire(now=10.0)

    assert len(book) == len(book._groups) == len(book._by_fingerprint) == 0
