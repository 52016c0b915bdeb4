"""Addressed messages, over every backend."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from posttroll.backends.base import Backend, LinkChannel
from posttroll.errors import Interrupted, LocalProtocolError, TimedOut
from posttroll.link_peer import LinkPeer
from posttroll.message import Message
from posttroll.messenger import Messenger, PeerInfo, Tracker
from posttroll.protocol import frames
from posttroll.subscriber import Subscriber
from tests.conformance.conftest import Channels, Nameservers
from tests.fixtures.background import in_background
from tests.fixtures.waiting import UNIT, eventually

pytestmark = pytest.mark.usefixtures("backend", "network", "fronts")

Start = Callable[..., Messenger]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start messengers, which know no nameserver unless told so, and stop them at the end."""
    with ExitStack() as stack:

        def start(name: str | None = None, **options: Any) -> Messenger:
            messenger = Messenger(name, **{"nameservers": False, **options})
            return stack.enter_context(closing(messenger)).start()

        yield start


@pytest.fixture
def alice(start: Start) -> Messenger:
    return start("alice")


@pytest.fixture
def bob(start: Start, alice: Messenger) -> Messenger:
    """Start a messenger that is connected to alice."""
    bob = start("bob")
    bob.connect(alice.address)
    eventually(lambda: "alice" in bob.peers and "bob" in alice.peers)
    return bob


def note(number: int = 0, subject: str = "/note") -> Message:
    return Message(subject, "info", {"number": number})


def take(messenger: Messenger, count: int = 1) -> list[Message]:
    """Get so many messages, all of which are accepted."""
    messages = []
    for _ in range(count):
        message = messenger.get(5 * UNIT)
        assert message is not None, f"only {len(messages)} of {count} messages came"
        messages.append(message)
    messenger.accept()
    return messages


def link_of(messenger: Messenger) -> LinkPeer:
    """Return what puts payloads as they are, of a messenger of either kind."""
    link: LinkPeer = getattr(messenger._link, "link", messenger._link)
    return link


def numbers_of(messages: list[Message]) -> list[int]:
    return [message.data["number"] for message in messages]


def test_who_comes_and_goes_is_logged(alice: Messenger, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), Messenger("bob", nameservers=False) as bob:
        bob.connect(alice.address)
        eventually(lambda: "messenger alice: bob is there" in caplog.text)
        bob.stop()
        eventually(lambda: "messenger alice: bob is gone: " in caplog.text)


def test_messages_go_both_ways_whoever_connected(alice: Messenger, bob: Messenger) -> None:
    bob.put("alice", note(1))
    alice.put("bob", note(2))

    assert numbers_of(take(alice)) == [1]
    assert numbers_of(take(bob)) == [2]


def test_one_that_only_connects_gets_messages_too(start: Start, alice: Messenger) -> None:
    hidden = start("hidden", listen=False)
    alice.put("hidden", note(1))

    hidden.connect(alice.address)

    assert numbers_of(take(hidden)) == [1]
    assert (hidden.address, hidden.publisher) == ("", None)


def test_one_listener_talks_with_several_who_connect(start: Start, alice: Messenger) -> None:
    others = [start(name, listen=False) for name in ("bob", "carol")]
    for number, other in enumerate(others):
        other.connect(alice.address)
        other.put("alice", note(number))
        alice.put(other.name, note(number))

    assert sorted(numbers_of(take(alice, 2))) == [0, 1]
    assert [numbers_of(take(other)) for other in others] == [[0], [1]]
    assert set(alice.peers) == {"bob", "carol"}


def test_one_connects_to_several_listeners(start: Start, alice: Messenger) -> None:
    dave, carol = start("dave", listen=False), start("carol")
    for listener in (alice, carol):
        dave.connect(listener.address)
        dave.put(listener.name, note())

    assert take(alice)[0].properties.source == take(carol)[0].properties.source == "dave"


def test_what_is_sent_before_its_peer_starts_waits_for_it(start: Start, nameservers: Nameservers) -> None:
    bob = start("bob", nameservers=nameservers)
    tracker = bob.put("alice", note(1))
    assert (tracker.state, bob.outgoing) == ("pending", 1)

    alice = start("alice", nameservers=nameservers)

    assert numbers_of(take(alice)) == [1]
    assert tracker.wait(5 * UNIT) == "accepted"


def test_a_peer_that_is_there_is_found_by_its_name(start: Start, nameservers: Nameservers) -> None:
    alice = start("alice", nameservers=nameservers)
    hidden = start("hidden", nameservers=nameservers or ["localhost"], listen=False)

    hidden.put("alice/and/a/path", note(1))

    assert take(alice)[0].properties.to == "alice/and/a/path"


def test_a_peer_is_found_again_where_it_is_restarted(start: Start, nameservers: Nameservers) -> None:
    bob = start("bob", nameservers=nameservers)
    for number in range(2):
        with Messenger("alice", nameservers=nameservers) as alice:
            bob.put("alice", note(number))
            assert numbers_of(take(alice)) == [number]

    assert bob.send(timeout=5 * UNIT) == 2


def test_a_connection_can_be_wished_for_by_name_with_nothing_to_send(start: Start, nameservers: Nameservers) -> None:
    bob, alice = start("bob", nameservers=nameservers), start("alice", nameservers=nameservers)

    bob.connect("alice")

    eventually(lambda: "bob" in alice.peers and "alice" in bob.peers)
    assert bob.peers["alice"].address == alice.address


def test_it_publishes_at_the_address_it_is_announced_with(start: Start, nameservers: Nameservers) -> None:
    alice = start("alice", nameservers=nameservers)
    with closing(Subscriber(f"tcp://127.0.0.1:{alice.publisher.port_number}")) as subscriber:
        assert alice.publisher.wait_for_subscriber("/note", 5 * UNIT)
        alice.publisher.send(note(1))

        assert next(subscriber.recv(timeout=5 * UNIT)).data == {"number": 1}


def test_a_connection_comes_back_when_the_peer_does(start: Start, free_port: int) -> None:
    bob = start("bob", listen=False)
    bob.connect(f"tcp://127.0.0.1:{free_port}")
    for number in range(3):
        bob.put("alice", note(number))
        with Messenger("alice", nameservers=False, link_port=free_port) as alice:
            began = time.monotonic()
            assert numbers_of(take(alice)) == [number]
            assert time.monotonic() - began < UNIT
        eventually(lambda: not bob.peers)

    assert bob.send(timeout=5 * UNIT) == 3


def test_one_can_be_addressed_by_where_it_is(start: Start, alice: Messenger) -> None:
    bob = start("bob", listen=False)

    tracker = bob.put(f"{alice.address}/and/a/path", note(1))

    assert take(alice)[0].properties.to == f"{alice.address}/and/a/path"
    assert tracker.wait(5 * UNIT) == "accepted"


def test_a_peer_that_was_left_gets_nothing_more(alice: Messenger, bob: Messenger) -> None:
    bob.disconnect(alice.address)
    eventually(lambda: not alice.peers and not bob.peers)
    bob.put("alice", note())

    with pytest.raises(TimedOut):
        alice.recv(timeout=0.2)


def test_several_peers_of_one_name_do_no_harm(start: Start, alice: Messenger) -> None:
    twins = [start("twin", listen=False) for _ in range(2)]
    for twin in twins:
        twin.connect(alice.address)
        twin.put("alice", note())
    take(alice, 2)

    for number in range(10):
        alice.put("twin", note(number))
    got = []
    while len(got) < 10:
        for twin in twins:
            message = twin.get(0.01)
            if message is not None:
                got.append(message.data["number"])
                twin.accept()

    assert sorted(got) == list(range(10))
    assert alice.send(timeout=5 * UNIT) == 10


def test_who_is_there_is_known_with_its_key(
    start: Start, backend: Backend, alice: Messenger, bob: Messenger, request: pytest.FixtureRequest
) -> None:
    expected = ""
    if backend.strength:
        expected = request.getfixturevalue("keys").public_text("client")

    assert alice.peers == {"bob": PeerInfo("bob", "", expected)}


def test_a_message_tells_whom_it_is_for_and_from_and_what_it_answers(alice: Messenger, bob: Messenger) -> None:
    bob.put("alice/inbox", note(), id="my own", reply_to="bob/outbox", correlation_id="an earlier one")

    properties = take(alice)[0].properties

    assert (properties.id, properties.to, properties.source) == ("my own", "alice/inbox", "bob")
    assert (properties.reply_to, properties.correlation_id) == ("bob/outbox", "an earlier one")


def test_an_id_that_is_made_is_the_same_at_both_ends(alice: Messenger, bob: Messenger) -> None:
    trackers = [bob.put("alice", note(number)) for number in range(10)]

    messages = take(alice, 10)

    assert [message.properties.id for message in messages] == [tracker.id for tracker in trackers]
    assert len({tracker.id for tracker in trackers}) == 10


def test_a_message_may_be_used_again_after_it_was_put(alice: Messenger, bob: Messenger) -> None:
    message = note(1)

    bob.put("alice", message)
    message.data["number"], message.subject = 2, "/another"
    bob.put("alice", message)

    assert [(one.subject, one.data["number"]) for one in take(alice, 2)] == [("/note", 1), ("/another", 2)]


@pytest.mark.parametrize("data", ["text", "two\nlines", {"sequence": 1, "deep": [{"er": None}]}, b"\x00\n\xff"])
def test_any_data_arrive_as_they_were(alice: Messenger, bob: Messenger, data: Any) -> None:
    bob.put("alice", Message("/data", "info", data, binary=isinstance(data, bytes)))

    assert take(alice)[0].data == data


def test_credentials_never_leave_in_an_address(alice: Messenger, bob: Messenger) -> None:
    where = alice.address.replace("tcp://", "tcp://user:secret@")

    bob.put(where, note(), reply_to="user:secret@bob")

    properties = take(alice)[0].properties
    assert (properties.to, properties.reply_to) == (alice.address, "bob")


def test_a_route_decides_where_a_message_goes_but_not_what_is_seen_of_that(alice: Messenger, bob: Messenger) -> None:
    bob.route("products/*", "alice/$1")
    bob.route("*", "nobody")

    bob.put("products/1b", note())

    assert take(alice)[0].properties.to == "products/1b"


def test_a_rewritten_address_is_all_that_the_peer_sees(alice: Messenger, bob: Messenger) -> None:
    bob.rewrite("%/secret/*", "$1/$2")

    bob.put("alice/secret/door", note())

    assert take(alice)[0].properties.to == "alice/door"


def test_a_reply_goes_to_who_has_sent_the_message(alice: Messenger, bob: Messenger) -> None:
    question = bob.put("alice", note(1))

    alice.reply(take(alice)[0], note(2))

    answer = take(bob)[0]
    assert (answer.data["number"], answer.properties.correlation_id) == (2, question.id)


def test_a_reply_goes_where_the_message_asks_for_it(start: Start, alice: Messenger, bob: Messenger) -> None:
    carol = start("carol", listen=False)
    carol.connect(alice.address)
    bob.put("alice", note(1), reply_to="carol/answers")

    alice.reply(take(alice)[0], note(2))

    assert take(carol)[0].properties.to == "carol/answers"


def test_one_without_a_name_has_a_reply_address_of_its_own(start: Start, alice: Messenger) -> None:
    client = start(listen=False)
    client.connect(alice.address)
    client.put("alice", note(1), reply_to=client.name)

    alice.reply(take(alice)[0], note(2))

    assert numbers_of(take(client)) == [2]


def test_a_server_may_be_asked_by_many(start: Start, alice: Messenger) -> None:
    alice.on_message(lambda message: alice.reply(message, note(2 * message.data["number"])))
    clients = [start(listen=False) for _ in range(5)]
    for number, client in enumerate(clients):
        client.connect(alice.address)
        client.put("alice", note(number), reply_to=client.name)

    alice.run(count=5)

    assert [numbers_of(take(client)) for client in clients] == [[0], [2], [4], [6], [8]]


def test_a_message_is_accepted_when_its_peer_asks_for_the_next_one(alice: Messenger, bob: Messenger) -> None:
    tracker = bob.put("alice", note())
    alice.get(5 * UNIT)
    assert not tracker.settled

    alice.get()

    assert tracker.wait(5 * UNIT) == "accepted"


def test_what_was_got_last_is_accepted_at_the_stop(alice: Messenger, bob: Messenger) -> None:
    tracker = bob.put("alice", note())
    alice.get(5 * UNIT)

    alice.stop()

    assert tracker.wait(5 * UNIT) == "accepted"


def test_what_was_got_when_an_error_ends_the_block_comes_again(start: Start, bob: Messenger) -> None:
    tracker = bob.put("carol", note(1))
    carol = Messenger("carol", nameservers=False)

    def fail() -> None:
        with carol:
            carol.connect(bob.address)
            assert carol.get(5 * UNIT) is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with carol:
        carol.connect(bob.address)
        message = carol.get(5 * UNIT)
        assert message.delivery.redelivered

    assert tracker.wait(5 * UNIT) == "accepted"


def test_send_waits_until_all_is_settled(alice: Messenger, bob: Messenger) -> None:
    for number in range(3):
        bob.put("alice", note(number))

    with in_background(lambda: bob.send(timeout=5 * UNIT)) as sending:
        assert sending.is_pending()
        take(alice, 3)

        assert sending.result() == 3
    assert (bob.outgoing, bob.send()) == (0, 0)


def test_send_waits_until_so_many_are_settled(alice: Messenger, bob: Messenger) -> None:
    for number in range(3):
        bob.put("alice", note(number))
    take(alice, 2)

    assert bob.send(2, timeout=5 * UNIT) >= 2
    with pytest.raises(TimedOut):
        bob.send(timeout=0.05)
    assert bob.send(0) == 0


def test_a_tracker_tells_what_became_of_a_message(alice: Messenger, bob: Messenger) -> None:
    tracker = bob.put("alice", note())
    assert (tracker.settled, bob.status(tracker)) == (False, "pending")

    alice.reject(alice.get(5 * UNIT), reason="too late")

    assert tracker.wait(5 * UNIT) == "rejected"
    assert (tracker.reason, bob.status(tracker), bob.status(tracker.id)) == ("too late", "rejected", "rejected")
    assert bob.status("no such id") == "unknown"


def test_what_is_released_comes_again(alice: Messenger, bob: Messenger) -> None:
    tracker = bob.put("alice", note())
    first = alice.get(5 * UNIT)
    assert not first.delivery.redelivered

    alice.release(first)
    second = alice.get(5 * UNIT)

    assert second.delivery.redelivered
    assert second.properties.id == first.properties.id == tracker.id
    alice.accept(second)
    assert tracker.wait(5 * UNIT) == "accepted"


def test_what_was_handed_to_the_transport_is_no_longer_buffered(alice: Messenger, bob: Messenger) -> None:
    gone, kept = bob.put("alice", note()), bob.put("nobody", note())

    take(alice)

    assert (bob.buffered(gone), bob.buffered(kept)) == (False, True)


def test_what_has_not_gone_out_can_be_taken_back(start: Start, alice: Messenger, bob: Messenger) -> None:
    told: list[str] = []
    bob.on_drop(lambda tracker, reason: told.append(tracker.id))
    trackers = [bob.put("carol", note(number)) for number in range(2)]

    assert trackers[0].cancel()

    carol = start("carol", listen=False)
    carol.connect(bob.address)
    assert numbers_of(take(carol)) == [1]
    assert trackers[0].wait() == "released"
    assert trackers[1].wait(5 * UNIT) == "accepted"
    assert not trackers[1].cancel()
    assert (bob.send(timeout=5 * UNIT), bob.work(0), told) == (2, False, [])


def test_a_done_callback_is_called_once_whenever_it_is_added(alice: Messenger, bob: Messenger) -> None:
    told: list[tuple[str, str]] = []
    tracker = bob.put("alice", note())

    tracker.add_done_callback(lambda one: told.append(("early", one.state)))
    take(alice)
    tracker.wait(5 * UNIT)
    eventually(lambda: told)
    tracker.add_done_callback(lambda one: told.append(("late", one.state)))

    assert told == [("early", "accepted"), ("late", "accepted")]


def test_what_nobody_comes_for_expires(alice: Messenger, bob: Messenger) -> None:
    dropped: list[tuple[str, str]] = []
    bob.on_drop(lambda tracker, reason: dropped.append((tracker.id, reason)))

    tracker = bob.put("nobody", note(), ttl=0.05)

    assert tracker.wait(5 * UNIT) == "expired"
    bob.work(UNIT)
    assert dropped == [(tracker.id, "expired")]


def test_what_was_put_and_is_not_persistent_is_lost_at_the_end(start: Start, alice: Messenger) -> None:
    with Messenger("bob", nameservers=False) as bob:
        bob.put("carol", note(1))

    with Messenger("bob", nameservers=False) as bob:
        carol = start("carol", listen=False)
        carol.connect(bob.address)
        bob.put("carol", note(2))

        assert numbers_of(take(carol)) == [2]


def test_what_is_persistent_is_sent_by_the_next_program_of_that_name(start: Start, tmp_path: Path) -> None:
    with Messenger("bob", nameservers=False, journal=tmp_path / "kept") as bob:
        ids = [bob.put("carol", note(number), persistent=True).id for number in range(3)]

    with Messenger("bob", nameservers=False, journal=tmp_path / "kept") as bob:
        sent: list[str] = []
        bob.on_sent(lambda tracker: sent.append(tracker.id))
        assert bob.outgoing == 3
        carol = start("carol", listen=False)
        carol.connect(bob.address)

        messages = take(carol, 3)

        assert numbers_of(messages) == [0, 1, 2]
        assert [message.properties.id for message in messages] == ids
        assert bob.send(timeout=5 * UNIT) == 3
        bob.work(UNIT)
        assert sent == ids


def test_all_is_accepted_in_the_end_though_the_receiver_is_restarted_again_and_again(start: Start) -> None:
    bob = start("bob")
    trackers = [bob.put("carol", note(number)) for number in range(1000)]
    got: list[int] = []
    for share in (100, 400, 500):
        with Messenger("carol", nameservers=False, listen=False) as carol:
            carol.connect(bob.address)
            got.extend(numbers_of(take(carol, share)))

    assert got == list(range(1000))
    assert bob.send(timeout=5 * UNIT) == 1000
    assert {tracker.state for tracker in trackers} == {"accepted"}


def test_a_slow_receiver_is_sent_no_more_than_its_credit(start: Start, alice: Messenger) -> None:
    slow = start("slow", listen=False, credit=10, incoming_window=9)
    slow.connect(alice.address)
    trackers = [alice.put("slow", note(number)) for number in range(50)]

    eventually(lambda: slow.recv(timeout=5 * UNIT) == 10)
    assert sum(not tracker.buffered for tracker in trackers) == 10

    got = []
    while len(got) < 50:
        got.extend(numbers_of(take(slow)))
    assert got == list(range(50))


def test_a_bandwidth_is_kept_to_within_a_fifth(start: Start, alice: Messenger) -> None:
    rate, size = 500_000, 10_000
    limited = start("limited", listen=False, bandwidth=rate)
    limited.connect(alice.address)
    for _ in range(70):
        limited.put("alice", Message("/note", "info", "x" * size))

    take(alice, 10)  # what may be sent at once
    began = time.monotonic()
    take(alice, 60)

    assert 0.8 * rate / UNIT < 60 * size / (time.monotonic() - began) < 1.2 * rate


def test_messages_from_several_come_in_one_queue(start: Start, alice: Messenger) -> None:
    for name in ("bob", "carol"):
        other = start(name, listen=False)
        other.connect(alice.address)
        other.put("alice", note())
    eventually(lambda: alice.recv(timeout=5 * UNIT) == 2)

    assert alice.incoming == 2
    assert {alice.get().properties.source for _ in range(2)} == {"bob", "carol"}
    assert (alice.incoming, alice.get()) == (0, None)


def test_a_flood_from_one_peer_does_not_starve_another(start: Start, bob: Messenger) -> None:
    busy, carol = start("busy", incoming_window=None, credit=50), start("carol", listen=False)
    bob.connect(busy.address)
    carol.connect(busy.address)
    for number in range(500):
        bob.put("busy", note(number))
    for _ in range(50):
        assert busy.get(5 * UNIT).properties.source == "bob"

    carol.put("busy", note())

    assert busy.get(5 * UNIT).properties.source == "carol"


def test_no_more_is_taken_in_than_asked_for(alice: Messenger, bob: Messenger) -> None:
    for number in range(5):
        bob.put("alice", note(number))

    assert alice.recv(2, timeout=5 * UNIT) <= 2
    eventually(lambda: alice.recv() == 5)


def test_all_that_was_got_is_accepted_together(start: Start, alice: Messenger) -> None:
    archive = start("archive", listen=False, incoming_window=100)
    archive.connect(alice.address)
    trackers = [alice.put("archive", note(number)) for number in range(5)]
    messages = [archive.get(5 * UNIT) for _ in range(4)]
    assert not any(tracker.settled for tracker in trackers)

    assert archive.accept(messages[1], cumulative=True)
    assert archive.reject(messages[2])
    assert archive.accept()
    assert not archive.accept(messages[0])

    assert [tracker.wait(5 * UNIT) for tracker in trackers[:4]] == ["accepted", "accepted", "rejected", "accepted"]
    assert not trackers[4].settled


def test_beyond_the_incoming_window_the_eldest_is_accepted(start: Start, alice: Messenger) -> None:
    archive = start("archive", listen=False, incoming_window=2)
    archive.connect(alice.address)
    trackers = [alice.put("archive", note(number)) for number in range(3)]

    for _ in range(3):
        assert archive.get(5 * UNIT) is not None

    assert trackers[0].wait(5 * UNIT) == "accepted"
    assert [tracker.settled for tracker in trackers] == [True, False, False]


def test_callbacks_are_called_in_the_order_in_which_they_were_registered(alice: Messenger, bob: Messenger) -> None:
    calls: list[tuple[str, int]] = []
    alice.on_message(lambda message: calls.append(("first", message.data["number"])))

    @alice.on_message
    def second(message: Message) -> None:
        calls.append(("second", message.data["number"]))

    for number in range(2):
        bob.put("alice", note(number))
    alice.run(count=2, runtime=5 * UNIT)

    assert calls == [("first", 0), ("second", 0), ("first", 1), ("second", 1)]
    assert bob.send(timeout=5 * UNIT) == 2


def test_all_that_happens_to_a_message_and_a_connection_is_told(start: Start, alice: Messenger) -> None:
    told: list[Any] = []
    alice.on_connect(lambda peer: told.append(("connect", peer.name)))
    alice.on_disconnect(lambda peer, reason: told.append(("disconnect", peer.name, reason)))
    alice.on_sent(lambda tracker: told.append(("sent", tracker.state)))
    alice.on_drop(lambda tracker, reason: told.append(("drop", tracker.state, reason)))
    with Messenger("bob", nameservers=False, listen=False) as bob:
        bob.connect(alice.address)
        alice.put("bob", note(1))
        alice.put("bob", note(2))
        bob.accept(bob.get(5 * UNIT))
        bob.reject(bob.get(5 * UNIT), reason="not that")
        eventually(lambda: alice.outgoing == 0)

    eventually(lambda: alice.work(0.1) and len(told) == 4)

    assert told[:3] == [("connect", "bob"), ("sent", "accepted"), ("drop", "rejected", "not that")]
    assert told[3][:2] == ("disconnect", "bob")


def test_a_message_whose_callback_fails_is_rejected_and_the_other_callbacks_are_called(
    alice: Messenger, bob: Messenger, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    @alice.on_message
    def fail(message: Message) -> None:
        raise ZeroDivisionError("for the log only")

    alice.on_message(lambda message: calls.append(message.subject))
    tracker = bob.put("alice", note())
    alice.run(count=1, runtime=5 * UNIT)

    assert (tracker.wait(5 * UNIT), calls) == ("rejected", ["/note"])
    assert tracker.reason == "a callback failed: ZeroDivisionError"
    assert "for the log only" in caplog.text


def test_a_callback_may_settle_its_message_itself(alice: Messenger, bob: Messenger) -> None:
    alice.on_message(lambda message: alice.reject(message, reason="no use"))
    tracker = bob.put("alice", note())

    alice.run(count=1, runtime=5 * UNIT)

    assert (tracker.wait(5 * UNIT), tracker.reason) == ("rejected", "no use")


def test_a_message_whose_callback_is_interrupted_comes_again(alice: Messenger, bob: Messenger) -> None:
    @alice.on_message
    def interrupted(message: Message) -> None:
        alice.on_message.remove(interrupted)
        raise KeyboardInterrupt

    tracker = bob.put("alice", note())
    alice.run(runtime=5 * UNIT)
    assert not tracker.settled

    assert take(alice)[0].delivery.redelivered
    assert tracker.wait(5 * UNIT) == "accepted"


def test_hooks_get_their_messages_by_prefix_or_pattern_and_nobody_else_does(alice: Messenger, bob: Messenger) -> None:
    got: dict[str, list[str]] = {"prefix": [], "pattern": [], "rest": []}
    alice.add_hook("/1b/", lambda message: got["prefix"].append(message.subject))
    alice.add_hook(re.compile(r".*/(viirs|avhrr)$"), lambda message: got["pattern"].append(message.subject))
    alice.on_message(lambda message: got["rest"].append(message.subject))
    for subject in ("/1b/modis", "/1b/viirs", "/2/avhrr", "/2/modis"):
        bob.put("alice", note(subject=subject))

    alice.run(count=4, runtime=5 * UNIT)

    assert got == {"prefix": ["/1b/modis", "/1b/viirs"], "pattern": ["/1b/viirs", "/2/avhrr"], "rest": ["/2/modis"]}
    assert bob.send(timeout=5 * UNIT) == 4


def test_what_no_hook_wants_is_there_to_be_got(alice: Messenger, bob: Messenger) -> None:
    alice.add_hook("/1b/", lambda message: None)
    bob.put("alice", note(1, "/1b/viirs"))
    bob.put("alice", note(2, "/2/viirs"))

    alice.run(count=2, runtime=5 * UNIT)

    assert (alice.incoming, alice.get().data) == (1, {"number": 2})


def test_run_ends_when_a_callback_stops_the_messenger(alice: Messenger, bob: Messenger) -> None:
    alice.on_message(lambda message: alice.stop())
    tracker = bob.put("alice", note())

    alice.run(runtime=5 * UNIT)

    assert alice.stopped
    assert tracker.wait(5 * UNIT) == "accepted"


def test_work_tells_whether_something_came(alice: Messenger, bob: Messenger) -> None:
    assert not alice.work(0)
    bob.put("alice", note())

    assert alice.work(5 * UNIT)

    assert (alice.incoming, alice.work(0)) == (1, False)


def test_what_happened_before_the_stop_is_told_after_it(alice: Messenger, bob: Messenger) -> None:
    sent: list[str] = []
    bob.on_sent(lambda tracker: sent.append(tracker.state))
    bob.put("alice", note())
    take(alice)
    bob.send(timeout=5 * UNIT)

    bob.stop()

    assert bob.work(0)
    assert sent == ["accepted"]


def test_the_end_is_told_to_the_peers_at_once(alice: Messenger, bob: Messenger) -> None:
    reasons: list[str] = []
    alice.on_disconnect(lambda peer, reason: reasons.append(reason))

    began = time.monotonic()
    bob.stop()

    assert time.monotonic() - began < 0.5 * UNIT
    assert alice.work(5 * UNIT)
    assert reasons == ["it has ended"]


@pytest.mark.parametrize("wait", ["recv", "run", "work", "get"])
def test_a_call_that_waits_ends_when_another_thread_stops_it(alice: Messenger, bob: Messenger, wait: str) -> None:
    arguments = [None] if wait == "get" else []
    with in_background(lambda: getattr(alice, wait)(*arguments)) as waiting:
        assert waiting.is_pending()
        began = time.monotonic()
        alice.stop()
        waiting.result()

    assert time.monotonic() - began < 0.5 * UNIT


def test_several_threads_may_wait_at_once(alice: Messenger, bob: Messenger) -> None:
    trackers = [bob.put("alice", note(number)) for number in range(2)]

    with in_background(lambda: trackers[0].wait(5 * UNIT)) as one, in_background(lambda: bob.send()) as other:
        assert one.is_pending()
        assert other.is_pending()
        take(alice, 2)

        assert (one.result(), other.result()) == ("accepted", 2)


def spoken(*spoken_frames: Any) -> bytes:
    return frames.encode([(frame, None) for frame in spoken_frames])


@pytest.fixture
def stranger(channels: Channels, alice: Messenger) -> LinkChannel:
    """Connect to alice with a channel that says only what it is told to."""
    channel = channels.links(None)
    channel.connect(channels.peer(alice.address))
    eventually(lambda: (arrival := channel.receive(0.1)) is not None and arrival.connected)
    return channel


def heard(channel: LinkChannel, kind: type) -> Any:
    """Return the next frame of a kind that is said to the stranger."""

    def next_one() -> Any:
        arrival = channel.receive(0.1)
        said = frames.decode_conversation(arrival.bundle) if arrival is not None and arrival.bundle else ()
        return next((frame for frame, _ in said if isinstance(frame, kind)), None)

    return eventually(next_one)


def open_frame(**changes: Any) -> frames.Open:
    said = {"container": "mallory", "life": "1", "version": frames.VERSION, "number": 1, "heard": 0, "awaits": False}
    return frames.Open(**{**said, "queues": {}, **changes})


def test_who_speaks_another_version_is_told_so(channels: Channels, alice: Messenger, stranger: LinkChannel) -> None:
    stranger.send(channels.peer(alice.address), spoken(open_frame(version=99)))

    assert "not 99" in heard(stranger, frames.Close).reason
    assert not alice.peers


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"\x00", b"[]\n", b"[[],[]]\n", b'[[{"frame":"open"}],[]]\n', b"{" * 10_000]
)
def test_garbage_on_a_connection_disturbs_nobody(
    channels: Channels, alice: Messenger, bob: Messenger, stranger: LinkChannel, garbage: bytes
) -> None:
    for _ in range(10):
        stranger.send(channels.peer(alice.address), garbage)
    bob.put("alice", note(1))

    assert numbers_of(take(alice)) == [1]
    assert set(alice.peers) == {"bob"}


def test_who_is_silent_for_too_long_is_gone(channels: Channels, start: Start) -> None:
    alice = start("alice", silence=0.3)
    reasons: list[str] = []
    alice.on_disconnect(lambda peer, reason: reasons.append(reason))
    channel = channels.links(None)
    peer = channels.peer(alice.address)
    channel.connect(peer)
    eventually(lambda: channel.receive(0.1) and channel.send(peer, spoken(open_frame())) and alice.peers)

    assert alice.work(5 * UNIT)

    assert reasons == ["it was silent for 0.3 s"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no properties",
        b"pytroll://note info a@b 2020-01-01T00:00:00 v1.01 text/ascii x",
        b"no message\n" + json.dumps({"id": "1", "to": "alice"}).encode(),
        b'pytroll://note info a@b 2020-01-01T00:00:00 v1.01 text/ascii x\n{"id": ""}',
        b'pytroll://note info a@b 2020-01-01T00:00:00 v1.01 text/ascii x\n{"id": "1", "to": 1}',
        b"pytroll://note info a@b 2020-01-01T00:00:00 v1.01 text/ascii x\n" + b"[" * 100_000,
        b"pytroll://note info a@b 2020-01-01T00:00:00 v1.01 text/ascii x\n\xff",
    ],
)
def test_what_is_no_message_is_rejected_with_the_reason(
    alice: Messenger, bob: Messenger, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = bob.put("nobody", note())
    link_of(bob).put("alice", "messages", payload, tracker)
    bob.put("alice", note(1))

    assert numbers_of(take(alice)) == [1]
    assert tracker.wait(5 * UNIT) == "rejected"
    assert tracker.reason.startswith("no message: ")
    assert alice.drops == {"not a message": 1}
    assert "what came from bob for messages is rejected" in caplog.text


def test_nobody_can_pretend_to_be_the_source(alice: Messenger, bob: Messenger) -> None:
    properties = json.dumps({"id": "1", "to": "alice", "source": "the king"})

    link_of(bob).put("alice", "messages", f"{note()}\n{properties}".encode())

    assert take(alice)[0].properties.source == "bob"


def test_a_target_has_messages_of_its_own(alice: Messenger, bob: Messenger) -> None:
    arrived = threading.Event()
    requests = alice.open_target("requests", arrived.set)
    trackers = [bob.put("alice", note(number), target="requests") for number in range(3)]
    bob.put("alice", note(9))

    assert arrived.wait(5 * UNIT)
    messages = [eventually(requests.take) for _ in range(3)]
    assert requests.accept(messages[0])
    assert requests.reject(messages[1], "no")
    assert requests.release(messages[2])

    assert [trackers[index].wait(5 * UNIT) for index in (0, 1)] == ["accepted", "rejected"]
    assert requests.accept(eventually(requests.take))
    assert trackers[2].wait(5 * UNIT) == "accepted"
    assert numbers_of(take(alice)) == [9]


def test_a_target_can_be_opened_once_only_and_before_the_start_too(start: Start, bob: Messenger) -> None:
    carol = Messenger("carol", nameservers=False, listen=False)
    requests = carol.open_target("requests", lambda: None)
    with pytest.raises(LocalProtocolError, match="open already"):
        carol.open_target("requests", lambda: None)
    bob.put("carol", note(1), target="requests")

    with carol:
        carol.connect(bob.address)

        assert eventually(requests.take).data == {"number": 1}


def test_what_goes_to_other_targets_is_not_waited_for(alice: Messenger, bob: Messenger) -> None:
    bob.put("alice", note(), target="requests")

    assert (bob.outgoing, bob.send(timeout=5 * UNIT)) == (0, 0)


def test_an_interrupted_call_leaves_nothing_behind(alice: Messenger, bob: Messenger) -> None:
    with in_background(alice.recv) as receiving:
        assert receiving.is_pending()
        alice.interrupt()
        with pytest.raises(Interrupted):
            receiving.result()

    bob.put("alice", note(1))
    assert numbers_of(take(alice)) == [1]


def test_a_tracker_forgotten_is_no_reason_for_a_message_not_to_arrive(start: Start, alice: Messenger) -> None:
    bob = start("bob", listen=False, outgoing_window=2)
    trackers: list[Tracker] = [bob.put("alice", note(number)) for number in range(4)]
    assert [bob.status(tracker.id) for tracker in trackers] == ["unknown", "unknown", "pending", "pending"]
    bob.settle()
    assert bob.status(trackers[3].id) == "unknown"

    bob.connect(alice.address)
    take(alice, 4)

    assert bob.send(timeout=5 * UNIT) == 4
