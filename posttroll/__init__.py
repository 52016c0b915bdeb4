"""Messages between the processes of event-driven production chains."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from posttroll import settings
from posttroll.version import __version__

if TYPE_CHECKING:
    import zmq

    from posttroll.settings import config

__all__ = ["__version__", "config", "get_context", "logger"]

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    if name == "config":
        return settings.config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the ZeroMQ context of this process (deprecated); `NotImplementedError` for backends without ZeroMQ."""
    warnings.warn("posttroll.get_context is deprecated, make a zmq.Context instead", stacklevel=2)
    backend = settings.config["backend"]
    if "zmq" not in backend:
        raise NotImplementedError(f"backend {backend!r} has no ZeroMQ context")
    # Imported when asked for, as programs without ZeroMQ should not pay for it.
    from posttroll.backends import zmq as zmq_backend

    return zmq_backend.get_context()
