"""Readings that take long, made beside the thread that asks for them.

A tool of the operating system takes tens of milliseconds where a tick may take a quarter of one. So a daemon
thread makes the reading, and whoever asks gets the last one with its age, and never waits.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlflow_sysmetrics.errors import Unavailable

Value = TypeVar("Value")

# A tool costs at most this share of the time, on a slow machine by being run less often.
_MOST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value]):
    """What was read, and when.

    Attributes:
        value: what was read.
        ended_at: seconds on the clock of `Beside` when the reading had ended; tells two readings apart.
        age: seconds since then.
    """

    value: Value
    ended_at: float
    age: float


class Beside(Generic[Value]):
    """Makes a reading in a thread of its own, while somebody asks for it.

    The thread is started by the first question and ends when nobody has asked for a while. It reads only
    after a question, and rests after each reading. A forked child knows nothing of its parent's readings and
    starts a thread of its own. One thread asks: the sampler's.

    Args:
        name: what the thread is called, after "sysmetrics-".
        read: makes the reading; raises `Unavailable`.
        rest_seconds: shortest time from the end of a reading to the next; it becomes longer where readings
            would otherwise take more than 1 % of the time.
        idle_seconds: how long the thread waits for a question before it ends.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Value],
        *,
        rest_seconds: float,
        idle_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = f"sysmetrics-{name}"
        self._read = read
        self._rest_seconds = rest_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        # No lock, which a fork could leave closed for ever: each attribute is replaced as a whole, by the
        # asking thread or the reading one. `_due_at` is infinite from a question until the reading has ended.
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._asked = threading.Event()
        self._due_at = -math.inf
        self._last: tuple[Value, float] | None = None
        self._failure: BaseException | None = None

    def latest(self) -> Reading[Value] | None:
        """Returns the last reading; None where there is none yet.

        Raises:
            Unavailable: the reading failed, said once; the next question begins anew.
            BaseException: whatever else ended the reading, likewise.
        """
        if self._pid != os.getpid():
            self._begin()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        now = self._clock()
        if now >= self._due_at:
            self._due_at = math.inf
            self._asked.set()
        if math.isinf(self._due_at) and (self._thread is None or not self._thread.is_alive()):
            self._start()
        if self._last is None:
            return None
        value, ended_at = self._last
        return Reading(value, ended_at, now - ended_at)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a limit of the system, or the interpreter shuts down
            raise Unavailable("no thread could be started to read it") from error
        self._thread = thread

    def _run(self) -> None:
        # Should a question come while this thread gives up waiting, the next question finds it dead and
        # starts another, which finds the event set.
        while self._asked.wait(self._idle_seconds):
            self._asked.clear()
            began = self._clock()
            try:
                value = self._read()
            except BaseException as error:  # noqa: BLE001 - `latest` raises it, under the sampler's guard
                self._last, self._due_at, self._failure = None, -math.inf, error
                return
            ended = self._clock()
            self._last = value, ended
            self._due_at = ended + max(self._rest_seconds, (ended - began) / _MOST_SHARE)
