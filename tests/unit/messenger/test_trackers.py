"""Trackers, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from posttroll.errors import TimedOut
from posttroll.messenger.trackers import Outgoing, Tracker


class Link:
    """Has what was put, until it is taken back."""

    def __init__(self) -> None:
        self.has_given_it_out = False

    def withdraw(self, tracker: Tracker) -> bool:
        if not self.has_given_it_out:
            tracker.concluded("expired", "")
        return not self.has_given_it_out


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def outgoing(link: Link) -> Outgoing:
    """Keep three trackers, and wait for nothing."""

    def wait(look: Callable[[], bool], timeout: float | None, what: str) -> None:
        if not look():
            raise TimedOut(f"{timeout} s for {what}")

    return Outgoing(3, wait, link.withdraw)


def put(outgoing: Outgoing, id: str = "1") -> Tracker:
    tracker = Tracker(id, "bob/inbox", "bob", outgoing)
    outgoing.add(tracker)
    return tracker


def conclude(outgoing: Outgoing, tracker: Tracker, state: str, reason: str = "") -> None:
    tracker.concluded(state, reason)
    if tracker.settled:
        outgoing.settle(tracker)


def test_a_message_is_pending_and_buffered_at_first(outgoing: Outgoing) -> None:
    tracker = put(outgoing)

    assert (tracker.state, tracker.reason, tracker.buffered, tracker.settled) == ("pending", "", True, False)
    assert repr(tracker) == "<Tracker 1 to bob/inbox: pending>"


def test_a_message_handed_to_the_transport_is_no_longer_buffered(outgoing: Outgoing) -> None:
    tracker = put(outgoing)

    tracker.sent()

    assert (tracker.state, tracker.buffered) == ("pending", False)


@pytest.mark.parametrize(
    ("state", "is_final"), [("accepted", True), ("rejected", True), ("expired", True), ("released", False)]
)
def test_all_states_but_released_are_final(outgoing: Outgoing, state: str, is_final: bool) -> None:
    tracker = put(outgoing)

    conclude(outgoing, tracker, state, "why")

    assert (tracker.state, tracker.reason, tracker.settled) == (state, "why", is_final)
    assert len(outgoing) == (not is_final)


def test_to_wait_in_vain_is_an_error(outgoing: Outgoing) -> None:
    with pytest.raises(TimedOut, match=r"0\.5 s for message 1 to bob/inbox to be settled"):
        put(outgoing).wait(0.5)


def test_a_settled_message_is_not_waited_for(outgoing: Outgoing) -> None:
    tracker = put(outgoing)
    conclude(outgoing, tracker, "rejected")

    assert tracker.wait() == "rejected"


def test_those_who_want_to_know_are_told_once_in_order(outgoing: Outgoing) -> None:
    tracker, told = put(outgoing), list[str]()
    tracker.add_done_callback(lambda one: told.append(f"first {one.state}"))
    tracker.add_done_callback(lambda one: told.append(f"second {one.state}"))
    conclude(outgoing, tracker, "released")
    assert told == []

    conclude(outgoing, tracker, "accepted")
    tracker.call_done()
    tracker.add_done_callback(lambda one: told.append(f"late {one.state}"))

    assert told == ["first accepted", "second accepted", "late accepted"]


def test_a_done_callback_that_fails_is_logged_and_the_others_are_called(
    outgoing: Outgoing, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, told = put(outgoing), list[Tracker]()
    tracker.add_done_callback(lambda one: [][0])
    tracker.add_done_callback(told.append)

    conclude(outgoing, tracker, "accepted")

    assert told == [tracker]
    assert "a callback for message 1 failed" in caplog.text


def test_a_message_taken_back_is_released_for_good(outgoing: Outgoing) -> None:
    tracker = put(outgoing)

    assert tracker.cancel()
    assert not tracker.cancel()

    assert (tracker.state, tracker.reason, tracker.settled) == ("released", "cancelled", True)


def test_a_message_on_its_way_cannot_be_taken_back(outgoing: Outgoing, link: Link) -> None:
    link.has_given_it_out = True
    tracker = put(outgoing)

    assert not tracker.cancel()

    conclude(outgoing, tracker, "expired")
    assert (tracker.state, tracker.reason) == ("expired", "")


def test_what_was_settled_is_counted_once(outgoing: Outgoing) -> None:
    trackers = [put(outgoing, str(number)) for number in range(3)]
    for tracker in trackers[:2]:
        conclude(outgoing, tracker, "accepted")
        conclude(outgoing, tracker, "accepted")

    assert (len(outgoing), outgoing.settled) == (1, 2)
    assert (outgoing.reckon(), outgoing.reckon()) == (2, 0)


def test_what_a_former_life_put_is_counted_too(outgoing: Outgoing) -> None:
    outgoing.expect(2)

    outgoing.settle(Tracker("1", "bob", "bob", outgoing), was_left_over=True)

    assert (len(outgoing), outgoing.reckon()) == (1, 1)


def test_what_is_followed_for_others_is_not_counted(outgoing: Outgoing) -> None:
    tracker, told = Tracker("1", "bob", "bob", outgoing), list[Tracker]()
    tracker.add_done_callback(told.append)

    conclude(outgoing, tracker, "accepted")

    assert (told, outgoing.settled) == ([tracker], 0)


def test_the_eldest_of_too_many_trackers_is_forgotten(outgoing: Outgoing) -> None:
    for number in range(4):
        put(outgoing, str(number))

    assert [outgoing.find(str(number)) is not None for number in range(4)] == [False, True, True, True]
    assert len(outgoing) == 4


@pytest.mark.parametrize(
    ("index", "cumulative", "kept"), [(None, False, ""), (1, False, "02"), (1, True, "2"), (2, True, "")]
)
def test_trackers_are_forgotten_one_by_one_or_up_to_one_or_all(
    outgoing: Outgoing, index: int | None, cumulative: bool, kept: str
) -> None:
    trackers = [put(outgoing, str(number)) for number in range(3)]

    outgoing.forget(None if index is None else trackers[index], cumulative)

    assert "".join(id for id in "012" if outgoing.find(id)) == kept


def test_to_forget_what_is_not_kept_does_nothing(outgoing: Outgoing) -> None:
    put(outgoing)
    stranger = Tracker("2", "bob", "bob", outgoing)

    outgoing.forget(stranger, cumulative=True)
    outgoing.forget(stranger, cumulative=False)

    assert outgoing.find("1") is not None


def test_what_could_not_be_sent_is_not_followed(outgoing: Outgoing) -> None:
    outgoing.drop(put(outgoing))

    assert (len(outgoing), outgoing.find("1")) == (0, None)


def test_a_new_life_follows_nothing_of_the_former_one(outgoing: Outgoing) -> None:
    conclude(outgoing, put(outgoing, "1"), "accepted")
    put(outgoing, "2")
    outgoing.expect(1)

    outgoing.begin()

    assert (len(outgoing), outgoing.reckon(), outgoing.find("2")) == (0, 0, None)
