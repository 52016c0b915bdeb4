"""What may be written in a bundle, and that nothing else is believed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttroll.errors import RemoteProtocolError
from posttroll.protocol.frames import (
    MOST,
    Attach,
    Attached,
    Detach,
    Disposition,
    Flow,
    Frame,
    Loaded,
    Outcome,
    Settled,
    Transfer,
    decode,
    encode,
)

NUMBERS = st.integers(0, 2**62)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=200)
TIMES = st.text(st.characters(codec="utf-8"), max_size=50)
OUTCOMES = st.builds(Outcome, st.sampled_from(["accepted", "rejected", "released"]), TEXTS, st.booleans())
SESSION = (NAMES, NUMBERS, TEXTS)
MODES = st.sampled_from(["move", "copy"])
UNSETTLED = st.lists(st.tuples(NUMBERS, st.none() | OUTCOMES), max_size=5)
SILENT = (
    st.builds(Attach, *SESSION, NAMES, st.lists(TEXTS, max_size=5), TIMES, TEXTS, UNSETTLED, MODES, TIMES, NUMBERS)
    | st.builds(Attached, *SESSION, NAMES, st.lists(NUMBERS, max_size=5))
    | st.builds(Flow, *SESSION, NUMBERS, NUMBERS, NUMBERS, st.booleans())
    | st.builds(Disposition, *SESSION, st.dictionaries(NUMBERS, OUTCOMES, max_size=5))
    | st.builds(Settled, *SESSION, st.lists(NUMBERS, max_size=5))
    | st.builds(Detach, *SESSION, TEXTS)
)
LOADED = st.tuples(SILENT, st.none()) | st.tuples(st.builds(Transfer, *SESSION, NUMBERS, NUMBERS, NUMBERS), st.binary())


@settings(max_examples=50)
@given(st.lists(LOADED, max_size=5))
def test_what_is_written_is_read(bundle: list[Loaded]) -> None:
    assert decode(encode(bundle)) == bundle


@settings(max_examples=50)
@given(st.binary())
def test_noise_is_a_protocol_error_or_a_bundle(noise: bytes) -> None:
    try:
        bundle = decode(noise)
    except RemoteProtocolError:
        return
    assert all(isinstance(frame, Transfer) == (payload is not None) for frame, payload in bundle)


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_of_any_other_form_is_a_protocol_error(value: object) -> None:
    if value == [[], []]:
        assert decode(b"[[], []]\n") == []
    else:
        with pytest.raises(RemoteProtocolError, match="not a bundle"):
            decode(msgspec.json.encode(value) + b"\n")


@pytest.mark.parametrize(
    "frame",
    [
        Flow("", 1, "", 0),
        Flow("r" * 201, 1, "", 0),
        Flow("receiver", -1, "", 0),
        Flow("receiver", 2**62 + 1, "", 0),
        Flow("receiver", 1, "s" * 201, 0),
        Flow("receiver", 1, "", -1),
        Flow("receiver", 1, "", 0, limit=-1),
        Flow("receiver", 1, "", 0, expected=2**62 + 1),
        Attach("receiver", 1, "", "", []),
        Attach("receiver", 1, "", "c" * 201, []),
        Attach("receiver", 1, "", "consumer", ["t" * 2001]),
        Attach("receiver", 1, "", "consumer", [""] * 1001),
        Attach("receiver", 1, "", "consumer", [], "s" * 51),
        Attach("receiver", 1, "", "consumer", [], journal="j" * 201),
        Attach("receiver", 1, "", "consumer", [], unsettled=[(1, None)] * (MOST + 1)),
        Attach("receiver", 1, "", "consumer", [], distribution_mode="shift"),  # type: ignore[arg-type]
        Attach("receiver", 1, "", "consumer", [], until="u" * 51),
        Attach("receiver", 1, "", "consumer", [], after=-1),
        Attached("receiver", 1, "", ""),
        Attached("receiver", 1, "", "journal", [1] * (MOST + 1)),
        Disposition("receiver", 1, "", {-1: Outcome("accepted")}),
        Disposition("receiver", 1, "", {1: Outcome("lost")}),  # type: ignore[arg-type]
        Disposition("receiver", 1, "", {1: Outcome("rejected", "r" * 2001)}),
        Disposition("receiver", 1, "", dict.fromkeys(range(MOST + 1), Outcome("accepted"))),
        Settled("receiver", 1, "", [1] * (MOST + 1)),
        Detach("receiver", 1, "", "r" * 2001),
    ],
)
def test_what_is_out_of_bounds_is_a_protocol_error(frame: Frame) -> None:
    with pytest.raises(RemoteProtocolError, match="not a bundle"):
        decode(encode([(frame, None)]))


def test_a_bundle_of_too_many_frames_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError, match="not a bundle"):
        decode(encode([(Detach("receiver", 1, ""), None)] * (MOST + 1)))


@pytest.mark.parametrize(
    ("sizes", "payloads"),
    [([1], b"1"), ([1, 1, 1], b"123"), ([1, 1], b"1"), ([1, 1], b"123"), ([0, 0], b"1"), ([2**62, 0], b"12")],
)
def test_there_is_a_payload_for_each_transfer_and_nothing_beside(sizes: list[int], payloads: bytes) -> None:
    transfers = [Transfer("receiver", 1, "", number, number) for number in range(2)]

    with pytest.raises(RemoteProtocolError, match="payload"):
        decode(msgspec.json.encode((transfers, sizes)) + b"\n" + payloads)


def test_a_size_is_no_negative_number() -> None:
    with pytest.raises(RemoteProtocolError, match="not a bundle"):
        decode(msgspec.json.encode(([Transfer("receiver", 1, "", 1, 1)], [-1])) + b"\n")


def test_what_a_later_version_adds_is_ignored() -> None:
    frame = {"frame": "detach", "receiver": "receiver", "session": 1, "sender": "", "reason": "", "mood": "good"}

    assert decode(msgspec.json.encode(([frame], [])) + b"\n") == [(Detach("receiver", 1, ""), None)]
