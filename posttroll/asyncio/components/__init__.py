"""Components whose handlers may be coroutines: the twin of `posttroll.components`.

Handlers, `start` and `stop` that are coroutines, or asynchronous generators, run in the event loop; those that are
plain functions run in threads, so that they do not block it.
"""

from posttroll.asyncio.components.component import Component
from posttroll.asyncio.components.program import run
from posttroll.asyncio.components.runner import Runner
from posttroll.components.configuration import Configuration
from posttroll.components.decorators import command, on, request
from posttroll.components.fingerprint import Fingerprint
from posttroll.components.messages import Command, Result, Status
from posttroll.components.middleware import (
    Context,
    CountMiddleware,
    Decision,
    LogMiddleware,
    Middleware,
    RetryMiddleware,
)
from posttroll.components.producer import Outgoing, Producer, sends

__all__ = [
    "Command",
    "Component",
    "Configuration",
    "Context",
    "CountMiddleware",
    "Decision",
    "Fingerprint",
    "LogMiddleware",
    "Middleware",
    "Outgoing",
    "Producer",
    "Result",
    "RetryMiddleware",
    "Runner",
    "Status",
    "command",
    "on",
    "request",
    "run",
    "sends",
]
