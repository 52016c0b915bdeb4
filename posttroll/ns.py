"""Being a nameserver; the functions to ask one are here too, under the names they always had."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Protocol

from posttroll.address_receiver import AddressReceiver, ten_minutes
from posttroll.backends.base import Peer, Question, ReplyChannel
from posttroll.backends.registry import configured_backend
from posttroll.daemon import (
    PidFile,
    complaint,
    log_file,
    notify,
    reopen,
    silence_stderr,
    start_detached,
    stop_holder,
)
from posttroll.errors import ConfigurationError, MessageError, PosttrollError, RemoteProtocolError
from posttroll.lookup import get_pub_address, get_pub_addresses
from posttroll.message import Message
from posttroll.protocol.addresses import nameserver_uri
from posttroll.protocol.codec import OLDEST_VERSION
from posttroll.protocol.discovery import read_request
from posttroll.protocol.drops import Drops
from posttroll.settings import SETTINGS, read, tell_settings

__all__ = [
    "DEFAULT_SECURE_ZMQ_NAMESERVER_PORT",
    "DEFAULT_UNSECURE_ZMQ_NAMESERVER_PORT",
    "NameServer",
    "get_active_address",
    "get_configured_nameserver_port",
    "get_configured_secure_zmq_nameserver_port",
    "get_configured_unsecure_zmq_nameserver_port",
    "get_pub_address",
    "get_pub_addresses",
    "main",
    "run",
    "setup_logging",
]

logger = logging.getLogger("posttroll.ns")  # also when run by `python -m`

DEFAULT_UNSECURE_ZMQ_NAMESERVER_PORT: int = SETTINGS["nameserver_port"].default
DEFAULT_SECURE_ZMQ_NAMESERVER_PORT: int = SETTINGS["secure_zmq_nameserver_port"].default

_SUBJECT = "/oper/ns"
_FAREWELL = "Thanks for using pytroll/nameserver. See you soon on www.pytroll.org!"


def get_configured_unsecure_zmq_nameserver_port() -> int:
    """Return the port for look-ups in plain text."""
    return int(read("nameserver_port"))


def get_configured_secure_zmq_nameserver_port() -> int:
    """Return the port for look-ups with CURVE."""
    return int(read("secure_zmq_nameserver_port"))


def get_configured_nameserver_port() -> int:
    """Return the port for look-ups with the configured backend."""
    return configured_backend().nameserver_ports()[0][1]


class _LookUp(Protocol):
    def get(self, name: str) -> Any: ...


def get_active_address(name: str | None, arec: _LookUp, message_version: str = OLDEST_VERSION) -> Message:
    """Return the reply to a request for the service `name`; `arec` is anything with a ``get(name)``."""
    entries = arec.get(name) if isinstance(name, str) else None
    return Message(_SUBJECT, "info", entries or "", version=message_version)


def _reply(name: str | None, receiver: _LookUp, version: str) -> str:
    """Return the text of `get_active_address`, put together from what the receiver has written already."""
    if name is None or not isinstance(receiver, AddressReceiver):
        return get_active_address(name, receiver, version).encode()
    texts = receiver.get_texts(name, version)
    head = Message(_SUBJECT, "info", version=version).encode()
    return f"{head} application/json [{', '.join(texts)}]" if texts else head


class NameServer:
    """Answers look-ups with what its address receiver knows.

    `max_age`: how long publishers are known after their last announcement. Without multicast, publishers have to name
    this nameserver. `restrict_to_localhost`: only for publishers and clients of this host.
    """

    def __init__(
        self, max_age: timedelta | None = None, multicast_enabled: bool = True, restrict_to_localhost: bool = False
    ) -> None:
        self._backend = configured_backend()
        self._max_age = ten_minutes if max_age is None else max_age
        self._multicast_enabled = multicast_enabled
        self._restrict_to_localhost = restrict_to_localhost
        self._drops = Drops()
        self._stopping = threading.Event()
        self._channel: ReplyChannel | None = None

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many requests could not be used, by reason."""
        return self._drops.counts

    def run(
        self,
        address_receiver: Any = None,
        nameserver_address: str | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Answer until `stop` or Ctrl-C; `BindFailed`. `on_ready` is called once everything is bound."""
        try:
            with ExitStack() as resources:
                resources.callback(_stop, address_receiver)
                if not self._stopping.is_set():
                    self._serve(resources, address_receiver, nameserver_address, on_ready)
        except KeyboardInterrupt:
            logger.debug("interrupted")
        finally:
            self._channel = None
            self._stopping.clear()

    def stop(self) -> None:
        """Make `run` return, or not begin; from anywhere."""
        self._stopping.set()
        channel = self._channel
        if channel is not None:
            channel.close()

    def _serve(
        self, resources: ExitStack, receiver: Any, address: str | None, on_ready: Callable[[], None] | None
    ) -> None:
        self._channel = channel = self._backend.open_reply(self._bindings(address))
        resources.callback(channel.close)
        if receiver is None:
            receiver = AddressReceiver(
                self._max_age,
                multicast_enabled=self._multicast_enabled,
                restrict_to_localhost=self._restrict_to_localhost,
            ).start()
            resources.callback(receiver.stop)
        logger.info("nameserver answers at %s", ", ".join(channel.addresses))
        resources.callback(logger.info, "nameserver stopped")
        if on_ready is not None:
            on_ready()
        while not self._stopping.is_set() and not channel.closed:
            question = channel.receive(None)
            if question is not None:
                channel.reply(question, self._answer(question, receiver).encode())

    def _answer(self, question: Question, receiver: _LookUp) -> str:
        try:
            request = read_request(question.frame)
        except (MessageError, RemoteProtocolError) as error:
            if self._drops.add("unusable request", time.monotonic()):
                count = self._drops.counts["unusable request"]
                source = question.source or "unknown host"
                logger.warning("unusable request from %s: %s (%d so far)", source, error, count)
            return _reply(None, receiver, OLDEST_VERSION)
        return _reply(request.service, receiver, request.version)

    def _bindings(self, address: str | None) -> list[Peer]:
        """Return what to bind: a port for each backend served, but a whole URI for the own backend only."""
        address = address or ("127.0.0.1" if self._restrict_to_localhost else "*")
        ports = self._backend.nameserver_ports()
        bindings = {nameserver_uri(address, port): name for name, port in reversed(ports)}
        return [Peer(uri, name) for uri, name in reversed(bindings.items())]


def _stop(address_receiver: Any) -> None:
    stop = getattr(address_receiver, "stop", None)
    if stop is not None:
        stop()


def setup_logging(opts: argparse.Namespace) -> logging.Logger:
    """Log to standard error, or to the file ``opts.log``; also debug messages if ``opts.verbose``."""
    handler: logging.Handler = logging.StreamHandler()
    if opts.log:
        handler = log_file(opts.log)
    elif getattr(opts, "detached", False):
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("[%(levelname)s: %(asctime)s : %(name)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if opts.verbose else logging.INFO)
    root.addHandler(handler)
    return logging.getLogger("nameserver")


def run(ns: NameServer, logger: logging.Logger, on_ready: Callable[[], None] | None = None) -> None:
    """Run a nameserver until it is told to end, and say goodbye."""
    ns.run(on_ready=on_ready)
    logger.debug("ended")
    print(_FAREWELL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the program ``nameserver``; return its exit status."""
    options = _parse_arguments(arguments)
    try:
        return _ACTIONS[options.daemon](options)
    except KeyboardInterrupt:
        print(_FAREWELL)
        return 0
    except (PosttrollError, OSError) as error:
        # What starts it in the background repeats the line with the program's name.
        print("" if options.detached else "nameserver: ", complaint(error), sep="", file=sys.stderr)
        return 1


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nameserver", description="Tell who publishes what, and where.")
    parser.add_argument(
        "-d", "--daemon", choices=["start", "stop", "status", "restart"], help="run in the background, or end that"
    )
    parser.add_argument(
        "--pid-file", help="file that the background process holds (default: in the temporary directory)"
    )
    parser.add_argument(
        "-l",
        "--log",
        help="file to log to, rotated at midnight, opened anew on SIGHUP (default: standard error; with -d: nowhere)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log debug messages and all settings too")
    parser.add_argument("--no-multicast", action="store_true", help="let publishers register instead of listening")
    parser.add_argument("-L", "--local-only", action="store_true", help="serve this host only")
    parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _run_here(options: argparse.Namespace) -> int:
    with ExitStack() as resources:
        if options.detached or options.pid_file:
            resources.enter_context(_pid_file(options).held())
        log = setup_logging(options)
        if options.log:
            signal.signal(signal.SIGHUP, lambda *_: reopen(logging.getLogger().handlers[-1]))
        _check_reach()
        _allow_many_connections()
        nameserver = NameServer(multicast_enabled=not options.no_multicast, restrict_to_localhost=options.local_only)
        # Handlers that raise nothing, as an exception may get lost where the interrupted code handles another one.
        signal.signal(signal.SIGTERM, lambda *_: nameserver.stop())
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda *_: nameserver.stop())
        resources.callback(notify, "STOPPING=1")
        run(nameserver, log, lambda: _tell_ready(options))
    return 0


def _check_reach() -> None:
    backend = configured_backend()
    if backend.within_process:
        raise ConfigurationError(f"nobody could ask it: backend {backend.name!r} reaches no other process")


def _allow_many_connections() -> None:
    """Take all the descriptors that may be had: each publisher that registers and each follower needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell_ready(options: argparse.Namespace) -> None:
    notify("READY=1")
    tell_settings()
    if options.detached:
        silence_stderr()


def _start(options: argparse.Namespace) -> int:
    command = [sys.executable, "-P", "-m", "posttroll.ns", "--detached", "--pid-file", str(_pid_file(options).path)]
    command += ["--log", os.path.abspath(options.log)] if options.log else []
    flags = {"--verbose": options.verbose, "--no-multicast": options.no_multicast, "--local-only": options.local_only}
    start_detached([*command, *(flag for flag, is_given in flags.items() if is_given)])
    return 0


def _stop_daemon(options: argparse.Namespace) -> int:
    if stop_holder(_pid_file(options)):
        return 0
    print("not running", file=sys.stderr)
    return 1


def _tell_status(options: argparse.Namespace) -> int:
    pid = _pid_file(options).holder()
    print("not running" if pid is None else f"running (pid {pid})")
    return 1 if pid is None else 0


def _restart(options: argparse.Namespace) -> int:
    stop_holder(_pid_file(options))
    return _start(options)


def _pid_file(options: argparse.Namespace) -> PidFile:
    return PidFile(options.pid_file or os.path.join(tempfile.gettempdir(), "nameserver.pid"))


_ACTIONS: dict[str | None, Callable[[argparse.Namespace], int]] = {
    None: _run_here,
    "start": _start,
    "stop": _stop_daemon,
    "status": _tell_status,
    "restart": _restart,
}

if __name__ == "__main__":
    sys.exit(main())
