"""What a plain subscriber missed, told from heartbeats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttroll.protocol.gaps import Gaps, Tally

ALL = [b"pytroll://"]
HERE, THERE = "tcp://here:9000", "tcp://here:9001"
TOPICS = st.sampled_from(["pytroll://1b", "pytroll://1b/hrit", "pytroll://2", "pytroll://heartbeat/own", "no message"])
# A text that is no message has a number in the journal, too, but no subscriber: across a restart it counts as missed.
MESSAGE_TOPICS = TOPICS.filter(lambda topic: topic != "no message")
PREFIXES = st.lists(
    st.sampled_from([b"pytroll://", b"pytroll://1b", b"pytroll://1b/hrit", b"pytroll://2", b"pytroll://3"]), min_size=1
)


def decode(frame: bytes) -> object:
    """Return the data of a heartbeat."""
    try:
        return json.loads(frame.partition(b" ")[2])
    except ValueError:
        return None


class Journal:
    """A publisher's journal, and what it sends in each of its lives."""

    def __init__(self, identity: str = "journal") -> None:
        self.identity = identity
        self.last = self.lives = 0
        self.start()

    def start(self) -> None:
        """Begin another life."""
        self.lives += 1
        self.tally = Tally(self.identity, f"life {self.lives}")

    def send(self, topic: str = "pytroll://1b", how_many: int = 1) -> list[bytes]:
        """Return the frames of messages."""
        for _ in range(how_many):
            self.last += 1
            self.tally.count(topic)
        return [topic.encode() + b' {"min_interval": 0}'] * how_many

    def beat(self, **changed: Any) -> list[bytes]:
        """Return the frame of a heartbeat."""
        data = {"min_interval": 30, **self.tally.as_data(self.last), **changed}
        return [b"pytroll://heartbeat/me " + json.dumps(data).encode()]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def gaps() -> Gaps:
    return Gaps(decode)


def subscribed(frames: Iterable[bytes], topics: Iterable[bytes]) -> list[bytes]:
    """Return what a transport lets through."""
    return [frame for frame in frames if frame.startswith(tuple(topics))]


def test_nothing_is_missed_when_all_arrives(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)

    gaps.receive(HERE, journal.beat() + journal.send(how_many=3) + journal.beat())

    assert gaps.missed == 0


def test_what_does_not_come_between_two_heartbeats_is_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    arrived = journal.send(how_many=5)[:3]
    gaps.receive(HERE, arrived + journal.beat())
    gaps.receive(HERE, journal.beat())

    assert gaps.missed == 2


def test_what_was_sent_before_the_first_heartbeat_is_not_missed(gaps: Gaps, journal: Journal) -> None:
    journal.send(how_many=100)
    gaps.connect(HERE, ALL)

    gaps.receive(HERE, journal.send(how_many=2) + journal.beat() + journal.send() + journal.beat())

    assert gaps.missed == 0


@given(
    topics=PREFIXES,
    sent=st.lists(st.tuples(st.sampled_from("MMMBE"), TOPICS, st.booleans()), max_size=60),
)
def test_exactly_the_lost_ones_of_its_topics_are_missed_in_a_life(
    topics: list[bytes], sent: list[tuple[str, str, bool]]
) -> None:
    gaps, journal = Gaps(decode), Journal()
    prefixes = gaps.connect(HERE, topics)
    batch, lost = journal.beat(), 0

    for kind, topic, arrives in sent:
        if kind == "B":
            batch += journal.beat()
        elif kind == "E":
            gaps.receive(HERE, batch)
            batch = []
        elif arrives:
            batch += subscribed(journal.send(topic), prefixes)
        else:
            lost += len(subscribed(journal.send(topic), topics))
    gaps.receive(HERE, batch + journal.beat())

    assert gaps.missed == lost


@given(sent=st.lists(st.tuples(st.sampled_from("MMMBR"), st.booleans()), max_size=60))
def test_exactly_the_lost_ones_are_missed_across_restarts_by_who_gets_everything(sent: list[tuple[str, bool]]) -> None:
    gaps, journal = Gaps(decode), Journal()
    gaps.connect(HERE, ALL)
    batch, lost = journal.beat(), 0

    for kind, arrives in sent:
        frames = journal.send() if kind == "M" else journal.beat() if kind == "B" else []
        if kind == "R":
            journal.start()
        elif arrives:
            batch += frames
        else:
            lost += kind == "M"
    gaps.receive(HERE, batch + journal.beat())

    assert gaps.missed == lost


@given(
    topics=PREFIXES,
    sent=st.lists(st.tuples(st.sampled_from("MMMMBRPU"), MESSAGE_TOPICS, st.booleans()), max_size=80),
    limit=st.sampled_from([0, 1, 400]),
)
def test_never_more_is_missed_than_was_lost(topics: list[bytes], sent: list[tuple[str, str, bool]], limit: int) -> None:
    gaps, journal = Gaps(decode), Journal()
    for number in range(limit):
        journal.send(f"pytroll://1b/{number}")
    prefixes, address, lost = gaps.connect(HERE, topics), HERE, 0

    for kind, topic, arrives in sent:
        if kind == "R":
            journal.start()
        elif kind == "P":
            gaps.part(address)
            journal.start()
            address = THERE if address == HERE else HERE
            gaps.connect(address, topics)
        elif kind == "U":
            gaps.disconnect(address)
            gaps.connect(address, topics)
        else:
            frames = journal.send(topic) if kind == "M" else journal.beat()
            if arrives:
                gaps.receive(address, subscribed(frames, prefixes))
            else:
                lost += kind == "M" and bool(subscribed(frames, topics))
    gaps.receive(address, journal.beat())

    assert gaps.missed <= lost


def test_what_a_new_life_sent_before_it_was_heard_is_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, [b"pytroll://1b"])
    gaps.receive(HERE, journal.beat())

    journal.start()
    journal.send("pytroll://2", how_many=10)
    gaps.receive(HERE, journal.send(how_many=7)[4:] + journal.beat())

    assert gaps.missed == 4


def test_what_a_new_life_sent_at_another_address_before_that_was_known_is_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    gaps.part(HERE)
    journal.start()
    journal.send(how_many=3)
    gaps.connect(THERE, ALL)
    gaps.receive(THERE, journal.send() + journal.beat())

    assert gaps.missed == 3


def test_what_a_publisher_that_had_gone_sent_before_it_was_found_again_is_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    gaps.part(HERE)
    journal.send(how_many=3)
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    assert gaps.missed == 3


def test_what_came_before_a_publisher_that_had_gone_was_found_again_is_not_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    gaps.part(HERE)
    journal.start()
    gaps.receive(HERE, journal.send(how_many=3))
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    assert gaps.missed == 0


def test_what_came_from_another_address_meanwhile_is_not_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.connect(THERE, ALL)
    gaps.receive(HERE, journal.beat())

    journal.start()
    gaps.receive(THERE, journal.send(how_many=5) + journal.beat())
    journal.start()
    gaps.receive(HERE, journal.send() + journal.beat())

    assert gaps.missed == 0


def test_what_was_sent_while_it_was_not_wanted_is_not_missed(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    gaps.disconnect(HERE)
    journal.send(how_many=3)
    journal.start()
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.send() + journal.beat())

    assert gaps.missed == 0


def test_topics_that_are_wanted_from_now_on_are_counted_from_now_on(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, [b"pytroll://2"])
    gaps.receive(HERE, journal.beat())

    gaps.part(HERE)
    journal.send(how_many=3)
    gaps.connect(HERE, [b"pytroll://1b"])
    gaps.receive(HERE, journal.beat())
    journal.start()
    journal.send(how_many=2)
    gaps.receive(HERE, journal.beat())

    assert gaps.missed == 2


def test_another_journal_at_the_address_is_another_publisher(gaps: Gaps, journal: Journal) -> None:
    other = Journal("other")
    other.send(how_many=5)
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    gaps.receive(HERE, other.beat() + journal.beat())

    assert gaps.missed == 0


def test_heartbeats_come_to_those_whose_topics_do_not_say_so(gaps: Gaps) -> None:
    assert gaps.connect(HERE, ALL) == ALL
    assert gaps.connect(THERE, [b"pytroll://1b"]) == [b"pytroll://1b", b"pytroll://heartbeat/"]


def test_only_heartbeats_that_were_asked_for_are_handed_on(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, [b"pytroll://1b", b"pytroll://heartbeat/other"])
    gaps.connect(THERE, ALL)
    wanted = [b"pytroll://heartbeat/other {}", *journal.send()]

    assert gaps.receive(HERE, [*journal.beat(), *wanted]) == wanted
    assert gaps.receive(THERE, [*journal.beat(), *wanted]) == [*journal.beat(), *wanted]


def test_frames_of_strangers_are_handed_on_as_they_are(gaps: Gaps, journal: Journal) -> None:
    frames = journal.send() + journal.beat()

    assert gaps.receive(HERE, frames) is frames
    gaps.part(HERE)
    gaps.disconnect(HERE)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"journal": ""},
        {"journal": None},
        {"journal": "x" * 201},
        {"started": 5.0},
        {"sequence": -1},
        {"sequence": 2**63},
        {"sequence": True},
        {"sequence": 4},
        {"sent": ["pytroll://1b"]},
        {"sent": {"pytroll://1b": "5"}},
        {"sent": {"pytroll://1b": -5}},
        {"sent": {"x" * 201: 5}},
        {"sent": {str(number): 0 for number in range(202)}},
    ],
)
def test_nonsense_in_a_heartbeat_is_ignored(gaps: Gaps, journal: Journal, nonsense: dict[str, Any]) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())

    journal.send(how_many=5)
    gaps.receive(HERE, journal.beat(**nonsense))

    assert gaps.missed == 0
    gaps.receive(HERE, journal.beat())
    assert gaps.missed == 4


@pytest.mark.parametrize("data", [b"", b"[1]", b"null", b"{}", b'{"min_interval": 30}', b'{"sent": {"\\ud800": 1}}'])
def test_heartbeats_of_publishers_without_a_journal_tell_nothing(gaps: Gaps, data: bytes) -> None:
    gaps.connect(HERE, ALL)

    gaps.receive(HERE, [b"pytroll://heartbeat/me " + data] * 3)

    assert gaps.missed == 0


def test_a_topic_that_no_text_can_have_is_no_topic_of_ours(gaps: Gaps, journal: Journal) -> None:
    gaps.connect(HERE, ALL)
    gaps.receive(HERE, journal.beat())
    journal.send(how_many=9)

    gaps.receive(HERE, journal.beat(sent={"\ud800": 9, "": 0}))

    assert gaps.missed == 0


def test_a_tally_counts_each_topic() -> None:
    tally = Tally("journal", "life")

    for topic in ("pytroll://1b", "pytroll://2", "pytroll://1b"):
        tally.count(topic)

    assert tally.as_data(7) == {
        "journal": "journal",
        "sequence": 7,
        "started": "life",
        "sent": {"": 0, "pytroll://1b": 2, "pytroll://2": 1},
    }


def test_a_tally_keeps_to_two_hundred_topics() -> None:
    tally = Tally("journal", "life")
    tally.count("x" * 201)

    for number in range(250):
        tally.count(str(number))
    tally.count("0")

    sent = tally.as_data(252)["sent"]
    assert len(sent) == 201
    assert (sent["0"], sent["199"], sent[""]) == (2, 1, 51)


def test_topics_beyond_those_that_are_told_count_for_who_gets_everything(journal: Journal) -> None:
    everything, some = Gaps(decode), Gaps(decode)
    everything.connect(HERE, ALL)
    some.connect(HERE, [b"pytroll://1b"])
    for number in range(200):
        journal.send(str(number))
    beat = journal.beat()

    journal.send(how_many=3)

    for gaps in (everything, some):
        gaps.receive(HERE, beat + journal.beat())
    assert (everything.missed, some.missed) == (3, 0)


def test_what_is_remembered_of_publishers_that_have_gone_is_bounded(gaps: Gaps) -> None:
    first = Journal("first")
    for number in range(2000):
        address = f"tcp://here:{number}"
        gaps.connect(address, ALL)
        gaps.receive(address, (Journal(f"journal {number}") if number else first).beat())
        gaps.part(address)

    first.start()
    first.send()
    gaps.connect("tcp://here:0", ALL)
    gaps.receive("tcp://here:0", first.beat())

    assert gaps.missed == 0


def test_a_thousand_publishers_behind_one_connection_are_remembered(gaps: Gaps) -> None:
    journals = [Journal(str(number)) for number in range(1001)]
    gaps.connect(HERE, ALL)
    for journal in journals:
        gaps.receive(HERE, journal.beat())

    for journal in (journals[0], journals[2]):
        journal.start()
        journal.send()
        gaps.receive(HERE, journal.beat())

    assert gaps.missed == 1
