"""Messages between the processes of event-driven production chains."""

from __future__ import annotations

import logging
import pkgutil
import warnings
from typing import TYPE_CHECKING, cast

from posttroll.settings import config
from posttroll.version import __version__

if TYPE_CHECKING:
    import zmq

__all__ = ["__version__", "config", "get_context", "logger"]

logger = logging.getLogger(__name__)


def get_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the ZeroMQ context of this process (deprecated); `NotImplementedError` for backends without ZeroMQ."""
    warnings.warn("posttroll.get_context is deprecated, make a zmq.Context instead", stacklevel=2)
    backend = config["backend"]
    if "zmq" not in backend:
        raise NotImplementedError(f"backend {backend!r} has no ZeroMQ context")
    # Imported when asked for, as programs without ZeroMQ should not pay for it.
    return cast("zmq.Context[zmq.Socket[bytes]]", pkgutil.resolve_name("posttroll.backends.zmq:get_context")())
