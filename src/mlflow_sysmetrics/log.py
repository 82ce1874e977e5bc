"""The one door through which we log: nothing that a log handler of the program does reaches our code.

A handler may raise (a strict test suite, a broken log sink) or block (a pipe that nobody reads, a file on a
dead network filesystem). In a thread of the program, a handler that raises is ignored. In our own threads,
which everything hangs on, lines are handed to a thread that does nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

_NAME = "mlflow_sysmetrics"
# Of lines that wait for a handler that blocks, the oldest are dropped beyond this number.
_MOST_WAITING = 1000

_in_thread = threading.local()


class Log:
    """A logger that neither raises nor, in our own threads, blocks. Its methods are those of `logging`.

    Args:
        name: the name of the logger.
    """

    def __init__(self, name: str = _NAME) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *arguments: object, **options: Any) -> None:
        """Logs at level DEBUG."""
        self.log(logging.DEBUG, message, *arguments, **options)

    def info(self, message: str, *arguments: object, **options: Any) -> None:
        """Logs at level INFO."""
        self.log(logging.INFO, message, *arguments, **options)

    def warning(self, message: str, *arguments: object, **options: Any) -> None:
        """Logs at level WARNING."""
        self.log(logging.WARNING, message, *arguments, **options)

    def log(self, level: int, message: str, *arguments: object, **options: Any) -> None:
        """Logs at a level."""
        queue: LogQueue | None = getattr(_in_thread, "queue", None)
        try:
            if not self._logger.isEnabledFor(level):
                return
            if options.get("exc_info") is True:
                options["exc_info"] = sys.exc_info()  # of this thread
            if queue is not None:
                queue.put(lambda: self._logger.log(level, message, *arguments, **options))
            else:
                self._logger.log(level, message, *arguments, **options)
        except Exception as error:
            # A handler or a filter of the program raised. What its signal handlers raise is for the program.
            if queue is None:
                from mlflow_sysmetrics.interruptions import reraise_interruption  # rarely needed

                reraise_interruption(error)


class Flag(Protocol):
    """An event, as of `threading`."""

    def set(self) -> None:
        """Sets it."""

    def clear(self) -> None:
        """Resets it."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set; returns whether it is."""


def use_in_this_thread(queue: LogQueue) -> None:
    """Hands what this thread logs from now on to a queue."""
    _in_thread.queue = queue


class LogQueue:
    """Lines that a thread of their own logs, started when there are some and ended when there are none.

    Args:
        start_thread: starts a thread with a function and a name; raises ThreadUnavailable if it cannot.
        lock: makes a lock, and `event` an event, that this thread shares with those of the program.
    """

    def __init__(
        self,
        start_thread: Callable[[Callable[[], None], str], object],
        *,
        lock: Callable[[], AbstractContextManager[object]] = threading.Lock,
        event: Callable[[], Flag] = threading.Event,
    ) -> None:
        self._start_thread = start_thread
        self._new_lock = lock
        self._new_event = event
        self._empty_after_fork()

    def _empty_after_fork(self) -> None:
        self._lock = self._new_lock()
        self._lines: deque[Callable[[], None]] = deque(maxlen=_MOST_WAITING)
        self._is_running = False
        self._is_empty = self._new_event()
        self._is_empty.set()

    def put(self, line: Callable[[], None]) -> None:
        """Queues a line. Never blocks."""
        with self._lock:
            self._lines.append(line)
            self._is_empty.clear()
            if self._is_running:
                return
            self._is_running = True
        try:
            self._start_thread(self._run, "sysmetrics-log")
        except BaseException:
            self._is_running = False  # the next line tries again
            raise

    def wait(self, seconds: float) -> None:
        """Waits until all lines are logged, at most some seconds."""
        self._is_empty.wait(seconds)

    def forget_after_fork(self) -> None:
        """Empties the queue in a forked child, which has no thread and cannot trust the lock."""
        self._empty_after_fork()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._lines:
                    self._is_running = False
                    self._is_empty.set()
                    return
                line = self._lines.popleft()
            with contextlib.suppress(BaseException):  # a handler of the program
                line()
