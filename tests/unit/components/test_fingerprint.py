"""The fingerprint of a component."""

from __future__ import annotations

import dataclasses
import os
import socket
from datetime import UTC, datetime, timedelta

import pytest

from posttroll.components.fingerprint import Fingerprint
from posttroll.version import __version__

MOMENT = datetime(2026, 5, 12, 11, 30, tzinfo=UTC)
FINGERPRINT = Fingerprint("resampler", "Resampler", 17, "host", "anna", MOMENT, "1.0", {"site": "Kiruna"})


def test_a_fingerprint_tells_who_runs_here_since_when() -> None:
    fingerprint = Fingerprint.of_this_process("resampler", "Resampler")

    assert (fingerprint.name, fingerprint.kind, fingerprint.pid) == ("resampler", "Resampler", os.getpid())
    assert fingerprint.host == socket.gethostname()
    assert fingerprint.version == __version__
    assert datetime.now(UTC) - fingerprint.start_time < timedelta(seconds=10)


def test_a_fingerprint_as_a_dict_has_the_own_items_beside_the_usual_ones() -> None:
    assert FINGERPRINT.as_dict() == {
        "name": "resampler",
        "kind": "Resampler",
        "pid": 17,
        "host": "host",
        "user": "anna",
        "start_time": MOMENT,
        "version": "1.0",
        "site": "Kiruna",
    }


def test_own_items_do_not_replace_the_usual_ones() -> None:
    assert dataclasses.replace(FINGERPRINT, own={"pid": 1}).as_dict()["pid"] == 17


def test_a_fingerprint_as_a_tuple_has_the_usual_fields() -> None:
    assert FINGERPRINT.as_tuple() == ("resampler", "Resampler", 17, "host", "anna", MOMENT, "1.0")


def test_a_fingerprint_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FINGERPRINT.pid = 18  # type: ignore[misc]
