"""The properties of addressed messages, and the payloads that they are written to."""

from __future__ import annotations

import pytest

from posttroll.errors import ConfigurationError, RemoteProtocolError
from posttroll.protocol.properties import Properties, decode_payload, encode_payload

ALL = Properties("1", "bob/inbox", "alice/outbox", "0")


@pytest.mark.parametrize("message", [b"", b"text", b"two\nlines", b"\n\n", "straße".encode()])
@pytest.mark.parametrize("properties", [Properties("1", "bob"), ALL, Properties("a\nb", 'straße "1"')])
def test_what_is_encoded_is_decoded_to_the_same(message: bytes, properties: Properties) -> None:
    assert decode_payload(encode_payload(message, properties), "") == (message, properties)


def test_the_source_is_who_the_payload_came_from_whatever_it_says() -> None:
    payload = encode_payload(b"", Properties("1", "bob", source="the king"))

    _, properties = decode_payload(payload, "mallory")

    assert properties.source == "mallory"


def test_properties_of_a_later_release_are_ignored() -> None:
    assert decode_payload(b'x\n{"id": "1", "to": "bob", "priority": 3}', "a") == (
        b"x",
        Properties("1", "bob", source="a"),
    )


@pytest.mark.parametrize(
    "properties",
    [
        Properties("", "bob"),
        Properties("x" * 201, "bob"),
        Properties("1", "b" * 1025),
        Properties("1", "bob", "b" * 1025),
        Properties("1", "bob", "", "x" * 201),
        Properties(1, "bob"),  # type: ignore[arg-type]
        Properties("\ud800", "bob"),
        Properties(object(), "bob"),  # type: ignore[arg-type]
    ],
)
def test_what_no_peer_would_take_is_not_written(properties: Properties) -> None:
    with pytest.raises(ConfigurationError, match="cannot have these properties"):
        encode_payload(b"", properties)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"1",
        b'{"id": "1"}',
        b'{"id": "", "to": "bob"}',
        b'{"id": "1", "to": null}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_what_are_no_properties_is_told(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="its properties are none"):
        decode_payload(b"message\n" + line, "mallory")


def test_a_payload_without_properties_is_told() -> None:
    with pytest.raises(RemoteProtocolError, match="no properties"):
        decode_payload(b"message", "mallory")
