"""How many connections a program may have."""

from __future__ import annotations

import errno
import resource

from posttroll.errors import TransportError
from posttroll.settings import read

__all__ = ["check_room", "is_lack_of_room"]

_NO_ROOM = (errno.EMFILE, errno.ENFILE)
_SHARE_OF_DESCRIPTORS = 3


def check_room(count: int, are: str) -> None:
    """Raise `TransportError` if so many are as many as one may be connected to; `are` says what they are."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(read("max_connections"), descriptors // _SHARE_OF_DESCRIPTORS)
    if count >= limit:
        reason = f"{limit} {are} (setting max_connections; limit of open files {descriptors})"
        raise TransportError(errno.EMFILE, reason)


def is_lack_of_room(error: Exception) -> bool:
    """Return whether an error says that there is no room for a connection now."""
    return getattr(error, "errno", None) in _NO_ROOM
