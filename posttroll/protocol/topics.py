"""Topics: what a message's text begins with."""

from __future__ import annotations

from collections.abc import Iterable

from posttroll.protocol.codec import MAGIC

__all__ = ["as_prefix", "as_prefixes", "overlap"]


def as_prefix(topic: str) -> str:
    """Return the beginning that the messages of a topic have; the slash before a subject may be left out."""
    if topic.startswith(MAGIC):
        return topic
    return MAGIC + topic if topic.startswith("/") else f"{MAGIC}/{topic}"


def as_prefixes(topics: str | Iterable[str]) -> list[str]:
    """Return the beginnings for one topic or several."""
    return [as_prefix(topic) for topic in ([topics] if isinstance(topics, str) else topics)]


def overlap(one: bytes, other: bytes) -> bool:
    """Return whether some message may begin with both."""
    return one.startswith(other) or other.startswith(one)
