from __future__ import annotations

import logging
from typing import Any

import pytest

from posttroll.errors import MessageError
from posttroll.protocol.delivery import Delivery

URI = "tcp://10.0.0.1:9000"


class Message:
    """What a frame is decoded to."""

    def __init__(self, frame: bytes) -> None:
        if frame == b"rubbish":
            raise MessageError("no message")
        self.text = frame.decode()
        self.sender = "me@inside"


def refuse(message: Message) -> bool:
    return False


def fail(message: Message) -> bool:
    raise RuntimeError("callback failed")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_message_is_accepted() -> None:
    message = Delivery(Message).accept(b"frame", URI, 0.0)

    assert message is not None
    assert (message.text, message.sender) == ("frame", "me@inside")


def test_what_is_no_message_is_counted_and_told_once_a_minute_with_its_source(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery(Message)

    accepted = [delivery.accept(b"rubbish", URI, now) for now in (0.0, 1.0, 59.9, 60.0)]

    assert accepted == [None] * 4
    assert delivery.drops.counts == {"not a message": 4}
    assert warnings(caplog) == [
        f"message from {URI} dropped, not a message: no message (1 so far)",
        f"message from {URI} dropped, not a message: no message (4 so far)",
    ]


@pytest.mark.parametrize(("wanted", "accepted"), [(True, True), (1, True), ("", False), (None, False)])
def test_the_filter_decides_by_the_truth_of_what_it_returns(wanted: Any, accepted: bool) -> None:
    delivery = Delivery(Message, lambda message: wanted)

    assert (delivery.accept(b"frame", URI, 0.0) is not None) == accepted
    assert not delivery.drops.counts


def test_a_filter_that_fails_drops_the_message_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery(Message, fail)

    assert delivery.accept(b"frame", URI, 0.0) is None

    assert delivery.drops.counts == {"filter failed": 1}
    assert warnings(caplog) == [f"message from {URI} dropped, filter failed: callback failed (1 so far)"]


@pytest.mark.parametrize(("message_filter", "verdict"), [(refuse, False), (fail, None), (None, True)])
def test_a_filter_that_fails_is_told_apart_from_one_that_refuses(message_filter: Any, verdict: bool | None) -> None:
    delivery = Delivery(Message, message_filter)

    assert delivery.wants(Message(b"frame"), URI, 0.0) is verdict


def test_a_result_of_the_filter_without_a_truth_drops_the_message() -> None:
    class Neither:
        def __bool__(self) -> bool:
            raise ValueError("neither true nor false")

    delivery = Delivery(Message, lambda message: Neither())

    assert delivery.accept(b"frame", URI, 0.0) is None
    assert delivery.drops.counts == {"filter failed": 1}


@pytest.mark.parametrize(
    ("uri", "sender"),
    [
        (URI, "me@10.0.0.1"),
        ("tcp://[fe80::1]:9000", "me@fe80::1"),
        ("tcp://Host.Example:9000", "me@host.example"),
        ("ipc:///tmp/socket", "me@ipc:///tmp/socket"),
        ("ipc://[socket", "me@ipc://[socket"),
    ],
)
def test_translation_puts_the_host_of_the_address_into_the_sender(uri: str, sender: str) -> None:
    message = Delivery(Message, translate=True).accept(b"frame", uri, 0.0)

    assert message is not None
    assert message.sender == sender


def test_the_filter_sees_the_sender_before_its_translation() -> None:
    delivery = Delivery(Message, lambda message: message.sender == "me@inside", translate=True)

    assert delivery.accept(b"frame", URI, 0.0) is not None


def test_a_hook_gets_the_message_unfiltered_and_untranslated() -> None:
    hooked: list[Message] = []

    Delivery(Message, refuse, translate=True).call(hooked.append, b"frame", URI, 0.0)

    assert [(message.text, message.sender) for message in hooked] == [("frame", "me@inside")]


def test_a_hook_is_not_called_for_what_is_no_message() -> None:
    delivery, hooked = Delivery(Message), list[Message]()

    delivery.call(hooked.append, b"rubbish", URI, 0.0)

    assert hooked == []
    assert delivery.drops.counts == {"not a message": 1}


def test_a_hook_that_fails_is_counted_and_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery(Message)

    for now in (0.0, 1.0):
        delivery.call(fail, b"frame", URI, now)

    (record,) = caplog.records
    assert record.getMessage() == f"a hook failed on a message from {URI}"
    assert record.exc_info is not None
    assert delivery.drops.counts == {"hook failed": 2}


def test_an_error_that_is_not_the_peers_is_not_hidden() -> None:
    def decode(frame: bytes) -> Message:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        Delivery(decode).accept(b"frame", URI, 0.0)
