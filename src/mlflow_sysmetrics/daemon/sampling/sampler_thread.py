"""The thread that samples, and another one in its place when it is stuck.

A source may not answer: a driver whose GPU left the bus, a file of a dead filesystem. It is read in place
all the same, because handing each reading to another thread would cost more than most readings. If a reading
takes too long, a new thread continues the tick with the next source. The one that is stuck ends when its
source answers, so a source that hangs for ever costs one thread.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mlflow_sysmetrics.daemon.sampling.probe import HANGS_SECONDS, Probe
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, Lock
from mlflow_sysmetrics.samples import Sample

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries

THREAD_NAME = "sysmetrics-sampler"

# A source is not waited for longer than two intervals. Not less than a second, since each thread that takes
# over has to be started; not more than five, since a tick is late meanwhile.
_STUCK_INTERVALS = 2
_SHORTEST_PATIENCE_SECONDS = 1.0


class Tick:
    """One tick, which another thread can continue.

    Attributes:
        now: when it began.
        left: the probes that are yet to be read.
        samples: what was read.
        arriving: runs that begin with it.
        departing: runs that end with it.
        flushes: set at its end.
        makes_points: whether a window closes with it, or a run begins or ends.
        timestamp: the wall-clock time of its points.
        is_counted: whether the windows have its samples.
        is_whole: whether those are read, too, that could wait until a point is due.
    """

    # What most ticks have none of is not made for each of them.
    arriving: list[RunSeries] = []  # noqa: RUF012 - replaced where there are some
    departing: list[RunSeries] = []  # noqa: RUF012
    flushes: list[Event] = []  # noqa: RUF012
    makes_points = False
    timestamp = 0
    is_counted = False

    def __init__(self, probes: Sequence[Probe], now: float, *, whole: bool = True) -> None:
        self.now = now
        self.is_whole = whole
        self.left: Iterator[Probe] = iter(probes)
        self.samples: list[Sample] = []


class SamplerThread:
    """Repeats a step in a thread, and reads probes in it.

    Args:
        step: called with what identifies the thread, see `charge`; returns whether the thread goes on.
        clock: the time source.

    Attributes:
        charge: identifies the thread in charge; a thread that finds another one here ends.
        patience: how many seconds a reading may take.
        left_behind: the probes whose reading is not waited for any more.
        answered: called when one of them has answered.
    """

    def __init__(self, step: Callable[[object], bool], clock: Clock) -> None:
        self.charge = object()
        self.patience = _SHORTEST_PATIENCE_SECONDS
        self.left_behind: list[Probe] = []
        self.answered: Callable[[], None] = lambda: None
        self._step = step
        self._clock = clock
        self._lock = Lock()
        self._probe: Probe | None = None
        self._read_at = 0.0
        self._loop = self._new_loop()

    @property
    def loop(self) -> Loop:
        """The loop of the thread in charge."""
        return self._loop

    def follow_interval(self, interval: float) -> None:
        """Sets how long a reading may take for ticks of an interval in seconds."""
        self.patience = min(max(_STUCK_INTERVALS * interval, _SHORTEST_PATIENCE_SECONDS), HANGS_SECONDS)

    def read(self, tick: Tick, charge: object) -> bool:
        """Reads probes in place, each at a time of its own: a stall must not distort the rates of the next.

        Args:
            tick: whose probes are read; another thread that takes over goes on with the next one.
            charge: identifies the calling thread.

        Returns:
            False if another thread has taken over meanwhile.
        """
        monotonic, lock, whole = self._clock.monotonic, self._lock, tick.is_whole
        probe: Probe | None = None
        try:
            for probe in tick.left:
                if probe.began_at is not None:
                    continue
                now = self._read_at = monotonic()
                self._probe = probe
                found = probe.read(now, whole=whole)
                with lock:
                    if self.charge is not charge:
                        break
                    self._probe = None
                tick.samples.extend(found)
            else:
                return True
        except BaseException:
            with lock:
                in_charge = self.charge is charge
                if in_charge:
                    self._probe = None
            if not in_charge and probe is not None:
                self._return_late(probe)
            raise
        self._return_late(probe)
        return False

    def replace_if_stuck(self, due_in: float) -> float:
        """Lets another thread go on if the one in charge waits for a source for too long.

        Args:
            due_in: seconds until it has something to do; infinity if it has not.

        Returns:
            Seconds until the next look; infinity if there is nothing to look at before the next tick.
        """
        now = self._clock.monotonic()
        hanging_in = min((probe.hangs_in(now) for probe in list(self.left_behind)), default=math.inf)
        with self._lock:
            probe = self._probe
            if probe is None:
                return min(hanging_in, max(due_in, 0.0) + self.patience)
            # What hangs already may be what this source needs as well, as a lock of its driver.
            patience = _SHORTEST_PATIENCE_SECONDS if self.left_behind else self.patience
            left = max(patience, probe.patience) - (now - self._read_at)
            if left > 0:
                return min(hanging_in, left)
            self._probe = None
            probe.began_at = self._read_at
            self.left_behind.append(probe)
            self.charge = object()
            self._loop = self._new_loop()
        with contextlib.suppress(ThreadUnavailable):  # `Loop.revive` tries again
            self._loop.start()
        return min(probe.hangs_in(now), hanging_in, self.patience)

    def _new_loop(self) -> Loop:
        return Loop(partial(self._step, self.charge), THREAD_NAME)

    def _return_late(self, probe: Probe) -> None:
        self.left_behind.remove(probe)
        probe.answer_late(self._clock.monotonic())
        self.answered()
