"""The `donfig.Config` behind the settings, in a module of its own as most processes never need it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from donfig import Config

__all__ = ["Configuration"]


class Configuration(Config):  # type: ignore[misc]  # donfig has no types
    """Settings whose files may be bad: making it does not fail for that, but reading a setting does.

    `environment` is what the variables were when the program started; a later `refresh` takes them as they are then.
    """

    complaint = ""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__("posttroll", defaults=[{"backend": "unsecure_zmq"}], env=environment)
        self.env = os.environ

    def refresh(self, **kwargs: Any) -> None:
        """Read the files and the environment again."""
        self.complaint = ""
        try:
            super().refresh(**kwargs)
        except (ValueError, TypeError, AttributeError) as error:
            files = ", ".join(path for path in self.paths if os.path.exists(path))
            self.complaint = f"settings in {files} cannot be used: {' '.join(str(error).split())}"
