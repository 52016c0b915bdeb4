"""What a component sends, as methods."""

from __future__ import annotations

from typing import Any

import pytest

from posttroll.components.producer import Producer, sends
from posttroll.message import Message


class Products(Producer):
    @sends("file", "/2a/{platform}")
    def granule(self, uri: str, platform: str = "npp") -> dict[str, Any]:
        """A granule in satellite projection."""
        return {"uri": uri, "platform_name": platform}

    def helper(self) -> None:
        raise NotImplementedError

    @sends("info", "/2a/end")
    def end(self) -> str:
        return "end"


def test_calling_a_method_sends_its_message_and_returns_it() -> None:
    sent: list[Message] = []

    message = Products(sent.append).granule("a.nc", platform="noaa20")

    assert sent == [message]
    assert (message.subject, message.type) == ("/2a/noaa20", "file")
    assert message.data == {"uri": "a.nc", "platform_name": "noaa20"}


def test_a_topic_may_name_parameters_that_have_defaults() -> None:
    assert Products(print).granule("a.nc").subject == "/2a/npp"


def test_another_topic_can_be_given_for_a_call() -> None:
    products = Products(print)

    assert products.at("/test/{platform}").granule("a.nc").subject == "/test/npp"
    assert products.granule("a.nc").subject == "/2a/npp"


def test_the_interface_tells_what_is_sent_in_the_order_in_which_it_is_written() -> None:
    granule, end = Products.interface()

    assert granule.name == "granule"
    assert granule.parameters == "(uri: 'str', platform: 'str' = 'npp') -> 'dict[str, Any]'"
    assert (granule.type, granule.topic) == ("file", "/2a/{platform}")
    assert granule.documentation == "A granule in satellite projection."
    assert (end.name, end.topic, end.documentation) == ("end", "/2a/end", "")


def test_wrong_arguments_send_nothing() -> None:
    sent: list[Message] = []

    with pytest.raises(TypeError, match="missing a required argument: 'uri'"):
        Products(sent.append).granule()  # type: ignore[call-arg]

    assert sent == []
