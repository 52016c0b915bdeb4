"""Opening what a component needs, as its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from posttroll.components.component import Component
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import Handler, Requests
from posttroll.components.middleware import Stack
from posttroll.messenger import Messenger
from posttroll.rpc import RpcServer
from posttroll.settings import config
from posttroll.subscriber import Subscriber, create_subscriber_from_dict_config

__all__ = ["open_messenger", "open_server", "open_subscriber"]


def open_messenger(configuration: Configuration) -> Messenger:
    """Return the started messenger, which publishes, too."""
    messenger = Messenger(
        configuration.name,
        port=configuration.port,
        link_port=configuration.link_port,
        aliases=configuration.aliases,
        nameservers=False if isinstance(configuration.nameservers, bool) else configuration.nameservers,
        journal=configuration.outbox,
        incoming_window=None,
    )
    with nullcontext() if configuration.journal is None else config.set(journal=configuration.journal):
        return messenger.start()


def open_subscriber(configuration: Configuration, declared: Sequence[str]) -> Subscriber | None:
    """Return the connected subscriber to the topics of the configuration, or those declared; None if it needs none."""
    topics = declared if configuration.topics is None else configuration.topics
    services = None if configuration.nameservers is False else configuration.services
    if not topics or (services is None and not configuration.addresses):
        return None
    durable = configuration.shared or configuration.private
    settings: dict[str, Any] = {
        "services": services,
        "topics": topics,
        "addresses": configuration.addresses,
        "addr_listener": True,
        "nameserver": "localhost" if configuration.nameservers is None else configuration.nameservers,
        "timeout": configuration.timeout,
    }
    if durable is not None:
        settings |= {"durable": durable, "start_at": configuration.start_at, "acknowledge": "manual"}
    return create_subscriber_from_dict_config(settings)


def open_server(
    messenger: Messenger, component: Component, handlers: Iterable[Handler], stack: Stack, workers: int
) -> RpcServer | None:
    """Return the started server of the calls that are declared; None if there are none."""
    methods = {
        handler.handles.name: _method(handler, component, stack)
        for handler in handlers
        if isinstance(handler.handles, Requests)
    }
    if not methods:
        return None
    server = RpcServer(messenger, workers=workers)
    for name, method in methods.items():
        server.register_function(method, name)
    server.start()
    return server


def _method(handler: Handler, component: Component, stack: Stack) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        action = partial(handler.call, {"component": component}, *arguments, **keywords)
        outcome = stack.run(action, handler.name, None)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    return call
