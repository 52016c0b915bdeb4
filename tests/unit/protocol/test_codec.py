from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posttroll.errors import DecodeError, EncodeError, MessageError, UnsupportedVersion
from posttroll.protocol import codec

NAIVE = datetime(2020, 1, 1)
AWARE = datetime(2020, 1, 1, tzinfo=UTC)
NOON = datetime(2020, 1, 1, 12)
SUMMER_TIME = timezone(timedelta(hours=2))
Wrap = Callable[[Any], Any]
HEAD = "pytroll://a b u@h 2020-01-01T00:00:00 v1.01"


def encode(data: Any, version: str | None = None, binary: bool = False, time: datetime = NAIVE) -> str:
    return codec.encode("/a", "b", "u@h", time, version, data, binary)


def decode(body: str) -> Any:
    """Return the data that a text after the version stands for."""
    return codec.decode(HEAD + body).data


def nested(depth: int, wrap: Wrap, innermost: Any) -> Any:
    data = innermost
    for _ in range(depth):
        data = wrap(data)
    return data


GOLDEN = [
    (NAIVE, None, "", HEAD),
    (NAIVE, None, "x y", f"{HEAD} text/ascii x y"),
    (NAIVE, None, {1: 1}, f'{HEAD} application/json {{"1": 1}}'),
    (
        AWARE,
        None,
        {"t": NOON.replace(tzinfo=SUMMER_TIME)},
        'pytroll://a b u@h 2020-01-01T00:00:00+00:00 v1.2 application/json {"t": "2020-01-01T12:00:00+02:00"}',
    ),
    (
        AWARE,
        None,
        {"t": NOON},
        'pytroll://a b u@h 2020-01-01T00:00:00+00:00 v1.2 application/json {"t": "2020-01-01T12:00:00"}',
    ),
]


@pytest.mark.parametrize(("time", "version", "data", "text"), GOLDEN)
def test_messages_are_written_exactly_so(time: datetime, version: str | None, data: Any, text: str) -> None:
    assert encode(data, version, time=time) == text


def test_binary_text_is_written_exactly_so() -> None:
    assert encode("xx", binary=True) == f"{HEAD} binary/octet-stream xx"


@pytest.mark.parametrize("text", [text for *_, text in GOLDEN] + [f"{HEAD} binary/octet-stream xx"])
def test_what_was_read_is_written_as_it_was(text: str) -> None:
    assert codec.encode(*codec.decode(text)) == text


def test_all_fields_are_read() -> None:
    fields = codec.decode("pytroll://1b/viirs file me@there.org 2026-03-01T12:30:15.250000+00:00 v1.2 text/ascii x")

    assert fields == codec.Fields(
        subject="/1b/viirs",
        type="file",
        sender="me@there.org",
        time=datetime(2026, 3, 1, 12, 30, 15, 250000, UTC),
        version="v1.2",
        data="x",
        binary=False,
    )


def test_a_subject_without_a_slash_comes_back_as_it_was_given() -> None:
    text = codec.encode("a", "b", "u@h", NAIVE, None, "")

    assert text == "pytroll:/a b u@h 2020-01-01T00:00:00 v1.01"
    assert codec.decode(text).subject == "a"


@pytest.mark.parametrize("blank", ["  ", "\t", "\n", "\xa0", "\u2003", "\x85", "\x1c"])
def test_any_white_space_separates_the_parts_before_the_data(blank: str) -> None:
    fields = codec.decode(HEAD.replace(" ", blank) + f"{blank}text/ascii x")

    assert (fields.subject, fields.version, fields.data) == ("/a", "v1.01", "x")


@pytest.mark.parametrize("data", [" x", "\n x", "x \n", "  ", "x\ty", "\xa0", "\u2003x"])
def test_the_white_space_of_text_survives(data: str) -> None:
    assert codec.decode(encode(data)).data == data
    assert codec.decode(encode(data, binary=True)).data == data


@pytest.mark.parametrize("version", ["v1.0", "v1.01", "v1.1", "v1.10", "v1.2", "1.2", "v", "V9"])
def test_versions_up_to_the_newest_are_read(version: str) -> None:
    assert codec.decode(HEAD.replace("v1.01", version)).version == version


@pytest.mark.parametrize("version", ["v1.20", "v1.21", "v1.3", "v2", "v1.2-rc1"])
def test_newer_versions_are_refused(version: str) -> None:
    with pytest.raises(UnsupportedVersion, match=version):
        codec.decode(HEAD.replace("v1.01", version))


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        ("", "v1.01"),
        ("text", "v1.01"),
        (b"bytes", "v1.01"),
        ({"a": [1, None]}, "v1.01"),
        ({"a": NOON}, "v1.2"),
        ([[{"a": (1, AWARE)}]], "v1.2"),
        (NOON, "v1.2"),
        ({"a": time(12)}, "v1.01"),
    ],
)
def test_the_lowest_version_that_the_data_need_is_written(data: Any, needed: str) -> None:
    assert codec.decode(encode(data)).version == needed


@pytest.mark.parametrize("version", ["v1.0", "v1.01", "v1.2", "v1.3", "v2"])
def test_a_version_asked_for_is_written_as_it_is(version: str) -> None:
    assert f" {version} application/json " in encode({"a": NOON}, version)


@pytest.mark.parametrize("version", ["v1.0", "v1.01"])
def test_old_versions_lose_time_zones_without_conversion(version: str) -> None:
    text = encode({"t": NOON.replace(tzinfo=SUMMER_TIME)}, version, time=AWARE.replace(tzinfo=SUMMER_TIME))

    assert " 2020-01-01T00:00:00 v" in text
    assert '"2020-01-01T12:00:00"' in text


@pytest.mark.parametrize("version", ["v1.1", "v1.2", "v2"])
def test_later_versions_keep_time_zones(version: str) -> None:
    text = encode({"t": NOON.replace(tzinfo=SUMMER_TIME)}, version, time=AWARE)

    assert f" 2020-01-01T00:00:00+00:00 {version} " in text
    assert '"2020-01-01T12:00:00+02:00"' in text


def test_fractions_of_a_second_have_six_digits_or_none() -> None:
    text = encode({"a": NOON.replace(microsecond=250_000), "b": NOON})

    assert '{"a": "2020-01-01T12:00:00.250000", "b": "2020-01-01T12:00:00"}' in text


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("2020-01-01", NAIVE),
        ("2020-01-01T00:00:00Z", AWARE),
        ("2020-01-01T00:00:00+00:00", AWARE),
        ("2020-01-01T02:00:00+02:00", AWARE),
        ("20200101T000000", NAIVE),
    ],
)
def test_the_time_of_a_message_is_read_in_any_iso_form(written: str, time: datetime) -> None:
    assert codec.decode(f"pytroll://a b u@h {written} v1.01").time == time


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01T12:00:00", NOON),
        ("2020-01-01T12:00:00.000001", NOON.replace(microsecond=1)),
        ("2020-01-01T12:00:00.250", NOON.replace(microsecond=250_000)),
        ("2020-01-01T12:00:00Z", NOON.replace(tzinfo=UTC)),
        ("2020-01-01T12:00:00+02:00", NOON.replace(tzinfo=SUMMER_TIME)),
        ("2020-01-01T12:00:00.000001-00:00:01", datetime(2020, 1, 1, 12, 0, 1, 1, UTC)),
    ],
)
def test_texts_that_isoformat_writes_become_datetimes_at_any_depth_of_a_dict(text: str, moment: datetime) -> None:
    assert decode(f' application/json {{"a": "{text}", "b": [["{text}"]]}}') == {"a": moment, "b": [[moment]]}
    assert decode(f' application/json [[{{"a": "{text}"}}]]') == [[{"a": moment}]]


@pytest.mark.parametrize(
    "text",
    [
        "20240101",
        "2024-01-01",
        "2024-W01-1",
        "2024W011",
        "2024-01-01 12:00:00",
        "20240101T12",
        "20240101T120000",
        "2024-01-01T12:00",
        "2024-01-01T12:00:00.1",
        "2024-13-01T12:00:00",
        "2024-01-01T12:00:00+0200",
        "2024-01-01T12:00:00 ",
        "٢٠٢٤-01-01T12:00:00",
        "x" * 19,
    ],
)
def test_other_texts_stay_texts(text: str) -> None:
    data = {"a": text, "b": [text]}

    assert codec.decode(encode(data)).data == data


@pytest.mark.parametrize("data", ["2020-01-01T12:00:00", ["2020-01-01T12:00:00"], [["2020-01-01T12:00:00"]]])
def test_texts_outside_of_dicts_stay_texts(data: Any) -> None:
    assert decode(f" application/json {json.dumps(data)}") == data


def test_keys_stay_texts() -> None:
    assert decode(' application/json {"2020-01-01T12:00:00": 1}') == {"2020-01-01T12:00:00": 1}


@pytest.mark.parametrize("data", [{}, [], 0, False, None, 0.0])
def test_what_is_false_survives(data: Any) -> None:
    decoded = codec.decode(encode(data))

    assert (decoded.data, type(decoded.data), decoded.binary) == (data, type(data), False)


def test_json_is_written_as_the_standard_library_writes_it() -> None:
    data = {"ä": float("inf"), "b": (1, 2), "a": None, 1: True, None: 1.5}

    assert (
        encode(data) == HEAD + ' application/json {"\\u00e4": Infinity, "b": [1, 2], "a": null, "1": true, "null": 1.5}'
    )


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**70), 10**18, 10**300, 0.1, 1e-320, -0.0])
def test_numbers_survive_exactly(number: float) -> None:
    assert repr(codec.decode(encode([number])).data) == repr([number])


def test_dates_are_read_back_as_texts() -> None:
    assert codec.decode(encode({"d": date(2020, 1, 1)}, "v1.2")).data == {"d": "2020-01-01"}


def test_times_are_read_back_as_texts() -> None:
    assert codec.decode(encode({"t": time(12, 30)})).data == {"t": "12:30:00"}


def test_a_datetime_as_the_whole_data_is_read_back_as_text() -> None:
    assert codec.decode(encode(NOON)).data == "2020-01-01T12:00:00"


@pytest.mark.parametrize(
    "data",
    [{1}, {"a": Path("a")}, {"a": b"bytes"}, {(1, 2): 3}, {"a": object()}, {"d": date(2020, 1, 1)}, [10**5000]],
    ids=lambda data: type(data).__name__,
)
def test_data_that_json_cannot_hold_are_refused(data: Any) -> None:
    with pytest.raises(EncodeError, match="Invalid data: data is not JSON serializable"):
        encode(data)


def test_data_that_contain_themselves_are_refused() -> None:
    data: dict[str, Any] = {}
    data["self"] = data

    with pytest.raises(EncodeError):
        encode(data)


@pytest.mark.parametrize("word", ["", " ", "a b", "a\tb", "a\u2003", None, b"bytes", 1])
@pytest.mark.parametrize("place", range(3))
def test_subject_type_and_sender_are_words(word: Any, place: int) -> None:
    words = ["/a", "b", "u@h"]
    words[place] = word

    with pytest.raises(EncodeError, match=f"Invalid {['subject', 'type', 'sender'][place]}"):
        codec.encode(words[0], words[1], words[2], NAIVE, None, "")


@pytest.mark.parametrize("version", ["v1 2", "v1.2 "])
def test_a_version_is_a_word(version: str) -> None:
    with pytest.raises(EncodeError, match="Invalid version"):
        encode("", version)


@pytest.mark.parametrize("moment", [None, "2020-01-01T00:00:00", 0.0])
def test_the_time_is_a_datetime(moment: Any) -> None:
    with pytest.raises(EncodeError, match="Invalid time"):
        encode("", time=moment)


@pytest.mark.parametrize("data", ["\ud800", {"a": "\ud800"}])
def test_half_characters_are_refused_in_text_and_survive_in_json(data: Any) -> None:
    if isinstance(data, str):
        with pytest.raises(EncodeError, match="UTF-8"):
            encode(data)
    else:
        assert codec.decode(encode(data)).data == data


@pytest.mark.parametrize(
    "data", [b"", b"text", "ä€".encode(), b"\xff\xfe", bytes(range(256)), b" \t\f\n ", bytearray(b"x")]
)
def test_bytes_come_back_as_bytes(data: bytes) -> None:
    decoded = codec.decode(encode(data, binary=True).encode())

    assert (decoded.data, type(decoded.data), decoded.binary) == (bytes(data), bytes, True)


def test_bytes_are_binary_without_being_called_so() -> None:
    assert codec.decode(encode(b"x")).binary


def test_other_readers_see_bytes_as_text_after_white_space() -> None:
    assert encode("ä".encode()) == f"{HEAD} binary/octet-stream\tä"
    assert encode(b"\xe4") == f"{HEAD} binary/octet-stream\fä"


def test_binary_data_are_text_or_bytes() -> None:
    with pytest.raises(EncodeError, match="must be bytes or text, not dict"):
        encode({"a": 1}, binary=True)


def test_text_is_written_in_its_own_letters() -> None:
    assert encode("Größe €") == f"{HEAD} text/ascii Größe €"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_read_as_utf_8_or_else_as_iso_8859_1(kind: Callable[[bytes], Any]) -> None:
    assert codec.decode(kind(f"{HEAD} text/ascii €".encode())).data == "€"
    assert codec.decode(kind(f"{HEAD} text/ascii ÿ".encode("iso-8859-1"))).data == "ÿ"


def test_mime_types_are_read_in_any_case() -> None:
    assert decode(" Text/ASCII x") == "x"


@pytest.mark.parametrize("raw", [f"{HEAD} text/ascii ", f"{HEAD}\ntext/ascii\n", HEAD])
def test_a_message_without_data_has_the_empty_text(raw: str) -> None:
    assert codec.decode(raw).data == ""


@pytest.mark.parametrize(
    "raw",
    [
        "",
        b"",
        "pytroll:/",
        "pytroll:",
        " " + HEAD,
        HEAD.upper(),
        "pytroll:/ /a b u@h 2020-01-01T00:00:00 v1.01",
        "pytroll://a b u@h 2020-01-01T00:00:00",
        "pytroll://a",
        HEAD + " ",
        HEAD + "\n",
        HEAD + " text/ascii",
        HEAD + " text/html x",
        HEAD + " application/json ",
        HEAD + " application/json {",
        HEAD + ' application/json {"a": 1} x',
        HEAD + " application/json " + "1" * 5000,
        HEAD + " binary/octet-stream\f€",
        HEAD + " binary/octet-stream\t\ud800",
        HEAD.replace("2020-01-01T00:00:00", "yesterday"),
        HEAD.replace("2020-01-01T00:00:00", "2020-02-30T00:00:00"),
        None,
        1,
        ["pytroll"],
    ],
)
def test_what_is_no_message_is_refused(raw: Any) -> None:
    with pytest.raises(DecodeError):
        codec.decode(raw)


def test_an_error_quotes_no_more_than_an_excerpt() -> None:
    for raw in ("x" * 10_000, f"{HEAD} application/json {'x' * 10_000}", f"{HEAD} {'x' * 10_000} x"):
        with pytest.raises(DecodeError) as caught:
            codec.decode(raw)
        assert len(str(caught.value)) < 500
    with pytest.raises(EncodeError) as refused:
        encode({"a": [object()] * 10_000})
    assert len(str(refused.value)) < 500


def test_a_message_longer_than_allowed_is_refused() -> None:
    raw = encode("x" * 100)

    assert codec.decode(raw, max_size=len(raw)).data == "x" * 100
    with pytest.raises(DecodeError, match="longer than"):
        codec.decode(raw, max_size=len(raw) - 1)


WRAPS = pytest.mark.parametrize(
    ("wrap", "levels"),
    [(lambda data: {"a": data}, 1), (lambda data: [data], 1), (lambda data: [{"a": data}], 2)],
    ids=["dicts", "lists", "both"],
)


@WRAPS
@pytest.mark.parametrize(("innermost", "level"), [(1, 0), (NOON, 0), ({}, 1), ([], 1)], ids=repr)
def test_all_that_is_written_can_be_read(wrap: Wrap, levels: int, innermost: Any, level: int) -> None:
    deepest = (codec.MAX_DEPTH - level) // levels
    text = encode(nested(deepest, wrap, innermost))

    assert codec.encode(*codec.decode(text)) == text
    with pytest.raises(EncodeError, match="deep"):
        encode(nested(deepest + 1, wrap, innermost))


@WRAPS
@pytest.mark.parametrize("depth", [codec.MAX_DEPTH + 1, 900, 100_000])
def test_deeper_data_are_refused(wrap: Wrap, levels: int, depth: int) -> None:
    opening, closing = json.dumps(wrap(0)).split("0")

    with pytest.raises(DecodeError):
        decode(f" application/json {opening * depth}1{closing * depth}")
    with pytest.raises(EncodeError):
        encode(nested(depth, wrap, 1))


def test_wide_data_are_not_taken_for_deep_ones() -> None:
    data = {"a": [{"b": [number]} for number in range(1000)], "c": "[" * 1000}

    assert codec.decode(encode(data)).data == data


def lines_run(function: Callable[[], object]) -> int:
    """Return how many lines of Python it takes: a measure that does not depend on the machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(outer)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda size: nested(size, lambda inner: {"a": inner, "b": ["2020-01-01T12:00:00"]}, 1),
        lambda size: nested(size // 2, lambda inner: [{"a": inner}, [{}]], 1),
        lambda size: {"a": ["2020-01-01T12:00:00"] * 50 * size},
        lambda size: [{"a": {"b": 1}}] * 50 * size,
    ],
    ids=["deep", "deep lists", "many texts", "many dicts"],
)
def test_twice_the_data_take_no_more_than_twice_the_work(make: Callable[[int], Any]) -> None:
    small, large = (encode(make(size)) for size in (80, 160))

    assert lines_run(lambda: codec.decode(large)) < 2.2 * lines_run(lambda: codec.decode(small))


MOMENTS = st.datetimes(
    timezones=st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters())
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
TIMED = st.recursive(
    SCALARS | MOMENTS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(PLAIN.filter(lambda data: not isinstance(data, str)) | st.text() | st.dictionaries(st.text(), TIMED))
def test_any_data_come_back_as_they_were(data: Any) -> None:
    decoded = codec.decode(encode(data).encode()).data

    assert decoded == data
    assert type(decoded) is type(data)


@given(MOMENTS, st.sampled_from(["v1.01", "v1.2"]))
def test_any_time_comes_back_with_or_without_its_zone(moment: datetime, version: str) -> None:
    zone: tzinfo | None = moment.tzinfo if version > "v1.01" else None

    assert codec.decode(encode("", version, time=moment)).time == moment.replace(tzinfo=zone)


@given(st.binary())
def test_any_bytes_come_back_as_they_were(data: bytes) -> None:
    assert codec.decode(encode(data).encode()).data == data


def as_the_standard_library_writes(data: Any) -> str:
    return json.dumps(data, default=lambda moment: moment.isoformat())


ODD_ZONES = st.sampled_from([None, UTC, timezone(timedelta(seconds=5400.5)), ZoneInfo("Europe/Helsinki")])
ANY_MOMENT = st.builds(datetime.replace, st.datetimes(), tzinfo=ODD_ZONES, fold=st.integers(0, 1))
ORDINARY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats().filter(lambda number: not 0 < abs(number) < 1e-4)
    | st.text(st.characters())
    | ANY_MOMENT,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(ORDINARY.filter(lambda data: not isinstance(data, str)))
@example({"a": "\x7f"})
@example({"a": "null", "b": None, "c": float("nan"), "d": [float("-inf")]})
@example({"a": 1e16, "b": 1e15, "c": -1.5e300, "d": 5e-324, "e": 0.0001, "f": -0.0})
@example({"a": datetime(1, 1, 1), "b": datetime(999, 1, 1, tzinfo=UTC), "c": datetime.max})
@example({"a": '"\\/\b\f\n\r\t\x00\x1f{[, : '})
def test_json_is_letter_by_letter_what_the_standard_library_writes(data: Any) -> None:
    assert codec.encode_body("v1.2", data)[1] == f" application/json {as_the_standard_library_writes(data)}"


@given(st.floats(1e-12, 1e-4) | st.floats(-1e-4, -1e-12))
def test_tiny_numbers_are_written_as_the_same_number(number: float) -> None:
    assert decode(encode([number]).removeprefix(HEAD)) == [number]


@given(ORDINARY | st.binary(), st.sampled_from([None, "v1.01", "v1.2"]))
def test_what_is_good_can_be_written(data: Any, version: str | None) -> None:
    if codec.is_good("/a", "b", "u@h", version, data):
        encode(data, version)


@pytest.mark.parametrize("data", ["", "text", {}, [1, 2.5, "a"], {"a": [{"b": NAIVE}]}, b"\xff", bytearray(b"a")])
def test_ordinary_data_are_good(data: Any) -> None:
    assert codec.is_good("/a", "b", "u@h", None, data)


@pytest.mark.parametrize("subject", ["", "a b", None, b"a", [], {}, 1, "\ud800"])
def test_what_is_no_subject_is_not_good(subject: Any) -> None:
    assert not codec.is_good(subject, "b", "u@h", None, "")
    with pytest.raises(EncodeError):
        codec.encode(subject, "b", "u@h", NAIVE, None, "")


class SetClock(datetime):
    """What stands for `datetime` while a test sets the clock."""


def test_messages_are_written_while_a_test_sets_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "datetime", SetClock)
    moment = SetClock(2020, 1, 1, 12, tzinfo=UTC)

    text = codec.encode("/a", "b", "u@h", moment, None, {"t": moment})

    assert text.endswith('2020-01-01T12:00:00+00:00 v1.2 application/json {"t": "2020-01-01T12:00:00+00:00"}')


class Kind(Enum):
    GOOD = "good"


@pytest.mark.parametrize("other", ["x", "ä", None])
def test_members_and_uuids_are_written_as_values_and_texts(other: str | None) -> None:
    data = {"kind": Kind.GOOD, "uuid": UUID(int=1), "other": other}

    assert decode(encode(data).removeprefix(HEAD)) == {"kind": "good", "uuid": str(UUID(int=1)), "other": other}


JSON_PIECES = st.sampled_from(
    [*'{}[]:,"\\ \n\t\x00\x7fä', *"0123456789-+.eE", "null", "true", "NaN", "\\u00e4", "\\ud800"]
)


@given(st.lists(JSON_PIECES | st.text(max_size=3)).map("".join) | ORDINARY.map(as_the_standard_library_writes))
@example("-0")
@example("-0.0")
@example("1e999")
@example("1e-999")
@example("0.30000000000000004441")
@example("123456789012345678901234567890")
@example('"\ud800"')
@example('{"a": 1, "a": 2}')
@example('\ufeff{"a": 1}')
@example("[1,]")
@example("9" * 4301)
def test_json_is_read_as_the_standard_library_reads_it(text: str) -> None:
    try:
        wanted: object = json.loads(text)
    except ValueError:
        wanted = DecodeError
    try:
        value: object = codec._parse_json(text)
    except DecodeError:
        value = DecodeError

    assert repr(value) == repr(wanted)


@pytest.mark.parametrize("escape", ["2020-01-01\\u005412:00:00", "2020-01-01T12:00:0\\u0030"])
def test_escaped_texts_in_long_data_become_datetimes_too(escape: str) -> None:
    padding = "x" * 10_000

    assert decode(f' application/json {{"a": "{escape}", "x": "{padding}"}}') == {"a": NOON, "x": padding}


@pytest.mark.parametrize("depth", [2, 30])
def test_datetimes_are_found_anywhere_in_long_data(depth: int) -> None:
    moments = [{"t": NOON, "file": "x_T12:00:00.h5"}, "at 2020-01-01T12:00:00", {"t": AWARE}]
    data = {"a": "x" * 10_000, "deep": nested(depth, lambda inner: {"l": [inner]}, moments), "t": NOON}

    assert codec.decode(encode(data)).data == data


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_long_data_without_datetimes_are_refused_too_if_too_deep(opening: str, closing: str) -> None:
    deep = opening * codec.MAX_DEPTH + "1" + closing * codec.MAX_DEPTH

    with pytest.raises(DecodeError, match="deep"):
        decode(f' application/json {{"x": "{"x" * 10_000}", "a": {deep}}}')


class Moment(datetime):
    """A time of some other package."""


@pytest.mark.parametrize(("version", "zone"), [("v1.01", ""), ("v1.2", "+00:00")])
@pytest.mark.parametrize("kind", [datetime, Moment])
@pytest.mark.parametrize("year", [1, 999, 2020])
def test_the_time_is_written_as_isoformat_does(version: str, zone: str, kind: type[datetime], year: int) -> None:
    time = kind(year, 1, 1, 12, 30, 15, 250, UTC)

    assert f" {year:04}-01-01T12:30:15.000250{zone} {version}" in encode("", version, time=time)


def is_read_or_refused(raw: str | bytes) -> bool:
    with suppress(MessageError):
        codec.decode(raw)
    return True


@given(st.binary() | st.text(st.characters()))
@example(b"\xff")
def test_whatever_arrives_is_a_message_or_a_message_error(raw: str | bytes) -> None:
    assert is_read_or_refused(raw)


@given(st.lists(st.text(st.characters()) | st.binary().map(lambda data: str(data, "iso-8859-1")), max_size=8))
def test_whatever_follows_the_magic_word_is_a_message_or_a_message_error(parts: list[str]) -> None:
    assert is_read_or_refused(codec.MAGIC + " ".join(parts))


@given(
    st.sampled_from([text.encode() for *_, text in GOLDEN]),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=5),
)
def test_a_message_that_was_damaged_is_a_message_or_a_message_error(
    raw: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for position, length, replacement in damages:
        raw = raw[:position] + replacement + raw[position + length :]

    assert is_read_or_refused(raw)


@given(st.sampled_from(["application/json", "text/ascii", "binary/octet-stream", "x/y"]), st.text(), st.text())
def test_any_body_is_data_or_a_message_error(mime_type: str, separator: str, data: str) -> None:
    assert is_read_or_refused(f"{HEAD} {mime_type}{separator}{data}")
    assert is_read_or_refused(f"{HEAD} {mime_type} {data}")
