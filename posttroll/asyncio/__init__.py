"""The same names as in `posttroll`'s other modules, for programs with an event loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttroll.asyncio.components import Component, Runner
    from posttroll.asyncio.listener import Listener, ListenerContainer
    from posttroll.asyncio.lookup import get_pub_address, get_pub_addresses
    from posttroll.asyncio.messenger import Messenger
    from posttroll.asyncio.publisher import (
        NoisyPublisher,
        Publish,
        Publisher,
        create_publisher_from_dict_config,
        get_own_ip,
    )
    from posttroll.asyncio.rpc import RpcClient, RpcServer, current_call, public
    from posttroll.asyncio.subscriber import (
        NSSubscriber,
        Subscribe,
        Subscriber,
        create_subscriber_from_dict_config,
    )

_MODULES = {
    "components": ("Component", "Runner"),
    "listener": ("Listener", "ListenerContainer"),
    "lookup": ("get_pub_address", "get_pub_addresses"),
    "messenger": ("Messenger",),
    "publisher": ("NoisyPublisher", "Publish", "Publisher", "create_publisher_from_dict_config", "get_own_ip"),
    "rpc": ("RpcClient", "RpcServer", "current_call", "public"),
    "subscriber": ("NSSubscriber", "Subscribe", "Subscriber", "create_subscriber_from_dict_config"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Component",
    "Listener",
    "ListenerContainer",
    "Messenger",
    "NSSubscriber",
    "NoisyPublisher",
    "Publish",
    "Publisher",
    "RpcClient",
    "RpcServer",
    "Runner",
    "Subscribe",
    "Subscriber",
    "create_publisher_from_dict_config",
    "create_subscriber_from_dict_config",
    "current_call",
    "get_own_ip",
    "get_pub_address",
    "get_pub_addresses",
    "public",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, as few programs need all of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return what there is, imported or not."""
    return sorted({*globals(), *__all__})
