"""What the two ends of a link say to each other, and how it is written.

A bundle is one transport message of several frames: a line of JSON, which is an array of the frames and one of the
sizes in bytes of the transfers' payloads, and those payloads, in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from posttroll.errors import RemoteProtocolError

__all__ = [
    "MOST",
    "UNKNOWN_SESSION",
    "Attach",
    "Attached",
    "Detach",
    "Disposition",
    "Flow",
    "Frame",
    "Loaded",
    "Outcome",
    "Settled",
    "Transfer",
    "decode",
    "encode",
]

MOST = 10_000
"""How many deliveries a receiver may have unsettled, and how many things a frame may tell."""

UNKNOWN_SESSION = "unknown session"
"""Why a session is ended that a sender does not know, or knows no longer: the receiver begins another one."""
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Text = Annotated[str, Meta(max_length=2000)]
_Number = Annotated[int, Meta(ge=0, le=2**62)]
_Time = Annotated[str, Meta(max_length=50)]
_Topics = Annotated[list[_Text], Meta(max_length=1000)]


class Outcome(Struct, frozen=True, array_like=True):
    """What became of a delivery; `begun`: whether the application had it."""

    state: Literal["accepted", "rejected", "released"]
    reason: _Text = ""
    begun: bool = True


class _Frame(Struct, frozen=True, tag_field="frame"):
    receiver: _Name
    """Which receiver the link belongs to: a name made anew for each one."""
    session: _Number
    """Which of its attachments; a later one has a greater number."""
    sender: Annotated[str, Meta(max_length=200)]
    """Which life of the sender attached it, "" before that is known."""


class Attach(_Frame, frozen=True, tag="attach"):
    """The receiver's wish to go on where its consumer left off; its unsettled deliveries are numbered from 0.

    With the mode "copy" it wishes a replay instead, which is nobody else's: of what was published from `start_at` until
    before `until`, ISO 8601 times or "", and is numbered beyond `after`.
    """

    consumer: _Name
    topics: _Topics
    start_at: _Time = "new"
    journal: Annotated[str, Meta(max_length=200)] = ""
    unsettled: Annotated[list[tuple[_Number, Outcome | None]], Meta(max_length=MOST)] = []
    distribution_mode: Literal["move", "copy"] = "move"
    until: _Time = ""
    after: _Number = 0


class Attached(_Frame, frozen=True, tag="attached"):
    """The sender's answer; `lost` are those of the unsettled deliveries that are no longer this receiver's."""

    journal: _Name
    lost: Annotated[list[_Number], Meta(max_length=MOST)] = []


class Flow(_Frame, frozen=True, tag="flow"):
    """How far an end is, sent when that changes and as a sign of life; one of a lower `number` is out of date.

    A receiver's says which delivery it expects and the first one beyond its credit; a sender's, with `drain`, asks for
    what the application has not begun, as others wait for it.
    """

    number: _Number
    expected: _Number = 0
    limit: _Number = 0
    drain: bool = False


class Transfer(_Frame, frozen=True, tag="transfer"):
    """One delivery, whose payload is not in the frame but after it."""

    delivery: _Number
    sequence: _Number
    count: _Number = 1


class Disposition(_Frame, frozen=True, tag="disposition"):
    """What became of deliveries, by their number."""

    outcomes: Annotated[dict[_Number, Outcome], Meta(max_length=MOST)]


class Settled(_Frame, frozen=True, tag="settled"):
    """The sender's word that it has noted the outcomes of these deliveries for good."""

    deliveries: Annotated[list[_Number], Meta(max_length=MOST)]


class Detach(_Frame, frozen=True, tag="detach"):
    """The end of a session; of a replay with all given out, if a sender gives no reason."""

    reason: _Text = ""


Frame = Attach | Attached | Flow | Transfer | Disposition | Settled | Detach
Loaded = tuple[Frame, bytes | None]

_encoder = msgspec.json.Encoder()
_Head = tuple[Annotated[list[Frame], Meta(max_length=MOST)], Annotated[list[_Number], Meta(max_length=MOST)]]
_decoder = msgspec.json.Decoder(_Head)


def encode(frames: Sequence[Loaded]) -> bytes:
    """Return a bundle."""
    payloads = [payload for _, payload in frames if payload is not None]
    head = _encoder.encode(([frame for frame, _ in frames], list(map(len, payloads))))
    return b"".join([head, b"\n", *payloads])


def decode(bundle: bytes) -> list[Loaded]:
    """Return the frames of a bundle, each transfer with its payload; `RemoteProtocolError`."""
    head, _, rest = bundle.partition(b"\n")
    try:
        frames, sizes = _decoder.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a bundle of link frames: {error}") from None
    ends = list(itertools.accumulate(sizes, initial=0))
    if ends[-1] != len(rest) or len(sizes) != sum(isinstance(frame, Transfer) for frame in frames):
        raise RemoteProtocolError("a bundle of link frames has more or less payload than its transfers")
    payloads = (rest[start:end] for start, end in itertools.pairwise(ends))
    return [(frame, next(payloads) if isinstance(frame, Transfer) else None) for frame in frames]
