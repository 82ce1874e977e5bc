"""Looks whether sources answer and threads run, and says so where it can be seen when one does not.

The thread of the journal looks, which the sampler wakes once per window anyway: its timer runs out only if
the sampler does not ask in time. Where there is no such thread, or it waits for a disk, another one looks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import SAMPLED, Sampler
from mlflow_sysmetrics.daemon.state import metrics_tag
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event

THREAD_NAME = "sysmetrics-watchdog"

# A look that happens this much later than planned proves nothing: the process was stopped, or starved.
_OVERSLEPT_SECONDS = 0.5
_GRACE_SECONDS = 1.0
# The threads are looked at if a window does not end in time, and 9.6 s after a source can begin to hang: what
# hangs is named within 10 s. A window of 10 s that ends in time costs no look of its own.
_LATE_WINDOW_SECONDS = 0.5
_LONGEST_CALM_SECONDS = 9.6
_LONGEST_READS_IN_SECONDS = 1.0
# A change of the tag `sys.metrics` is sent at once, but not more often than this.
_METRICS_SECONDS = 5.0
# After the last run there is one more look: in a series of short runs, none then has to wake a thread.
_IDLE_SECONDS = 2.0


class WatchdogThread(Protocol):
    """A thread that looks, besides what it does otherwise.

    Attributes:
        look: looks, and returns the seconds until the next look; infinity if none is needed.
        stuck: called when the thread cannot do so now.
    """

    look: Callable[[], float]
    stuck: Callable[[], None]

    def look_within(self, seconds: float) -> bool:
        """Has it look within some seconds; returns False if it cannot. Starts the thread if necessary."""


class Watchdog:
    """Watches the sampler, and the other threads with it, while the sampler has something to do.

    It begins with the first tick. It looks more and more rarely while it finds nothing, but still about once
    per window: a source that hangs costs ticks, but no point of the others. A request to the sampler in
    the middle of a tick has it look at once.

    Args:
        sampler: the sampler.
        clock: the time source.
        loops: returns the loops of the other threads.
        attached: returns the attached runs. A tag of theirs names the sources that do not answer.
        guard: looks; None if there is only a thread for nothing else.

    Attributes:
        metrics: the value of that tag.
    """

    def __init__(
        self,
        sampler: Sampler,
        clock: Clock,
        loops: Callable[[], Iterable[Loop]] = lambda: (),
        attached: Callable[[], Iterable[RunSeries]] = lambda: (),
        guard: WatchdogThread | None = None,
    ) -> None:
        self.metrics = SAMPLED
        self._sampler = sampler
        self._clock = clock
        self._loops = loops
        self._attached = attached
        self._metrics_due_at = -math.inf
        self._stirred = Event()
        self._calm_seconds = self._due_at = 0.0
        self._was_busy = False
        self._loop = Loop(self._step, THREAD_NAME)
        self._guard = guard
        if guard is not None:
            guard.look, guard.stuck = self.look_now_or_later, self.stir
        sampler.stirred = self.begin
        sampler.delayed = sampler.thread.answered = self.stir

    @property
    def fault(self) -> str | None:
        """Which thread has ended, or what it failed with; None if all work."""
        return next((loop.fault for loop in self._watched() if loop.fault), None) or self._sampler.delay

    def begin(self) -> None:
        """Makes it look soon, because the sampler begins to tick."""
        self._calm_seconds = 0.0
        if self._guard is None or not self._guard.look_within(self._sampler.thread.patience + _GRACE_SECONDS):
            self._start()

    def stir(self) -> None:
        """Makes it look now."""
        self._calm_seconds = self._due_at = 0.0
        if self._guard is None or not self._guard.look_within(0.0):
            self._start()

    def _start(self) -> None:
        """Makes the separate thread look now, and starts it if it does not run."""
        self._stirred.set()
        if not self._loop.is_alive:
            with contextlib.suppress(ThreadUnavailable):  # the next call tries again
                self._loop.start()

    def revive(self) -> None:
        """Starts threads that have died again."""
        for loop in self._watched():
            loop.revive()

    def look(self) -> float:
        """Has the sampling go on without a source that does not answer, and threads without those that died.

        Returns:
            Seconds until the next look; infinity if the next tick stirs the watchdog.
        """
        left = self._sampler.replace_if_stuck()
        self.revive()
        now = self._clock.monotonic()
        for probe in list(self._sampler.thread.left_behind):
            if probe.hangs_in(now) <= 0:
                probe.log_hanging()
        return min(left, self._tell(now))

    def _tell(self, now: float) -> float:
        """Tells the runs of a change, so rarely that a source which comes and goes costs few requests.

        "on" comes with the first points of a run, from the sampler. But if a source does not answer, the
        sampler may not get that far.
        """
        metrics = metrics_tag(self._sampler.silent_sources())
        due_in = self._metrics_due_at - now
        if metrics != self.metrics:
            if due_in > 0:
                return due_in
            self.metrics = self._sampler.state = metrics
            self._metrics_due_at = now + _METRICS_SECONDS
        for series in self._attached():
            if series.told is not None or self.metrics != SAMPLED:
                series.put_state(self.metrics, at_once=True)
        return math.inf

    def _watched(self) -> list[Loop]:
        return [self._sampler.thread.loop, *self._loops()]

    def _after_calm(self, left: float) -> float:
        """Returns the seconds until the next look: more, the longer nothing was found."""
        if self._sampler.thread.left_behind:
            self._calm_seconds = 0.0
        elif not self._sampler.is_ticking:
            self._calm_seconds = min(max(2 * self._calm_seconds, left), 2 * _LONGEST_CALM_SECONDS)
        # What answers now may hang when it is read next.
        most = _LONGEST_CALM_SECONDS + min(self._sampler.reads_in, _LONGEST_READS_IN_SECONDS)
        most = min(most, self._sampler.window_seconds + _LATE_WINDOW_SECONDS)
        return max(left, min(self._calm_seconds, most))

    def look_now_or_later(self) -> float:
        """Looks, for a guard; returns the seconds until the next look."""
        now = self._clock.monotonic()
        if self._due_at and now > self._due_at + _OVERSLEPT_SECONDS:
            # The threads that are looked at did not run either: they get some time first.
            self._due_at = now + _GRACE_SECONDS
            return _GRACE_SECONDS
        left = self._after_calm(self.look())
        is_busy = not math.isinf(left)
        if self._was_busy and not is_busy:
            left = _IDLE_SECONDS
        self._was_busy = is_busy
        self._due_at = 0.0 if math.isinf(left) else now + left
        return left

    def _step(self) -> bool:
        """Looks in the separate thread, as long as there is no guard that can."""
        self._stirred.clear()
        left = self._after_calm(self.look())
        due_at = self._clock.monotonic() + left
        self._stirred.wait(None if math.isinf(left) else max(left, 0.0))
        while self._clock.monotonic() > due_at + _OVERSLEPT_SECONDS:
            # The threads that are looked at did not run either: they get some time first.
            due_at = self._clock.monotonic() + _GRACE_SECONDS
            self._stirred.wait(_GRACE_SECONDS)
        return self._guard is None or not self._guard.look_within(self._sampler.thread.patience)
