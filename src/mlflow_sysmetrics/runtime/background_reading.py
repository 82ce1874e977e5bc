"""Readings that take long or may never end, made beside the thread that asks for them.

A tool of the operating system takes tens of milliseconds where a tick may take a quarter of one, and a
network filesystem whose server is gone does not answer at all. So a thread makes the reading, and whoever
asks gets the last one with its age, and waits no longer than he wants to.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.runtime.threads import start_thread

Value = TypeVar("Value")

# A tool costs at most this share of the time, on a slow machine by being run less often.
_MOST_SHARE = 0.01

# Readings under way, by name. One that never ends keeps its thread for ever: there is to be one such thread
# in a process, not one for each object that asks for the same thing after it.
_under_way: dict[str, threading.Thread] = {}


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value]):
    """What was read, and when.

    Attributes:
        value: what was read.
        ended_at: seconds on the clock of `BackgroundReading` when the reading had ended; tells two readings apart.
        age: seconds since then.
    """

    value: Value
    ended_at: float
    age: float


class BackgroundReading(Generic[Value]):
    """Makes a reading in a thread of its own when somebody asks for it and the last one is old enough.

    A thread lives as long as its reading. In a forked child, where the thread of its parent's is gone, the
    next question starts another. One thread asks: the sampler's.

    Args:
        name: what the thread is called, after "sysmetrics-"; the same name is for the same reading.
        read: makes the reading.
        rest_seconds: shortest time from the end of a reading to the next; it becomes longer where readings
            would otherwise take more than 1 % of the time. With 0, every question has a reading made.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Value],
        *,
        rest_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = f"sysmetrics-{name}"
        self._read = read
        self._rest_seconds = rest_seconds
        self._clock = clock
        # No lock, which a fork could leave closed for ever: each attribute is replaced as a whole, by the
        # asking thread before the reading one starts, and by the reading one after that.
        self._thread: threading.Thread | None = None
        self._asked_at = -math.inf
        self._due_at = -math.inf
        self._last: tuple[Value, float] | None = None
        self._failure: BaseException | None = None

    @property
    def waiting_seconds(self) -> float:
        """Returns for how long the reading under way has not ended; 0 where none is under way."""
        return self._clock() - self._asked_at if self._is_reading() else 0.0

    def ask(self) -> None:
        """Starts a reading if the last one is old enough and none is under way."""
        if self._clock() < self._due_at or self._failure is not None or self._is_reading():
            return
        other = _under_way.get(self._name)
        if other is not None and other.is_alive():
            self._failure = Unavailable("an earlier reading has not ended")
            return
        self._asked_at = self._clock()
        try:
            self._thread = _under_way[self._name] = start_thread(self._run, self._name)
        except RuntimeError:  # a limit of the system, or the interpreter shuts down
            self._failure = Unavailable("no thread could be started to read it")

    def latest(self) -> Reading[Value] | None:
        """Asks, and returns the last reading; see `ask` and `answer`."""
        self.ask()
        return self.answer()

    def answer(self, *, within: float = 0.0) -> Reading[Value] | None:
        """Returns the last reading; None where there is none yet.

        Args:
            within: waits so many seconds for the reading that is under way, if any.

        Raises:
            Unavailable: the reading failed, said once, after which the next question begins anew; no thread
                could be started; a reading of this name that somebody else asked for has not ended.
            BaseException: whatever else ended the reading, likewise.
        """
        if within and self._thread is not None:
            self._thread.join(within)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._last is None:
            return None
        value, ended_at = self._last
        return Reading(value, ended_at, self._clock() - ended_at)

    def _is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            value = self._read()
        except BaseException as error:  # noqa: BLE001 - `answer` raises it, under the sampler's guard
            self._last, self._due_at, self._failure = None, -math.inf, error
            return
        ended_at = self._clock()
        self._last = value, ended_at
        if self._rest_seconds:
            self._due_at = ended_at + max(self._rest_seconds, (ended_at - self._asked_at) / _MOST_SHARE)
