from __future__ import annotations

from typing import Any

import pytest

from posttroll.errors import RequestTimeout
from posttroll.protocol.search import Search

VIIRS = {"URI": "tcp://10.0.0.1:1", "service": ["viirs", "sdr"]}
AVHRR = {"URI": "tcp://10.0.0.1:2", "service": ["avhrr"]}
NOW = 1000.0


@pytest.mark.parametrize(
    ("names", "missing"), [(None, [""]), ("viirs", ["viirs"]), (["a", "b", "a"], ["a", "b"]), (iter("ab"), ["a", "b"])]
)
def test_all_names_are_missing_at_first(names: Any, missing: list[str]) -> None:
    search = Search(names, 10, NOW)

    assert search.missing() == missing
    assert not search.is_over(NOW)


def test_it_is_over_when_all_is_found() -> None:
    search = Search(["viirs", "sdr", "avhrr"], 10, NOW)

    search.answered("viirs", [VIIRS])
    search.answered("sdr", [VIIRS])
    search.answered("avhrr", [])
    assert search.missing() == ["avhrr"]
    assert not search.is_over(NOW)
    search.answered("avhrr", [AVHRR])

    assert search.is_over(NOW)
    assert search.entries() == [VIIRS, AVHRR]


def test_it_is_over_when_the_time_is() -> None:
    search = Search("viirs", 10, NOW)

    assert search.left(NOW + 4) == 6
    assert not search.is_over(NOW + 9.9)
    assert search.is_over(NOW + 10)
    assert search.left(NOW + 11) == 0
    assert search.entries() == []


def test_it_fails_only_if_there_never_was_an_answer() -> None:
    search = Search("viirs", 0.5, NOW)
    with pytest.raises(RequestTimeout, match=r"Didn't get an address after 0\.5 seconds\."):
        search.unanswered("tcp://localhost:5557")

    search.answered("viirs", [])

    search.unanswered("tcp://localhost:5557")


@pytest.mark.parametrize(
    ("timeout", "pauses"), [(100, [0.04, 0.08, 0.16, 0.32, 0.5, 0.5]), (1, [0.04, 0.05, 0.05]), (0.1, [0.005, 0.005])]
)
def test_pauses_become_longer_but_not_long(timeout: float, pauses: list[float]) -> None:
    search = Search("viirs", timeout, 0.0)

    assert [search.next_round(0.0) for _ in pauses] == pytest.approx(pauses)


def test_no_pause_is_longer_than_the_time_left() -> None:
    assert Search("viirs", 10, NOW).next_round(NOW + 9.99) == NOW + 10


def test_news_of_what_is_missing_ends_a_pause() -> None:
    search = Search(["viirs", "avhrr"], 10, NOW)
    search.answered("viirs", [VIIRS])

    assert search.concerns(b'pytroll://address/a info {"service": ["avhrr"]}')
    assert not search.concerns(b'pytroll://address/a info {"service": ["viirs"]}')
    assert Search(None, 10, NOW).concerns(b"anything")
