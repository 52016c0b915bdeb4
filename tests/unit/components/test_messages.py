"""Commands, statuses and results."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from posttroll.components.fingerprint import Fingerprint
from posttroll.components.messages import Command, Result, Status
from posttroll.errors import DecodeError
from posttroll.message import Message

FINGERPRINT = Fingerprint("resampler", "Resampler", 17, "host", "anna", datetime(2026, 5, 12, tzinfo=UTC), "1.0")
CONTENTS = [
    Command(command="reprocess", parameters={"orbit": 5}),
    Status(status={"queue": [1, 2]}),
    Result.success({"done": 3}, "reprocess"),
    Result.error("no such orbit", "reprocess"),
    Result.exception(ValueError("too big"), "reprocess"),
]


def sent(message: Message) -> Message:
    return Message.decode(message.encode())


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_put_into_a_message_is_read_from_it(content: Command | Status | Result) -> None:
    assert type(content).read(sent(content.message())) == content


@pytest.mark.parametrize(
    ("content", "type"), [(CONTENTS[0], "command"), (CONTENTS[1], "status"), (CONTENTS[2], "result")]
)
def test_the_type_of_a_message_tells_what_it_holds(content: Command | Status | Result, type: str) -> None:
    assert content.message().type == type


@pytest.mark.parametrize("content", CONTENTS)
def test_a_message_is_signed_with_the_fingerprint_under_that_key(content: Command | Status | Result) -> None:
    message = sent(content.message(FINGERPRINT))

    assert message.data["fingerprint"] == FINGERPRINT.as_dict()
    assert type(content).read(message).fingerprint == FINGERPRINT.as_dict()


def test_a_dict_of_ones_own_will_do_as_fingerprint() -> None:
    assert Command(command="ping").message({"who": "me"}).data["fingerprint"] == {"who": "me"}


def test_the_subject_of_a_message_can_be_chosen() -> None:
    assert Status(status="up").message(subject="/status/resampler").subject == "/status/resampler"


def test_an_exception_is_told_by_its_type_and_text() -> None:
    result = Result.exception(ValueError("too big"))

    assert (result.state, result.value, result.text) == ("exception", "ValueError", "too big")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (Message("/1b", "file", {"command": "ping"}), "a message of type file is not a command"),
        (Message("/command", "command", "ping"), "not a command: Expected `object`"),
        (Message("/command", "command", {"parameters": {}}), "missing required field `command`"),
        (Message("/command", "command", {"command": ["ping"]}), r"Expected `str`, got `array` - at `\$.command`"),
        (Message("/command", "command", {"command": "ping", "parameters": [1]}), r"at `\$.parameters`"),
    ],
)
def test_what_is_no_command_is_not_read_as_one(message: Message, complaint: str) -> None:
    with pytest.raises(DecodeError, match=complaint):
        Command.read(message)


def test_what_others_add_to_a_command_is_ignored() -> None:
    message = Message("/command", "command", {"command": "ping", "colour": "red"})

    assert Command.read(message) == Command(command="ping")
