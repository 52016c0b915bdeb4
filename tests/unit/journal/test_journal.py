"""What every journal promises."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posttroll.errors import JournalError, JournalFull
from posttroll.journal import Journal, MemoryJournal, SetAside
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome
from posttroll.protocol.source import Source

ACCEPTED, RELEASED = Outcome("accepted"), Outcome("released")
REJECTED = Outcome("rejected", "cannot be read")
TOPIC = "pytroll://1b/hrit"

MakeJournal = Callable[..., Journal]


@pytest.fixture(params=["sqlite", "memory"])
def make_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeJournal]:
    made: list[Journal] = []

    def make(max_age: float | None = None, max_size: int | None = None) -> Journal:
        if request.param == "sqlite":
            made.append(SqliteJournal(tmp_path / f"journal{len(made)}", max_age=max_age, max_size=max_size))
        else:
            made.append(MemoryJournal(max_age=max_age, max_size=max_size))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


@pytest.fixture
def journal(make_journal: MakeJournal) -> Journal:
    return make_journal()


def fill(journal: Journal, count: int, topic: str = TOPIC) -> None:
    for _ in range(count):
        journal.append(topic, b"%d" % (journal.last + 1), wall=float(journal.last + 1))


def taken(source: Source) -> list[int]:
    """Take and accept all there is."""
    sequences = []
    while (one := source.take(wall=0.0)) is not None:
        sequences.append(one[0].sequence)
        source.settle(one[0].sequence, ACCEPTED)
    source.save()
    return sequences


def reject(source: Source) -> int:
    one = source.take(wall=0.0)
    assert one is not None
    source.settle(one[0].sequence, REJECTED)
    source.save()
    return one[0].sequence


def test_messages_are_numbered_from_one(journal: Journal) -> None:
    numbers = [journal.append(TOPIC, b"frame", wall=0.0) for _ in range(3)]

    assert numbers == [1, 2, 3]
    assert journal.last == 3


def test_journals_have_names_of_their_own(make_journal: MakeJournal) -> None:
    assert make_journal().identity != make_journal().identity


def test_a_new_consumer_gets_what_comes_after_it(journal: Journal) -> None:
    fill(journal, 3)
    source = journal.open_source("viewer", [], "new", wall=0.0)

    fill(journal, 2)

    assert taken(source) == [4, 5]


@pytest.mark.parametrize(
    ("start_at", "expected"),
    [
        ("first", [1, 2, 3]),
        ("1970-01-01T00:00:02", [2, 3]),
        ("1970-01-01T01:00:02.500+01:00", [3]),
        ("1980-01-01", []),
    ],
)
def test_a_consumer_starts_where_it_wants_to(journal: Journal, start_at: str, expected: list[int]) -> None:
    fill(journal, 3)

    source = journal.open_source("viewer", [], start_at, wall=0.0)

    assert taken(source) == expected


def test_a_start_that_is_none_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="'newest' is no start; known: new, first"):
        journal.open_source("viewer", [], "newest", wall=0.0)

    assert journal.consumers() == []


def test_a_message_carries_its_bytes_and_its_expiry(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    journal.append(TOPIC, b"\0frame", wall=1.0, expires=5.0)

    assert source.take(wall=4.0) == ((1, b"\0frame", 5.0), 1)


def test_a_consumer_gets_its_topics_only(journal: Journal) -> None:
    source = journal.open_source("viewer", ["pytroll://1b", "pytroll://2"], "first", wall=0.0)
    for topic in ["pytroll://1b/hrit", "pytroll://3/hrit", "pytroll://2", "pytroll://1", "pytroll:/"]:
        journal.append(topic, b"frame", wall=0.0)

    assert taken(source) == [1, 3]


@pytest.mark.parametrize("topics", [[], [""], ["pytroll:/", "pytroll://1b"]])
def test_no_topic_and_the_shortest_one_mean_all(journal: Journal, topics: list[str]) -> None:
    fill(journal, 2)

    assert taken(journal.open_source("viewer", topics, "first", wall=0.0)) == [1, 2]


def test_a_thousand_topics_of_all_lengths_are_no_trouble(journal: Journal) -> None:
    fill(journal, 2)
    topics = [f"pytroll://other{'x' * length}{length}" for length in range(1000)]

    source = journal.open_source("viewer", [*topics, TOPIC], "first", wall=0.0)

    assert taken(source) == [1, 2]


def test_topics_may_change_from_one_attach_to_the_next(journal: Journal) -> None:
    source = journal.open_source("viewer", ["pytroll://1b"], "first", wall=0.0)
    journal.append("pytroll://2", b"", wall=0.0)
    assert taken(source) == []

    again = journal.open_source("viewer", ["pytroll://2"], "first", wall=0.0)
    journal.append("pytroll://2", b"", wall=0.0)

    assert again is source
    assert taken(source) == [2]


def test_reading_moves_on_past_what_does_not_match(journal: Journal) -> None:
    source = journal.open_source("viewer", ["pytroll://2"], "first", wall=0.0)
    fill(journal, 250)

    assert source.take(wall=0.0) is None
    source.save()
    journal.commit()

    assert source.cursor == 250
    assert [(one.cursor, one.pending) for one in journal.consumers()] == [(250, 0)]


def test_consumers_do_not_disturb_each_other(journal: Journal) -> None:
    one = journal.open_source("one", [], "new", wall=0.0)
    other = journal.open_source("other", [], "new", wall=0.0)
    fill(journal, 150)

    assert taken(one) == taken(other) == list(range(1, 151))


def test_a_consumer_belongs_to_the_key_that_first_used_it(journal: Journal) -> None:
    journal.open_source("viewer", [], "new", wall=0.0, key="mine")

    with pytest.raises(PermissionError, match="the consumer 'viewer' belongs to another key"):
        journal.open_source("viewer", [], "new", wall=0.0, key="yours")

    journal.open_source("viewer", [], "new", wall=0.0, key="mine")


def test_there_are_so_many_consumers_and_no_more(journal: Journal) -> None:
    for number in range(1000):
        journal.open_source(f"consumer {number}", [], "new", wall=0.0)

    with pytest.raises(PermissionError, match="has 1000 consumers already; forget those that do not come back"):
        journal.open_source("one more", [], "new", wall=0.0)

    journal.open_source("consumer 7", [], "new", wall=0.0)
    journal.forget("consumer 8")
    journal.open_source("one more", [], "new", wall=0.0)


def test_consumers_are_listed_with_what_they_have_yet_to_settle(journal: Journal) -> None:
    source = journal.open_source("viewer", ["pytroll://1b"], "new", wall=7.0, key="mine")
    fill(journal, 3)
    fill(journal, 2, topic="pytroll://2")
    for _ in range(2):
        source.take(wall=0.0)
    source.settle(2, ACCEPTED)
    source.save()
    journal.commit()

    (viewer,) = journal.consumers()

    assert (viewer.name, viewer.cursor, viewer.pending, viewer.key, viewer.seen) == ("viewer", 0, 2, "mine", 7.0)


def test_one_who_is_forgotten_starts_anew(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0, key="mine")
    fill(journal, 3)
    reject(source)
    journal.commit()

    journal.forget("viewer")
    taken(source)
    journal.commit()

    assert source.is_forgotten
    assert (journal.consumers(), journal.set_aside()) == ([], [])
    again = journal.open_source("viewer", [], "first", wall=0.0, key="yours")
    assert taken(again) == [1, 2, 3]


def test_a_stranger_cannot_be_forgotten(journal: Journal) -> None:
    with pytest.raises(JournalError, match="knows no consumer 'stranger'"):
        journal.forget("stranger")


def test_what_was_rejected_is_set_aside_with_the_reason(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)

    reject(source)
    journal.commit()

    assert journal.set_aside() == [SetAside("viewer", 1, TOPIC, 1, "cannot be read", 1.0)]
    assert taken(source) == [2]


def test_what_is_resent_comes_again_first_and_is_flagged(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 2)
    reject(source)
    journal.commit()

    journal.resend("viewer", 1)
    journal.commit()

    assert journal.set_aside() == []
    assert source.take(wall=0.0) == ((1, b"1", None), 2)
    source.settle(1, ACCEPTED)
    assert taken(source) == [2]
    journal.commit()
    assert journal.consumers()[0].pending == 0
    with pytest.raises(JournalError, match="no message 1 set aside for 'viewer'"):
        journal.resend("viewer", 1)


def test_what_is_resent_in_vain_is_set_aside_again(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 1)
    reject(source)
    journal.commit()

    journal.resend("viewer", 1)
    journal.commit()
    reject(source)
    journal.commit()

    assert [one.sequence for one in journal.set_aside()] == [1]
    assert source.take(wall=0.0) is None


def test_what_is_discarded_is_gone(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 1)
    reject(source)
    journal.commit()

    journal.discard("viewer", 1)

    assert journal.set_aside() == []
    with pytest.raises(JournalError, match="no message 1 set aside for 'viewer'"):
        journal.discard("viewer", 1)


def test_replay_pages_through_all_that_is_kept(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 5)
    taken(source)
    journal.commit()

    first = journal.replay(limit=3)
    rest = journal.replay(after=first[-1].sequence, limit=3)

    assert [entry.payload for entry in [*first, *rest]] == [b"1", b"2", b"3", b"4", b"5"]


def test_replay_keeps_to_times_and_topics_and_disturbs_nobody(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 5)
    fill(journal, 1, topic="pytroll://2")

    found = journal.replay(since=2.0, until=5.0, topics=["pytroll://1b"])

    assert [entry.sequence for entry in found] == [2, 3, 4]
    assert [entry.sequence for entry in journal.replay(since=5.0)] == [5, 6]
    assert len(taken(source)) == 6


def test_a_replay_gives_out_what_was_kept_at_its_opening_and_disturbs_nobody(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 250)
    taken(source)
    journal.commit()
    before = journal.consumers()

    replay = journal.open_replay()
    fill(journal, 1)
    first = replay.take(wall=0.0)
    reject(replay)
    rest = taken(replay)
    journal.commit()

    assert first == ((1, b"1", None), 1)
    assert rest == list(range(3, 251))
    assert journal.set_aside() == []
    assert [one.cursor for one in journal.consumers()] == [one.cursor for one in before]
    assert taken(source) == [251]


@pytest.mark.parametrize(
    ("since", "until", "after", "expected"),
    [
        ("1970-01-01T00:00:03", "", 0, [3, 4, 5]),
        ("", "1970-01-01T01:00:03+01:00", 0, [1, 2]),
        ("1970-01-01T00:00:02", "1970-01-01T00:00:05", 3, [4]),
        ("1970-01-01T00:01", "", 0, []),
        ("first", "", 3, [4, 5]),
        ("", "", 5, []),
    ],
)
def test_a_replay_keeps_to_its_bounds(
    journal: Journal, since: str, until: str, after: int, expected: list[int]
) -> None:
    fill(journal, 5)
    journal.append("pytroll://2", b"other", wall=4.5)

    assert taken(journal.open_replay([TOPIC], since, until, after)) == expected


def test_a_time_that_is_none_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="yesterday"):
        journal.open_replay(since="yesterday")


def test_the_port_of_the_links_is_remembered(journal: Journal) -> None:
    before = journal.link_port

    journal.link_port = 9001

    assert (before, journal.link_port) == (0, 9001)


def test_the_greatest_number_of_deliveries_is_that_of_the_last_opening(journal: Journal) -> None:
    journal.open_source("viewer", [], "new", wall=0.0, max_deliveries=5)
    source = journal.open_source("viewer", [], "new", wall=0.0, max_deliveries=1)
    fill(journal, 1)

    source.take(wall=0.0)
    source.settle(1, RELEASED)
    again = source.take(wall=0.0)
    journal.commit()

    assert again is None
    assert [one.sequence for one in journal.set_aside()] == [1]


def test_old_messages_go_and_the_loss_is_told(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=10.0)
    ahead = journal.open_source("ahead", [], "new", wall=0.0)
    journal.open_source("behind", [], "new", wall=0.0)
    journal.open_source("elsewhere", ["pytroll://2"], "new", wall=0.0)
    fill(journal, 5)
    taken(ahead)

    lost = journal.expire(wall=13.5, now=0.0)

    assert lost == {"behind": 3}
    assert [entry.sequence for entry in journal.replay()] == [4, 5]
    assert journal.expire(wall=13.5, now=0.0) == {}


YEAR = 365 * 86_400.0


def test_a_clock_that_is_put_forward_drops_nothing_before_its_time(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=10.0)
    journal.open_source("away", [], "new", wall=0.0)
    fill(journal, 3)

    assert journal.expire(wall=5.0, now=1000.0) == {}
    assert journal.expire(wall=YEAR + 6.0, now=1001.0) == {}
    journal.append(TOPIC, b"", wall=YEAR + 7.0)
    assert journal.expire(wall=YEAR + 11.5, now=1006.5) == {"away": 1}
    assert journal.expire(wall=YEAR + 15.0, now=1010.0) == {"away": 2}
    assert journal.consumers()[0].pending == 1


def test_a_clock_that_is_put_back_drops_nothing_before_its_time(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=10.0)
    journal.open_source("away", [], "new", wall=YEAR)
    journal.expire(wall=YEAR, now=1000.0)

    numbers = [journal.append(TOPIC, b"", wall=wall) for wall in (YEAR, 0.0, 1.0)]

    assert numbers == [1, 2, 3]
    assert journal.expire(wall=2.0, now=1002.0) == {}
    assert journal.consumers()[0].pending == 3


def test_after_an_opening_the_wall_clock_is_believed(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=10.0)
    journal.open_source("away", [], "new", wall=0.0)
    fill(journal, 3)

    assert journal.expire(wall=YEAR, now=0.0) == {"away": 3}


def test_without_a_greatest_age_nothing_gets_too_old(journal: Journal) -> None:
    fill(journal, 1)

    assert journal.expire(wall=1e12, now=0.0) == {}
    assert len(journal.replay()) == 1


def test_numbers_go_on_after_all_was_dropped(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=1.0)
    fill(journal, 2)

    journal.expire(wall=100.0, now=0.0)

    assert journal.append(TOPIC, b"", wall=100.0) == 3


def test_the_oldest_settled_ones_make_room(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    for _ in range(2):
        journal.append(TOPIC, b"12345", wall=0.0)
    taken(source)
    journal.commit()

    journal.append(TOPIC, b"12345", wall=0.0)

    kept = [entry.sequence for entry in journal.replay()]
    assert kept[-1] == 3
    assert 1 not in kept


def test_tidying_changes_nothing_that_is_kept(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    for _ in range(50):
        journal.append(TOPIC, b"x" * 100_000, wall=0.0)

    journal.tidy()

    assert not journal.is_untidy
    assert taken(source) == list(range(1, 51))


def test_where_nobody_has_a_claim_the_oldest_make_room(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)

    for _ in range(100):
        journal.append(TOPIC, b"12345", wall=0.0)

    assert journal.replay()[-1].sequence == 100
    assert len(journal.replay()) <= 2


def test_a_journal_full_of_what_somebody_needs_says_so_and_goes_on_when_it_can(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    for _ in range(2):
        journal.append(TOPIC, b"12345", wall=0.0)

    with pytest.raises(JournalFull, match="is full"):
        journal.append(TOPIC, b"1", wall=0.0)
    assert taken(source) == [1, 2]
    journal.commit()

    assert journal.append(TOPIC, b"1", wall=0.0) == 3


def test_one_who_is_away_holds_back_only_what_is_for_it(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)
    journal.open_source("away", ["pytroll://2"], "new", wall=0.0)
    for _ in range(5):
        journal.append(TOPIC, b"12345", wall=0.0)
    journal.append("pytroll://2", b"12345", wall=0.0)
    journal.append(TOPIC, b"12345", wall=0.0)

    with pytest.raises(JournalFull):
        journal.append(TOPIC, b"12345", wall=0.0)

    assert [one.pending for one in journal.consumers()] == [1]


def test_one_message_larger_than_all_is_refused(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)

    with pytest.raises(JournalFull):
        journal.append(TOPIC, b"12345678901", wall=0.0)


def test_what_is_set_aside_takes_room_until_it_is_discarded(make_journal: MakeJournal) -> None:
    journal = make_journal(max_size=10)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    journal.append(TOPIC, b"12345", wall=0.0)
    reject(source)
    journal.commit()

    with pytest.raises(JournalFull):
        journal.append(TOPIC, b"123456", wall=0.0)
    journal.discard("viewer", 1)

    assert journal.append(TOPIC, b"123456", wall=0.0) == 2


def test_what_is_set_aside_outlives_its_age(make_journal: MakeJournal) -> None:
    journal = make_journal(max_age=1.0)
    source = journal.open_source("viewer", [], "new", wall=0.0)
    fill(journal, 1)
    reject(source)
    journal.commit()

    assert journal.expire(wall=100.0, now=0.0) == {}
    journal.resend("viewer", 1)
    journal.commit()

    assert taken(source) == [1]


@pytest.mark.parametrize(
    "use",
    [
        lambda journal: journal.append(TOPIC, b"", 0.0),
        lambda journal: journal.open_source("viewer", [], "new", 0.0),
        lambda journal: journal.replay(),
        lambda journal: journal.set_aside(),
        lambda journal: journal.consumers(),
        lambda journal: journal.resend("viewer", 1),
        lambda journal: journal.forget("viewer"),
    ],
)
def test_a_closed_journal_says_so(journal: Journal, use: Callable[[Journal], object]) -> None:
    journal.close()
    journal.close()

    with pytest.raises(JournalError, match="is closed"):
        use(journal)


def test_many_append_while_one_reads_and_commits(journal: Journal) -> None:
    source = journal.open_source("viewer", [], "new", wall=0.0)
    numbers: list[list[int]] = [[] for _ in range(4)]

    def append(mine: list[int]) -> None:
        mine.extend(journal.append(TOPIC, b"frame", wall=0.0) for _ in range(250))

    threads = [threading.Thread(target=append, args=(mine,)) for mine in numbers]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while len(seen) < 1000 and (any(thread.is_alive() for thread in threads) or journal.last > len(seen)):
        seen += taken(source)
        journal.commit()
    for thread in threads:
        thread.join()

    assert seen == list(range(1, 1001))
    assert sorted(itertools.chain(*numbers)) == seen
    assert all(mine == sorted(mine) for mine in numbers)
    assert journal.consumers()[0].cursor == 1000
