"""Handling messages."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from posttroll.components.component import Component
from posttroll.components.decorators import handlers_of, on
from posttroll.components.middleware import RetryMiddleware, Stack
from posttroll.components.work import MessageWork, Wishes
from posttroll.errors import Refused
from posttroll.message import Message
from posttroll.threads import Worker

GRANULE = Message("/1b/viirs", "file", {"orbit": 5})


class Source:
    """Notes how messages are settled."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.settled: list[str] = []

    def accept(self, message: Message) -> bool:
        self.settled.append("accepted")
        return self.answer

    def release(self, message: Message) -> bool:
        self.settled.append("released")
        return self.answer

    def reject(self, message: Message, *, reason: str) -> bool:
        self.settled.append(f"rejected: {reason}")
        return self.answer


class Publishing(Component):
    """Keeps what it publishes."""

    def __init__(self) -> None:
        self.published: list[Message] = []

    def publish(self, message: Message) -> None:
        self.published.append(message)


class Handlers(Publishing):
    @on("file", "/1b/viirs")
    def count(self, data: Any) -> int:
        return int(data["orbit"]) + 1

    @on("file", "/1b/viirs", publish_type="info", publish_topic="/info")
    def tell(self, message: Message) -> str:
        return message.subject

    @on("file", "/1b/avhrr")
    def rename(self, message: Message, component: Publishing) -> Message:
        assert component is self
        return Message("/1b/renamed", "file", message.data)

    @on("dataset", "/1b")
    def split(self, data: Any) -> Iterator[Any]:
        yield from data["dataset"]

    @on("twice")
    @on("twice", "/1b")
    def twice(self) -> Message:
        return GRANULE

    @on("nothing")
    def nothing(self) -> None:
        return None

    @on("bad")
    @on("mixed")
    @on("worst")
    def fail(self) -> None:
        raise ValueError("broken")

    @on("refused")
    @on("worst")
    def refuse(self) -> None:
        raise Refused("not for me")

    @on("mixed")
    def succeed(self) -> None:
        self.published.append(GRANULE)


def work_of(component: Component, topic: str | None = "/2a", *layers: Any) -> MessageWork:
    return MessageWork(Wishes(component, handlers_of(component), topic), Stack(layers))


def handled(message: Message, *layers: Any, topic: str | None = "/2a") -> tuple[list[str], list[Message]]:
    component, source = Handlers(), Source()
    work_of(component, topic, *layers).handle(message, source, Worker("test", print))
    return source.settled, component.published


def test_all_handlers_that_want_a_message_are_called_and_what_they_return_is_published() -> None:
    settled, (count, info) = handled(GRANULE)

    assert settled == ["accepted"]
    assert (count.subject, count.type, count.data) == ("/2a", "file", 6)
    assert (info.subject, info.type, info.data) == ("/info", "info", "/1b/viirs")


def test_a_message_that_is_returned_is_published_as_it_is() -> None:
    _, (renamed,) = handled(Message("/1b/avhrr", "file", {"uid": "a"}))

    assert (renamed.subject, renamed.data) == ("/1b/renamed", {"uid": "a"})


def test_all_that_a_generator_yields_is_published() -> None:
    settled, published = handled(Message("/1b/x", "dataset", {"dataset": [1, 2, 3]}))

    assert settled == ["accepted"]
    assert [message.data for message in published] == [1, 2, 3]


@pytest.mark.parametrize("type", ["nothing", "unknown"])
def test_a_message_that_nobody_answers_or_wants_is_accepted(type: str) -> None:
    assert handled(Message("/1b", type)) == (["accepted"], [])


def test_a_handler_that_wants_a_message_for_two_reasons_gets_it_once() -> None:
    assert handled(Message("/1b", "twice")) == (["accepted"], [GRANULE])


def test_a_message_whose_handler_raises_is_released() -> None:
    assert handled(Message("/1b", "bad")) == (["released"], [])


def test_a_message_that_is_refused_is_rejected_with_the_reason() -> None:
    assert handled(Message("/1b", "refused")) == (["rejected: not for me"], [])


def test_a_handler_that_raises_does_not_keep_the_others_from_a_message() -> None:
    assert handled(Message("/1b", "mixed")) == (["released"], [GRANULE])


def test_to_release_a_message_takes_precedence_over_rejecting_it() -> None:
    assert handled(Message("/1b", "worst")) == (["released"], [])


def test_a_generator_that_fails_releases_the_message() -> None:
    settled, _ = handled(Message("/1b/x", "dataset", {}))

    assert settled == ["released"]


def test_data_that_have_nowhere_to_go_are_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    settled, (info,) = handled(GRANULE, topic=None)

    assert settled == ["released"]
    assert info.type == "info"


def test_only_the_handler_that_failed_is_tried_again() -> None:
    _, published = handled(Message("/1b", "mixed"), RetryMiddleware(max_retries=2, delay=0.001))

    assert published == [GRANULE]


def test_that_a_message_is_somebody_elses_now_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    work_of(Handlers()).handle(GRANULE, Source(answer=False), Worker("test", print))

    assert caplog.records[-1].getMessage() == "/1b/viirs was given to another worker meanwhile"


def test_the_topics_are_those_of_the_handlers() -> None:
    component = Handlers()

    assert Wishes(component, handlers_of(component), None).topics[:3] == ["/1b/viirs", "/1b/viirs", "/1b/avhrr"]


def test_functions_of_a_module_handle_messages_too() -> None:
    module, component, source = ModuleType("handlers"), Publishing(), Source()
    module.double = on("file", "/1b")(lambda data: data["orbit"] * 2)  # type: ignore[attr-defined]

    work = MessageWork(Wishes(component, handlers_of(module), "/2a"), Stack([]))
    work.handle(GRANULE, source, Worker("test", print))

    assert [message.data for message in component.published] == [10]
