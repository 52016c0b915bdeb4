"""Who is it that says so: the fingerprint that a component puts into its commands, statuses and results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from posttroll.message import Message
from posttroll.version import __version__

__all__ = ["Fingerprint"]


@dataclass(frozen=True)
class Fingerprint:
    """One life of one component: a restart gives another `start_time`.

    `kind`: the component's class or module; `version`: its own, else that of this package; `own`: what else it wants to
    tell of itself.
    """

    name: str
    kind: str
    pid: int
    host: str
    user: str
    start_time: datetime
    version: str = __version__
    own: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls, name: str, kind: str, version: str = __version__, **own: Any) -> Self:
        """Return the fingerprint of who begins now, in this process."""
        signed = Message("/", "fingerprint")
        return cls(name, kind, os.getpid(), signed.host, signed.user, datetime.now(UTC), version, own)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, the own ones beside the others."""
        usual = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "own"}
        return {**self.own, **usual}

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the values of all fields but the own ones."""
        return astuple(self)[:-1]
