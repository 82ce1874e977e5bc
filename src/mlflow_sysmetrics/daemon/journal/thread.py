"""The thread that writes to the journal of this process, so that no other one waits for a disk.

A network filesystem whose server is gone does not answer at all, and home directories lie on such. Nothing
interrupts a thread that waits for one; so there is one thread that may be lost in this way, and it does
nothing else. It is started with the first job and lives as long as the process; idle, it costs nothing.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.threads import start_thread

# FOLDED disk_patience: How long the sampler may be held up by a disk that is slow.

# A local disk under load answers within a fifth of a second, the longest pause that Linux has for a writer.
# It is the sampler that waits so long: a tick may be late, and is skipped.
WAIT_SECONDS = 1.0

_SHARE = 0.1  # of the time, in the long run: of ten ticks one may be late
_REST_SECONDS = 10.0  # in which that share adds up to the whole patience again
# Windows are seldom longer: a disk that is too slow for each of them is so all the time.
_FORGOTTEN_SECONDS = 120.0
_ROUNDING_SECONDS = 0.001


class DiskBudget:
    """Bounds all waits together, of however many runs: a second at once, a tenth of the time on the whole.

    Args:
        clock: tells the time.
        seconds: how much there is of it at once.
    """

    def __init__(self, clock: Clock, seconds: float = WAIT_SECONDS) -> None:
        self.seconds = seconds
        self._clock = clock
        self._spent = 0.0
        self._counted_at = self._rests_until = self._ran_out_at = -math.inf
        self._slow_since: float | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether nobody is to wait now."""
        return self._clock.monotonic() < self._rests_until

    @property
    def left(self) -> float:
        """How many seconds the next wait may take."""
        self._regain()
        return max(self.seconds - self._spent, 0.0)

    @property
    def slow_seconds(self) -> float:
        """For how long it has been used up again and again; 0 where once was the only time."""
        now = self._clock.monotonic()
        if self._slow_since is None or now - self._ran_out_at >= _FORGOTTEN_SECONDS:
            return 0.0
        return now - self._slow_since

    def waited(self, since: float) -> None:
        """Takes note of a wait that began at a monotonic time and is over."""
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
        self._spent = 0.0  # when it has rested

    def _regain(self) -> None:
        now = self._clock.monotonic()
        self._spent = max(self._spent - (now - self._counted_at) * _SHARE, 0.0)
        self._counted_at = now


THREAD_NAME = "sysmetrics-journal"

Result = TypeVar("Result")

_logger = logging.getLogger("mlflow_sysmetrics")


@dataclass(slots=True)
class _Request:
    """A job that somebody waits for."""

    job: Callable[[], object]
    answered: threading.Event = field(default_factory=threading.Event)
    answer: Any = None


class JournalThread:
    """Does jobs one after another: those that somebody waits for first, then the others in their order.

    Args:
        clock: tells the time.
        beside: does them in a thread of its own; if not, or if no thread can be started, whoever brings a
            job does it himself.
        patience_seconds: how long jobs are waited for, all those of a tick together.
    """

    def __init__(self, clock: Clock, *, threaded: bool = True, wait_seconds: float = WAIT_SECONDS) -> None:
        self._clock = clock
        self._threaded = threaded
        self._budget = DiskBudget(clock, wait_seconds)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._request: _Request | None = None
        self._later: dict[Hashable, Callable[[], object]] = {}
        self._began_at: float | None = None

    @property
    def is_threaded(self) -> bool:
        """Whether its jobs are done in a thread of its own."""
        return self._thread is not None

    @property
    def silent_seconds(self) -> float:
        """For how long the job under way has not ended; 0 where none is under way."""
        began_at = self._began_at
        return 0.0 if began_at is None else max(self._clock.monotonic() - began_at, 0.0)

    @property
    def is_stuck(self) -> bool:
        """Whether the job under way takes longer than anybody waits."""
        return self.silent_seconds >= self._budget.seconds

    @property
    def slow_seconds(self) -> float:
        """For how long the disk has answered, but so late that not all points can wait for it; 0 if not."""
        return self._budget.slow_seconds

    @property
    def accepts_requests(self) -> bool:
        """Whether the next question is asked at all; if not, the disk owes an answer or was too slow."""
        return self._request is None and not self.is_stuck and not self._budget.is_used_up

    def call(self, job: Callable[[], Result]) -> Result | None:
        """Has a job done, and waits for it. For one thread, the sampler's.

        Returns:
            What the job returned; None where the disk has not answered in time. The job is done nevertheless,
            as soon as the disk answers, unless the thread took no questions.
        """
        if not self._is_started():
            return job()
        if not self.accepts_requests:
            return None
        request = _Request(job)
        began = self._clock.monotonic()
        with self._changed:
            self._request = request
            self._changed.notify()
        answered = request.answered.wait(self._budget.left)
        self._budget.waited(began)
        return cast("Result", request.answer) if answered else None

    def submit(self, key: Hashable, job: Callable[[], object]) -> None:
        """Has a job done without waiting for it.

        Args:
            key: a job that has the same one and was not begun is left out: so those that wait for a disk
                take no more memory than there are runs.
            job: the job.
        """
        if self._thread is None:
            job()
            return
        with self._changed:
            self._later.pop(key, None)  # the new one comes after all that were there
            self._later[key] = job
            self._changed.notify()

    def _is_started(self) -> bool:
        if self._threaded and self._thread is None:
            try:
                self._thread = start_thread(self._run, THREAD_NAME)
            except RuntimeError:  # a limit of the system, or the interpreter shuts down
                return False
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._request is None and not self._later:
                    self._changed.wait()
                request = self._request
                job = self._later.pop(next(iter(self._later))) if request is None else request.job
                self._began_at = self._clock.monotonic()
            answer = _outcome(job)
            with self._changed:
                self._began_at = None
                if request is not None:
                    self._request = None  # first, since whoever is answered may ask again at once
            if request is not None:
                request.answer = answer
                request.answered.set()


def _outcome(job: Callable[[], object]) -> object:
    try:
        return job()
    except Exception as error:  # noqa: BLE001
        # A library makes the lock, on any filesystem, and without this thread no point would be saved.
        _logger.debug("The journal could not be written: %s: %s.", type(error).__name__, error)
        return None
