"""Containers on raw sockets, which keep the rules of a conversation only as far as they are told to."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import zmq

from posttroll.message import Message
from posttroll.protocol import calls, frames
from posttroll.protocol.frames import VERSION, Attach, Attached, Open, Spoken, Transfer
from posttroll.protocol.properties import Properties, encode_payload
from tests.fixtures.waiting import UNIT

AnyFrame = TypeVar("AnyFrame")

_numbers = itertools.count(1)


def request_payload(method: str, *arguments: Any, thing: str = "office", **more: Any) -> bytes:
    """Return what is sent for a call."""
    request = calls.Request(thing, method, list(arguments), {}, **{"timeout": 5.0, **more})
    return message_payload(Message(calls.SUBJECT, *calls.encode(request)).encode().encode())


def message_payload(message: bytes) -> bytes:
    """Return what is sent for a message, of which the bytes may be any."""
    return encode_payload(message, Properties(uuid.uuid4().hex, "server"))


class Stranger:
    """A container that says what it is told to, over a socket that is connected."""

    def __init__(self, socket: zmq.Socket[bytes], name: str = "") -> None:
        self.life = uuid.uuid4().hex
        self.name = name or self.life
        self.socket = socket
        self._heard: list[Spoken] = []

    def say(self, *spoken: Any) -> None:
        """Send frames, each alone or with its payload."""
        self.send(frames.encode(one if isinstance(one, tuple) else (one, None) for one in spoken))

    def send(self, bundle: bytes) -> None:
        """Send bytes as they are."""
        self.socket.send(bundle)

    def open(self, queues: Mapping[str, str] | None = None, version: int = VERSION) -> None:
        """Say who this is, and which queues it has."""
        self.say(Open(self.name, self.life, version, next(_numbers), awaits=True, queues=dict(queues or {})))

    def hear(self, kind: type[AnyFrame], timeout: float = 5 * UNIT) -> AnyFrame:
        """Wait for a frame of a kind; those before it are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            for index, (frame, _) in enumerate(self._heard):
                if isinstance(frame, kind):
                    del self._heard[: index + 1]
                    return frame
            left = max(0.0, deadline - time.monotonic())
            assert self.socket.poll(left * 1000), f"no {kind.__name__}, but {self._heard}"
            self._heard += frames.decode_conversation(self.socket.recv())

    def hears_nothing(self, seconds: float) -> bool:
        """Return whether nothing is said for so long."""
        return not self.socket.poll(seconds * 1000)

    def give(self, target: str, payloads: Iterable[bytes]) -> None:
        """Transfer messages to a target, and wait for nothing any more."""
        queue = uuid.uuid4().hex
        self.open({queue: target})
        attach = self.hear(Attach)
        link = attach.receiver, attach.session, "sender"
        transfers = [(Transfer(*link, index, index + 1), payload) for index, payload in enumerate(payloads)]
        self.say(Attached(*link, queue), *transfers)

    def vanish(self) -> None:
        """Be cut off, after what was said."""
        self.socket.close(linger=1000)
