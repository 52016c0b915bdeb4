"""Opening what a component needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posttroll.asyncio.components.work import Execution, make_call
from posttroll.asyncio.messenger import Messenger
from posttroll.asyncio.rpc import RpcServer
from posttroll.asyncio.subscriber import Subscriber, create_subscriber_from_dict_config
from posttroll.components.calls import calls_of
from posttroll.components.component import Component
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import Handler
from posttroll.components.middleware import Stack
from posttroll.components.needs import messenger_options, subscriber_settings

__all__ = ["open_messenger", "open_server", "open_subscriber"]


async def open_messenger(configuration: Configuration) -> Messenger:
    """Return the started messenger, which publishes, too."""
    return await Messenger(configuration.name, **messenger_options(configuration)).start()


async def open_subscriber(configuration: Configuration, declared: Sequence[str]) -> Subscriber | None:
    """Return the connected subscriber to the topics of the configuration, or those declared; None if it needs none."""
    settings = subscriber_settings(configuration, declared)
    return None if settings is None else await create_subscriber_from_dict_config(settings)


async def open_server(
    messenger: Messenger,
    component: Component,
    handlers: Iterable[Handler],
    stack: Stack,
    execution: Execution,
    workers: int,
) -> RpcServer | None:
    """Return the started server of the calls that are declared; None if there are none."""
    calls = calls_of(handlers)
    if not calls:
        return None
    server = RpcServer(messenger, workers=workers)
    for name, handler in calls.items():
        server.register_function(make_call(handler, component, stack, execution), name)
    return await server.start()
