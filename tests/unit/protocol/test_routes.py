from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.errors import ConfigurationError
from posttroll.protocol.routes import WITHOUT_CREDENTIALS, Routes


def all_found(pattern: str) -> str:
    """Return an address that shows what each wildcard of a pattern stands for."""
    return "".join(f"[${number}]" for number, _ in enumerate(re.findall("[%*]", pattern), start=1))


def routes(*rules: tuple[str, str]) -> Routes:
    made = Routes()
    for pattern, address in rules:
        made.add(pattern, address)
    return made


@pytest.mark.parametrize(
    ("pattern", "address", "given_address", "resolved"),
    [
        ("foo", "amqp://foo.com", "foo", "amqp://foo.com"),
        ("foobar", "amqp://foo.com/bar", "foobar", "amqp://foo.com/bar"),
        ("bar/*", "amqp://bar.com/$1", "bar/baz/qux", "amqp://bar.com/baz/qux"),
        ("amqp:*", "amqps:$1", "amqp://foo.com/bar", "amqps://foo.com/bar"),
        (
            "amqp://foo.com/*",
            "amqp://user:password@foo.com/$1",
            "amqp://foo.com/bar",
            "amqp://user:password@foo.com/bar",
        ),
        ("amqp://*", "amqp://user:password@$1", "amqp://foo.com/bar", "amqp://user:password@foo.com/bar"),
        (
            "amqp://%/*",
            "amqp://user:password@proxy/$1/$2",
            "amqp://foo.com/bar/baz",
            "amqp://user:password@proxy/foo.com/bar/baz",
        ),
        ("*", "amqp://user:password@broker/$1", "foo/bar", "amqp://user:password@broker/foo/bar"),
    ],
)
def test_the_eight_examples_of_messenger_work(pattern: str, address: str, given_address: str, resolved: str) -> None:
    assert routes((pattern, address)).resolve(given_address) == resolved


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("foo", "foobar"),
        ("foo", "a/foo"),
        ("bar/*", "bar"),
        ("amqp://%", "amqp://foo.com/bar"),
        ("%/%", "a/b/c"),
        ("", "a"),
        ("f.o", "foo"),
        ("foo", "FOO"),
        ("*a*b*", "ba"),
    ],
)
def test_an_address_that_no_rule_fits_stays_as_it_is(pattern: str, address: str) -> None:
    assert routes((pattern, "other")).resolve(address) == address


@pytest.mark.parametrize(
    ("pattern", "address", "found"),
    [
        ("bar/*", "bar/", "[]"),
        ("*", "", "[]"),
        ("%/%", "a/b", "[a][b]"),
        ("*/*", "a/b/c", "[a/b][c]"),
        ("%/*", "a/b/c", "[a][b/c]"),
        ("*/%", "a/b/c", "[a/b][c]"),
        ("*%", "a/b", "[a/b][]"),
        ("%*", "a/b", "[a][/b]"),
        ("*ab*", "abab", "[ab][]"),
        ("*aa*", "aaa", "[a][]"),
        ("a%a*", "aba/a", "[b][/a]"),
    ],
)
def test_a_wildcard_stands_for_as_much_as_it_can(pattern: str, address: str, found: str) -> None:
    assert routes((pattern, all_found(pattern))).resolve(address) == found


def test_the_first_rule_that_fits_decides() -> None:
    rules = routes(("a/*", "first/$1"), ("*", "second/$1"), ("b", "third"))

    assert [rules.resolve(address) for address in ("a/1", "b", "c")] == ["first/1", "second/b", "second/c"]


def test_what_a_rule_gives_is_not_routed_again() -> None:
    assert routes(("a", "b"), ("b", "c")).resolve("a") == "b"


def test_what_a_wildcard_stands_for_is_taken_as_it_is() -> None:
    assert routes(("%/%", "$2$1$2")).resolve("$1/$2") == "$2$1$2"


def test_a_dollar_without_number_is_a_dollar() -> None:
    assert routes(("*", "$$1$0$x$")).resolve("a") == "$a$0$x$"


@pytest.mark.parametrize(
    ("address", "visible"),
    [
        ("amqp://user:password@broker/foo", "amqp://broker/foo"),
        ("tcp://user@[::1]:1234", "tcp://[::1]:1234"),
        ("user:password@bob/in", "bob/in"),
        ("user:p@ss@bob", "bob"),
        ("tcp://user:p@ss@bob:1/a@b", "tcp://bob:1/a@b"),
        ("tcp://bob:1/a@b", "tcp://bob:1/a@b"),
        ("bob/a@b", "bob/a@b"),
        ("bob", "bob"),
    ],
)
def test_user_and_password_can_be_taken_off(address: str, visible: str) -> None:
    assert Routes(WITHOUT_CREDENTIALS).resolve(address) == visible


def test_the_defaults_come_last() -> None:
    rewrites = Routes(WITHOUT_CREDENTIALS)
    rewrites.add("%@bob", "$1@alice")

    assert [rewrites.resolve(address) for address in ("me@bob", "me@eve")] == ["me@alice", "eve"]


@pytest.mark.parametrize(
    ("pattern", "address", "reason"),
    [
        ("*/%", "$3", r"no \$3: .* has 2 wildcards"),
        ("foo", "$1", r"no \$1: .* has 0 wildcards"),
        ("*" * 10, "", "more than 9 wildcards"),
        ("a" * 1025, "", "at most 1024 characters"),
        ("a", "a" * 1025, "at most 1024 characters"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(pattern: str, address: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Routes().add(pattern, address)


def test_an_endless_address_is_refused() -> None:
    assert Routes().resolve("a" * 2**16)

    with pytest.raises(ConfigurationError, match="at most 65536"):
        Routes().resolve("a" * (2**16 + 1))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("pattern", ["*a" * 9 + "b", "%a" * 9 + "b", "*%" * 4 + "b", "*/a" * 9 + "b", "*aa" * 8 + "%"])
@pytest.mark.parametrize("address", ["a" * 10_000, "a" * 9_999 + "b", "/a" * 5_000, "ab" * 5_000, "a/b" * 3_333 + "c"])
def test_no_address_takes_long(pattern: str, address: str) -> None:
    assert routes((pattern, "other")).resolve(address) in ("other", address)


@given(st.text(alphabet="ab/%*", max_size=9), st.text(alphabet="ab/", max_size=12))
def test_rules_fit_as_regular_expressions_would(pattern: str, address: str) -> None:
    expression = "".join({"%": "([^/]*)", "*": "(.*)"}.get(letter, letter) for letter in pattern)
    expected = re.fullmatch(expression, address)

    resolved = routes((pattern, f"!{all_found(pattern)}")).resolve(address)

    assert resolved == ("!" + "".join(f"[{group}]" for group in expected.groups()) if expected else address)
