"""Opening what a component needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posttroll.components.calls import calls_of, make_method
from posttroll.components.component import Component
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import Handler
from posttroll.components.middleware import Stack
from posttroll.components.needs import messenger_options, subscriber_settings
from posttroll.messenger import Messenger
from posttroll.rpc import RpcServer
from posttroll.subscriber import Subscriber, create_subscriber_from_dict_config

__all__ = ["open_messenger", "open_server", "open_subscriber"]


def open_messenger(configuration: Configuration) -> Messenger:
    """Return the started messenger, which publishes, too."""
    return Messenger(configuration.name, **messenger_options(configuration)).start()


def open_subscriber(configuration: Configuration, declared: Sequence[str]) -> Subscriber | None:
    """Return the connected subscriber to the topics of the configuration, or those declared; None if it needs none."""
    settings = subscriber_settings(configuration, declared)
    return None if settings is None else create_subscriber_from_dict_config(settings)


def open_server(
    messenger: Messenger, component: Component, handlers: Iterable[Handler], stack: Stack, workers: int
) -> RpcServer | None:
    """Return the started server of the calls that are declared; None if there are none."""
    calls = calls_of(handlers)
    if not calls:
        return None
    server = RpcServer(messenger, workers=workers)
    for name, handler in calls.items():
        server.register_function(make_method(handler, component, stack), name)
    server.start()
    return server
