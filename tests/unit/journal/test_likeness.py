"""Whatever is done to them, a journal in a file and one in memory give the same answers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from posttroll.errors import JournalError
from posttroll.journal import Journal, MemoryJournal
from posttroll.journal.sqlite import SqliteJournal
from posttroll.protocol.frames import Outcome

CONSUMERS = st.sampled_from(["one", "other"])
TOPICS = st.sampled_from(["pytroll://1b", "pytroll://1b/hrit", "pytroll://2"])


class Likeness(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.now = 0.0
        self.sqlite: Journal = SqliteJournal(self.directory / "journal", max_age=20.0, max_size=60)
        self.memory: Journal = MemoryJournal(max_age=20.0, max_size=60)
        self.sources: dict[str, tuple[Any, Any]] = {}
        self.leased: dict[str, list[int]] = {"one": [], "other": []}

    @initialize(most=st.sampled_from([1, 3, 1000]))
    def fold_after(self, most: int) -> None:
        self.patch.setattr("posttroll.journal.tail._MOST_MESSAGES", most)

    def both(self, do: Callable[[Journal], Any]) -> Any:
        answers = []
        for journal in (self.sqlite, self.memory):
            try:
                answers.append(do(journal))
            except (JournalError, PermissionError) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(topic=TOPICS, size=st.integers(1, 30), ttl=st.sampled_from([None, 3.0]), later=st.integers(0, 3))
    def append(self, topic: str, size: int, ttl: float | None, later: int) -> None:
        self.now += later
        expires = None if ttl is None else self.now + ttl
        self.both(lambda journal: journal.append(topic, b"x" * size, self.now, expires))

    @rule(
        name=CONSUMERS,
        topics=st.lists(TOPICS),
        start_at=st.sampled_from(["new", "first", "1970-01-01T00:00:05"]),
        key=st.sampled_from(["", "", "", "key"]),
    )
    def open_source(self, name: str, topics: list[str], start_at: str, key: str) -> None:
        sources: list[Any] = []

        def open_one(journal: Journal) -> None:
            sources.append(journal.open_source(name, topics, start_at, self.now, key))

        if self.both(open_one) is None:
            if self.sources.get(name) != tuple(sources):
                self.leased[name] = []
            self.sources[name] = (sources[0], sources[1])

    @rule(name=CONSUMERS)
    def take(self, name: str) -> None:
        if name in self.sources:
            one, other = (source.take(self.now) for source in self.sources[name])
            assert one == other
            if one is not None:
                self.leased[name].append(one[0].sequence)

    @rule(name=CONSUMERS, state=st.sampled_from(["accepted", "accepted", "rejected", "released"]), which=st.integers())
    def settle(self, name: str, state: Any, which: int) -> None:
        if self.leased[name]:
            sequence = self.leased[name].pop(which % len(self.leased[name]))
            for source in self.sources[name]:
                source.settle(sequence, Outcome(state))

    @rule()
    def commit(self) -> None:
        for sources in self.sources.values():
            for source in sources:
                source.save()
        self.both(lambda journal: journal.commit())

    @rule()
    def expire(self) -> None:
        self.both(lambda journal: journal.expire(self.now, self.now))

    @rule(which=st.integers(), action=st.sampled_from(["resend", "discard"]))
    def resolve(self, which: int, action: str) -> None:
        aside = self.both(lambda journal: journal.set_aside())
        if aside:
            one = aside[which % len(aside)]
            self.both(lambda journal: getattr(journal, action)(one.consumer, one.sequence))

    @rule(name=CONSUMERS)
    def forget(self, name: str) -> None:
        self.both(lambda journal: journal.forget(name))

    @invariant()
    def alike(self) -> None:
        assert self.sqlite.last == self.memory.last
        self.both(lambda journal: [tuple(entry) for entry in journal.replay()][-1:])
        self.both(lambda journal: journal.consumers())
        self.both(lambda journal: journal.set_aside())
        self.both(lambda journal: journal.replay(since=3.0, until=9.0, topics=["pytroll://1b/"])[-1:])

    def teardown(self) -> None:
        self.patch.undo()
        self.sqlite.close()
        self.memory.close()
        shutil.rmtree(self.directory)


TestLikeness = Likeness.TestCase
TestLikeness.settings = settings(max_examples=20, stateful_step_count=40)
