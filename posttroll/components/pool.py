"""The threads that handlers run in."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from posttroll.threads import Worker

__all__ = ["Pool"]

logger = logging.getLogger(__name__)

Job = Callable[[Worker], object]


class Pool:
    """Some threads that do jobs in the order in which they are given; a job gets the `Worker` that does it.

    `on_idle` is called once nothing is being done any more after `close`, in the thread that is the last to have a job.
    """

    def __init__(self, name: str, size: int, on_idle: Callable[[], object] = lambda: None) -> None:
        self._size = size
        self._on_idle = on_idle
        self._jobs: deque[Job] = deque()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()
        self._workers = [Worker(f"posttroll-{name}-{number}", self._work) for number in range(1, size + 1)]

    @property
    def in_hand(self) -> int:
        """How many jobs are being done or wait for it."""
        with self._changed:
            return self._running + len(self._jobs)

    def start(self) -> Pool:
        """Start the threads."""
        for worker in self._workers:
            worker.start()
        return self

    def submit(self, job: Job) -> None:
        """Have a job done, unless it is closed; never waits."""
        with self._changed:
            if not self._closed:
                self._jobs.append(job)
                self._changed.notify_all()

    def wait_for_room(self) -> bool:
        """Wait until a job would be begun at once; return False if it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._running + len(self._jobs) < self._size)
            return not self._closed

    def close(self) -> None:
        """Forget the jobs that were not begun, and let the others come to their end."""
        with self._changed:
            was_closed, self._closed = self._closed, True
            self._jobs.clear()
            is_idle = not self._running and not was_closed
            self._changed.notify_all()
        for worker in self._workers:
            worker.stop(timeout=0)
        if is_idle:
            self._on_idle()

    def _work(self, worker: Worker) -> None:
        while (job := self._next()) is not None:
            try:
                job(worker)
            except BaseException:
                logger.exception("a job failed")
            finally:
                self._finish()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs)
            if not self._jobs:
                return None
            self._running += 1
            return self._jobs.popleft()

    def _finish(self) -> None:
        with self._changed:
            self._running -= 1
            is_last = self._closed and not self._running
            self._changed.notify_all()
        if is_last:
            self._on_idle()
