"""Log records as messages, and messages as log lines: the handler, the formatters, and the program that collects."""

from __future__ import annotations

import argparse
import copy
import logging
import signal
import sys
from collections.abc import Sequence

from posttroll.daemon import complaint, log_file, reopen
from posttroll.errors import PosttrollError
from posttroll.message import Message
from posttroll.publisher import NoisyPublisher
from posttroll.settings import config
from posttroll.subscriber import NSSubscriber, Subscriber
from posttroll.threads import Worker

__all__ = ["ColoredFormatter", "Logger", "PytrollFormatter", "PytrollHandler", "run"]

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
COLORS = {"WARNING": YELLOW, "INFO": GREEN, "DEBUG": BLUE, "CRITICAL": MAGENTA, "ERROR": RED}
COLOR_SEQ = "\033[1;%dm"
RESET_SEQ = "\033[0m"

LOGGER = logging.getLogger("pytroll")

_FOREGROUND = 30
_LEVELS = {f"log.{name}": getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
_FORMAT = "[%(asctime)s %(levelname)-19s] %(message)s"
_FIRST_LOOK_UP = 1.0
_FAREWELL = "Thanks for using pytroll/logger. See you soon on www.pytroll.org!"


class PytrollFormatter(logging.Formatter):
    """Turns a record into the text of a message of subject ``log/<LEVEL>/<logger>`` and type ``log.<level>``.

    The data is the record's message alone; the format is there for `logging.Formatter`'s sake and not used.
    """

    def __init__(self, fmt: str | None = None, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of the message."""
        level, name = ("_".join(text.split()) for text in (record.levelname, record.name))
        return Message(f"log/{level}/{name}", f"log.{level.lower()}", record.getMessage()).encode()


class PytrollHandler(logging.Handler):
    """Publishes records, by multicast announced under `name`; set up with a `PytrollFormatter`."""

    def __init__(self, name: str, port: int = 0) -> None:
        super().__init__()
        self.setFormatter(PytrollFormatter())
        self._publisher = NoisyPublisher(name, port, journal=False).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Publish one record; errors go where `logging` sends those of handlers."""
        try:
            self._publisher.send(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Stop publishing."""
        self._publisher.stop()
        super().close()


class ColoredFormatter(logging.Formatter):
    """Shows the names of the five usual levels in colour."""

    def __init__(self, msg: str, use_color: bool = True) -> None:
        super().__init__(msg)
        self._colors = COLORS if use_color else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the record stays as it is, as other handlers get it too."""
        color = self._colors.get(record.levelname)
        if color is not None:
            record = copy.copy(record)
            record.levelname = COLOR_SEQ % (_FOREGROUND + color) + record.levelname + RESET_SEQ
        return super().format(record)


class Logger:
    """Logs the messages of all publishers, those of log records at their level and others as debug ones.

    `nameserver_port` is that of the nameserver's address feed; None: the setting ``address_publish_port``.
    """

    def __init__(self, nameserver_address: str = "localhost", nameserver_port: int | None = None) -> None:
        self._nameserver = nameserver_address
        self._port = nameserver_port
        self._subscriber: Subscriber | None = None
        self._worker: Worker | None = None

    def start(self) -> Logger:
        """Connect, and log from a thread of its own; a nameserver that is away is looked for in the background."""
        self.stop()
        self._subscriber = subscriber = self._subscribe()
        self._worker = Worker("posttroll-logger", lambda _: self.log(), wake=subscriber.stop).start()
        return self

    def _subscribe(self) -> Subscriber:
        settings = {} if self._port is None else {"address_publish_port": self._port}
        with config.set(settings):
            return NSSubscriber(addr_listener=True, timeout=_FIRST_LOOK_UP, nameserver=self._nameserver).start()

    def log(self) -> None:
        """Log what comes until `stop`; what `start` runs."""
        if self._subscriber is not None:
            for message in filter(None, self._subscriber.recv()):
                _log(message)

    def stop(self) -> None:
        """End logging; harmless before the start and when stopped."""
        if self._worker is not None:
            self._worker.stop()


def _log(message: Message) -> None:
    level = _LEVELS.get(message.type.lower())
    data = "[binary]" if level is None and message.binary else message.data
    parts = [message.subject, message.sender, *([message.type] if level is None else []), data, message.time]
    LOGGER.log(logging.DEBUG if level is None else level, "%s", " ".join(map(str, parts)))


def run(arguments: Sequence[str] | None = None) -> int:
    """Be the program ``pytroll-logger``; return its exit status."""
    options = _parse_arguments(arguments)
    # Waited for below: blocked, they cannot interrupt anything half done, in this thread or another.
    orders = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if options.rotated else set())
    signal.pthread_sigmask(signal.SIG_BLOCK, orders)
    try:
        handler = _set_up_logging(options.rotated, options.verbose)
        collector = Logger(options.server, options.port).start()
    except (PosttrollError, OSError) as error:
        print(f"pytroll-logger: {complaint(error)}", file=sys.stderr)
        return 1
    while signal.sigwait(orders) == signal.SIGHUP:
        reopen(handler)
    collector.stop()
    print(_FAREWELL)
    return 0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pytroll-logger", description="Log the messages of all publishers.")
    parser.add_argument(
        "-r", "--rotated", metavar="FILE", help="file to log to, rotated at midnight, opened anew on SIGHUP"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log all messages, not just those of log records")
    parser.add_argument("-s", "--server", default="localhost", help="host of the nameserver (default: %(default)s)")
    parser.add_argument("-p", "--port", type=int, help="port of its address feed (default: 16543, or as configured)")
    return parser.parse_args(arguments)


def _set_up_logging(path: str | None, verbose: bool) -> logging.Handler:
    handler = log_file(path) if path else logging.StreamHandler()
    handler.setFormatter(ColoredFormatter(_FORMAT, use_color=not path and sys.stderr.isatty()))
    logging.getLogger().addHandler(handler)
    LOGGER.setLevel(logging.DEBUG if verbose else logging.INFO)
    return handler


if __name__ == "__main__":
    sys.exit(run())
