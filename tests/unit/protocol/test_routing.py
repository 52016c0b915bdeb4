from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.message import Message
from posttroll.protocol.routing import Routing

_types = st.sampled_from(["file", "dataset"])
_subjects = st.text(alphabet="/ab", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("topic", "subject", "is_wanted"),
    [
        ("/1b/viirs", "/1b/viirs", True),
        ("/1b/viirs", "/1b/viirs/npp", True),
        ("/1b/viirs", "/1b/viirs2", True),
        ("1b/viirs", "/1b/viirs", True),
        ("pytroll://1b/viirs", "/1b/viirs/npp", True),
        ("/1b/viirs/", "/1b/viirs2", False),
        ("/1b/viirs", "/1b/vii", False),
        ("/1b/viirs", "/0/1b/viirs", False),
        ("", "/1b/viirs", True),
        ("/", "/1b/viirs", True),
        ("/1b/viirs ", "/1b/viirs", True),
        ("/1b/viirs ", "/1b/viirs/npp", False),
    ],
)
def test_a_topic_is_what_a_message_begins_with_as_in_a_subscription(topic: str, subject: str, is_wanted: bool) -> None:
    routing = Routing[str]()
    routing.add("handler", None, topic)

    found = routing.find(Message(subject, "file"))

    assert found == (["handler"] if is_wanted else [])


def test_a_handler_gets_messages_of_its_type() -> None:
    routing = Routing[str]()
    routing.add("files", "file", "/1b")
    routing.add("all", None, "/1b")

    found = [routing.find(Message("/1b", kind)) for kind in ("file", "files", "dataset")]

    assert found == [["files", "all"], ["all"], ["all"]]


def test_several_handlers_are_found_in_the_order_in_which_they_were_added() -> None:
    routing = Routing[int]()
    for number, topic in enumerate(["/1b/viirs", "", "/1b", "/2", "/1b/viirs", "/"]):
        routing.add(number, "file", topic)

    assert routing.find(Message("/1b/viirs/npp", "file")) == [0, 1, 2, 4, 5]


def test_a_handler_with_several_wishes_is_found_once() -> None:
    routing = Routing[str]()
    for handler, topic in [("one", "/1b"), ("other", ""), ("one", "/1b/viirs")]:
        routing.add(handler, None, topic)

    assert routing.find(Message("/1b/viirs", "file")) == ["one", "other"]


def test_without_handlers_none_is_found() -> None:
    assert Routing[str]().find(Message("/1b", "file")) == []


@given(st.lists(st.tuples(st.none() | _types, _subjects)), _types, _subjects)
def test_handlers_are_found_as_if_each_was_asked(wishes: list[tuple[str | None, str]], kind: str, subject: str) -> None:
    routing = Routing[int]()
    for number, (wanted, topic) in enumerate(wishes):
        routing.add(number, wanted, f"/{topic}")

    found = routing.find(Message(f"/{subject}", kind))

    assert found == [
        number for number, (wanted, topic) in enumerate(wishes) if wanted in (None, kind) and subject.startswith(topic)
    ]
