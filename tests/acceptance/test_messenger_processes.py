"""Addressed messages between programs that are killed, frozen, moved and cut off: all come, and no double unflagged."""

from __future__ import annotations

import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zmq.auth

from tests.acceptance.hosts import opened_network
from tests.acceptance.processes import Process, Site
from tests.acceptance.transfers import DELIVERED_WITHIN, SERVICE, Handled, Transfer, out_of_order
from tests.fixtures.hostile import Footprint
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT, eventually

STEADY = ["--period", "0.01"]
NOTICED_WITHIN = 5 * UNIT
PATIENCE = ["--silence", "2"]
"""Seconds until a quiet peer is taken for gone."""
MEBIBYTE = 2**20
PINGS = {"connection_heartbeat_interval": 0.3, "connection_heartbeat_timeout": 1.0}

pytestmark = pytest.mark.timeout(90)


class Correspondence(Transfer):
    """Numbered messages from one messenger to others."""

    def sender(
        self,
        count: int,
        *arguments: str,
        to: str = "bob",
        name: str = SERVICE,
        persistent: bool = True,
        site: Site | None = None,
        **settings: object,
    ) -> Process:
        """Run a sender, which goes on to number `count`; it is not waited for."""
        kept = ["--journal", str(self.journal)] if persistent else []
        own = ["send_addressed.py", name, to, str(count), str(self._record("sent")), *kept, *self._life()]
        return (site or self._site).program(*own, *arguments, **settings)

    def receiver(self, name: str, *arguments: str, site: Site | None = None, **settings: object) -> Process:
        """Run a receiver; its name is that of its record up to the first dot."""
        own = ["receive_addressed.py", name.split(".")[0], str(self._record(name)), *self._life()]
        return (site or self._site).program(*own, *arguments, **settings)

    def expect_all(self, name: str, count: int) -> None:
        """Wait until a receiver has handled so many messages, in order, and no double unflagged."""
        self.await_handled([name], range(1, count + 1))
        handled = self.handled(name)
        assert (unflagged(handled), out_of_order(handled)) == ([], [])

    def handled(self, *names: str) -> list[Handled]:
        """Return what these receivers noted; its number is its sequence, as that of a queue may begin anew."""
        return [one._replace(sequence=one.number) for one in super().handled(*names)]


def unflagged(handled: Iterable[Handled]) -> list[int]:
    """Return the numbers of what was handled more than once without being told so."""
    # A sender that was killed before it noted a number sends that again in its next life.
    first_times = Counter((one.number, one.sent_in) for one in handled if not one.is_redelivered)
    return [number for (number, _), count in first_times.items() if count > 1]


@pytest.fixture
def post(site: Site) -> Correspondence:
    """Give a correspondence."""
    return Correspondence(site)


@pytest.fixture
def nameserver(post: Correspondence) -> Process:
    """Run the nameserver through which all find each other."""
    return post.nameserver()


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.usefixtures("nameserver")
def test_what_was_kept_for_a_peer_that_is_away_survives_a_kill_and_comes_in_order(post: Correspondence) -> None:
    first = post.sender(200)
    first.expect_word("done")
    first.kill()

    post.sender(250)
    post.receiver("bob")

    post.expect_all("bob", 250)
    assert post.numbers("bob") == [*range(1, 251)]


@pytest.mark.usefixtures("nameserver")
def test_a_sender_killed_in_the_midst_of_sending_loses_and_doubles_nothing_unseen(post: Correspondence) -> None:
    post.receiver("bob")
    first = post.sender(300, *STEADY)
    post.await_handled(["bob"], range(1, 50))

    first.kill()
    post.sender(300, *STEADY)

    post.expect_all("bob", 300)


@pytest.mark.usefixtures("nameserver")
def test_what_a_killed_receiver_had_not_settled_comes_again_and_says_so(post: Correspondence) -> None:
    sender = post.sender(100)
    held = post.receiver("bob", "--hold", "5")
    held.expect_word("holding")
    sender.expect_word("done")

    held.kill()
    post.receiver("bob")

    post.expect_all("bob", 100)
    sender.expect_word("settled", DELIVERED_WITHIN)
    assert [one.is_redelivered for one in post.handled("bob") if one.number == 5] == [True]


@pytest.mark.usefixtures("nameserver")
def test_without_a_journal_too_nothing_is_lost_when_the_receiver_is_killed_again_and_again(
    post: Correspondence,
) -> None:
    post.sender(400, *STEADY, persistent=False)
    receiver = post.receiver("bob")

    for handled in (30, 100, 200):
        post.await_handled(["bob"], range(1, handled))
        receiver.kill()
        receiver = post.receiver("bob")

    post.expect_all("bob", 400)


@pytest.mark.usefixtures("nameserver")
def test_a_receiver_that_is_told_to_end_gives_back_what_it_has_not_begun(post: Correspondence) -> None:
    sender = post.sender(300, *STEADY, persistent=False)
    first = post.receiver("bob.1")
    post.await_handled(["bob.1"], range(1, 50))

    first.signal(signal.SIGTERM)

    assert first.wait() == 0
    assert sender.expect_word("disconnected")[0] == "bob"
    post.receiver("bob.2")
    post.await_handled(["bob.1", "bob.2"], range(1, 301))
    assert unflagged(post.handled("bob.1", "bob.2")) == []


@pytest.mark.usefixtures("nameserver")
def test_a_peer_whom_nobody_can_connect_to_gets_what_is_sent_to_its_name(post: Correspondence) -> None:
    post.sender(100, *STEADY, to="natted")
    receiver = post.receiver("natted", "--behind-nat", "--connect", SERVICE)

    assert receiver.expect_ready() == [""]
    post.expect_all("natted", 100)


@pytest.mark.usefixtures("nameserver")
def test_a_peer_behind_a_nat_that_is_restarted_goes_on(post: Correspondence) -> None:
    post.sender(300, *STEADY, to="natted")
    connecting = ("--behind-nat", "--connect", SERVICE)
    receiver = post.receiver("natted", *connecting)
    post.await_handled(["natted"], range(1, 50))

    receiver.kill()
    post.receiver("natted", *connecting)

    post.expect_all("natted", 300)


@pytest.mark.usefixtures("nameserver")
def test_a_frozen_peer_is_noticed_and_gone_on_with_when_it_thaws(post: Correspondence) -> None:
    sender = post.sender(600, *STEADY, *PATIENCE)
    receiver = post.receiver("bob", *PATIENCE)
    post.await_handled(["bob"], range(1, 50))
    sender.expect_word("connected")

    receiver.signal(signal.SIGSTOP)
    noticed = sender.expect_word("disconnected", 2 + NOTICED_WITHIN)
    receiver.signal(signal.SIGCONT)

    assert " ".join(noticed) == "bob it was silent for 2 s"
    assert sender.expect_word("connected", NOTICED_WITHIN)[0] == "bob"
    post.expect_all("bob", 600)


@pytest.mark.usefixtures("nameserver")
def test_a_peer_that_comes_back_at_another_place_is_found_again(
    post: Correspondence, free_ports: Callable[[int], list[int]]
) -> None:
    ports = free_ports(3)
    post.sender(400, *STEADY, persistent=False)

    for index, port in enumerate(ports, 1):
        receiver = post.receiver("bob", "--link-port", str(port))
        assert receiver.expect_ready() == [f"tcp://127.0.0.1:{port}"]
        post.await_handled(["bob"], range(1, 80 * index))
        receiver.kill()
    post.receiver("bob")

    post.expect_all("bob", 400)


def test_a_peer_is_found_whoever_starts_last(post: Correspondence) -> None:
    post.sender(50)
    post.receiver("bob")

    post.nameserver()

    post.expect_all("bob", 50)


def test_messages_flow_on_while_the_nameserver_is_away(post: Correspondence, nameserver: Process) -> None:
    post.sender(300, *STEADY)
    post.receiver("bob")
    post.await_handled(["bob"], range(1, 50))

    nameserver.kill()

    post.expect_all("bob", 300)


@pytest.mark.usefixtures("nameserver")
def test_two_receivers_of_a_name_share_what_is_sent_to_it(post: Correspondence) -> None:
    names = ["bob.1", "bob.2"]
    for receiver in [post.receiver(name) for name in names]:
        receiver.expect_ready()

    post.sender(1000, "--period", "0.002", persistent=False)

    post.await_handled(names, range(1, 1001))

    assert all(len(post.numbers(name)) > 50 for name in names)
    assert unflagged(post.handled(*names)) == []


@pytest.mark.usefixtures("nameserver")
def test_neither_end_grows_with_what_was_sent(post: Correspondence) -> None:
    ends = [post.sender(100_000, "--burst", "2000", persistent=False), post.receiver("bob")]
    eventually(lambda: post.last_handled("bob") >= 20_000, DELIVERED_WITHIN)
    before = [Footprint.of(end.pid).memory for end in ends]

    eventually(lambda: post.last_handled("bob") == 100_000, DELIVERED_WITHIN)

    after = [Footprint.of(end.pid).memory for end in ends]
    assert [one - other < 8 * MEBIBYTE for one, other in zip(after, before, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("seconds", "pings"),
    [
        pytest.param(0.7, PINGS, id="too short to be noticed"),
        pytest.param(4.0, PINGS, id="until the connection is given up"),
        pytest.param(4.0, {}, id="until the peer counts as gone"),
    ],
)
def test_nothing_is_lost_when_the_network_is_cut_and_healed(
    tmp_path: Path, seconds: float, pings: dict[str, object]
) -> None:
    with opened_network(tmp_path, {}) as lan:
        near, far = lan.host(), lan.host()
        post = Correspondence(near)
        near.nameserver()
        post.sender(500, *STEADY, *PATIENCE, site=near, **pings)
        post.receiver("bob", *PATIENCE, site=far, **pings)
        post.await_handled(["bob"], range(1, 50))

        far.cut_off()
        _pause(seconds)
        far.heal()

        post.expect_all("bob", 500)


def test_a_released_nameserver_makes_messengers_meet(post: Correspondence, released: Path) -> None:
    nameserver = post.released_nameserver(released)
    post.sender(300, *STEADY)
    receiver = post.receiver("bob")
    post.await_handled(["bob"], range(1, 50))

    receiver.kill()
    post.receiver("bob")

    post.expect_all("bob", 300)
    assert "Traceback" not in nameserver.errors


@pytest.mark.usefixtures("nameserver")
def test_a_released_subscriber_gets_what_a_messenger_publishes_beside_what_it_sends(
    post: Correspondence, released: Path
) -> None:
    subscriber = post.released_subscriber(released, "plain")
    post.receiver("bob")
    post.sender(200, "--publish", *STEADY)

    post.expect_all("bob", 200)
    post.await_handled(["plain"], [200])

    assert post.numbers("plain") == [*range(1, 201)]
    assert not any(word in subscriber.errors for word in ("Traceback", "ERROR"))


@pytest.fixture
def keyed_post(site: Site, keys: Keys) -> Correspondence:
    """Give a correspondence among those who have keys, and a second client whose key is accepted."""
    zmq.auth.create_certificates(keys.directory, "other")
    shutil.copy(keys.public("other"), keys.clients)
    site.settings.update({"backend": "secure_zmq", **keys.settings()})
    post = Correspondence(site)
    post.nameserver()
    return post


def test_the_key_of_who_sends_is_seen(keyed_post: Correspondence, keys: Keys) -> None:
    keyed_post.sender(50)
    receiver = keyed_post.receiver("bob")

    assert receiver.expect_word("connected") == [SERVICE, keys.public_text("client")]
    assert receiver.expect_word("from") == [SERVICE, keys.public_text("client")]
    keyed_post.expect_all("bob", 50)


def test_who_has_an_unknown_key_gets_nothing_and_disturbs_nobody(keyed_post: Correspondence, keys: Keys) -> None:
    stranger = {"client_secret_key_file": keys.secret("stranger")}
    keyed_post.sender(300, *STEADY)
    keyed_post.receiver("bob.intruder", "--behind-nat", "--connect", SERVICE, **stranger)
    receiver = keyed_post.receiver("bob")

    keyed_post.expect_all("bob", 300)

    assert receiver.is_running()
    assert keyed_post.handled("bob.intruder") == []


def test_another_key_cannot_take_a_name(keyed_post: Correspondence, keys: Keys) -> None:
    other_key = {"client_secret_key_file": keys.secret("other")}
    connecting = ("--behind-nat", "--connect", SERVICE)
    sender = keyed_post.sender(400, *STEADY, to="bob")
    keyed_post.receiver("bob.1", *connecting)
    keyed_post.await_handled(["bob.1"], range(1, 50))

    impostor = keyed_post.receiver("bob.2", *connecting, **other_key)

    keyed_post.expect_all("bob.1", 400)
    eventually(lambda: "belongs to another key" in impostor.errors)
    assert "belongs to another key" in sender.errors
    assert keyed_post.handled("bob.2") == []


def test_two_who_look_for_each_other_meet_with_keys_too(keyed_post: Correspondence) -> None:
    alice = keyed_post.receiver("alice", "--greet", "bob")
    bob = keyed_post.receiver("bob", "--greet", "alice")

    assert alice.expect_word("from", DELIVERED_WITHIN)[0] == "bob"
    assert bob.expect_word("from", DELIVERED_WITHIN)[0] == "alice"


def test_one_that_was_connected_to_may_be_the_one_that_connects_next_time(keyed_post: Correspondence) -> None:
    sender = keyed_post.sender(300, *STEADY, to="bob")
    listening = keyed_post.receiver("bob")
    keyed_post.await_handled(["bob"], range(1, 50))

    listening.kill()
    keyed_post.receiver("bob", "--behind-nat", "--connect", SERVICE)

    keyed_post.expect_all("bob", 300)
    assert "belongs to another key" not in sender.errors
