"""The settings: one table of all of them, and where their values come from.

Precedence: an argument, `config.set`, the environment (``POSTTROLL_<NAME>``), YAML files, the table's default.
Values are read when an object is constructed, and checked there.

`config`, the `donfig.Config`, is made when somebody asks for it, or when a setting is read and a file or the
environment say something: donfig and YAML take 15 to 20 ms to load, a quarter of what a process needs to begin.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from posttroll.errors import ConfigurationError, MissingSetting

if TYPE_CHECKING:
    from posttroll.configuration import Configuration

    config: Configuration

__all__ = [
    "SETTINGS",
    "Ports",
    "Setting",
    "config",
    "keepalive",
    "read",
    "required",
    "tell_doubtful_settings",
    "tell_settings",
]

logger = logging.getLogger(__name__)


class _NothingConfigured:
    """Stands for the configuration while there is none."""

    config: Mapping[str, Any] = {}
    paths: Sequence[str] = ()
    complaint = ""


_environment = {name: value for name, value in os.environ.items() if name.startswith("POSTTROLL_")}
_source: _NothingConfigured | Configuration | None = None
_lock = threading.RLock()


def __getattr__(name: str) -> Any:
    if name == "config":
        return _make_configuration()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_configuration() -> Configuration:
    """Return the configuration, always the same one."""
    # Imported when it is needed, see above.
    from posttroll.configuration import Configuration

    global _source
    with _lock:
        if not isinstance(_source, Configuration):
            _source = Configuration(_environment)
        return _source


def _find_source() -> _NothingConfigured | Configuration:
    """Return the configuration if there is anything in it, or something as empty."""
    global _source
    if _environment or any(map(os.path.exists, _places())):
        return _make_configuration()
    with _lock:
        _source = _source or _NothingConfigured()
        return _source


def _places() -> list[str]:
    """Return where donfig looks for files unless the environment says something else."""
    etc = [os.path.join(prefix, "etc") for prefix in ("/", sys.prefix, sys.exec_prefix)]
    return [os.path.join(place, "posttroll") for place in (*etc, os.path.expanduser("~/.config"))]


_DONFIG_OWN = {"config", "root_config"}  # POSTTROLL_CONFIG and POSTTROLL_ROOT_CONFIG say where the files are


class Setting(NamedTuple):
    """One row of the table. `parse` turns any accepted form into the value, or raises `ValueError`."""

    name: str
    default: Any
    kind: str
    parse: Callable[[Any], Any]
    help: str
    old_environment: str = ""

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return f"POSTTROLL_{self.name.upper()}"

    @property
    def hyphenated(self) -> str:
        """How a file may write its name."""
        return self.name.replace("_", "-")


def _text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
            raise ValueError(value)
        number = int(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    return parse


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not 0 <= float(value) < 1e9:
        raise ValueError(value)
    return float(value)


def _claim(value: Any) -> bool:
    claims = {True: True, False: False, "true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    try:
        return claims[value.lower() if isinstance(value, str) else value]
    except (KeyError, TypeError):
        raise ValueError(value) from None


def _claim_or_path(value: Any) -> bool | str:
    try:
        return _claim(value)
    except ValueError:
        # A word that is no path is a mistyped one, not the name of a file in whatever directory the process runs in.
        if not isinstance(value, str | os.PathLike) or "/" not in (path := _text(value)):
            raise
        return path


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return parse


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    return tuple(str(item) for item in value)


def _interface(value: Any) -> str:
    # Imported for those who set one: loading it takes 1 ms and 0.3 MB.
    from ipaddress import IPv4Address

    return str(IPv4Address(value))


_port = _whole(0, 65535)
_a_port = "a port number, 0 to 65535"
_count = _whole(1, 10**9)
_a_count = "a whole number, 1 or more"
_option = _whole(-1, 2**31 - 1)
_an_option = "a whole number, -1 for the system's default"

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("backend", "unsecure_zmq", "the name of a backend", _text, "How messages travel."),
        Setting(
            "message_version",
            None,
            "v1.01 or v1.2",
            _one_of("", "v1.0", "v1.01", "v1.1", "v1.2"),
            "Version to write messages in; unset: the lowest that the data needs.",
        ),
        Setting(
            "nameserver_port",
            5557,
            _a_port,
            _port,
            "Port of the nameserver for look-ups.",
            old_environment="NAMESERVER_PORT",
        ),
        Setting("secure_zmq_nameserver_port", 5558, _a_port, _port, "Port of the nameserver for look-ups with CURVE."),
        Setting("address_publish_port", 16543, _a_port, _port, "Port where the nameserver publishes new addresses."),
        Setting("broadcast_port", 21200, _a_port, _port, "Port of announcements (UDP) and registrations (TCP)."),
        Setting(
            "mc_group",
            "225.0.0.212",
            "an IPv4 multicast group, or empty to broadcast",
            _text,
            "Multicast group of announcements; empty: broadcast.",
            old_environment="PYTROLL_MC_GROUP",
        ),
        Setting(
            "multicast_interface",
            None,
            "the IPv4 address of an interface",
            _interface,
            "Interface for multicast; unset: the system's choice.",
        ),
        Setting("advertised_host", None, "a host name or address", _text, "Host to announce; unset: guessed."),
        Setting("pub_min_port", 49152, _a_port, _port, "Lowest port for publishers that take a free one."),
        Setting("pub_max_port", 65536, "a port number, up to 65536", _whole(1, 65536), "End of that range, not in it."),
        Setting(
            "when_full",
            "drop",
            "drop or block",
            _one_of("drop", "block"),
            "What a publisher does for a subscriber that cannot keep up: drop its messages, or wait for it.",
        ),
        Setting(
            "journal",
            False,
            "true, false or a path with a / in it",
            _claim_or_path,
            "Whether publishers keep a journal for durable subscribers, or its file.",
        ),
        Setting(
            "journal_directory",
            None,
            "a path",
            _text,
            "Directory of the journals; unset: $XDG_STATE_HOME/posttroll or ~/.local/state/posttroll.",
        ),
        Setting(
            "journal_max_age",
            604_800.0,
            "a number of seconds, 0 for no limit",
            _seconds,
            "Seconds a message is kept at most, settled or not.",
        ),
        Setting(
            "journal_max_size",
            10_000_000_000,
            "a number of bytes, 0 for no limit",
            _whole(0, 2**62),
            "Bytes of messages kept at most: then settled ones make room, and where there are none, sending fails.",
        ),
        Setting(
            "journal_sync",
            "normal",
            "normal or full",
            _one_of("normal", "full"),
            "What a sent message survives: normal, the end of the process; full, the loss of power, too.",
        ),
        Setting("max_deliveries", 10, _a_count, _count, "Deliveries in vain after which a message is set aside."),
        Setting("send_high_water_mark", 20_000, _a_count, _count, "Messages kept for each slow subscriber."),
        Setting("receive_high_water_mark", 20_000, _a_count, _count, "Messages kept for a slow loop, per publisher."),
        Setting(
            "max_message_size",
            64 * 2**20,
            "a number of bytes",
            _whole(1024, 2**31),
            "Longest message taken from the wire, in bytes.",
        ),
        Setting("max_connections", 1000, _a_count, _count, "Most discovered publishers one subscriber connects to."),
        Setting("max_addresses", 50_000, _a_count, _count, "Most addresses a nameserver keeps."),
        Setting("max_addresses_per_source", 10_000, _a_count, _count, "Most addresses it keeps from one host."),
        Setting("max_addresses_per_service", 1000, _a_count, _count, "Most addresses it keeps of one service."),
        Setting(
            "max_addresses_per_service_and_source",
            250,
            _a_count,
            _count,
            "Most addresses it keeps of one service from one host.",
        ),
        Setting(
            "authorized_announcer_addresses",
            None,
            "a list of addresses, networks or host names",
            _texts,
            "Hosts whose announcements a nameserver takes; unset: all.",
        ),
        Setting(
            "authorized_client_addresses",
            None,
            "a list of addresses, networks or host names",
            _texts,
            "Hosts that may connect to what this process binds; unset: all.",
        ),
        Setting(
            "serve_unsecure_nameserver",
            False,
            "true or false",
            _claim,
            "Whether a secure nameserver also answers without CURVE.",
        ),
        Setting("tcp_keepalive", None, "-1, 0 or 1", _whole(-1, 1), "TCP keep-alive: 1 on, 0 off."),
        Setting("tcp_keepalive_cnt", None, _an_option, _option, "Unanswered probes before a connection is dead."),
        Setting("tcp_keepalive_idle", None, _an_option, _option, "Seconds of silence before the first probe."),
        Setting("tcp_keepalive_intvl", None, _an_option, _option, "Seconds between probes."),
        Setting(
            "connection_heartbeat_interval",
            2.0,
            "a number of seconds, 0 for none",
            _seconds,
            "Seconds between the probes of a subscriber's connection.",
        ),
        Setting(
            "connection_heartbeat_timeout",
            6.0,
            "a number of seconds",
            _seconds,
            "Seconds without an answer to them before it connects anew.",
        ),
        Setting("server_secret_key_file", None, "a path", _text, "CURVE secret key of what this process binds."),
        Setting("clients_public_keys_directory", None, "a path", _text, "Directory of the keys of accepted clients."),
        Setting("server_public_key_file", None, "a path", _text, "CURVE public key of the servers to connect to."),
        Setting("client_secret_key_file", None, "a path", _text, "CURVE secret key to connect with."),
    )
}


def read(name: str) -> Any:
    """Return the value of a setting; `ConfigurationError` tells what is wrong with it."""
    source = _source or _find_source()
    if source.complaint:
        raise ConfigurationError(source.complaint)
    setting = SETTINGS[name]
    given = source.config.get(name)
    if given is None and (given := source.config.get(setting.hyphenated)) is None:
        return _read_old_environment(setting) if setting.old_environment else setting.default
    return _parse(setting, given, setting.environment)


def _read_old_environment(setting: Setting) -> Any:
    given = os.environ.get(setting.old_environment)
    if given is None:
        return setting.default
    warnings.warn(
        f"{setting.old_environment} is deprecated, use {setting.environment}", PendingDeprecationWarning, stacklevel=4
    )
    return _parse(setting, given, setting.old_environment)


def _parse(setting: Setting, given: Any, origin: str) -> Any:
    try:
        return setting.parse(given)
    except (ValueError, TypeError, ArithmeticError):
        raise ConfigurationError(
            f"setting {setting.name} ({origin}) is {given!r}, but must be {setting.kind}"
        ) from None


def required(name: str) -> Any:
    """Return the value of a setting that has to be there; `MissingSetting` if it is not."""
    value = read(name)
    if value is None or value == "":
        setting = SETTINGS[name]
        raise MissingSetting(f"setting {name} ({setting.environment}) is missing, it must be {setting.kind}")
    return value


class Ports(NamedTuple):
    """The range of ports that free ones are taken from; `maximum` is not in it."""

    minimum: int
    maximum: int

    @classmethod
    def read(cls, minimum: Any = None, maximum: Any = None) -> Ports:
        """Take the arguments, or where they are missing the settings ``pub_min_port`` and ``pub_max_port``."""
        ports = cls(int(minimum or read("pub_min_port")), int(maximum or read("pub_max_port")))
        if not 0 < ports.minimum < ports.maximum <= 65536:
            raise ConfigurationError(
                f"no port lies in {ports.minimum} <= port < {ports.maximum} (settings pub_min_port, pub_max_port); "
                "give a range within 1 to 65536"
            )
        return ports


def keepalive() -> dict[str, int]:
    """Return the TCP keep-alive settings that are set."""
    names = ("tcp_keepalive", "tcp_keepalive_cnt", "tcp_keepalive_idle", "tcp_keepalive_intvl")
    return {name: value for name in names if (value := read(name)) is not None}


def doubtful_settings() -> Iterator[str]:
    """Give a line of text for each setting that is unknown, or that does nothing beside the others."""
    place = os.environ.get("POSTTROLL_CONFIG")
    if place and not os.access(place, os.R_OK):
        yield f"POSTTROLL_CONFIG has no effect: {place} is not there or cannot be read"
    source = _source or _find_source()
    given = {name.replace("-", "_").lower(): value for name, value in source.config.items() if value is not None}
    for name in sorted(given.keys() - SETTINGS.keys() - _DONFIG_OWN):
        yield f"unknown setting {name} (POSTTROLL_{name.upper()}) has no effect{_hint(name)}"
    for name in ("tcp_keepalive_cnt", "tcp_keepalive_idle", "tcp_keepalive_intvl"):
        if name in given and given.get("tcp_keepalive") not in (1, "1"):
            yield f"setting {name} has no effect unless tcp_keepalive is 1"
    for one, other in (
        ("server_secret_key_file", "clients_public_keys_directory"),
        ("client_secret_key_file", "server_public_key_file"),
    ):
        for present, absent in ((one, other), (other, one)):
            if present in given and absent not in given:
                yield f"setting {present} has no effect without {absent}"


def _hint(name: str) -> str:
    # Imported when there is a doubt: most processes have none.
    from difflib import get_close_matches

    near = get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
    return f"; the nearest known one is {near[0]}" if near else ""


_told: set[str] = set()


def tell_doubtful_settings() -> None:
    """Log each doubtful setting once in the life of the process."""
    for text in doubtful_settings():
        if text not in _told:
            _told.add(text)
            logger.warning("%s", text)


def tell_settings() -> None:
    """Log, for who debugs, where settings are read from and their values; as warnings, those that are wrong."""
    source = _source or _find_source()
    logger.debug("settings are read from %s", ", ".join(filter(os.path.exists, source.paths)) or "no file")
    for name in SETTINGS:
        try:
            logger.debug("setting %s is %r", name, read(name))
        except ConfigurationError as error:
            logger.warning("%s", error)
