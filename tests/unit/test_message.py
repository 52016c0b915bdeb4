from __future__ import annotations

import copy
import json
import os
import pickle
import pwd
import socket
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttroll import message as module
from posttroll.message import Message, MessageError
from posttroll.settings import config

NOON = datetime(2020, 1, 1, 12)
SUMMER_NOON = NOON.replace(tzinfo=timezone(timedelta(hours=2)))
TEXT = "pytroll://a b u@h.org 2020-01-01T00:00:00 v1.01 text/ascii x y"


def body_of(message: Message) -> str:
    return str(message).split(" ", 4)[4]


def test_a_message_is_signed_and_dated() -> None:
    before = datetime.now(UTC)
    message = Message("/a", "info", {"b": 1})

    assert message.sender == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert before <= message.time <= datetime.now(UTC)
    assert message.time.tzinfo is UTC


def test_a_message_has_exactly_its_seven_attributes() -> None:
    built, decoded = Message("/a", "info"), Message.decode(TEXT)

    assert set(vars(built)) == set(vars(decoded)) == {"subject", "type", "sender", "time", "data", "binary", "version"}
    assert (built.data, built.binary, built.version) == ("", False, None)


def test_arguments_may_be_given_by_position_or_by_name() -> None:
    by_position = Message("/a", "info", "data", True, None, "v1.2")
    by_name = Message(subject="/a", atype="info", data="data", binary=True, version="v1.2")

    assert body_of(by_position) == body_of(by_name) == "v1.2 binary/octet-stream data"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("/a",),
        ("", "info"),
        ("/a b", "info"),
        ("/a", "in formation"),
        (b"/a", "info"),
        ("/a", None),
        ("/a", "info", {1, 2}),
    ],
)
def test_a_message_that_cannot_be_written_is_refused_when_made(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(MessageError):
        Message(*arguments)


def test_a_change_that_cannot_be_written_is_refused_when_encoded() -> None:
    message = Message("/a", "info")
    message.data = {1, 2}

    for use in (
        message.encode,
        lambda: str(message),
        lambda: repr(message),
        lambda: message.head,
        lambda: pickle.dumps(message),
    ):
        with pytest.raises(MessageError):
            use()


def test_all_attributes_can_be_changed() -> None:
    message = Message("/a", "info", "data")
    message.subject, message.type, message.sender = "/b", "file", "you@there"
    message.time, message.data, message.version = NOON, {"c": 1}, "v1.2"

    assert str(message) == 'pytroll://b file you@there 2020-01-01T12:00:00 v1.2 application/json {"c": 1}'


def test_a_message_reads_the_same_in_three_ways() -> None:
    message = Message("/a", "info", {"b": 1})

    assert message.encode() == str(message) == repr(message)


def test_the_head_is_the_message_without_its_data() -> None:
    message = Message.decode(TEXT)

    assert message.head == TEXT.removesuffix(" text/ascii x y")


def test_the_head_has_the_version_that_the_data_need() -> None:
    assert Message("/a", "info", {"t": NOON}).head.endswith(" v1.2")


@pytest.mark.parametrize(
    ("sender", "user", "host"), [("me@there", "me", "there"), ("me@a@b", "me", "a@b"), ("me", "", ""), ("@", "", "")]
)
def test_user_and_host_are_the_two_sides_of_the_senders_first_at(sender: str, user: str, host: str) -> None:
    message = Message("/a", "info")
    message.sender = sender

    assert (message.user, message.host) == (user, host)


@pytest.mark.parametrize("raw", [TEXT, TEXT.encode(), bytearray(TEXT.encode())])
@pytest.mark.parametrize("decode", [Message.decode, Message.from_string])
def test_a_message_is_decoded_without_a_warning(decode: Any, raw: Any) -> None:
    message = decode(raw)

    assert (message.subject, message.type, message.data, message.host) == ("/a", "b", "x y", "h.org")
    assert str(message) == TEXT


def test_the_old_way_to_decode_still_works_and_warns() -> None:
    with pytest.warns(PendingDeprecationWarning, match="Message.decode"):
        message = Message("ignored", rawstr=TEXT)

    assert str(message) == TEXT


def test_a_subclass_may_decode_in_the_old_way() -> None:
    class Order(Message):
        @classmethod
        def decode(cls, rawstr: str | bytes, max_size: int = 0) -> Self:
            return cls(rawstr=rawstr)

    with pytest.warns(PendingDeprecationWarning, match="Message.decode"):
        order = Order.decode(TEXT)

    assert (type(order), str(order)) == (Order, TEXT)


@pytest.mark.parametrize("raw", [None, ""])
def test_an_empty_raw_text_is_not_taken_for_one(raw: str | None) -> None:
    with pytest.raises(MessageError, match="Invalid subject"):
        Message(rawstr=raw)


def test_decoding_gives_an_instance_of_the_class_it_is_called_on() -> None:
    class Special(Message):
        pass

    assert type(Special.decode(TEXT)) is Special


def test_a_text_longer_than_allowed_is_refused() -> None:
    with pytest.raises(MessageError):
        Message.decode(TEXT, max_size=len(TEXT) - 1)


@pytest.mark.parametrize("raw", ["", b"", "rubbish", 1, None, b"\xff\xfe", "pytroll://a b c yesterday v1.01"])
def test_what_is_no_message_is_a_message_error(raw: Any) -> None:
    with pytest.raises(MessageError):
        Message.decode(raw)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda m, p=p: pickle.loads(pickle.dumps(m, p)) for p in range(6))],
)
@pytest.mark.parametrize("data", ["text", {"t": SUMMER_NOON, "l": [{}]}, b"\xff", [], None])
def test_copies_and_pickles_are_the_same_message(copied: Any, data: Any) -> None:
    message = Message("/a", "info", data, binary=isinstance(data, bytes))

    other = copied(message)

    assert str(other) == str(message)
    assert (other.data, other.binary) == (data, message.binary)
    assert type(other) is Message


def test_a_pickle_holds_the_message_as_it_is_sent() -> None:
    message = Message("/a", "info", "text")

    assert message.encode().encode() in pickle.dumps(message)


def test_messages_are_equal_only_to_themselves() -> None:
    message = Message.decode(TEXT)

    assert message == message
    assert message != Message.decode(TEXT)
    assert len({message, Message.decode(TEXT)}) == 2


@pytest.mark.parametrize(
    ("own", "configured", "written"),
    [
        ("v1.1", "v1.0", "v1.1"),
        (None, "v1.0", "v1.0"),
        ("", "v1.0", "v1.0"),
        (None, "", "v1.2"),
        (None, None, "v1.2"),
    ],
)
def test_the_version_is_the_messages_own_or_the_configured_or_the_lowest_needed(
    own: str | None, configured: str | None, written: str
) -> None:
    data = {"t": NOON}

    with config.set(message_version=configured):
        message = Message("/a", "info", data, version=own)

        assert body_of(message).startswith(f"{written} application/json")
        assert module.render_version(own, data) == written


def test_the_configured_version_is_looked_up_when_a_message_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message("/a", "info")
    assert body_of(message) == "v1.01"

    with config.set(message_version="v1.2"):
        assert body_of(message) == "v1.2"
    assert message.version is None


def test_a_decoded_message_is_written_in_the_version_it_came_in() -> None:
    message = Message.decode(TEXT)

    with config.set(message_version="v1.2"):
        assert str(message) == TEXT


def test_a_forwarded_old_message_with_aware_times_loses_their_zones() -> None:
    message = Message.decode(TEXT)
    message.data = {"t": SUMMER_NOON}

    assert body_of(message) == 'v1.01 application/json {"t": "2020-01-01T12:00:00"}'


@pytest.mark.parametrize("is_valid", [module.is_valid_subject, module.is_valid_type, module.is_valid_sender])
def test_words_are_valid(is_valid: Any) -> None:
    assert is_valid("/a")
    assert not any(is_valid(word) for word in ("", "a b", "a\n", b"a", None, 1))


@pytest.mark.parametrize(
    ("data", "version", "binary", "valid"),
    [
        ("", "v1.01", False, True),
        (None, None, False, True),
        ({"a": [1, NOON]}, "v1.2", False, True),
        ({1, 2}, "v1.2", False, False),
        (date(2020, 1, 1), "v1.2", False, True),
        (date(2020, 1, 1), "v1.01", False, False),
        (b"bytes", "v1.01", True, True),
        ("text", "v1.01", True, True),
        ({"a": 1}, "v1.01", True, False),
    ],
)
def test_data_are_valid_when_they_can_be_written(data: Any, version: str | None, binary: bool, valid: bool) -> None:
    assert module.is_valid_data(data, version, binary) == valid


@pytest.mark.parametrize(
    ("data", "version"), [("", "v1.01"), ({"a": 1}, "v1.01"), ([(NOON,)], "v1.2"), ({"a": {"b": SUMMER_NOON}}, "v1.2")]
)
def test_the_version_needed_depends_on_datetimes(data: Any, version: str) -> None:
    assert module.version_needed(data) == version


def test_datetimes_are_revived_in_what_json_gave() -> None:
    assert module.datetime_decoder({"a": ["2020-01-01T12:00:00", "20200101"]}) == {"a": [NOON, "20200101"]}
    assert module.datetime_decoder(["2020-01-01T12:00:00"]) == [NOON]
    assert module.datetime_decoder("2020-01-01T12:00:00") == "2020-01-01T12:00:00"


def test_datetimes_are_written_in_the_way_of_a_version() -> None:
    assert module.create_datetime_encoder_for_version("v1.01")(SUMMER_NOON) == "2020-01-01T12:00:00"
    assert module.create_datetime_encoder_for_version()(SUMMER_NOON) == "2020-01-01T12:00:00+02:00"


def test_the_json_encoder_refuses_what_is_no_time() -> None:
    default = module.create_datetime_json_encoder_for_version("v1.2")

    assert json.dumps([NOON], default=default) == '["2020-01-01T12:00:00"]'
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps([{1, 2}], default=default)


@pytest.fixture
def forgotten_login_name() -> Iterator[None]:
    """Have the login name looked up anew, and again after the test."""
    module._login_name.cache_clear()
    yield
    module._login_name.cache_clear()


@pytest.mark.usefixtures("forgotten_login_name")
def test_a_user_that_nobody_knows_signs_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 123_456_789)

    assert Message("/a", "info").user == "123456789"


@pytest.mark.usefixtures("forgotten_login_name")
@pytest.mark.parametrize(
    ("name", "host", "sender"), [("my name", "my host", "my_name@my_host"), ("", "", f"{os.getuid()}@localhost")]
)
def test_odd_names_of_user_and_host_make_a_sender(
    monkeypatch: pytest.MonkeyPatch, name: str, host: str, sender: str
) -> None:
    entry = pwd.struct_passwd((name, "", os.getuid(), 0, "", "", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setattr(socket, "gethostname", lambda: host)

    assert Message("/a", "info").sender == sender


def test_a_replaced_host_name_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    before = Message("/a", "info").host
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        meanwhile = Message("/a", "info").host

    assert (meanwhile, Message("/a", "info").host) == ("elsewhere", before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.text(st.characters()))
def test_whatever_is_decoded_is_a_message_or_a_message_error(raw: str | bytes) -> None:
    try:
        message = Message.decode(raw)
    except MessageError:
        return
    assert isinstance(message, Message)


def test_names_that_others_import_are_there() -> None:
    assert (module._MAGICK, module.CURRENT_MESSAGE_VERSION) == ("pytroll:/", "v1.2")
    assert issubclass(MessageError, Exception)
