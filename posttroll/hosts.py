"""Lists of hosts, as settings give them."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Iterable

from posttroll.errors import ConfigurationError

__all__ = ["Hosts"]

logger = logging.getLogger(__name__)


class Hosts:
    """A set of hosts given as addresses, networks (``10.1.0.0/16``) or names, which are resolved once.

    Names that cannot be resolved are logged and left out; if nothing is left, `ConfigurationError`.
    """

    def __init__(self, texts: Iterable[str], setting: str) -> None:
        texts = list(texts)
        self._networks = [network for text in texts for network in _networks(text, setting)]
        if not self._networks:
            raise ConfigurationError(f"none of the hosts in {setting} ({', '.join(texts) or 'empty'}) can be resolved")

    def __contains__(self, address: object) -> bool:
        try:
            host = ipaddress.ip_address(str(address))
        except ValueError:
            return False
        return any(host in network for network in self._networks)


def _networks(text: str, setting: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    with contextlib.suppress(ValueError):
        return [ipaddress.ip_network(text, strict=False)]
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        logger.error("host %r in %s cannot be resolved: it is not let in", text, setting)
        return []
    return [ipaddress.ip_network(str(entry[4][0]).partition("%")[0]) for entry in found]
