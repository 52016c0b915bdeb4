from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.protocol import topics


@pytest.mark.parametrize(
    ("topic", "prefix"),
    [
        ("", "pytroll://"),
        ("/", "pytroll://"),
        ("counter", "pytroll://counter"),
        ("/counter", "pytroll://counter"),
        ("pytroll:/", "pytroll:/"),
        ("pytroll://counter", "pytroll://counter"),
        ("pytroll:", "pytroll://pytroll:"),
    ],
)
def test_a_topic_is_completed_to_the_beginning_of_its_messages(topic: str, prefix: str) -> None:
    assert topics.as_prefix(topic) == prefix


@pytest.mark.parametrize(
    ("given_topics", "prefixes"),
    [
        ("a", ["pytroll://a"]),
        (["a", "/b"], ["pytroll://a", "pytroll://b"]),
        (iter(("a",)), ["pytroll://a"]),
        ([], []),
    ],
)
def test_one_topic_or_several_are_completed(given_topics: list[str], prefixes: list[str]) -> None:
    assert topics.as_prefixes(given_topics) == prefixes


@given(st.text())
def test_a_completed_topic_stays_as_it_is(topic: str) -> None:
    prefix = topics.as_prefix(topic)

    assert topics.as_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("one", "other", "overlap"), [(b"", b"a", True), (b"ab", b"a", True), (b"a", b"ab", True), (b"ab", b"ac", False)]
)
def test_two_topics_overlap_when_one_begins_with_the_other(one: bytes, other: bytes, overlap: bool) -> None:
    assert topics.overlap(one, other) == overlap
