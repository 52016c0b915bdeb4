"""What goes on around handlers: logging, counting, retries, and whatever else is put there."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from posttroll.errors import Refused
from posttroll.message import Message

__all__ = [
    "Context",
    "CountMiddleware",
    "Decision",
    "LogMiddleware",
    "Middleware",
    "Outcome",
    "RetryMiddleware",
    "Stack",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """One attempt to handle something. `message` is None for a call; attempts are numbered from 1."""

    handler: str
    message: Message | None = None
    attempt: int = 1
    begin: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.begin


class Decision(NamedTuple):
    """What becomes of a message: accepted, released, rejected, or to be tried again here, after `delay` seconds."""

    state: Literal["accepted", "released", "rejected", "retried"]
    reason: str = ""
    delay: float = 0.0


class Middleware:
    """Is called around each attempt of each handler, from several threads; override what is wanted.

    Around a handler that is a coroutine it is called in the event loop, and is not to wait there.
    """

    def before(self, context: Context) -> None:
        """Be told that a handler is about to be called; what is raised here counts as raised by the handler."""

    def after(self, context: Context, result: Any) -> None:
        """Be told that a handler has returned, and what it returned is published."""

    def failure(self, context: Context, error: BaseException) -> Decision | None:
        """Be told that a handler has raised; decide what becomes of the message, or leave it to the others."""
        return None


class LogMiddleware(Middleware):
    """Logs what handlers do: beginnings as debug messages, ends as infos, failures as errors with their traceback.

    What a handler refuses is a warning, with its words alone.
    """

    def before(self, context: Context) -> None:
        """Log a beginning."""
        logger.debug("%s begins%s", context.handler, _subject(context))

    def after(self, context: Context, result: Any) -> None:
        """Log an end."""
        logger.info("%s done in %.3f s%s", context.handler, context.seconds, _subject(context))

    def failure(self, context: Context, error: BaseException) -> None:
        """Log a failure."""
        if isinstance(error, Refused):
            logger.warning("%s refused%s: %s", context.handler, _subject(context), error)
            return
        text = "%s failed in attempt %d after %.3f s%s"
        details = (context.handler, context.attempt, context.seconds, _subject(context))
        logger.error(text, *details, exc_info=error)


class CountMiddleware(Middleware):
    """Counts, by the handlers' names, what was done and what failed, and the seconds that it took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def after(self, context: Context, result: Any) -> None:
        """Count what was done."""
        self._count(self.done, context)

    def failure(self, context: Context, error: BaseException) -> None:
        """Count what failed."""
        self._count(self.failed, context)

    def _count(self, counter: Counter[str], context: Context) -> None:
        with self._lock:
            counter[context.handler] += 1
            self.seconds[context.handler] = self.seconds.get(context.handler, 0.0) + context.seconds


class RetryMiddleware(Middleware):
    """Has what failed tried again, at most `max_retries` times, after `delay` seconds, then `factor` times as many.

    What a handler refused is not tried again. The message keeps its place meanwhile, and with it one of the workers.
    """

    def __init__(self, max_retries: int = 3, delay: float = 1.0, factor: float = 2.0, max_delay: float = 60.0) -> None:
        self._max_retries = max_retries
        self._delay = delay
        self._factor = factor
        self._max_delay = max_delay

    def failure(self, context: Context, error: BaseException) -> Decision | None:
        """Decide whether to try again."""
        if isinstance(error, Refused) or context.attempt > self._max_retries:
            return None
        return Decision("retried", delay=min(self._delay * self._factor ** (context.attempt - 1), self._max_delay))


class Outcome(NamedTuple):
    """What a handler returned or raised in the end, and what becomes of the message."""

    decision: Decision
    result: Any = None
    error: BaseException | None = None

    def given_up(self) -> Outcome:
        """Return it without the other attempt that was decided."""
        return self._replace(decision=Decision("released"))


class Stack:
    """Middleware in the order given: `before` is called from the first to the last, the others the other way round."""

    def __init__(self, layers: Sequence[Middleware]) -> None:
        self._layers = layers

    def run(
        self,
        action: Callable[[], Any],
        handler: str,
        message: Message | None,
        pause: Callable[[float], bool] = lambda delay: True,
    ) -> Outcome:
        """Do something, again if that is decided; what is raised is part of the outcome.

        `pause` waits for some seconds and returns whether to give up.
        """
        for attempt in itertools.count(1):
            context = Context(handler, message, attempt)
            try:
                self.begin(context)
                outcome = self.done(context, action())
            except BaseException as error:  # whatever a handler raises, its thread has more to do
                outcome = self.failed(context, error)
            if outcome.decision.state != "retried":
                break
            if pause(outcome.decision.delay):
                return outcome.given_up()
        return outcome

    def begin(self, context: Context) -> None:
        """Tell that an attempt begins; what is raised here counts as raised by the handler."""
        for layer in self._layers:
            layer.before(context)

    def done(self, context: Context, result: Any) -> Outcome:
        """Tell that an attempt has come to its end; return what becomes of the message."""
        for layer in reversed(self._layers):
            _call(layer.after, context, result)
        return Outcome(Decision("accepted"), result)

    def failed(self, context: Context, error: BaseException) -> Outcome:
        """Tell that an attempt has failed; return what the innermost layer decides that decides anything."""
        made = [_call(layer.failure, context, error) for layer in reversed(self._layers)]
        usual = Decision("rejected", str(error)) if isinstance(error, Refused) else Decision("released")
        return Outcome(next((decision for decision in made if decision is not None), usual), error=error)


def _call(method: Callable[..., Any], context: Context, argument: Any) -> Any:
    """Call a layer, whose own mistakes do not change what becomes of a message."""
    try:
        return method(context, argument)
    except Exception:
        logger.exception("%s failed on %s", method.__qualname__, context.handler)
        return None


def _subject(context: Context) -> str:
    message = context.message
    if message is None:
        return ""
    count = 1 if message.delivery is None else message.delivery.count
    return f" with {message.subject}" + (f", delivery {count}" if count > 1 else "")
