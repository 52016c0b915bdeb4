from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.errors import ConfigurationError
from posttroll.protocol.peer_addresses import PeerAddress

_texts = st.text(max_size=50) | st.text(alphabet="abtcp019:/@~[].%* \n", max_size=40)


@pytest.mark.parametrize(
    ("text", "peer", "path"),
    [
        ("bob", "bob", ""),
        ("bob/", "bob", ""),
        ("bob/in/1", "bob", "in/1"),
        ("example.org", "example.org", ""),
        ("fred:trustno1@bob/in", "bob", "in"),
        ("example.org:1234", "tcp://example.org:1234", ""),
        ("tcp://example.org:1234", "tcp://example.org:1234", ""),
        ("TCP://example.org:1234", "tcp://example.org:1234", ""),
        ("tcp://127.0.0.1:1234/in", "tcp://127.0.0.1:1234", "in"),
        ("tcp://fred:trustno1@example.org:1234/in", "tcp://example.org:1234", "in"),
        ("tcp://[::1]:1234/in", "tcp://[::1]:1234", "in"),
        ("[fe80::1%eth0]:1234", "tcp://[fe80::1%eth0]:1234", ""),
        ("bob/a@b:c//~", "bob", "a@b:c//~"),
    ],
)
def test_an_address_is_a_name_or_a_place_and_maybe_a_path(text: str, peer: str, path: str) -> None:
    address = PeerAddress.parse(text)

    assert (address.peer, address.path, address.is_listening) == (peer, path, False)


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("tcp://host:1", "", ""),
        ("fred@bob", "fred", ""),
        ("fred:@bob", "fred", ""),
        ("tcp://fred:trustno1@host:1", "fred", "trustno1"),
        ("fred:a:b@c@bob", "fred", "a:b@c"),
    ],
)
def test_user_and_password_are_before_the_host(text: str, user: str, password: str) -> None:
    address = PeerAddress.parse(text)

    assert (address.user, address.password) == (user, password)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("tcp://~0.0.0.0:1234", "tcp://0.0.0.0:1234"),
        ("~0.0.0.0:0", "tcp://0.0.0.0:0"),
        ("~*", "tcp://*:0"),
        ("tcp://~[::]", "tcp://[::]:0"),
        ("~fred:trustno1@host:5", "tcp://host:5"),
    ],
)
def test_a_tilde_says_to_listen(text: str, where: str) -> None:
    address = PeerAddress.parse(text)

    assert address.is_listening
    assert address.peer == where


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an address is a name"),
        ("tcp://", "an address is a name"),
        ("/in", "an address is a name"),
        ("@bob", "an address is a name"),
        ("fred@", "an address is a name"),
        ("bob:", "an address is a name"),
        ("bob:port", "an address is a name"),
        ("bob:123456", "an address is a name"),
        ("bob:\u0661", "an address is a name"),
        ("::1", "an address is a name"),
        ("[::1", "an address is a name"),
        ("~~bob", "an address is a name"),
        ("://bob", "an address is a name"),
        ("my bob", "white space"),
        ("bob\n", "white space"),
        ("bob\x00", "cannot be printed"),
        ("bob\ud800", "cannot be printed"),
        ("b" * 1025, "more than 1024"),
        ("amqp://bob:1234", "no scheme 'amqp'; known: tcp"),
        ("tcp://bob", "has no port"),
        ("[::1]", "has no port"),
        ("[bob]:1", "only an IPv6 address"),
        ("bob:0", "0 is no port to connect to"),
        ("bob:65536", "65536 is no port to connect to"),
        ("~*:65536", "65536 is no port to listen on"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        PeerAddress.parse(text)


@pytest.mark.parametrize("text", ["fred:trustno1@bob:port", "amqp://fred:trustno1@bob", "fred:trustno1@@x y"])
def test_no_password_is_told_of(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        PeerAddress.parse(text)

    assert "trustno1" not in str(raised.value)


def test_no_password_is_in_the_representation() -> None:
    assert "trustno1" not in repr(PeerAddress.parse("fred:trustno1@bob"))


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("fred:trustno1@bob/in", "bob/in"),
        ("tcp://~fred@[::1]:5/in", "tcp://~[::1]:5/in"),
        ("bob", "bob"),
    ],
)
def test_the_credentials_can_be_taken_off(text: str, visible: str) -> None:
    assert str(PeerAddress.parse(text).without_credentials()) == visible


@given(_texts)
def test_whatever_the_text_the_only_error_is_that_it_is_no_address(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        PeerAddress.parse(text)


@given(_texts)
def test_an_address_as_text_is_the_same_address(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        address = PeerAddress.parse(text)

        assert PeerAddress.parse(str(address)) == address
        assert PeerAddress.parse(address.peer).peer == address.peer or address.is_listening


@given(st.text(alphabet="abc:@/[]~.", min_size=500, max_size=1024))
def test_a_long_text_is_decided_upon_at_once(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        PeerAddress.parse(text)
