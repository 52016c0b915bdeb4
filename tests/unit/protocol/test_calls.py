"""What is said about calls, and how exceptions travel."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.errors import (
    CallCancelled,
    CallInterrupted,
    DecodeError,
    EncodeError,
    MethodNotFound,
    RemoteError,
    RemoteProtocolError,
)
from posttroll.protocol import calls, codec
from posttroll.protocol.calls import Cancel, Encoders, Failure, Flow, Progress, Request, Result

REQUEST = Request("areas", "size", ["euro4"], {"unit": "km"}, 30.0)
CONTENTS = [
    REQUEST,
    Progress(3, "half"),
    Result({"width": 1}),
    Failure("ValueError: no", "ValueError"),
    Cancel(),
    Flow(7),
]
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20)


class WrittenInC:
    """An encoder that somebody plugged in."""

    encode = staticmethod(msgspec.msgpack.encode)
    decode = staticmethod(msgspec.msgpack.decode)


def over_the_wire(error: BaseException, **options: Any) -> Exception:
    """Return what arrives of an exception."""
    kind, data = calls.encode(calls.describe(error, **options))
    text = codec.encode("/rpc", kind, "u@h", dt.datetime(2026, 1, 1), None, data)
    failure = calls.decode(kind, codec.decode(text).data)
    assert isinstance(failure, Failure)
    return calls.rebuild(failure)


def raised(error: BaseException) -> BaseException:
    """Return an exception as it is when it was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
def test_what_was_said_is_read_as_it_was(content: calls.Content) -> None:
    assert calls.decode(*calls.encode(content)) == content


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("file", {}),
        ("request", "text"),
        ("request", {}),
        ("request", {**calls.encode(REQUEST)[1], "timeout": -1}),
        ("request", {**calls.encode(REQUEST)[1], "timeout": 1e300}),
        ("request", {**calls.encode(REQUEST)[1], "object": "a" * 201}),
        ("request", {**calls.encode(REQUEST)[1], "method": ["size"]}),
        ("request", {**calls.encode(REQUEST)[1], "arguments": [0] * 1001}),
        ("request", {**calls.encode(REQUEST)[1], "keywords": {str(number): 0 for number in range(1001)}}),
        ("request", {**calls.encode(REQUEST)[1], "idempotent": "yes"}),
        ("progress", {"number": -1}),
        ("error", {"text": None}),
        ("error", {"text": "x" * 30_000}),
        ("flow", {"taken": 2**60}),
        ("flow", None),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(kind: str, data: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        calls.decode(kind, data)


@given(st.sampled_from(["request", "progress", "result", "error", "cancel", "flow", "other"]), JSON)
def test_whatever_comes_is_read_or_refused(kind: str, data: Any) -> None:
    with contextlib.suppress(RemoteProtocolError):
        calls.decode(kind, data)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such area"),
        KeyError("euro4"),
        KeyError(3, None, 1.5, True),
        ZeroDivisionError("division by zero"),
        FileNotFoundError(2, "No such file or directory", "/data/granule"),
        OSError(28, "No space left on device"),
        RuntimeError(),
    ],
    ids=repr,
)
def test_an_exception_that_python_brings_along_arrives_as_it_was_raised(error: Exception) -> None:
    arrived = over_the_wire(raised(error))

    assert type(arrived) is type(error)
    assert (arrived.args, str(arrived)) == (error.args, str(error))


def test_each_built_in_exception_that_can_arrive_does() -> None:
    assert {type(over_the_wire(error("x"))) for error in calls.BUILT_IN_ERRORS.values()} == {
        *calls.BUILT_IN_ERRORS.values()
    }


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(1), GeneratorExit()], ids=repr)
def test_what_would_end_a_program_or_a_loop_does_not_arrive_as_that(error: BaseException) -> None:
    arrived = over_the_wire(raised(error))

    assert isinstance(arrived, RemoteError)
    assert arrived.type == type(error).__name__


def test_an_exception_of_a_class_of_its_own_arrives_by_its_name_and_text() -> None:
    class NoSuchArea(ValueError):
        pass

    arrived = over_the_wire(raised(NoSuchArea("euro5")))

    assert type(arrived) is RemoteError
    assert (arrived.type, str(arrived)) == ("NoSuchArea", "NoSuchArea: euro5")


@pytest.mark.parametrize("error", [CallCancelled, CallInterrupted, MethodNotFound])
def test_what_is_said_about_calls_arrives_as_that(error: type[RemoteError]) -> None:
    arrived = over_the_wire(error("why"))

    assert (type(arrived), str(arrived)) == (error, "why")


def test_the_traceback_arrives_as_text_and_is_shown() -> None:
    arrived = over_the_wire(raised(ValueError("no")))

    assert "in raised" in arrived.remote_traceback
    assert arrived.remote_traceback in arrived.__notes__[0]


def test_the_traceback_can_be_kept_back() -> None:
    arrived = over_the_wire(raised(ValueError("no")), with_traceback=False)

    assert arrived.remote_traceback == ""
    assert not hasattr(arrived, "__notes__")


def test_all_but_the_failure_can_be_kept_back() -> None:
    arrived = over_the_wire(raised(ValueError("secret")), in_full=False)

    assert (type(arrived), str(arrived), arrived.remote_traceback) == (RemoteError, "the call failed", "")


def test_arguments_that_json_cannot_say_arrive_as_text() -> None:
    arrived = over_the_wire(ValueError(b"\xff", ["list"], 2**70, "\ud800", dt.date(2026, 1, 1)))

    assert arrived.args == ("b'\\xff'", "['list']", str(2**70), "?", "2026-01-01")


def test_an_exception_that_cannot_be_printed_arrives_nevertheless() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    arrived = over_the_wire(Unprintable(Unprintable()))

    assert str(arrived) == "Unprintable: an unprintable Unprintable"


def test_what_an_exception_says_is_bounded() -> None:
    failure = calls.describe(ValueError("x" * 10**6, *range(100)))

    assert len(failure.text) < 20_000
    assert len(failure.arguments) == 10
    assert len(failure.arguments[0]) <= 10_000


@given(st.sampled_from(sorted(calls.BUILT_IN_ERRORS)), st.lists(JSON, max_size=10))
def test_whatever_a_failure_says_there_is_something_to_raise_and_print(name: str, arguments: list[Any]) -> None:
    arrived = calls.rebuild(Failure("x", name, arguments))

    assert isinstance(arrived, calls.BUILT_IN_ERRORS[name])
    assert isinstance(str(arrived), str)


@pytest.mark.parametrize("name", ["eval", "BaseException", "SystemExit", "RemoteError", "posttroll.errors.TimedOut"])
def test_no_name_from_the_wire_is_looked_up_elsewhere(name: str) -> None:
    assert type(calls.rebuild(Failure("x", name, ["1"]))) is RemoteError


def test_json_goes_into_the_data_as_it_is() -> None:
    encoders = Encoders()

    packed = encoders.pack_arguments("json", (1, "a"), {"b": 2})

    assert packed == ([1, "a"], {"b": 2})
    assert encoders.unpack_arguments(REQUEST) == (["euro4"], {"unit": "km"})


def test_another_encoder_writes_values_and_arguments_as_text() -> None:
    encoders = Encoders({"msgpack": WrittenInC})

    arguments, keywords = encoders.pack_arguments("msgpack", (b"\xff",), {"b": 2})
    request = Request("a", "b", arguments, keywords, 1.0, encoder="msgpack")

    assert isinstance(arguments, str)
    assert encoders.unpack_arguments(request) == ([b"\xff"], {"b": 2})
    assert encoders.unpack("msgpack", encoders.pack("msgpack", b"\xff")) == b"\xff"


def test_what_an_encoder_cannot_write_is_told() -> None:
    with pytest.raises(EncodeError, match="msgpack cannot write object"):
        Encoders({"msgpack": WrittenInC}).pack("msgpack", object())


@pytest.mark.parametrize(
    ("encoder", "packed", "told"),
    [
        ("pickle", "gASVBQ==", "unknown encoder 'pickle'; known: json, msgpack"),
        ("msgpack", "not base64!", "not base64"),
        ("msgpack", ["wQ=="], "not base64"),
        ("msgpack", "wQ==", "msgpack cannot read what came"),
    ],
)
def test_what_an_encoder_cannot_read_is_told(encoder: str, packed: Any, told: str) -> None:
    with pytest.raises(DecodeError, match=told):
        Encoders({"msgpack": WrittenInC}).unpack(encoder, packed)


@pytest.mark.parametrize("value", [3, [1, 2], [{}, []], [[], {1: 2}], [[0] * 1001, {}]])
def test_what_another_encoder_wrote_has_to_be_arguments(value: Any) -> None:
    encoders = Encoders({"msgpack": WrittenInC})
    request = Request("a", "b", encoders.pack("msgpack", value), {}, 1.0, encoder="msgpack")

    with pytest.raises(DecodeError, match="no arguments"):
        encoders.unpack_arguments(request)


def test_json_arguments_have_to_be_a_list() -> None:
    with pytest.raises(DecodeError, match="no arguments"):
        Encoders().unpack_arguments(Request("a", "b", "text", {}, 1.0))
