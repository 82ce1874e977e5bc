"""Readings that may take long or never end, made in a thread beside the one that needs them.

A tool of the operating system takes tens of milliseconds, where a tick may take a quarter of one; a network
filesystem whose server is gone does not answer at all. So a thread makes the reading, and the sampler gets
the last one with its age and waits no longer than it chooses to.

One thread makes one reading after another, and there are more only while several are under way at once:
starting a thread costs more than most readings, and waits for the memory map, which the kernel may be
walking.

This is not a bounded call (see `bounded_calls`): the reading is polled, its last value stays available while
the next one is made, and a reading that hangs is picked up when it ends.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.runtime.threads import start_thread

Value = TypeVar("Value")

# A reading takes at most this share of the time: on a slow machine it is made less often.
_MOST_SHARE = 0.01

_IDLE_THREAD = "sysmetrics-readings"
# A thread that has nothing to do ends after this time: most readings are made once a minute.
_LINGER_SECONDS = 150.0
_MOST_IDLE = 1


class _Job:
    """One reading that is under way.

    Attributes:
        name: of its thread meanwhile.
        done: set at its end.
        worker: makes it.
    """

    def __init__(self, name: str, read: Callable[[], None]) -> None:
        self.name = name
        self.done = Event()
        self._read = read
        self.worker = _free_worker(self)

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended; a forked child does not inherit its thread."""
        return not self.done.is_set() and self.worker.thread.is_alive()

    def run(self) -> None:
        """Makes the reading, in the thread."""
        try:
            self._read()
        finally:
            del self._read  # who asked may go, with its open files
            self.done.set()


class _Worker:
    """A thread that makes one reading after another, and has the name of the current one."""

    def __init__(self, job: _Job) -> None:
        self._given = Event()
        self._job: _Job | None = job
        self.thread = start_thread(self._run, job.name)

    def give(self, job: _Job) -> None:
        """Has a job done. Called by whoever has taken the worker off the idle ones."""
        self.thread.name = job.name
        self._job = job
        self._given.set()

    def _run(self) -> None:
        while True:
            job, self._job = self._job, None
            self._given.clear()
            if job is not None:
                threading.current_thread().name = job.name
                with contextlib.suppress(BaseException):  # that another thread sets in this one
                    job.run()
            if len(_idle) >= _MOST_IDLE:
                return
            threading.current_thread().name = _IDLE_THREAD
            _idle.append(self)
            if not self._given.wait(_LINGER_SECONDS):
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has just taken it
                    self._given.wait()
                else:
                    return


# No lock, because a fork could leave it locked for ever: the calls of a deque are atomic.
_idle: deque[_Worker] = deque()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_idle.clear)


def _free_worker(job: _Job) -> _Worker:
    """Gives a job to a thread that has none, or to a new one.

    Raises:
        ThreadUnavailable: no thread can be started.
    """
    while True:
        try:
            worker = _idle.pop()
        except IndexError:
            return _Worker(job)
        if worker.thread.is_alive():
            worker.give(job)
            return worker


# The reading that is under way, by name. A reading that never ends keeps its thread for ever; with this table
# there is one such thread per process, however many objects ask for the same reading.
_under_way: dict[str, _Job] = {}


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value]):
    """What was read, and when.

    Attributes:
        value: what was read.
        ended_at: when the reading ended, in seconds on the clock of `BackgroundReading`; differs between
            readings.
        age: seconds since then.
    """

    value: Value
    ended_at: float
    age: float


class BackgroundReading(Generic[Value]):
    """Makes a reading in a thread when asked to, if the last one is old enough.

    In a forked child, which does not inherit the thread, the next `ask` starts another. Only one thread may
    ask: the sampler's.

    Args:
        name: name of the thread meanwhile, after "sysmetrics-"; equal names mean the same reading.
        read: makes the reading.
        rest_seconds: shortest time from the end of one reading to the start of the next; longer where
            readings would otherwise take more than 1 % of the time. With 0, every `ask` starts a reading.
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
        # No lock, because a fork could leave it locked for ever: each attribute is replaced as a whole, by
        # the asking thread before the reading thread starts, and by the reading thread after that.
        self._job: _Job | None = None
        self._asked_at = -math.inf
        self._due_at = -math.inf
        self._last: tuple[Value, float] | None = None
        self._failure: BaseException | None = None

    @property
    def waiting_seconds(self) -> float:
        """How long the reading under way has been running; 0 if there is none."""
        return self._clock() - self._asked_at if self._is_reading() else 0.0

    def ask(self) -> None:
        """Starts a reading if the last one is old enough and none is under way."""
        if self._clock() < self._due_at or self._failure is not None or self._is_reading():
            return
        other = _under_way.get(self._name)
        if other is not None and other.is_under_way:
            self._failure = Unavailable("an earlier reading has not ended")
            return
        self._asked_at = self._clock()
        try:
            self._job = _under_way[self._name] = _Job(self._name, self._run)
        except ThreadUnavailable:
            self._failure = Unavailable("no thread could be started to read it")

    def latest(self) -> Reading[Value] | None:
        """Asks, and returns the last reading; see `ask` and `answer`."""
        self.ask()
        return self.answer()

    def answer(self, *, within: float = 0.0) -> Reading[Value] | None:
        """Returns the last reading; None if there is none yet.

        Args:
            within: seconds to wait for the reading under way, if any.

        Raises:
            Unavailable: the reading failed, no thread could be started, or a reading of this name that
                another object asked for has not ended. Raised once; the next `ask` starts afresh.
            BaseException: whatever else ended the reading, likewise.
        """
        if within and self._job is not None and self._job.is_under_way:
            self._job.done.wait(within)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._last is None:
            return None
        value, ended_at = self._last
        return Reading(value, ended_at, self._clock() - ended_at)

    def _is_reading(self) -> bool:
        return self._job is not None and self._job.is_under_way

    def _run(self) -> None:
        try:
            value = self._read()
        except BaseException as error:  # `answer` raises it, under the sampler's guard
            self._last, self._due_at, self._failure = None, -math.inf, error
            return
        ended_at = self._clock()
        self._last = value, ended_at
        if self._rest_seconds:
            self._due_at = ended_at + max(self._rest_seconds, (ended_at - self._asked_at) / _MOST_SHARE)
