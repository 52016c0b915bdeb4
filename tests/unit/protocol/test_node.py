"""Who gets what, and that no peer harms another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from posttroll.journal.memory import MemoryJournal
from posttroll.protocol.frames import Attach, Attached, Detach, Disposition, Flow, Frame, Outcome, Settled, Transfer
from posttroll.protocol.link import Patience
from posttroll.protocol.node import Node
from posttroll.protocol.source import Position, Source

ACCEPTED = Outcome("accepted")
PATIENCE = Patience(resend=1.0, interval=2.0, silence=10.0, doubt=0.5)
MEBIBYTE = 1024 * 1024


class Publisher:
    """A node over a journal in memory, whose receivers are the peers that they come from."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.node = Node("life", self.journal.identity, self.open_source, PATIENCE)
        self.refusal: Exception | None = None

    def open_source(self, attach: Attach, key: str) -> Source:
        if self.refusal is not None:
            raise self.refusal
        if attach.distribution_mode == "copy":
            return self.journal.open_replay(attach.topics, attach.start_at, attach.until, attach.after)
        return self.journal.open_source(attach.consumer, attach.topics, attach.start_at, wall=0.0, key=key)

    def publish(self, count: int = 1, payload: bytes = b"payload", expires: float | None = None) -> None:
        for _ in range(count):
            self.journal.append(payload.partition(b" ")[0].decode(), payload, wall=0.0, expires=expires)

    def hears(self, *frames: Frame, now: float = 0.0, key: str = "") -> None:
        for frame in frames:
            self.node.receive(frame, frame.receiver, now, key)

    def says(self, to: str | None = None, now: float = 0.0) -> list[Frame]:
        frames = [(peer, frame) for peer, (frame, _) in self.node.frames_to_send(now, wall=now)]
        self.journal.commit()
        return [frame for peer, frame in frames if to in (None, peer)]

    def pending(self, consumer: str = "consumer") -> int:
        return next(one.pending for one in self.journal.consumers() if one.name == consumer)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def attach(receiver: str, session: int = 1, consumer: str = "consumer", **options: object) -> Attach:
    return Attach(receiver, session, "", consumer, **{"topics": [], "start_at": "first", **options})  # type: ignore[arg-type]


def replay(receiver: str, session: int = 1, after: int = 0, journal: str = "") -> Attach:
    return attach(receiver, session, distribution_mode="copy", start_at="", after=after, journal=journal)


def flow(receiver: str, limit: int, number: int = 1, session: int = 1, expected: int = 0) -> Flow:
    return Flow(receiver, session, "life", number, expected, limit)


def accept(receiver: str, *numbers: int, session: int = 1) -> Disposition:
    return Disposition(receiver, session, "life", dict.fromkeys(numbers, ACCEPTED))


def transferred(frames: Sequence[Frame]) -> list[tuple[str, int, int]]:
    return [(frame.receiver, frame.sequence, frame.count) for frame in frames if isinstance(frame, Transfer)]


def test_nothing_is_transferred_without_credit(publisher: Publisher) -> None:
    publisher.publish(3)
    publisher.hears(attach("a"))

    before = publisher.says()
    publisher.hears(flow("a", limit=2))
    after = publisher.says()

    assert before == [Attached("a", 1, "life", publisher.journal.identity)]
    assert after == [Transfer("a", 1, "life", 0, 1), Transfer("a", 1, "life", 1, 2)]


def test_what_is_accepted_is_settled_and_that_is_said(publisher: Publisher) -> None:
    publisher.publish(2)
    publisher.hears(attach("a"), flow("a", limit=2))
    publisher.says()

    publisher.hears(accept("a", 0))

    assert publisher.says() == [Settled("a", 1, "life", [0])]
    assert publisher.pending() == 1


def test_an_outcome_that_is_repeated_is_confirmed_again(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()
    publisher.hears(accept("a", 0))
    publisher.says()

    publisher.hears(accept("a", 0))

    assert publisher.says() == [Settled("a", 1, "life", [0])]


def test_what_is_not_confirmed_is_sent_again_ever_more_seldom(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()

    moments = [step / 2 for step in range(1, 18) if transferred(publisher.says(now=step / 2))]

    assert moments == [1.0, 3.0, 7.0]


def test_what_is_confirmed_is_not_sent_again(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()

    publisher.hears(flow("a", limit=1, number=2, expected=1))

    assert transferred(publisher.says(now=1.0)) == []


def test_the_thread_is_needed_as_soon_as_there_is_more_for_one_who_waits(publisher: Publisher) -> None:
    publisher.hears(attach("a"))
    publisher.says()
    states = [publisher.node.is_hungry]

    publisher.hears(flow("a", limit=1))
    publisher.says()
    states.append(publisher.node.is_hungry)
    publisher.publish()
    publisher.says()
    states.append(publisher.node.is_hungry)

    assert states == [False, True, False]


def test_a_silent_receiver_loses_what_it_held_to_the_next_one(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()
    publisher.hears(attach("b"), flow("b", limit=1), now=5.0)

    before = transferred(publisher.says("b", now=9.9))
    after = transferred(publisher.says("b", now=10.0))

    assert before == []
    assert after == [("b", 1, 2)]


def test_nothing_new_is_handed_out_while_it_is_in_doubt_whether_a_receiver_lives(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1), attach("b"), flow("b", limit=9))
    publisher.says()
    publisher.publish()

    publisher.node.disconnected("a", now=1.0)
    before = transferred(publisher.says("b", now=1.4))
    due = publisher.node.next_timeout()
    after = transferred(publisher.says("b", now=1.5))

    assert before == []
    assert due == 1.5
    assert after == [("b", 1, 2), ("b", 2, 1)]


def test_one_who_attaches_again_keeps_what_it_has(publisher: Publisher) -> None:
    publisher.publish(2)
    publisher.hears(attach("a"), flow("a", limit=2))
    publisher.says()

    publisher.hears(attach("a", session=2, journal=publisher.journal.identity, unsettled=[(1, ACCEPTED), (2, None)]))

    assert publisher.says() == [
        Attached("a", 2, "life", publisher.journal.identity),
        Settled("a", 2, "life", [0]),
    ]
    publisher.hears(flow("a", limit=9, session=2, expected=2))
    assert transferred(publisher.says()) == []


def test_what_never_arrived_is_not_counted(publisher: Publisher) -> None:
    publisher.publish(2)
    publisher.hears(attach("a"), flow("a", limit=2))
    publisher.says()

    publisher.hears(attach("a", session=2, journal=publisher.journal.identity, unsettled=[(1, None)]))
    publisher.hears(flow("a", limit=2, session=2, expected=1))

    assert transferred(publisher.says()) == [("a", 2, 1)]


def test_what_another_journal_gave_may_not_be_kept(publisher: Publisher) -> None:
    publisher.publish()

    publisher.hears(attach("a", journal="other", unsettled=[(1, ACCEPTED)]))

    assert publisher.says() == [Attached("a", 1, "life", publisher.journal.identity, [0])]
    assert publisher.pending() == 1


def test_what_nobody_was_given_may_not_be_claimed(publisher: Publisher) -> None:
    publisher.publish(2)

    publisher.hears(attach("a", journal=publisher.journal.identity, unsettled=[(1, ACCEPTED), (2**62, ACCEPTED)]))

    assert publisher.says() == [Attached("a", 1, "life", publisher.journal.identity, [0, 1])]
    assert publisher.pending() == 2


def test_messages_go_to_who_has_least(publisher: Publisher) -> None:
    publisher.hears(attach("a"), flow("a", limit=9), attach("b"), flow("b", limit=9))
    publisher.says()

    publisher.publish(4)

    assert transferred(publisher.says()) == [("a", 1, 1), ("b", 2, 1), ("a", 3, 1), ("b", 4, 1)]


def test_who_has_much_is_asked_for_some_when_another_one_has_nothing_to_do(publisher: Publisher) -> None:
    publisher.publish(4)
    publisher.hears(attach("a"), flow("a", limit=9))
    publisher.says()

    publisher.hears(attach("b"), flow("b", limit=9))

    assert publisher.says("a", now=0.0) == [Flow("a", 1, "life", 1, drain=True)]
    assert not [frame for frame in publisher.says("a", now=0.9) if isinstance(frame, Flow)]
    assert [frame for frame in publisher.says("a", now=1.0) if isinstance(frame, Flow)]


def test_a_refusal_says_why(publisher: Publisher) -> None:
    publisher.refusal = PermissionError("belongs to another key")

    publisher.hears(attach("a"))

    assert publisher.says() == [Detach("a", 1, "", "belongs to another key")]


def test_a_start_that_is_none_is_refused(publisher: Publisher) -> None:
    publisher.hears(attach("a", start_at="yesterday"))

    (refusal,) = publisher.says()
    assert isinstance(refusal, Detach)
    assert "yesterday" in refusal.reason


def test_a_refusal_without_reason_is_not_taken_for_the_end_of_a_replay(publisher: Publisher) -> None:
    publisher.refusal = ValueError()

    publisher.hears(replay("a"))

    assert publisher.says() == [Detach("a", 1, "", "refused")]


@pytest.mark.parametrize(
    "frame",
    [
        flow("a", limit=1),
        flow("b", limit=1),
        flow("a", limit=1, session=2),
        Flow("a", 1, "former life", 9),
        accept("b", 0),
        Settled("b", 1, "life", [0]),
        Transfer("b", 1, "life", 0, 1),
    ],
)
def test_who_speaks_of_an_unknown_session_is_told(publisher: Publisher, frame: Frame) -> None:
    if frame != flow("a", limit=1):
        publisher.hears(attach("a"))
        publisher.says()

    publisher.hears(frame)

    assert publisher.says() == [Detach(frame.receiver, frame.session, frame.sender, "unknown session")]


def test_an_attach_that_comes_again_after_its_session_has_ended_is_refused(publisher: Publisher) -> None:
    publisher.hears(attach("a"))
    publisher.says()
    publisher.says(now=10.0)

    publisher.hears(attach("a"), now=11.0)

    assert publisher.says(now=11.0) == [Detach("a", 1, "", "unknown session")]


def test_what_comes_late_from_an_older_session_is_ignored(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), attach("a", session=2))
    publisher.says()

    publisher.hears(attach("a"), flow("a", limit=9), Detach("a", 1, "life"))

    assert publisher.says() == []
    publisher.hears(flow("a", limit=9, session=2))
    assert transferred(publisher.says()) == [("a", 1, 1)]


@pytest.mark.parametrize(("has_begun", "count"), [(True, 2), (False, 1)])
def test_one_who_detaches_gives_back_what_it_has(publisher: Publisher, has_begun: bool, count: int) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1), attach("b"), flow("b", limit=1))
    publisher.says()

    released = Disposition("a", 1, "life", {0: Outcome("released", begun=has_begun)})
    publisher.hears(released, Detach("a", 1, "life"))

    assert transferred(publisher.says()) == [("b", 1, count)]


def test_what_one_who_detaches_does_not_name_has_not_arrived_there(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1), attach("b"), flow("b", limit=1))
    publisher.says()

    publisher.hears(Detach("a", 1, "life"))

    assert transferred(publisher.says()) == [("b", 1, 1)]


def test_one_who_detaches_before_it_knows_that_it_is_attached_is_gone(publisher: Publisher) -> None:
    publisher.hears(attach("a"), Detach("a", 1, ""))

    publisher.says()

    assert publisher.node.next_timeout() is None


def test_those_of_a_consumer_that_is_forgotten_are_detached(publisher: Publisher) -> None:
    publisher.hears(attach("a"), attach("b"))
    publisher.says()

    publisher.journal.forget("consumer")

    reason = "the consumer was forgotten"
    assert publisher.says() == [Detach("a", 1, "life", reason), Detach("b", 1, "life", reason)]
    assert publisher.node.next_timeout() is None


def test_one_who_attaches_after_its_consumer_is_forgotten_starts_anew(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()
    publisher.journal.forget("consumer")

    publisher.hears(attach("b"), flow("b", limit=1))

    assert transferred(publisher.says()) == [("b", 1, 1)]


def test_what_expired_is_told_once(publisher: Publisher) -> None:
    publisher.publish(2, expires=1.0)
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=9))

    frames = publisher.says(now=2.0)

    assert transferred(frames) == [("a", 3, 1)]
    assert publisher.node.take_expired() == {"consumer": 2}
    assert publisher.node.take_expired() == {}


def test_a_replay_ends_when_all_is_settled(publisher: Publisher) -> None:
    publisher.publish(2)
    publisher.hears(replay("a"), flow("a", limit=9))

    first = transferred(publisher.says())
    publisher.hears(accept("a", 0))
    second = publisher.says()
    publisher.hears(accept("a", 1))
    third = publisher.says()

    assert first == [("a", 1, 1), ("a", 2, 1)]
    assert second == [Settled("a", 1, "life", [0])]
    assert third == [Settled("a", 1, "life", [1]), Detach("a", 1, "life")]
    assert publisher.node.next_timeout() is None


def test_a_replay_is_given_what_was_there_when_it_began(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(replay("a"), flow("a", limit=9))
    publisher.says()

    publisher.publish()

    assert transferred(publisher.says()) == []
    assert not publisher.node.is_hungry


def test_replays_and_consumers_do_not_disturb_each_other(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.hears(replay("b"), flow("b", limit=1), replay("c"), flow("c", limit=1))

    assert transferred(publisher.says()) == [("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]
    publisher.hears(accept("b", 0), accept("c", 0))
    publisher.says()
    assert publisher.pending() == 1


def test_a_replay_whose_end_was_not_heard_goes_on_after_what_it_had_and_ends(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(replay("a"), flow("a", limit=9))
    publisher.says()
    publisher.hears(accept("a", 0))
    publisher.says()

    publisher.hears(flow("a", limit=9, number=2, expected=1))
    answer = publisher.says()
    identity = publisher.journal.identity
    publisher.hears(replay("a", session=2, after=1, journal=identity), flow("a", limit=9, session=2))

    assert answer == [Detach("a", 1, "life", "unknown session")]
    assert publisher.says() == [Attached("a", 2, "life", identity), Detach("a", 2, "life")]


def test_a_replay_of_another_journal_starts_at_the_beginning(publisher: Publisher) -> None:
    publisher.publish()

    publisher.hears(replay("a", after=1, journal="other"), flow("a", limit=9))

    assert transferred(publisher.says()) == [("a", 1, 1)]


def test_a_receiver_belongs_to_the_key_that_attached_it(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), key="own")
    publisher.says()

    publisher.hears(Detach("a", 1, "life"), attach("a", session=2), flow("a", limit=1), key="other")
    answer = publisher.says()
    publisher.hears(flow("a", limit=1), key="own")

    assert [frame.reason for frame in answer if isinstance(frame, Detach)] == ["the receiver belongs to another key"]
    assert transferred(publisher.says()) == [("a", 1, 1)]


def test_receivers_are_bounded(publisher: Publisher) -> None:
    publisher.hears(*(attach(f"receiver {number}") for number in range(1001)))

    frames = publisher.says("receiver 1000")

    assert frames == [Detach("receiver 1000", 1, "", "there are 1000 receivers already")]


def test_answers_to_nonsense_are_bounded(publisher: Publisher) -> None:
    publisher.hears(*(flow(f"receiver {number}", limit=1) for number in range(2000)))

    assert len(publisher.says()) == 1000


def test_those_who_came_and_went_are_remembered_for_a_while_only(publisher: Publisher) -> None:
    for number in range(1001):
        publisher.hears(attach(f"receiver {number}"), Detach(f"receiver {number}", 1, "life"))
    publisher.says()

    publisher.hears(attach("receiver 0"), attach("receiver 1000"))

    assert [type(frame) for frame in publisher.says("receiver 0")] == [Attached]
    assert publisher.node.next_timeout() is not None


def test_bytes_in_flight_are_bounded(publisher: Publisher) -> None:
    publisher.publish(40, b"x" * MEBIBYTE)
    publisher.hears(attach("a"), flow("a", limit=99))

    first = len(transferred(publisher.says()))
    publisher.hears(flow("a", limit=99, number=2, expected=10))
    second = len(transferred(publisher.says()))

    assert (first, second) == (17, 10)


def test_deliveries_in_flight_are_bounded(publisher: Publisher) -> None:
    publisher.publish(1500)
    publisher.hears(attach("a"), flow("a", limit=2**62))

    assert len(transferred(publisher.says())) == 1000


@pytest.mark.parametrize(
    "frame",
    [
        accept("b", 0, 1, 2**62),
        flow("b", limit=0, number=2**62, expected=2**62),
        Disposition("b", 1, "life", {5: Outcome("rejected", "nonsense")}),
        Detach("b", 1, "life"),
        Settled("b", 1, "life", [0]),
    ],
)
def test_nonsense_harms_nobody_else(publisher: Publisher, frame: Frame) -> None:
    publisher.publish(3)
    publisher.hears(attach("a"), flow("a", limit=2), attach("b", consumer="other"), flow("b", limit=1))
    publisher.says()

    publisher.hears(frame, accept("a", 0, 1), flow("a", limit=3, number=2, expected=2))

    assert transferred(publisher.says("a")) == [("a", 3, 1)]
    assert publisher.pending() == 1


def test_what_receivers_may_die_of_is_given_out_last_and_takes_nothing_with_it(publisher: Publisher) -> None:
    publisher.publish(3)
    for session in range(1, 6):
        publisher.hears(attach("a", session), flow("a", limit=9, session=session))
        publisher.says()
        released = Disposition("a", session, "life", {number: Outcome("released") for number in range(3)})
        publisher.hears(released, Detach("a", session, "life"))

    publisher.hears(attach("a", session=6), flow("a", limit=9, session=6))
    first = transferred(publisher.says())
    publisher.hears(accept("a", 0, session=6))

    assert first == [("a", 1, 6)]
    assert transferred(publisher.says()) == [("a", 2, 6)]


def test_a_sign_of_life_is_given_when_there_is_nothing_to_say(publisher: Publisher) -> None:
    publisher.hears(attach("a"))
    publisher.says()

    assert publisher.node.next_timeout() == 2.0
    assert publisher.says(now=2.0) == [Flow("a", 1, "life", 1)]


@pytest.mark.parametrize("outcome", [Outcome("released"), Outcome("rejected", "of no use")])
def test_what_is_not_accepted_comes_again_or_is_set_aside(publisher: Publisher, outcome: Outcome) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=9))
    publisher.says()

    publisher.hears(Disposition("a", 1, "life", {0: outcome}))
    again = transferred(publisher.says())

    released = outcome.state == "released"
    assert again == ([("a", 1, 2)] if released else [])
    assert [aside.reason for aside in publisher.journal.set_aside()] == ([] if released else ["of no use"])


def open_nothing(attach: Attach, key: str) -> Source:
    raise AssertionError("not asked for")


@pytest.mark.parametrize("frame", [Detach("a", 1, ""), Detach("a", 1, "life"), Detach("a", 1, "former life")])
def test_the_end_of_what_is_unknown_needs_no_answer(frame: Frame) -> None:
    opener: Callable[[Attach, str], Source] = open_nothing
    node = Node("life", "journal", opener)

    node.receive(frame, "a", now=0.0)

    assert node.frames_to_send(now=0.0, wall=0.0) == []


def test_others_of_a_consumer_are_refused_while_it_has_other_topics(publisher: Publisher) -> None:
    publisher.hears(attach("a", topics=["pytroll://1b"]), attach("b", topics=["pytroll://2"]))
    before = publisher.says("b")

    publisher.hears(Detach("a", 1, "life"))
    publisher.says()
    publisher.hears(attach("b", session=2, topics=["pytroll://2"]))

    assert before == [Detach("b", 1, "", "others of this consumer are attached with other topics")]
    assert publisher.says("b") == [Attached("b", 2, "life", publisher.journal.identity)]


def test_with_other_topics_a_consumer_gets_nothing_of_the_former_ones(publisher: Publisher) -> None:
    publisher.publish(3, b"pytroll://1b/viirs info")
    publisher.hears(attach("a", topics=["pytroll://1b"]), flow("a", limit=1))
    publisher.says()
    publisher.hears(Disposition("a", 1, "life", {0: Outcome("released")}), Detach("a", 1, "life"))
    publisher.says()
    publisher.publish(1, b"pytroll://2/viirs info")

    publisher.hears(attach("a", session=2, topics=["pytroll://2"]), flow("a", limit=9, session=2))

    assert transferred(publisher.says()) == [("a", 4, 1)]
    assert publisher.pending() == 1


def test_what_was_set_aside_is_told_once(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()

    publisher.hears(Disposition("a", 1, "life", {0: Outcome("rejected", "no such orbit")}))

    assert publisher.node.take_aside() == [("consumer", 1, "no such orbit")]
    assert publisher.node.take_aside() == []


def test_while_it_is_in_doubt_whether_a_receiver_lives_no_turn_is_asked_for_in_vain() -> None:
    publisher = Publisher()
    publisher.publish()
    publisher.hears(attach("a"), flow("a", limit=1))
    publisher.says()
    publisher.journal.commit()
    former = publisher.journal.open_source("consumer", [], "first", 0.0)
    next_life = Source(former._store, Position(0, 1))
    node = Node("next life", publisher.journal.identity, lambda _, key: next_life, PATIENCE)
    node.receive(attach("a", 2), "a", 5.0)
    node.frames_to_send(5.0, 5.0)

    node.disconnected("a", now=5.9)
    node.frames_to_send(6.0, 6.0)

    assert node.next_timeout() == 6.4
