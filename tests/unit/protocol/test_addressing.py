"""Where messages go, and which address is seen there."""

from __future__ import annotations

import pytest

from posttroll.errors import ConfigurationError
from posttroll.protocol.addressing import Addressing, Destination, checked_name, peer_at, without_credentials


@pytest.fixture
def addressing() -> Addressing:
    return Addressing()


@pytest.mark.parametrize(
    ("address", "peer", "visible"),
    [
        ("bob", "bob", "bob"),
        ("bob/inbox/1", "bob", "bob/inbox/1"),
        ("user@bob/inbox", "bob", "bob/inbox"),
        ("tcp://host:1/inbox", "tcp://host:1", "tcp://host:1/inbox"),
        ("tcp://user:p@ss@host:1/inbox", "tcp://host:1", "tcp://host:1/inbox"),
        ("host:1", "tcp://host:1", "host:1"),
    ],
)
def test_without_rules_an_address_is_seen_without_user_and_password(
    addressing: Addressing, address: str, peer: str, visible: str
) -> None:
    assert addressing.resolve(address) == Destination(peer, visible)


def test_a_route_changes_the_peer_and_not_what_is_seen(addressing: Addressing) -> None:
    addressing.route("all/%", "$1")
    addressing.route("all/bob", "nobody")

    assert addressing.resolve("all/bob") == Destination("bob", "all/bob")


def test_a_rewrite_changes_what_is_seen_and_not_the_peer(addressing: Addressing) -> None:
    addressing.rewrite("%/secret", "$1")

    assert addressing.resolve("bob/secret") == Destination("bob", "bob")


def test_a_rewrite_sees_the_address_as_it_was_given(addressing: Addressing) -> None:
    addressing.route("a", "b")
    addressing.rewrite("b", "wrong")
    addressing.rewrite("a", "right")

    assert addressing.resolve("a") == Destination("b", "right")


def test_not_even_a_rewrite_shows_user_and_password(addressing: Addressing) -> None:
    addressing.rewrite("bob", "user:password@bobby")

    assert addressing.resolve("bob").visible == "bobby"


def test_a_rule_counts_for_addresses_seen_before_it_too(addressing: Addressing) -> None:
    assert addressing.resolve("bob") == Destination("bob", "bob")

    addressing.route("bob", "alice")
    assert addressing.resolve("bob") == Destination("alice", "bob")

    addressing.rewrite("bob", "robert")
    assert addressing.resolve("bob") == Destination("alice", "robert")


@pytest.mark.parametrize("address", ["", "a b", "udp://host:1", "tcp://host", "~host:1", "host:0"])
def test_what_leads_nowhere_is_refused(addressing: Addressing, address: str) -> None:
    with pytest.raises(ConfigurationError):
        addressing.resolve(address)
    with pytest.raises(ConfigurationError):
        peer_at(address)


def test_a_route_to_where_one_can_only_listen_is_refused_without_telling_the_password(addressing: Addressing) -> None:
    addressing.route("*", "tcp://~user:secret@host:1")

    with pytest.raises(ConfigurationError, match="where to listen") as refusal:
        addressing.resolve("bob")

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(("pattern", "address"), [("%" * 10, "bob"), ("bob", "$1")])
def test_rules_that_cannot_work_are_refused(addressing: Addressing, pattern: str, address: str) -> None:
    with pytest.raises(ConfigurationError):
        addressing.route(pattern, address)
    with pytest.raises(ConfigurationError):
        addressing.rewrite(pattern, address)


def test_an_address_is_shown_without_user_and_password() -> None:
    assert without_credentials("tcp://user:secret@host:1/path") == "tcp://host:1/path"


@pytest.mark.parametrize("name", ["bob", "bob.example-1_a", "straße", "*", "x" * 200])
def test_a_name_is_what_is_no_address(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n", "tcp://a:1", "a:1", "a@b", "~a", "x" * 201])
def test_a_name_that_nobody_could_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        checked_name(name)
