"""The examples of the repository work as programs of their own; the documentation runs them step by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.processes import ROOT, Process, Site
from tests.fixtures.waiting import UNIT

EXAMPLES = ROOT / "examples"
_PROMPTLY = 10 * UNIT


class Examples:
    """Runs examples, beside a nameserver."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._site.nameserver()

    def run(self, name: str, *arguments: str) -> Process:
        """Run one of them."""
        return self._site.python(str(EXAMPLES / f"{name}.py"), *arguments, journal_directory=self._site.directory)


@pytest.fixture
def examples(site: Site) -> Examples:
    return Examples(site)


def test_a_greeting_needs_no_nameserver(site: Site) -> None:
    hello = site.python(str(EXAMPLES / "hello.py"))

    assert (hello.wait(_PROMPTLY), hello.lines) == (0, ["guest says Hello World!", "the message is accepted"])


def test_requests_are_answered(examples: Examples) -> None:
    examples.run("answer_requests")

    ask = examples.run("ask", "Twas brillig", "and the slithy toves")

    assert ask.wait(_PROMPTLY) == 0
    assert ask.lines == ["Twas brillig -> TWAS BRILLIG", "and the slithy toves -> AND THE SLITHY TOVES"]


def test_ten_thousand_numbers_come_though_their_receiver_is_killed_in_the_middle(
    examples: Examples, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers"
    receiver = examples.run("receive_numbers", str(numbers))
    sender = examples.run("send_numbers", "10000", "--bandwidth", "1000000")
    sender.expect("half of them are accepted".__eq__, _PROMPTLY)

    receiver.kill()
    examples.run("receive_numbers", str(numbers))

    assert sender.wait(3 * _PROMPTLY) == 0
    assert sender.lines[-1] == "all 10000 are accepted, on 2 connections"
    assert {int(line) for line in numbers.read_text().splitlines()} == set(range(10_000))


def test_a_component_echoes_what_it_is_told(examples: Examples) -> None:
    examples.run("echo", "first")

    told = examples.run("tell", "first", "echo", "text=Hello")

    assert (told.wait(_PROMPTLY), told.lines) == (0, ["success: Hello"])


def test_all_components_hear_what_is_said_and_by_whom(examples: Examples) -> None:
    listeners = {name: examples.run("echo", name) for name in ("first", "second")}

    examples.run("speak", "Good morning")

    for name, listener in listeners.items():
        expected = f"{name} hears 'Good morning' from speaker, Announcements 1.0"
        assert listener.expect(expected.__eq__, _PROMPTLY)


def test_calls_are_answered(examples: Examples) -> None:
    examples.run("serve_areas")

    call = examples.run("call_areas")

    assert call.wait(_PROMPTLY) == 0
    assert call.lines[0] == "euro4 has the size [1024, 1024]"
    assert call.lines[-1] == "nowhere has the size [100, 200]"
