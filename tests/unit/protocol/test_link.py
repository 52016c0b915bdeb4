"""A receiver's states; and links keep their promise over a bus that loses, doubles, reorders and cuts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from posttroll.protocol.frames import (
    MOST,
    Attach,
    Attached,
    Detach,
    Disposition,
    Flow,
    Frame,
    Outcome,
    Settled,
    Transfer,
)
from posttroll.protocol.link import TRANSITIONS, Delivery, Patience, Receiver
from tests.unit.protocol.simulation import ACCEPTED, MESSAGES, RELEASED, ReplaySimulation, Simulation

PATIENCE = Patience(resend=1.0, interval=2.0, silence=10.0, doubt=0.5)
RUNS_OF_A_CHUNK = 25
UNBEGUN = Outcome("released", begun=False)


def sent(receiver: Receiver, now: float) -> list[Frame]:
    return [frame for frame, _ in receiver.frames_to_send(now)]


def transfer(receiver: Receiver, number: int, sequence: int, count: int = 1, session: int = 1) -> None:
    receiver.receive(Transfer("receiver", session, "life", number, sequence, count), b"%d" % sequence, now=0.0)


def taken(receiver: Receiver) -> Delivery:
    delivery = receiver.take()
    assert delivery is not None
    return delivery


def attached(**options: Any) -> Receiver:
    """Return a receiver that has attached, at the time 0, and sent its first flow."""
    receiver = Receiver("receiver", "consumer", patience=PATIENCE, **options)
    receiver.attach(now=0.0)
    receiver.frames_to_send(now=0.0)
    receiver.receive(Attached("receiver", 1, "life", "journal"), None, now=0.0)
    receiver.frames_to_send(now=0.0)
    return receiver


@pytest.mark.parametrize("chunk", range(10))
def test_everything_is_accepted_at_least_once_and_in_order(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed)

        simulation.run()

        assert list(dict.fromkeys(simulation.accepted)) == list(range(1, MESSAGES + 1)), f"seed {seed}"


@pytest.mark.parametrize("chunk", range(10))
def test_workers_share_and_lose_nothing(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed, workers=3)

        simulation.run()

        assert set(simulation.accepted) == set(range(1, MESSAGES + 1)), f"seed {seed}"


@pytest.mark.parametrize("chunk", range(10))
def test_what_is_released_comes_again_and_what_is_rejected_is_set_aside(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed, workers=2, is_manual=True)

        simulation.run()

        assert {*simulation.accepted, *simulation.rejected} == set(range(1, MESSAGES + 1)), f"seed {seed}"


@pytest.mark.parametrize("chunk", range(10))
def test_nothing_is_lost_but_what_expires(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed, ttl=3.0)

        simulation.run()

        accepted = list(dict.fromkeys(simulation.accepted))
        assert accepted == sorted(accepted), f"seed {seed}"
        assert {*accepted, *simulation.expired()} == set(range(1, MESSAGES + 1)), f"seed {seed}"


@pytest.mark.parametrize("chunk", range(4))
def test_a_journal_in_memory_loses_nothing_while_it_lasts(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = Simulation(seed, workers=2, lasts=True)

        simulation.run()

        assert set(simulation.accepted) == set(range(1, MESSAGES + 1)), f"seed {seed}"


@pytest.mark.parametrize("chunk", range(4))
def test_a_replay_gives_everything_once_and_in_order(chunk: int) -> None:
    for seed in range(chunk * RUNS_OF_A_CHUNK, (chunk + 1) * RUNS_OF_A_CHUNK):
        simulation = ReplaySimulation(seed)

        simulation.run()

        assert simulation.order == list(range(1, MESSAGES + 1)), f"seed {seed}"


def attaching_receiver() -> Receiver:
    receiver = Receiver("receiver", "consumer", distribution_mode="copy", start_at="", patience=PATIENCE)
    receiver.attach(now=0.0)
    return receiver


START = {
    "detached": lambda: Receiver("receiver", "consumer", patience=PATIENCE),
    "attaching": attaching_receiver,
    "attached": lambda: attached(distribution_mode="copy", start_at=""),
}


def stay_silent(receiver: Receiver) -> None:
    receiver.frames_to_send(now=10.0)


def leave(receiver: Receiver) -> None:
    receiver.detach()
    receiver.frames_to_send(now=0.0)


EVENTS: dict[str, Callable[[Receiver], object]] = {
    "attach": lambda receiver: receiver.attach(now=0.0),
    "attached": lambda receiver: receiver.receive(Attached("receiver", 1, "life", "journal"), None, now=0.0),
    "refused": lambda receiver: receiver.receive(Detach("receiver", 1, "", "no"), None, now=0.0),
    "detached": lambda receiver: receiver.receive(Detach("receiver", 1, "life", "unknown session"), None, now=0.0),
    "ended": lambda receiver: receiver.receive(Detach("receiver", 1, "life"), None, now=0.0),
    "detach": leave,
    "cut": lambda receiver: receiver.disconnected(now=0.0),
    "silence": stay_silent,
}


@pytest.mark.parametrize(("state", "event"), TRANSITIONS)
def test_each_event_leads_where_the_table_says(state: str, event: str) -> None:
    receiver = START[state]()

    EVENTS[event](receiver)

    assert receiver.state == TRANSITIONS[state, event]


def test_what_is_not_in_the_table_does_not_happen() -> None:
    states = {}
    for state, start in START.items():
        for event in set(EVENTS) - {event for known, event in TRANSITIONS if known == state}:
            receiver = start()
            EVENTS[event](receiver)
            states[state, event] = receiver.state

    assert states.pop(("attaching", "detached")) == "attaching"  # a refusal: no session has been there to end
    assert states.pop(("attached", "refused")) == "attached"
    assert all(state == after for (state, _), after in states.items())


def test_an_attach_is_repeated_until_it_is_answered() -> None:
    receiver = Receiver("receiver", "consumer", ["topic"], start_at="first", patience=PATIENCE)
    receiver.attach(now=5.0)
    attach = Attach("receiver", 1, "", "consumer", ["topic"], "first")

    assert sent(receiver, now=5.0) == [attach]
    assert sent(receiver, now=5.9) == []
    assert receiver.next_timeout() == 6.0
    assert sent(receiver, now=6.0) == [attach]


def test_a_new_connection_has_the_attach_sent_at_once() -> None:
    receiver = Receiver("receiver", "consumer", patience=PATIENCE)
    receiver.attach(now=5.0)
    receiver.frames_to_send(now=5.0)

    receiver.connected(now=5.1)

    assert [type(frame) for frame in sent(receiver, now=5.1)] == [Attach]


def test_a_new_connection_has_the_sender_told_of_an_attached_receiver() -> None:
    receiver = attached()

    receiver.connected(now=0.1)

    assert [type(frame) for frame in sent(receiver, now=0.1)] == [Flow]


def test_a_receiver_attaches_again_with_all_it_holds() -> None:
    receiver = attached()
    transfer(receiver, 0, 7)
    transfer(receiver, 1, 8)
    receiver.settle(taken(receiver), ACCEPTED)

    receiver.disconnected(now=0.0)

    assert sent(receiver, now=0.0) == [
        Attach("receiver", 2, "", "consumer", [], "new", "journal", [(7, ACCEPTED), (8, None)])
    ]


def test_what_it_may_not_keep_is_forgotten() -> None:
    receiver = attached()
    transfer(receiver, 0, 7)
    transfer(receiver, 1, 8)
    begun = taken(receiver)
    receiver.disconnected(now=0.0)

    receiver.receive(Attached("receiver", 2, "other life", "journal", [0, 1]), None, now=0.0)

    assert not receiver.settle(begun, ACCEPTED)
    assert receiver.take() is None
    assert receiver.unsettled == 0


def test_credit_counts_what_is_not_settled() -> None:
    receiver = attached(credit=3)
    transfer(receiver, 0, 1)
    transfer(receiver, 1, 2)
    delivery = taken(receiver)

    before = sent(receiver, now=0.0)
    receiver.settle(delivery, ACCEPTED)
    after = sent(receiver, now=0.0)

    assert before == [Flow("receiver", 1, "life", 2, expected=2, limit=3)]
    assert after == [
        Disposition("receiver", 1, "life", {0: ACCEPTED}),
        Flow("receiver", 1, "life", 3, expected=2, limit=4),
    ]


def test_more_than_was_asked_for_is_not_taken() -> None:
    receiver = attached(credit=1)

    transfer(receiver, 0, 1)
    transfer(receiver, 1, 2)

    assert receiver.unsettled == 1


def test_a_delivery_out_of_order_is_not_taken_and_the_sender_told() -> None:
    receiver = attached()

    transfer(receiver, 1, 8)

    assert receiver.take() is None
    assert [type(frame) for frame in sent(receiver, now=0.1)] == [Flow]


def test_an_outcome_is_repeated_until_it_is_settled() -> None:
    receiver = attached()
    transfer(receiver, 0, 7)
    receiver.settle(taken(receiver), ACCEPTED)
    disposition = Disposition("receiver", 1, "life", {0: ACCEPTED})

    first = sent(receiver, now=0.0)
    due = receiver.next_timeout()
    second = sent(receiver, now=1.0)
    receiver.receive(Settled("receiver", 1, "life", [0]), None, now=1.0)
    third = sent(receiver, now=2.0)

    assert disposition in first
    assert due == 1.0
    assert disposition in second
    assert disposition not in third


def test_a_delivery_is_settled_once() -> None:
    receiver = attached()
    transfer(receiver, 0, 7)
    delivery = taken(receiver)

    assert receiver.settle(delivery, ACCEPTED)
    assert not receiver.settle(delivery, RELEASED)


def test_what_is_not_begun_is_given_back_when_asked_for_and_no_more_is_taken_before_it_is_wanted() -> None:
    receiver = attached()
    for number in range(4):
        transfer(receiver, number, number + 1)
    taken(receiver)

    receiver.receive(Flow("receiver", 1, "life", 1, drain=True), None, now=0.0)

    assert sent(receiver, now=0.0) == [
        Disposition("receiver", 1, "life", {3: UNBEGUN, 2: UNBEGUN, 1: UNBEGUN}),
        Flow("receiver", 1, "life", 2, expected=4, limit=4),
    ]
    assert receiver.take() is None


def test_one_whose_application_waits_for_more_may_be_given_more_though_it_is_asked_back() -> None:
    receiver = attached(credit=5)
    receiver.take()

    receiver.receive(Flow("receiver", 1, "life", 1, drain=True), None, now=0.0)
    receiver.connected(now=0.0)

    assert sent(receiver, now=0.0) == [Flow("receiver", 1, "life", 2, expected=0, limit=5)]


def test_detaching_releases_what_is_not_settled() -> None:
    receiver = attached()
    transfer(receiver, 0, 1)
    transfer(receiver, 1, 2)
    taken(receiver)

    receiver.detach()

    assert sent(receiver, now=0.0) == [
        Disposition("receiver", 1, "life", {0: RELEASED, 1: UNBEGUN}),
        Detach("receiver", 1, "life"),
    ]
    assert receiver.state == "detached"
    assert receiver.next_timeout() == math.inf
    assert sent(receiver, now=9.0) == []


def test_one_who_has_detached_may_attach_again() -> None:
    receiver = attached()
    receiver.detach()
    receiver.frames_to_send(now=0.0)

    receiver.attach(now=1.0)

    assert sent(receiver, now=1.0) == [Attach("receiver", 2, "", "consumer", [], "new", "journal")]


def test_one_who_attaches_before_it_has_told_that_it_detaches_stays() -> None:
    receiver = attached()
    transfer(receiver, number=0, sequence=1)
    receiver.detach()

    receiver.attach(now=1.0)

    assert sent(receiver, now=1.0) == [
        Disposition("receiver", 1, "life", {0: UNBEGUN}),
        Flow("receiver", 1, "life", 2, expected=1, limit=101),
    ]


def test_a_sender_that_settles_nothing_cannot_fill_the_memory() -> None:
    receiver = attached()

    for number in range(MOST + 10):
        transfer(receiver, number, sequence=number + 1)
        if (delivery := receiver.take()) is not None:
            receiver.settle(delivery, ACCEPTED)

    assert receiver.unsettled == MOST


def test_a_refusal_is_told_until_attached() -> None:
    receiver = attaching_receiver()

    receiver.receive(Detach("receiver", 1, "", "belongs to another key"), None, now=0.0)
    told = receiver.refusal
    receiver.receive(Attached("receiver", 2, "life", "journal"), None, now=0.0)

    assert told == "belongs to another key"
    assert receiver.refusal == ""


def test_the_key_of_the_sender_is_in_the_delivery() -> None:
    receiver = attached()
    receiver.key = "key"

    transfer(receiver, 0, 7, count=2)

    delivery = taken(receiver)
    assert delivery == Delivery("journal", 7, 2, b"7", "key")
    assert delivery.redelivered


@pytest.mark.parametrize(
    "frame",
    [
        Detach("other", 1, "life"),
        Detach("receiver", 0, "life"),
        Detach("receiver", 2, "life"),
        Detach("receiver", 1, "former life"),
    ],
)
def test_frames_of_others_are_ignored(frame: Frame) -> None:
    receiver = attached()

    receiver.receive(frame, None, now=0.0)

    assert receiver.state == "attached"


def test_a_silent_sender_is_looked_for_anew() -> None:
    receiver = attached()

    assert receiver.next_timeout() == 2.0
    assert [type(frame) for frame in sent(receiver, now=9.9)] == [Flow]
    assert receiver.next_timeout() == 10.0
    assert [type(frame) for frame in sent(receiver, now=10.0)] == [Attach]


def test_a_replay_goes_on_after_what_was_begun() -> None:
    receiver = attached(distribution_mode="copy", start_at="", until="2026-01-01")
    transfer(receiver, 0, 7)
    transfer(receiver, 1, 8)
    taken(receiver)

    receiver.disconnected(now=0.0)

    attach = Attach("receiver", 2, "", "consumer", [], "", "journal", [], "copy", "2026-01-01", after=7)
    assert sent(receiver, now=0.0) == [attach]
    assert receiver.take() is None


def test_a_replay_of_another_journal_starts_at_its_beginning() -> None:
    receiver = attached(distribution_mode="copy", start_at="")
    transfer(receiver, 0, 7)
    taken(receiver)
    receiver.disconnected(now=0.0)
    receiver.receive(Attached("receiver", 2, "life", "other journal"), None, now=0.0)

    receiver.disconnected(now=0.0)

    assert sent(receiver, now=0.0) == [Attach("receiver", 3, "", "consumer", [], "", "other journal", [], "copy")]


@pytest.mark.parametrize("state", ["attaching", "attached"])
def test_a_replay_is_finished_when_the_sender_ends_it(state: str) -> None:
    receiver = START[state]()

    receiver.receive(Detach("receiver", 1, "life"), None, now=0.0)

    assert receiver.is_finished
    assert receiver.state == "detached"
