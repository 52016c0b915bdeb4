"""What a publisher and a subscriber of any two versions say to each other."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from tests.compatibility.ends import End
from tests.fixtures.waiting import UNIT, eventually

__all__ = ["NAIVE", "introduce", "talk"]

NAIVE = datetime(2026, 3, 1, 12, 30, 15, 250000)
AWARE = datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone(timedelta(hours=2)))
CONVERSATION: list[tuple[Any, dict[str, Any]]] = [
    ("text", {}),
    ("grün, ☀ and 北 with  two blanks ", {}),
    ({"uid": "S_NWC_CMA_noaa20.nc", "bands": ["M1", 2, 2.5, None, True], "deep": {"er": {"grün": "☀"}}}, {}),
    ([{"uri": "/data/a"}, {"uri": "/data/b"}], {}),
    ({"start_time": NAIVE, "dataset": [{"end_time": NAIVE}]}, {}),
    ({"start_time": AWARE}, {}),
    ({"start_time": NAIVE}, {"version": "v1.01"}),
    ({"number": 1}, {"version": "v1.2"}),
    ("0110", {"binary": True}),
    ("", {}),
]


def talk(publisher: End, subscriber: End, nameserver: str) -> None:
    """Have a publisher and a subscriber exchange the messages above, and a heartbeat."""
    subscriber.subscribe(name="reader", services="granules", topics="pytroll:/", nameserver=nameserver)
    introduce(publisher, subscriber)
    texts = [publisher.compose(subject="/1b/grün", type="file", data=data, **options) for data, options in CONVERSATION]

    publisher.send(publisher="granules", texts=texts)
    publisher.beat(publisher="granules", min_interval=0)

    received = subscriber.receive(name="reader", count=len(texts) + 1, timeout=10 * UNIT)
    assert [message["data"] for message in received[:-1]] == [data for data, _ in CONVERSATION]
    assert [message["binary"] for message in received[:-1]] == [bool(o.get("binary")) for _, o in CONVERSATION]
    assert {(message["subject"], message["type"]) for message in received[:-1]} == {("/1b/grün", "file")}
    assert (received[-1]["subject"], received[-1]["type"]) == ("/heartbeat/granules", "beat")


def introduce(publisher: End, subscriber: End) -> None:
    """Send until the subscriber's connection is there, and read that away."""
    ping, last = (publisher.compose(subject=f"/ping/{name}", type="info", data="") for name in ("first", "last"))

    def is_heard() -> bool:
        publisher.send(publisher="granules", texts=[ping])
        return bool(subscriber.receive(name="reader", count=1, timeout=0.2))

    eventually(is_heard, 10 * UNIT)
    publisher.send(publisher="granules", texts=[last])
    eventually(lambda: subscriber.receive(name="reader", count=1, timeout=5 * UNIT)[0]["subject"] == "/ping/last")
