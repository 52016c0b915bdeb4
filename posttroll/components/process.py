"""What it takes to be a program, however the component is run."""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from posttroll.components.base import Target
from posttroll.components.configuration import Configuration, find
from posttroll.components.orders import Order
from posttroll.daemon import complaint
from posttroll.errors import ConfigurationError, PosttrollError, Refused

__all__ = ["Source", "be_program", "ending_signals"]

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A YAML file, or what it would hold."""

_FORMAT = "[%(levelname)s: %(asctime)s : %(name)s] %(message)s"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def be_program(
    live: Callable[[Target, Configuration, Callable[[], None]], Order],
    target: Target | str,
    configuration: Source,
    overrides: Mapping[str, Any],
) -> int:
    """Have `live` run a component, and do what that returns; return the exit status.

    It is given the class or module, the configuration, and what raises `Refused` if a restart is sure to fail.
    """
    try:
        read = Configuration.load(configuration, **overrides)
        _set_up_logging(read.logging)
        with _failure_logged(read):
            found = find(target) if isinstance(target, str) else target
            order = live(found, read, partial(_check_restart, found, configuration, overrides))
    except (PosttrollError, OSError) as error:
        print(f"{_program_name()}: {complaint(error)}", file=sys.stderr)
        return 1
    if order == "restart":
        _execute_anew()
    return 0


@contextmanager
def ending_signals() -> Iterator[Sequence[signal.Signals]]:
    """Give the signals that are to end it, and leave them to others again afterwards; none outside the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    # What nohup has ignored stays so.
    former = {
        number: handler
        for number in _SIGNALS
        if is_main and ((handler := signal.getsignal(number)) is not signal.SIG_IGN or number != signal.SIGHUP)
    }
    try:
        yield tuple(former)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _program_name() -> str:
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if specification is None:
        return os.path.basename(sys.argv[0])
    return f"python -m {specification.name.removesuffix('.__main__')}"


def _set_up_logging(wishes: Mapping[str, Any]) -> None:
    if not wishes:
        logging.basicConfig(level=logging.INFO, format=_FORMAT)  # does nothing where logging is set up
        return
    try:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **wishes})
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"logging cannot be set up like that: {error}: {error.__cause__}") from error


@contextmanager
def _failure_logged(configuration: Configuration) -> Iterator[None]:
    """Have a log of its own tell, too, what ends the program."""
    try:
        yield
    except Exception as error:
        if configuration.logging:
            is_foreseen = isinstance(error, PosttrollError | OSError)
            logger.critical("%s fails: %s", configuration.name, error, exc_info=None if is_foreseen else error)
        raise


def _check_restart(target: Target, configuration: Source, overrides: Mapping[str, Any]) -> None:
    """Raise `Refused` if what a restart would read cannot be read."""
    module = target if isinstance(target, ModuleType) else sys.modules[target.__module__]
    try:
        Configuration.load(configuration, **overrides)
        if (place := getattr(module, "__file__", None)) is not None:
            compile(Path(place).read_bytes(), place, "exec")
    except (PosttrollError, OSError, SyntaxError, ValueError) as error:
        raise Refused(f"it could not start again: {complaint(error)}") from error


def _execute_anew() -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
