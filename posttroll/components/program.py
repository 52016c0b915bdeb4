"""Being a program: from a component and a file to a daemon, and to its exit status."""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from posttroll.components.component import Component
from posttroll.components.configuration import Configuration, find
from posttroll.components.middleware import Middleware
from posttroll.components.runner import Runner
from posttroll.daemon import complaint, notify
from posttroll.errors import ConfigurationError, PosttrollError, Refused

__all__ = ["Target", "run"]

logger = logging.getLogger(__name__)

Target = type[Component] | ModuleType | str

_FORMAT = "[%(levelname)s: %(asctime)s : %(name)s] %(message)s"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(
    target: Target,
    configuration: str | os.PathLike[str] | Mapping[str, Any],
    middleware: Sequence[Middleware] = (),
    **overrides: Any,
) -> int:
    """Run a component until it is told to end; return the exit status: 0, or 1 after an error, which is printed.

    `target`: a class derived from `Component`, a module with handlers, or the place of one of them as
    ``module:Class``. `configuration`: a YAML file or its items; `overrides` go before these.

    SIGTERM, SIGINT and SIGHUP end it, those sent again at once. To restart, the program executes itself anew, with the
    same arguments and under the same process id, unless it is plain that it could not start.
    """
    try:
        read = Configuration.load(configuration, **overrides)
        _set_up_logging(read.logging)
        with _failure_logged(read):
            found = find(target) if isinstance(target, str) else target
            runner = Runner(found, read, middleware, partial(_check_restart, found, configuration, overrides))
            with _ended_by_signals(runner):
                order = runner.run(lambda: notify("READY=1"))
    except (PosttrollError, OSError) as error:
        print(f"{_program_name()}: {complaint(error)}", file=sys.stderr)
        return 1
    if order == "restart":
        _execute_anew()
    return 0


def _program_name() -> str:
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if specification is None:
        return os.path.basename(sys.argv[0])
    return f"python -m {specification.name.removesuffix('.__main__')}"


@contextmanager
def _ended_by_signals(runner: Runner) -> Iterator[None]:
    """Have signals end it, where that is possible and nobody else has a use for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What nohup has ignored stays so.
    numbers = [one for one in _SIGNALS if one != signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]
    former = {number: signal.signal(number, lambda *_: runner.stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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


def _check_restart(
    target: type[Component] | ModuleType,
    configuration: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> None:
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
