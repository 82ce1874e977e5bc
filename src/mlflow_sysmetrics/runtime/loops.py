"""Threads whose loop survives whatever its step raises, and can be started again if it died all the same.

Everything hangs on a few loops: the one that samples, those that deliver, the one that writes to disk. A
MemoryError, a RecursionError, or an exception that another thread sets in ours (as libraries for timeouts do)
must not end them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.log import Log, LogQueue, use_in_this_thread
from mlflow_sysmetrics.runtime.backoff import doubled
from mlflow_sysmetrics.runtime.native import Event, Lock, RLock
from mlflow_sysmetrics.runtime.threads import Thread, greenlets_may_wait, start_thread

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# A step that fails every other time has not recovered in between.
_SUCCESSES_THAT_COUNT = 10

_logger = Log()


def _start_log_thread(run: Callable[[], None], name: str) -> Thread:
    def body() -> None:
        with greenlets_may_wait():  # for the locks of log handlers
            run()

    return start_thread(body, name)


#: takes what our threads log
log_queue = LogQueue(_start_log_thread, lock=Lock, event=Event)

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=log_queue.forget_after_fork)


class Loop:
    """A thread that repeats a step.

    Args:
        step: what to repeat, until it returns False.
        name: name of the thread.
        pause: waits for some seconds after a failure.

    Attributes:
        last_error: what the last step raised; None if it succeeded.
    """

    def __init__(
        self, step: Callable[[], bool], name: str, *, pause: Callable[[float], object] | None = None
    ) -> None:
        self.last_error: str | None = None
        self._step = step
        self._name = name
        self._pause = Event().wait if pause is None else pause
        self._failures = self._successes = 0
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._is_wanted = False
        self._claim = Lock()  # of the thread: a second one, of a repeated start, ends at once
        self._is_running = False
        self._thread: Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._is_running or (self._thread is not None and self._thread.is_alive())

    @property
    def has_died(self) -> bool:
        """Whether the thread has ended although its step never asked for that."""
        return self._is_wanted and not self.is_alive

    @property
    def fault(self) -> str | None:
        """What is wrong with the thread; None if nothing is."""
        if self.has_died:
            return f"thread {self._name} has ended"
        return self.last_error

    def start(self) -> None:
        """Starts the thread, unless it runs; a start that a signal handler interrupts can be repeated.

        Raises:
            ThreadUnavailable: the interpreter is shutting down, or the system's thread limit is reached.
        """
        with self._lock:
            self._is_wanted = True
            self._thread = start_thread(self._claim_and_run, self._name)

    def revive(self) -> None:
        """Starts the thread again if it has died; tries again at the next call if it cannot."""
        if not self.has_died:
            return
        with self._lock, contextlib.suppress(ThreadUnavailable):
            if self.has_died:
                self.start()

    def _claim_and_run(self) -> None:
        if self._claim.acquire(blocking=False):
            self._is_running = True
            try:
                self._run()
            finally:
                self._is_running = False
                self._claim.release()

    def _run(self) -> None:
        while True:
            # An exception may be set in this thread at any moment, also while the last one is dealt with.
            with contextlib.suppress(BaseException):
                try:
                    self._repeat()
                except BaseException as error:  # the last guard: everything hangs on this thread
                    self._survive(error)
                else:
                    return

    def _repeat(self) -> None:
        use_in_this_thread(log_queue)
        while self._step():
            if self._failures:
                self._succeed()
        self._is_wanted = False

    def _succeed(self) -> None:
        self.last_error = None
        self._successes += 1
        if self._successes >= _SUCCESSES_THAT_COUNT:
            self._failures = 0
            _logger.info("mlflow-sysmetrics: Thread %s works again.", self._name)

    def _survive(self, error: BaseException) -> None:
        self.last_error = f"thread {self._name}: {type(error).__name__}: {error}"
        failures, self._failures, self._successes = self._failures, self._failures + 1, 0
        if not failures:
            _logger.warning("mlflow-sysmetrics: A step failed and is tried again: %s.", self.last_error)
        self._pause(
            doubled(failures, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
        )
