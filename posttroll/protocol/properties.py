"""What goes with an addressed message beside the message: to whom, from whom, in answer to what.

In a payload it is the last line, of JSON, which has no line breaks in it; the message is all that is before.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from posttroll.errors import ConfigurationError, RemoteProtocolError

__all__ = ["Properties", "decode_payload", "encode_payload"]

_Address = Annotated[str, Meta(max_length=1024)]
_Identifier = Annotated[str, Meta(max_length=200)]


class Properties(Struct, frozen=True, omit_defaults=True):
    """The properties of a message; `source` is not sent, but is who sent it, as the receiver knows it."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    to: _Address
    reply_to: _Address = ""
    correlation_id: _Identifier = ""
    source: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Properties)


def encode_payload(message: bytes, properties: Properties) -> bytes:
    """Return what is sent of a message; `ConfigurationError` if its properties are what no peer would take."""
    try:
        line = _encoder.encode(properties)
        _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError) as error:
        raise ConfigurationError(f"a message cannot have these properties: {error}") from None
    return b"%b\n%b" % (message, line)


def decode_payload(payload: bytes, source: str) -> tuple[bytes, Properties]:
    """Return the message and the properties in what came from `source`; `RemoteProtocolError` if it has none."""
    message, separator, line = payload.rpartition(b"\n")
    if not separator:
        raise RemoteProtocolError("it has no properties")
    try:
        properties = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"its properties are none: {error}") from None
    return message, msgspec.structs.replace(properties, source=source)
