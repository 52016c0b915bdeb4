"""What a component needs, as its configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttroll.components.configuration import Configuration

__all__ = ["messenger_options", "subscriber_settings"]


def messenger_options(configuration: Configuration) -> dict[str, Any]:
    """Return the arguments of a messenger, which publishes, too, besides its name."""
    return {
        "port": configuration.port,
        "link_port": configuration.link_port,
        "aliases": configuration.aliases,
        "nameservers": False if isinstance(configuration.nameservers, bool) else configuration.nameservers,
        "journal": configuration.outbox,
        "publisher_journal": configuration.journal,
        "incoming_window": None,
    }


def subscriber_settings(configuration: Configuration, declared: Sequence[str]) -> dict[str, Any] | None:
    """Return how to subscribe to the topics of the configuration, or those declared; None if there is no need to."""
    topics = declared if configuration.topics is None else configuration.topics
    services = None if configuration.nameservers is False else configuration.services
    if not topics or (services is None and not configuration.addresses):
        return None
    settings: dict[str, Any] = {
        "services": services,
        "topics": topics,
        "addresses": configuration.addresses,
        "addr_listener": True,
        "nameserver": "localhost" if configuration.nameservers is None else configuration.nameservers,
        "timeout": configuration.timeout,
    }
    durable = configuration.shared or configuration.private
    if durable is not None:
        settings |= {"durable": durable, "start_at": configuration.start_at, "acknowledge": "manual"}
    return settings
