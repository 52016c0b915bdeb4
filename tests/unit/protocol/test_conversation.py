"""What two containers say of themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from posttroll.protocol.conversation import Conversation, PeerInfo
from posttroll.protocol.frames import Open
from posttroll.protocol.link import Patience

PATIENCE = Patience(resend=1.0, interval=2.0, silence=10.0)
QUEUES = {"queue": "messages"}


class End:
    """One end, with time that goes on as it is told."""

    def __init__(self, address: str = "") -> None:
        self.conversation = Conversation("place", address, "bob", "the life of bob", 0.0, PATIENCE)
        self.numbers = itertools.count(5)

    def says(self, now: float = 0.0, offered: Mapping[str, str] = QUEUES) -> list[Open]:
        return list(self.conversation.speak(offered, self.numbers, now))

    def hears(self, number: int = 1, heard: int = 0, *, awaits: bool = False, **more: str) -> None:
        queues = {more["queue"]: "messages"} if "queue" in more else {}
        self.conversation.receive(Open("alice", "the life of alice", 1, number, heard, awaits, queues), "key")


def said(number: int = 5, heard: int = 0, *, awaits: bool = True, queues: Mapping[str, str] = QUEUES) -> Open:
    return Open("bob", "the life of bob", 1, number, heard, awaits, dict(queues))


@pytest.fixture
def end() -> End:
    """Make an end that has said nothing."""
    return End()


def test_it_says_who_it_is_until_that_is_answered(end: End) -> None:
    assert end.says(0.0) == [said()]
    assert end.says(0.9) == []
    assert end.conversation.next_timeout() == 1.0
    assert end.says(1.0) == [said()]

    end.hears(1, heard=5)

    assert end.says(1.1) == []
    assert end.conversation.next_timeout() == 3.0
    assert end.says(3.0) == [said(heard=1, awaits=False)]


def test_it_answers_at_once_who_awaits_that(end: End) -> None:
    end.says()

    end.hears(3, heard=5, awaits=True)

    assert end.says() == [said(heard=3, awaits=False)]
    assert end.says() == []


def test_what_has_changed_is_said_at_once_and_until_it_is_answered(end: End) -> None:
    end.says()
    end.hears(1, heard=5)

    assert end.says(0.1, {}) == [said(6, heard=1, queues={})]
    end.hears(1, heard=5)
    assert end.says(1.1, {}) == [said(6, heard=1, queues={})]
    end.hears(1, heard=6)
    assert end.says(1.2, {}) == []


def test_what_is_out_of_date_is_not_believed(end: End) -> None:
    end.hears(2, heard=7, queue="new")

    end.hears(1, heard=3, queue="old")

    assert end.conversation.queues == {"new": "messages"}
    assert end.says() == [said(heard=2, awaits=False)]


@pytest.mark.parametrize(("address", "names"), [("", ["alice"]), ("tcp://there:1", ["alice", "tcp://there:1"])])
def test_the_other_end_is_known_by_its_name_and_where_it_was_connected_to(address: str, names: list[str]) -> None:
    end = End(address)

    end.hears()

    assert end.conversation.state == "open"
    assert end.conversation.peer == PeerInfo("alice", address, "key")
    assert end.conversation.names == names


def test_the_key_is_that_of_the_first_open(end: End) -> None:
    end.hears()

    end.conversation.receive(Open("alice", "the life of alice", 1, 2), "another key")

    assert end.conversation.peer.key == "key"


def test_silence_is_noticed_in_time(end: End) -> None:
    end.conversation.heard(3.0)

    assert not end.conversation.is_silent(12.9)
    assert end.conversation.is_silent(13.0)
    end.says(12.5)
    assert end.conversation.next_timeout() == 13.0


def test_who_is_closed_says_nothing_and_is_looked_at_when_the_other_end_was_silent(end: End) -> None:
    end.conversation.state = "closed"

    assert end.says() == []
    assert end.conversation.next_timeout() == 10.0
