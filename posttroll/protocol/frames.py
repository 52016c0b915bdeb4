"""What the two ends of a link say to each other, and how it is written.

A bundle is one transport message of several frames: a line of JSON, which is an array of the frames and one of the
sizes in bytes of the transfers' payloads, and those payloads, in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from posttroll.errors import RemoteProtocolError

__all__ = [
    "MOST",
    "MOST_QUEUES",
    "UNKNOWN_SESSION",
    "VERSION",
    "Attach",
    "Attached",
    "Close",
    "Detach",
    "Disposition",
    "Flow",
    "Frame",
    "Loaded",
    "Open",
    "Outcome",
    "Settled",
    "Spoken",
    "Transfer",
    "decode",
    "decode_conversation",
    "encode",
]

VERSION = 1
"""What containers speak; an `Open` of another version is answered by a `Close` that says so."""

MOST = 10_000
"""How many deliveries a receiver may have unsettled, and how many things a frame may tell."""

MOST_QUEUES = 100
"""How many queues a container may offer another one."""

UNKNOWN_SESSION = "unknown session"
"""Why a session is ended that a sender does not know, or knows no longer: the receiver begins another one."""
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Text = Annotated[str, Meta(max_length=2000)]
_Number = Annotated[int, Meta(ge=0, le=2**62)]
_Time = Annotated[str, Meta(max_length=50)]
_Topics = Annotated[list[_Text], Meta(max_length=1000)]
_Any = TypeVar("_Any")


class Outcome(Struct, frozen=True, array_like=True):
    """What became of a delivery; `begun`: whether the application had it."""

    state: Literal["accepted", "rejected", "released"]
    reason: _Text = ""
    begun: bool = True


ACCEPTED = Outcome("accepted")
RELEASED = Outcome("released")
_LONGEST_REASON = 2000


def rejected(reason: str) -> Outcome:
    """Return the outcome of what is of no use; of the reason, what fits."""
    return Outcome("rejected", reason[:_LONGEST_REASON])


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


class Open(Struct, frozen=True, tag_field="frame", tag="open"):
    """What a container says of itself at the begin of a connection, whenever that changes, and as a sign of life.

    It `awaits` an answer, and is repeated without one, until the other end says that it has `heard` its number, which
    grows with each change. Nothing else is said before the other's is there. `queues` has the identity and the target
    of each queue that it holds for the other end, which attaches to them.
    """

    container: _Name
    life: _Name
    """A name that no other container has, nor this one after a restart."""
    version: int
    number: _Number
    heard: _Number = 0
    awaits: bool = False
    queues: Annotated[dict[_Name, _Name], Meta(max_length=MOST_QUEUES)] = {}


class Close(Struct, frozen=True, tag_field="frame", tag="close"):
    """The end of a conversation, and why."""

    reason: _Text = ""


Frame = Attach | Attached | Flow | Transfer | Disposition | Settled | Detach
Loaded = tuple[Frame, bytes | None]
Spoken = tuple[Frame | Open | Close, bytes | None]

_Sizes = Annotated[list[_Number], Meta(max_length=MOST)]
_Head = tuple[Annotated[list[Frame], Meta(max_length=MOST)], _Sizes]
_ConversationHead = tuple[Annotated[list[Frame | Open | Close], Meta(max_length=MOST)], _Sizes]

_encoder = msgspec.json.Encoder()
_link_decoder = msgspec.json.Decoder(_Head)
_conversation_decoder = msgspec.json.Decoder(_ConversationHead)


def encode(frames: Iterable[Spoken]) -> bytes:
    """Return a bundle."""
    frames = list(frames)
    payloads = [payload for _, payload in frames if payload is not None]
    head = _encoder.encode(([frame for frame, _ in frames], list(map(len, payloads))))
    return b"".join([head, b"\n", *payloads])


def decode(bundle: bytes) -> list[Loaded]:
    """Return the frames of a bundle, each transfer with its payload; `RemoteProtocolError`."""
    return _decode(_link_decoder, bundle)


def decode_conversation(bundle: bytes) -> list[Spoken]:
    """Return the same of a bundle that may have what containers say of themselves."""
    return _decode(_conversation_decoder, bundle)


def _decode(
    decoder: msgspec.json.Decoder[tuple[list[_Any], list[int]]], bundle: bytes
) -> list[tuple[_Any, bytes | None]]:
    head, _, rest = bundle.partition(b"\n")
    try:
        frames, sizes = decoder.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a bundle of link frames: {error}") from None
    ends = list(itertools.accumulate(sizes, initial=0))
    if ends[-1] != len(rest) or len(sizes) != sum(isinstance(frame, Transfer) for frame in frames):
        raise RemoteProtocolError("a bundle of link frames has more or less payload than its transfers")
    payloads = (rest[start:end] for start, end in itertools.pairwise(ends))
    return [(frame, next(payloads) if isinstance(frame, Transfer) else None) for frame in frames]
