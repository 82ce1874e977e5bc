"""The thread that writes to the journal of this process, so that no other thread waits for a disk.

A network filesystem whose server is gone does not answer at all, and home directories are on such
filesystems. A thread that waits for one cannot be interrupted. So exactly one thread may get stuck in this
way, and it does nothing else. It starts with the first job and lives as long as the process; idle, it costs
nothing. It looks after the sampler, too: see `daemon.watchdog`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Condition, Event, RLock

THREAD_NAME = "sysmetrics-journal"

# A local disk under load answers within a fifth of a second, the longest pause that Linux imposes on a
# writer. The thread that waits is the sampler: a tick may be late, and is skipped.
WAIT_SECONDS = 1.0

_SHARE = 0.1  # of the time, in the long run: one tick in ten may be late
_REST_SECONDS = 10.0  # in which that share adds up to the whole budget again
# Longer than nearly all windows: a disk that is too slow at each window counts as slow all the time.
_FORGOTTEN_SECONDS = 120.0
_ROUNDING_SECONDS = 0.001
# Of the longest delay, at each request: a busy machine delays some requests and not others.
_REMEMBERED = 0.9
# A disk that takes longer may not answer at all.
_QUICK_SECONDS = 0.1
_SECONDS_AFTER_FAILURE = 1.0
# A job accesses the disk a few times, and may have to wait after each access as it did before the first.
_ACCESSES = 10

Result = TypeVar("Result")

_logger = Log()


class DiskBudget:
    """Bounds the waits for a slow disk, for all runs together: a second at once, a tenth of the time.

    Args:
        clock: the time source.
        seconds: the whole budget.
    """

    def __init__(self, clock: Clock, seconds: float = WAIT_SECONDS) -> None:
        self.seconds = seconds
        self._clock = clock
        self._spent = 0.0
        self._counted_at = self._rests_until = self._ran_out_at = -math.inf
        self._slow_since: float | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether the sampler must not wait now."""
        return self._clock.monotonic() < self._rests_until

    @property
    def left(self) -> float:
        """How many seconds the next wait may take."""
        self._regain()
        return max(self.seconds - self._spent, 0.0)

    @property
    def slow_seconds(self) -> float:
        """For how many seconds the budget has been running out repeatedly; 0 if it ran out only once."""
        now = self._clock.monotonic()
        if self._slow_since is None or now - self._ran_out_at >= _FORGOTTEN_SECONDS:
            return 0.0
        return now - self._slow_since

    def waited(self, since: float) -> None:
        """Records a wait that began at a monotonic time and has just ended."""
        now = self._counted_at = self._clock.monotonic()
        self._spent += now - since
        if self._spent < self.seconds - _ROUNDING_SECONDS:
            return
        again = now - self._ran_out_at < _FORGOTTEN_SECONDS
        if not again:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = self._ran_out_at
        self._ran_out_at = now
        self._rests_until = now + _REST_SECONDS
        self._spent = 0.0  # available after the rest

    def _regain(self) -> None:
        now = self._clock.monotonic()
        self._spent = max(self._spent - (now - self._counted_at) * _SHARE, 0.0)
        self._counted_at = now


@dataclass(slots=True)
class _Request:
    """A job that the sampler waits for."""

    job: Callable[[], object]
    asked_at: float
    began_at: float | None = None
    ended_at: float | None = None
    done: Event = field(default_factory=Event)
    result: Any = None


class JournalThread:
    """Runs jobs one after another: first the one that a caller waits for, then the others in order.

    Args:
        clock: the time source.
        threaded: runs them in a thread. Otherwise, or if no thread can be started, the caller runs its job
            itself.
        wait_seconds: how long jobs are waited for, all those of a tick together.

    Attributes:
        loop: the thread; None before the first job.
        look: called after a job that a caller waits for, and when the time that it returned last is over. It
            must not wait for anything.
        stuck: called when a caller has waited for the disk in vain.
    """

    def __init__(self, clock: Clock, *, threaded: bool = True, wait_seconds: float = WAIT_SECONDS) -> None:
        self._clock = clock
        self._threaded = threaded
        self._budget = DiskBudget(clock, wait_seconds)
        self._changed = Condition()
        self._starting = RLock()  # re-entrant: a signal handler may call in
        self.loop: Loop | None = None
        self.look: Callable[[], float] = lambda: math.inf
        self.stuck: Callable[[], None] = lambda: None
        self._look_at = math.inf
        self._request: _Request | None = None
        self._answered: _Request | None = None
        self._later: dict[Hashable, Callable[[], object]] = {}
        self._began_at: float | None = None
        #: Why the last job that appends failed, other than by the disk; None if it did not.
        self.failed: str | None = None
        self._free_at = -math.inf
        self._delay = 0.0

    @property
    def is_threaded(self) -> bool:
        """Whether the thread has been started."""
        return self.loop is not None

    @property
    def silent_seconds(self) -> float:
        """For how many seconds the current job has been running; 0 if there is none."""
        began_at = self._began_at
        return 0.0 if began_at is None else max(self._clock.monotonic() - began_at, 0.0)

    @property
    def is_stuck(self) -> bool:
        """Whether the current job takes longer than any caller waits."""
        return self.silent_seconds >= self._budget.seconds

    @property
    def slow_seconds(self) -> float:
        """For how many seconds the disk has been too slow for all points to wait for it; 0 if it is not."""
        return self._budget.slow_seconds

    @property
    def can_look(self) -> bool:
        """Whether the thread runs and does not wait for a disk."""
        return self.loop is not None and not self.loop.has_died and self.silent_seconds < _QUICK_SECONDS

    def look_within(self, seconds: float) -> bool:
        """Has `look` called within some seconds; returns False if the thread cannot do that."""
        if not (self._threaded and self._is_started() and self.can_look):
            return False
        look_at = self._clock.monotonic() + seconds
        if self._look_at > look_at:
            with self._changed:
                self._look_at = look_at
                self._changed.notify_all()
        return True

    @property
    def accepts_requests(self) -> bool:
        """Whether `call` would run its job; if not, the disk has yet to answer, or was too slow."""
        return self._request is None and not self.is_stuck and not self._budget.is_used_up

    def call(self, job: Callable[[], Result]) -> Result | None:
        """Runs a job and waits for it. Called by the sampler's thread only.

        Returns:
            The result of the job; None if the disk did not answer in time. The job then ends as soon as the
            disk answers, unless the thread accepted no request.
        """
        if not self._is_started():
            return cast("Result | None", self._result(job))
        if not self.accepts_requests:
            self.stuck()
            return None
        request = _Request(job, self._clock.monotonic())
        left = self._budget.left
        with self._changed:
            self._request = request
            self._changed.notify_all()
        done = request.done.wait(left)  # at once: the thread waits for Python's lock until then
        now = self._clock.monotonic()
        self._budget.waited(now - self._seconds_of_disk(request, now))
        if not done:
            self.stuck()
        return cast("Result", request.result) if done else None

    def _seconds_of_disk(self, request: _Request, now: float) -> float:
        """Returns how long the disk has kept the sampler waiting, as opposed to a machine that is too busy.

        How late the thread takes a job up has nothing to do with the disk: if no other job is under way, it
        waited for the processor or for Python's lock, and does so again after each access to the disk.
        """
        began_at = self._began_at if request.began_at is None else request.began_at
        if began_at is None:
            return 0.0
        ended_at = now if request.ended_at is None else request.ended_at
        return max(ended_at - max(began_at, request.asked_at) - _ACCESSES * self._delay, 0.0)

    def submit(self, key: Hashable, job: Callable[[], object], *, wake: bool = True) -> None:
        """Queues a job; does not wait for it.

        Args:
            key: replaces a job with the same key that has not begun, so the jobs that wait for a disk take no
                more memory than there are runs.
            job: the job.
            wake: False if the job may wait for `wake`, or for another one.
        """
        if self.loop is None:
            self._result(job)
            return
        with self._changed:
            self._later.pop(key, None)  # the new job goes to the end
            self._later[key] = job
            if wake:
                self._changed.notify_all()

    def wake(self) -> None:
        """Has the queued jobs run now."""
        if self._later:
            with self._changed:
                self._changed.notify_all()

    def _is_started(self) -> bool:
        if self._threaded and self.loop is None:
            with self._starting:
                if self.loop is None:
                    self.loop = Loop(self._step, THREAD_NAME)  # first: a signal handler may call in
                    try:
                        self.loop.start()
                    except ThreadUnavailable:
                        self.loop = None
        return self.loop is not None

    def _step(self) -> bool:
        """Waits for a job and runs it, or looks after the other threads."""
        with self._changed:
            self._began_at = None  # also where the thread that ran the last job has died
            left = self._look_at - self._clock.monotonic()
            while self._request is None and not self._later and left > 0:
                self._release_caller()
                self._changed.wait(None if math.isinf(left) else left)
                left = self._look_at - self._clock.monotonic()
            self._release_caller()
            request = self._request
            is_look = request is None and left <= 0  # first: after it, the disk may not answer
            job = None if is_look else self._take(request)
        if job is None:
            self._look_now()
            return True
        try:
            result = self._result(job)
        finally:
            with self._changed:
                self._began_at = None
                self._free_at = self._clock.monotonic()
                if request is not None:
                    request.ended_at = self._free_at
                    self._request = None  # first, since the waiting thread may call again at once
        if request is not None:
            request.result, self._answered = result, request
            try:
                self._look_now()
            except BaseException:
                self._release_caller()  # it must not wait until this thread has recovered
                raise
        return True

    def _release_caller(self) -> None:
        """Lets the caller of the last job go on: last, since it needs Python's lock, which is free then."""
        request, self._answered = self._answered, None
        if request is not None:
            request.done.set()

    def _take(self, request: _Request | None) -> Callable[[], object]:
        """Returns the next job, which begins now. The caller holds the lock."""
        self._began_at = self._clock.monotonic()
        if request is None:
            return self._later.pop(next(iter(self._later)))
        request.began_at = self._began_at
        delay = self._began_at - max(request.asked_at, self._free_at)
        self._delay = max(delay, _REMEMBERED * self._delay)
        return request.job

    def _look_now(self) -> None:
        self._look_at = math.inf  # somebody may ask for an earlier one meanwhile
        left = _SECONDS_AFTER_FAILURE
        try:
            left = self.look()
        finally:
            with self._changed:
                self._free_at = self._clock.monotonic()
                self._look_at = min(self._look_at, self._free_at + left)

    def _result(self, job: Callable[[], object]) -> object:
        try:
            result = job()
        # A library takes the lock, on any filesystem, and memory may be short; if this thread ended, no more
        # points would be saved.
        except Exception as error:  # noqa: BLE001
            self.failed = why(error)
            _logger.debug("The journal could not be written: %s: %s.", type(error).__name__, error)
            return None
        if result is not None:  # points were written; other jobs return nothing
            self.failed = None
        return result


def why(error: Exception) -> str:
    """Returns why something could not be saved, for people: not every error has a text."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    text = str(getattr(error, "strerror", None) or error).rstrip(".")
    return text or f"an unexpected error ({type(error).__name__})"
