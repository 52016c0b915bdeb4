"""Numbered messages from a durable publisher to consumers, and the records of who sent and handled what."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from posttroll.journal.sqlite import SqliteJournal
from posttroll.message import Message
from tests.acceptance.processes import PROGRAMS, ROOT, Process, Site
from tests.fixtures.waiting import UNIT, eventually

Answer = TypeVar("Answer")

RECORDINGS = ROOT.parent / "shared" / "data" / "messages.txt"
PEER = ROOT / "tests" / "compatibility" / "peer.py"
SERVICE = "numbered"
DELIVERED_WITHIN = 30 * UNIT
"""Longer than it takes until a silent consumer counts as dead, and all that follows from it."""


class Sent(NamedTuple):
    """A message whose sending returned, and in which life of its publisher that was."""

    number: int
    life: str


class Handled(NamedTuple):
    """A message that a consumer handled; the sequence of a plain one is 0."""

    sequence: int
    number: int
    is_redelivered: bool
    count: int
    sent_in: str
    handled_in: str


def real_messages() -> list[Message]:
    """Return messages that were recorded in running chains; where the recordings are missing, one made like them."""
    lines = RECORDINGS.read_text("utf-8").splitlines() if RECORDINGS.exists() else []
    recorded = [Message.decode(line) for line in lines]
    return [message for message in recorded if isinstance(message.data, dict)] or [_made_like_them()]


def _made_like_them() -> Message:
    granules = [
        {"uri": f"/data/granule_{number:04}.h5", "uid": f"granule_{number:04}.h5", "start_time": "2024-05-01T12:00:00"}
        for number in range(12)
    ]
    return Message("/segment/SDR/1B/polar", "dataset", {"platform_name": "Suomi-NPP", "dataset": granules})


def last_line(record: Path) -> list[str]:
    """Return the fields of the last line of a record, [] if there is none."""
    if not record.exists():
        return []
    with record.open("rb") as file:
        file.seek(max(0, record.stat().st_size - 200))
        lines = file.read().decode().split("\n")
    # What follows the last line break is none, or a line that is being written.
    return lines[-2].split() if len(lines) > 1 else []


def read_sent(record: Path) -> list[Sent]:
    """Return what a publisher noted."""
    return [Sent(int(number), life) for number, life in _fields(record)]


def read_handled(record: Path) -> list[Handled]:
    """Return what a consumer noted."""
    return [
        Handled(int(sequence), int(number), redelivered == "1", int(count), sent_in, handled_in)
        for sequence, number, redelivered, count, sent_in, handled_in in _fields(record)
    ]


def _fields(record: Path) -> list[list[str]]:
    text = record.read_text() if record.exists() else ""
    # Of a line that is being written there may be only the beginning.
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


class Transfer:
    """Where one publisher's messages are kept, and the records of all that take part."""

    def __init__(self, site: Site, journal: Path | None = None) -> None:
        self.journal = journal or site.directory / "journal"
        self._site = site
        self._lives = itertools.count(1)

    def nameserver(self) -> Process:
        """Run the nameserver."""
        return self._site.nameserver()

    def publisher(self, count: int, *arguments: str, site: Site | None = None, **settings: object) -> Process:
        """Run the publisher, which goes on to number `count`; it is not waited for."""
        return (site or self._site).program(*self.publishing(count, *arguments), **settings)

    def publishing(self, count: int, *arguments: str) -> list[str]:
        """Return the program of the publisher and its arguments."""
        own = [SERVICE, str(count), str(self._record("sent")), "--journal", str(self.journal), *self._life()]
        return ["publish_durably.py", *own, *arguments]

    def plain(self, name: str, *arguments: str, site: Site | None = None, **settings: object) -> Process:
        """Run a subscriber that keeps its record under a name; it is not waited for."""
        return (site or self._site).program(*self._consuming(name, *arguments), **settings)

    def durable(self, name: str, *arguments: str, site: Site | None = None, **settings: object) -> Process:
        """Run a durable subscriber; the consumer's name is that of its record up to the first dot."""
        return (site or self._site).program(*self.consuming(name, *arguments), **settings)

    def consuming(self, name: str, *arguments: str) -> list[str]:
        """Return the program of a durable subscriber and its arguments."""
        return self._consuming(name, "--durable", name.split(".")[0], *arguments)

    def _consuming(self, name: str, *arguments: str) -> list[str]:
        return ["consume.py", SERVICE, str(self._record(name)), *self._life(), *arguments]

    def released_subscriber(self, interpreter: Path, name: str) -> Process:
        """Run a subscriber of a released version."""
        # It gives up if no nameserver answers in time.
        patient = ["--timeout", str(20 * UNIT)]
        return self._released(interpreter, PROGRAMS / "consume.py", SERVICE, str(self._record(name)), *patient)

    def released_publisher(self, interpreter: Path) -> Process:
        """Run a publisher of a released version, which numbers messages until it is ended."""
        return self._released(interpreter, PROGRAMS / "publish_plainly.py", SERVICE)

    def released_nameserver(self, interpreter: Path) -> Process:
        """Run the nameserver of a released version."""
        return self._released(interpreter, PEER, "nameserver", "-v")

    def _released(self, interpreter: Path, *arguments: str | Path) -> Process:
        return self._site.run("env", "-u", "PYTHONPATH", str(interpreter), "-P", *map(str, arguments))

    def last_sent(self) -> int:
        """Return the number of the last message whose sending returned, 0 before the first."""
        return int((last_line(self._record("sent")) or ["0"])[0])

    def last_handled(self, name: str) -> int:
        """Return the number of the message that a consumer handled last, 0 before the first."""
        return int((last_line(self._record(name)) or ["0", "0"])[1])

    def size(self, name: str) -> int:
        """Return how long a record is, which grows with each message."""
        record = self._record(name)
        return record.stat().st_size if record.exists() else 0

    def sent(self) -> list[Sent]:
        """Return what the publisher noted so far."""
        return read_sent(self._record("sent"))

    def handled(self, *names: str) -> list[Handled]:
        """Return what these consumers noted so far, one after the other."""
        return [one for name in names for one in read_handled(self._record(name))]

    def numbers(self, *names: str) -> list[int]:
        """Return the numbers of what these consumers handled so far."""
        return [one.number for one in self.handled(*names)]

    def await_handled(self, names: Sequence[str], numbers: Iterable[int], timeout: float = DELIVERED_WITHIN) -> None:
        """Wait until these consumers together have handled all the numbers."""
        wanted = set(numbers)

        def handled_all() -> bool:
            return wanted <= set(self.numbers(*names))

        try:
            eventually(handled_all, timeout)
        except AssertionError:
            missing = sorted(wanted - set(self.numbers(*names)))
            raise AssertionError(
                f"{names} did not handle {shortened(missing)} within {timeout:g} s{self._errors()}"
            ) from None

    def await_settled(self, timeout: float = DELIVERED_WITHIN) -> None:
        """Wait until no consumer has anything left to settle in the journal."""
        try:
            eventually(lambda: not any(self.pending().values()), timeout)
        except AssertionError:
            raise AssertionError(f"left to settle after {timeout:g} s: {self.pending()}{self._errors()}") from None

    def pending(self) -> dict[str, int]:
        """Return how many messages each consumer has yet to settle."""
        return self._ask(lambda journal: {consumer.name: consumer.pending for consumer in journal.consumers()})

    def await_attached(self, name: str, before: float = 0.0) -> float:
        """Wait until a consumer was attached later than at a moment told by this before, and return when."""
        return eventually(lambda: (seen := self._seen(name)) > before and seen, DELIVERED_WITHIN)

    def _seen(self, name: str) -> float:
        if not self.journal.exists():
            return 0.0
        return self._ask(lambda journal: {one.name: one.seen for one in journal.consumers()}.get(name, 0.0))

    def frames(self) -> list[bytes]:
        """Return what the journal keeps, as it was published."""
        return self._ask(lambda journal: [entry.payload for entry in journal.replay(limit=10_000)])

    def number_set_aside(self) -> int:
        """Return how many messages were set aside."""
        return self._ask(lambda journal: len(journal.set_aside()))

    def _ask(self, question: Callable[[SqliteJournal], Answer]) -> Answer:
        journal = SqliteJournal(self.journal, read_only=True)
        try:
            return question(journal)
        finally:
            journal.close()

    def _errors(self) -> str:
        logs = {log.name: log.read_text(errors="replace")[-1000:] for log in self._site.directory.glob("**/errors_*")}
        return "".join(f"\n{name}: {text}" for name, text in logs.items() if text)

    def _record(self, name: str) -> Path:
        return self._site.directory / f"record.{name}"

    def _life(self) -> list[str]:
        return ["--life", f"life{next(self._lives)}"]


def shortened(found: Collection[object]) -> str:
    """Return the first ones as a text, and how many more there are."""
    shown = ", ".join(map(str, itertools.islice(found, 10)))
    return f"{shown} and {len(found) - 10} more" if len(found) > 10 else shown


def unflagged(handled: Iterable[Handled]) -> list[int]:
    """Return the sequences of what was handled more than once without being told so."""
    first_times = sorted(one.sequence for one in handled if not one.is_redelivered)
    return [sequence for sequence, following in itertools.pairwise(first_times) if sequence == following]


def out_of_order(handled: Iterable[Handled]) -> list[int]:
    """Return the sequences that one consumer's process got for the first time after a later one."""
    found = []
    latest: dict[str, int] = {}
    for one in handled:
        if not one.is_redelivered:
            if one.sequence < latest.get(one.handled_in, 0):
                found.append(one.sequence)
            latest[one.handled_in] = max(one.sequence, latest.get(one.handled_in, 0))
    return found


def gaps(handled: Iterable[Handled]) -> list[int]:
    """Return the numbers that a plain subscriber got out of turn, or after one that it did not get at all.

    What is sent before it is connected to a publisher, and at the moment of that one's death, may be missing.
    """
    found = []
    expected: dict[str, int] = {}
    for one in handled:
        if one.number != expected.get(one.sent_in, one.number):
            found.append(one.number)
        expected[one.sent_in] = one.number + 1
    return found
