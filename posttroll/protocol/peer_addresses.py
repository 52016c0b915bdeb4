"""Addresses of peers, as users write them.

::

    [tcp://][~][user[:password]@]host[:port][/path]

With a port it is where a peer is; without scheme and port the host is the peer's name. A `~` says to listen there, on
any free port if none is given. IPv6 addresses are in brackets. The path is the user's own.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field

from posttroll.errors import ConfigurationError

__all__ = ["PeerAddress"]

_SCHEME = "tcp"
_LONGEST = 1024
_HIGHEST_PORT = 65535

_split = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?"
    r"(?P<tilde>~)?"
    r"(?:(?P<user>[^:@/]+)(?::(?P<password>[^/]*))?@)?"
    r"(?P<host>\[[^\[\]@/]+\]|[^:@/\[\]~]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<path>.*))?",
    re.IGNORECASE,
).fullmatch


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A peer's name, or where it is. `host` has no brackets, `path` no slash before it; what is not given is empty."""

    scheme: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int | None
    path: str
    is_listening: bool

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Return the address that a text is; `ConfigurationError` says what is wrong with it, without its password."""
        if not text.isprintable() or " " in text:
            raise _invalid(text, "it has white space or characters that cannot be printed")
        if len(text) > _LONGEST:
            raise _invalid(text, f"it has more than {_LONGEST} characters")
        parts = _split(text)
        if parts is None:
            raise _invalid(text, "an address is a name, or [tcp://][~][user[:password]@]host:port, and maybe a /path")
        return cls(
            scheme=_scheme(text, parts["scheme"] or ""),
            user=parts["user"] or "",
            password=parts["password"] or "",
            host=_host(text, parts["host"]),
            port=_port(text, parts),
            path=parts["path"] or "",
            is_listening=parts["tilde"] is not None,
        )

    @property
    def peer(self) -> str:
        """The name, or ``tcp://host:port``."""
        return self.host if self.port is None else f"{_SCHEME}://{self._location}"

    def without_credentials(self) -> PeerAddress:
        """Return the address without user and password."""
        return dataclasses.replace(self, user="", password="")

    def __str__(self) -> str:
        scheme = f"{self.scheme}://" if self.scheme else ""
        tilde = "~" if self.is_listening else ""
        password = f":{self.password}" if self.password else ""
        credentials = f"{self.user}{password}@" if self.user else ""
        path = f"/{self.path}" if self.path else ""
        return f"{scheme}{tilde}{credentials}{self._location}{path}"

    @property
    def _location(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def _invalid(text: str, reason: str) -> ConfigurationError:
    shown = text.rpartition("@")[2]
    return ConfigurationError(f"{shown[:100]!r} is no address of a peer: {reason}")


def _scheme(text: str, scheme: str) -> str:
    if scheme.lower() not in ("", _SCHEME):
        raise _invalid(text, f"no scheme {scheme!r}; known: {_SCHEME}")
    return scheme.lower()


def _host(text: str, host: str) -> str:
    if not host.startswith("["):
        return host
    try:
        return str(ipaddress.IPv6Address(host[1:-1]))
    except ValueError:
        raise _invalid(text, "only an IPv6 address is in brackets") from None


def _port(text: str, parts: re.Match[str]) -> int | None:
    is_listening = parts["tilde"] is not None
    if parts["port"] is None:
        if is_listening:
            return 0
        if parts["scheme"] or parts["host"].startswith("["):
            raise _invalid(text, "it has no port; a name is written without scheme")
        return None
    port = int(parts["port"])
    if not (0 if is_listening else 1) <= port <= _HIGHEST_PORT:
        raise _invalid(text, f"{port} is no port to {'listen on' if is_listening else 'connect to'}")
    return port
