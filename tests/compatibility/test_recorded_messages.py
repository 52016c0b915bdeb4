"""Messages that were recorded in running chains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttroll.message import Message

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "messages.txt"
LINES = RECORDINGS.read_text("utf-8").splitlines() if RECORDINGS.exists() else []

pytestmark = pytest.mark.skipif(not LINES, reason=f"there are no recordings at {RECORDINGS}")


def with_usual_spacing(line: str) -> str:
    """Return a line with the JSON as everybody writes it; of a key that is there twice, as in some, one remains."""
    head, marker, data = line.partition(" application/json ")
    return head + marker + (json.dumps(json.loads(data)) if marker else "")


@pytest.mark.parametrize("line", LINES, ids=map(str, range(1, len(LINES) + 1)))
def test_a_recorded_message_is_written_as_it_was_read(line: str) -> None:
    message = Message.decode(line)

    assert message.encode() == with_usual_spacing(line)
    assert Message.decode(message.encode().encode()).data == message.data
