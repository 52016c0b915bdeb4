from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from posttroll.errors import DecodeError, RequestTimeout, TransportError
from posttroll.protocol.lookout import Lookout

VIIRS = {"URI": "tcp://10.0.0.1:1", "service": ["viirs"]}
AVHRR = {"URI": "tcp://10.0.0.1:2", "service": ["avhrr"]}
NOW = 1000.0
FEED = "tcp://ns:16543"


@dataclass
class Message:
    data: Any
    sender: str = "someone"


class Follower:
    def __init__(self) -> None:
        self.met: list[Mapping[str, Any]] = []
        self.parted: list[Mapping[str, Any]] = []
        self.has_room = True

    def meet(self, entry: Mapping[str, Any]) -> bool:
        self.met.append(entry)
        return self.has_room

    def part(self, entry: Mapping[str, Any]) -> None:
        self.parted.append(entry)


FRAMES = {b"viirs": VIIRS, b"avhrr": AVHRR, b"gone": {**VIIRS, "status": False}, b"text": "text"}


def decode(frame: bytes) -> Message:
    if frame not in FRAMES:
        raise DecodeError("rubbish")
    return Message(FRAMES[frame])


@pytest.fixture
def follower() -> Follower:
    return Follower()


@pytest.fixture
def lookout(follower: Follower) -> Lookout:
    return Lookout(follower, "viirs", decode, FEED)


def connected(lookout: Lookout, now: float = NOW) -> Lookout:
    lookout.heard(b"", FEED, True, now)
    return lookout


def settled(lookout: Lookout) -> Lookout:
    """Have it ask all that there is to be asked after a connection."""
    connected(lookout)
    while lookout.next_timeout() < math.inf:
        lookout.due(max(NOW, lookout.next_timeout()))
    return lookout


def test_all_services_are_asked_for_at_the_start(follower: Follower) -> None:
    lookout = Lookout(follower, ["viirs", "avhrr"], decode, FEED)

    assert lookout.next_timeout() == -math.inf
    assert set(lookout.due(NOW)) == {"viirs", "avhrr"}


def test_they_are_asked_for_again_and_again_while_there_is_no_feed(lookout: Lookout) -> None:
    now = NOW
    for _ in range(3):
        assert list(lookout.due(now)) == ["viirs"]
        assert list(lookout.due(now)) == []
        assert lookout.next_timeout() == now + 2
        now += 2


def test_they_are_asked_for_twice_whenever_a_feed_is_there(lookout: Lookout) -> None:
    for now in (NOW, NOW + 100):
        connected(lookout, now)

        asked = [list(lookout.due(now + seconds)) for seconds in (0, 0.5, 1, 1.5)]

        assert asked == [["viirs"], [], ["viirs"], []]
        assert lookout.next_timeout() == math.inf


def test_they_are_asked_for_again_after_a_failure(lookout: Lookout) -> None:
    settled(lookout).failed(RequestTimeout(), NOW)

    assert lookout.next_timeout() == NOW + 1
    assert list(lookout.due(NOW + 1)) == ["viirs"]
    assert lookout.next_timeout() == math.inf


def test_they_are_asked_for_again_as_long_as_there_is_no_room(lookout: Lookout, follower: Follower) -> None:
    follower.has_room = False
    settled(lookout).answered([VIIRS, AVHRR], NOW)
    assert lookout.next_timeout() == NOW + 2

    assert list(lookout.due(NOW + 2)) == ["viirs"]
    assert lookout.next_timeout() == math.inf
    lookout.heard(b"viirs", FEED, False, NOW + 3)
    assert lookout.next_timeout() == NOW + 5


def test_what_is_looked_for_is_asked_for_at_once_and_alone(lookout: Lookout) -> None:
    settled(lookout).look_for("avhrr")

    assert lookout.next_timeout() == -math.inf
    assert list(lookout.due(NOW)) == ["avhrr"]
    assert lookout.services == {"viirs", "avhrr"}
    assert lookout.next_timeout() == math.inf


def test_what_is_looked_for_when_all_are_due_is_asked_for_with_them(lookout: Lookout) -> None:
    lookout.look_for("avhrr")

    assert set(lookout.due(NOW)) == {"viirs", "avhrr"}
    assert lookout.next_timeout() == NOW + 2


def test_what_is_looked_for_no_longer_is_not_asked_for(lookout: Lookout) -> None:
    settled(lookout).look_for("avhrr")
    lookout.look_no_longer_for("avhrr")
    lookout.look_no_longer_for("viirs")
    lookout.look_for("modis")

    assert list(lookout.due(NOW)) == ["modis"]
    assert lookout.services == {"modis"}


@pytest.mark.parametrize(
    ("frame", "met", "parted"),
    [(b"viirs", [VIIRS], []), (b"avhrr", [], []), (b"gone", [], [FRAMES[b"gone"]]), (b"text", [], []), (b"?", [], [])],
)
def test_news_are_followed(frame: bytes, met: Any, parted: Any, lookout: Lookout, follower: Follower) -> None:
    lookout.heard(frame, FEED, False, NOW)

    assert (follower.met, follower.parted) == (met, parted)


def test_what_cannot_be_used_is_counted(lookout: Lookout, caplog: pytest.LogCaptureFixture) -> None:
    for frame in (b"?", b"text", b"text"):
        lookout.heard(frame, FEED, False, NOW)

    assert lookout.drops.counts == {"not a message": 1, "not an address": 2}
    assert len(caplog.records) == 2


def test_a_nameserver_that_does_not_answer_is_told_of_once_until_it_does(
    lookout: Lookout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lookout.answered([], NOW)
    for _ in range(2):
        lookout.failed(RequestTimeout(), NOW)
    for _ in range(2):
        lookout.answered([], NOW)

    assert [record.getMessage() for record in caplog.records] == [
        f"nameserver {FEED} does not answer, will ask again",
        f"nameserver {FEED} answers again",
    ]


def test_another_failure_is_told_of_now_and_then(lookout: Lookout, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        lookout.failed(TransportError(5, "broken"), NOW)

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "broken" in caplog.text
