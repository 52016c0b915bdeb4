"""Components: classes or modules of handlers, run as daemons by one line of code and a YAML file."""

from posttroll.components.component import Component
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
from posttroll.components.program import run
from posttroll.components.runner import Runner

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
