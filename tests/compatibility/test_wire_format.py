"""What one side writes, the other side reads, and writes again in the same way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import posttroll
from posttroll.message import Message
from posttroll.settings import config
from tests.compatibility.ends import End, Site
from tests.compatibility.releases import Release

NAIVE = datetime(2026, 3, 1, 12, 30, 15, 250000)
AWARE = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))

CASES: list[tuple[Any, dict[str, Any]]] = [
    ("", {}),
    ("text with  blanks\tand a tab\nand a line ", {}),
    ("grün ☀ 北 \U0001f6f0", {}),
    ({"a": 1, "b": [1.5, None, True, {"c": "grün ☀"}]}, {}),
    ([{"a": 1}, {"b": 2}], {}),
    ([1, "2", [3]], {}),
    (42, {}),
    ({"not_a_number": "nan", "big": 2**70, "small": 1e-300}, {}),
    ({"time": NAIVE, "times": [{"time": NAIVE}]}, {}),
    ({"time": AWARE}, {}),
    ({"time": NAIVE.replace(microsecond=0)}, {"version": "v1.01"}),
    ({"a": 1}, {"version": "v1.2"}),
    ("0110 binary", {"binary": True}),
]


@pytest.fixture
def peer(site: Site) -> End:
    return site.end(False)


def test_the_peer_is_what_it_is_taken_for(
    peer: End, release: Release, record_testsuite_property: Callable[[str, object], None]
) -> None:
    version = peer.version()
    record_testsuite_property(f"posttroll {release.name}", version)

    assert version != posttroll.__version__
    assert release.name in (version, "newest")


def fields(message: Message) -> dict[str, Any]:
    return dict(vars(message))


@pytest.mark.parametrize(("data", "options"), CASES)
def test_the_release_reads_what_this_version_writes(peer: End, data: Any, options: dict[str, Any]) -> None:
    message = Message("/1b/grün", "file", data, **options)
    text = message.encode()

    assert peer.decode(text=text) == fields(Message.decode(text))
    assert Message.decode(text).data == data
    assert peer.rewrite(text=text) == text


@pytest.mark.parametrize(("data", "options"), CASES)
def test_this_version_reads_what_the_release_writes(peer: End, data: Any, options: dict[str, Any]) -> None:
    text = peer.compose(subject="/1b/grün", type="file", data=data, **options)

    assert fields(Message.decode(text)) == peer.decode(text=text)
    assert Message.decode(text).data == data
    assert Message.decode(text).encode() == text


@pytest.mark.parametrize("version", ["v1.01", "v1.2"])
def test_both_write_the_version_that_is_configured(site: Site, version: str) -> None:
    peer = site.end(False, message_version=version)
    data = {"time": NAIVE, "number": 1}

    with config.set(message_version=version):
        own = Message.decode(Message("/a", "info", data).encode())
    other = Message.decode(peer.compose(subject="/a", type="info", data=data))

    assert own.version == other.version == version
    assert own.data == other.data == data
    assert (own.time.tzinfo is None) == (version == "v1.01")


def test_an_offset_is_left_out_in_the_old_version_by_both(peer: End) -> None:
    options: dict[str, Any] = {"data": {"time": AWARE}, "version": "v1.01"}

    own = Message("/a", "info", **options).encode()
    other = peer.compose(subject="/a", type="info", **options)

    assert Message.decode(own).data == peer.decode(text=other)["data"] == {"time": AWARE.replace(tzinfo=None)}


@pytest.mark.parametrize("data", [b"plain", "grün".encode(), b"\xff\x00\x01 \n", b" begins with a blank"])
def test_bytes_are_text_for_the_release_and_bytes_for_this_version(peer: End, data: bytes) -> None:
    text = Message("/a", "info", data, binary=True).encode()

    read = peer.decode(text=text)

    assert Message.decode(text.encode()).data == data
    assert read["binary"]
    assert isinstance(read["data"], str)
    assert read["data"].strip() in (data.decode("latin-1").strip(), data.decode("utf-8", "replace").strip())


@pytest.mark.parametrize(
    "line",
    [
        "pytroll://a b u@h 2020-01-01T00:00:00 v1.01",
        "pytroll://a b u@h 2020-01-01T00:00:00 v1.01 text/ascii x y",
        'pytroll://a b u@h 2020-01-01T00:00:00 v1.01 application/json {"1": 1}',
        'pytroll://a b u@h 2020-01-01T00:00:00+00:00 v1.2 application/json {"t": "2020-01-01T12:00:00+02:00"}',
        'pytroll://a b u@h 2020-01-01T00:00:00+00:00 v1.2 application/json {"t": "2020-01-01T12:00:00"}',
        "pytroll://a b u@h 2020-01-01T00:00:00 v1.01 binary/octet-stream xx",
        "pytroll:/log/INFO/chain log.info u@h 2020-01-01T00:00:00 v1.01 text/ascii no slash in front",
        "pytroll://a b sender-without-host 2020-01-01T00:00:00.250000+00:00 v1.01 text/ascii as 1.14 and 1.15 write",
    ],
)
def test_both_read_and_write_a_line_alike(peer: End, line: str) -> None:
    own = Message.decode(line)

    assert peer.decode(text=line) == fields(own)
    assert peer.rewrite(text=line) == own.encode()
