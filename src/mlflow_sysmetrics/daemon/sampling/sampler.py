"""The one thread that ticks."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from mlflow_sysmetrics.daemon.delivery.inbox import Inbox
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.watch import Watch
from mlflow_sysmetrics.daemon.sampling.window import Value, Window
from mlflow_sysmetrics.runtime.clock import Clock, Stamper
from mlflow_sysmetrics.runtime.threads import start_thread
from mlflow_sysmetrics.samples import Kind, Sample

THREAD_NAME = "sysmetrics-sampler"

# A wait may end this early, and a multiple of a tenth of a second is not exact in binary: a tick that comes
# by so little too soon is the scheduled one.
_EARLY_SECONDS = 0.001
# After so long without a run the collectors are built anew: what happened meanwhile is no run's, and neither
# the time it took nor the processes it started may show in the next one's first rates.
_PAUSE_SECONDS = 1.0
# Who begins to look wants rates, too, and they take two readings: the second does not wait for its time, but
# for as long as a rate needs (collectors/rhythm.py).
_SECOND_READING_SECONDS = 0.2


class Sampler:
    """Reads all collectors at each tick and hands the windows that close to the feeds.

    It ticks on an absolute schedule while there are feeds or somebody watches, and at once when one arrives,
    departs or is to be cut, so that a run of 50 ms has points too. Else it waits and costs nothing.

    Args:
        probes: the collectors, each under guard.
        clock: tells the time.

    Attributes:
        ticks: how often it has read.
        latest: monotonic time and samples of the last tick.
        inbox: points of the program's own, which it takes on their way.
    """

    def __init__(self, probes: Sequence[Probe], clock: Clock) -> None:
        self.ticks = self._readings = 0
        self.latest: tuple[float, Sequence[Sample]] = (-math.inf, ())
        self._probes = probes
        self._clock = clock
        self._stamper = Stamper(clock)
        self._lock = threading.RLock()  # a signal handler may come back in
        self._wake = threading.Event()
        self.inbox = Inbox(clock, self._wake.set)
        self._watches: dict[Watch, None] = {}
        self._watching: list[Watch] = []
        self._arriving: list[RunSeries] = []
        self._departing: list[RunSeries] = []
        self._cuts: list[threading.Event] = []
        self._series: dict[RunSeries, None] = {}
        self._windows: dict[Window, dict[RunSeries, None]] = {}
        self._without_window: list[RunSeries] = []
        self._epoch = 0.0
        self._ticked_at = 0.0
        self._due_at = math.inf

    def start(self) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        start_thread(self._run, THREAD_NAME)

    def add(self, series: RunSeries) -> None:
        """Begins to feed a run, with a tick at once."""
        with self._lock:
            self._arriving.append(series)
        self._wake.set()

    def remove(self, series: RunSeries) -> None:
        """Ends a feed, with a last tick at once; `feed.ended` tells when its last point is in the queue."""
        with self._lock:
            self._departing.append(series)
        self._wake.set()

    def cut(self) -> threading.Event:
        """Closes all windows with a tick at once; the event tells when their points are in the queues."""
        done = threading.Event()
        with self._lock:
            self._cuts.append(done)
        self._wake.set()
        return done

    def watch(self, watch: Watch) -> None:
        """Keeps ticking until a watch has lapsed, with a tick at once where nothing else asks for ticks."""
        with self._lock:
            self._watching.append(watch)
        self._wake.set()

    @property
    def readings(self) -> int:
        """How often it has read since it was idle; none if what it will read next begins anew."""
        return 0 if self._idle and self._has_paused(self._clock.monotonic()) else self._readings

    def _has_paused(self, now: float) -> bool:
        return now - self._ticked_at > _PAUSE_SECONDS

    def tick(self) -> None:
        """Does one pass over all collectors and all windows."""
        self.inbox.collect()
        with self._lock:
            arriving, departing, cuts = self._take_requests()
        now = self._clock.monotonic()
        if self._idle:
            self._epoch = now  # the schedule begins anew with the first run after a pause
            if self._has_paused(now):
                self._readings = 0
                for probe in self._probes:
                    probe.renew()
        self._admit_watches(now)
        # Each at its own moment: a source that stalls must not bend the rates of those after it.
        samples = [sample for probe in self._probes for sample in probe.read(self._clock.monotonic())]
        timestamp = self._stamper.next()
        self.latest = (now, self._visible(now, samples))
        self.ticks += 1
        self._readings += 1
        for window in self._windows:
            window.add(samples, now - self._ticked_at)
        self._ticked_at = now
        self._close_windows(now, timestamp, everything=bool(cuts))
        self._end(departing, timestamp)
        self._begin(arriving, samples, timestamp)
        self._end([series for series in departing if series in self._series], timestamp)
        self._open_windows(now)
        for done in cuts:
            done.set()

    def _visible(self, now: float, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Returns what there is to see: a tick that comes too soon for a rate takes away no rate."""
        before_at, before = self.latest
        if now - before_at >= _SECOND_READING_SECONDS:
            return samples
        fresh = {sample.key for sample in samples}
        return [*samples, *(sample for sample in before if sample.key not in fresh)]

    def _take_requests(self) -> tuple[list[RunSeries], list[RunSeries], list[threading.Event]]:
        departing, self._departing = self._departing, []
        cuts, self._cuts = self._cuts, []
        # A run that ends and is resumed within one tick waits for the next: one point per key and timestamp.
        # One that ends while it waits is over before it had a tick of its own.
        ended = set(departing)
        taken = {series.key for series in departing if series in self._series}
        arriving: list[RunSeries] = []
        waiting: list[RunSeries] = []
        for series in self._arriving:
            if series.key not in taken:
                arriving.append(series)
                taken.add(series.key)
            elif series in ended:
                series.ended.set()
            else:
                waiting.append(series)
        self._arriving = waiting
        if self._arriving:
            self._wake.set()
        return arriving, departing, cuts

    def _close_windows(self, now: float, timestamp: int, *, everything: bool) -> None:
        closing = [
            window for window in self._windows if everything or window.closes_at <= now + _EARLY_SECONDS
        ]
        for window in closing:
            values = window.values()
            for series in self._windows.pop(window):
                series.emit(values, timestamp)
                series.window = None
                self._without_window.append(series)

    def _begin(self, arriving: list[RunSeries], samples: Sequence[Sample], timestamp: int) -> None:
        levels = _levels(samples)
        for series in arriving:
            series.emit(levels, timestamp)
            self._series[series] = None
            self._without_window.append(series)

    def _end(self, departing: list[RunSeries], timestamp: int) -> None:
        for series in departing:
            if series.window is not None:  # its partial window, unless that has just closed
                series.emit(series.window.values(), timestamp)
                self._windows[series.window].pop(series, None)
                series.window = None
            if series in self._series:
                del self._series[series]
                series.end()

    def _open_windows(self, now: float) -> None:
        opened: dict[float, Window] = {}
        for series in self._without_window:
            if series not in self._series:
                continue
            length = series.settings.window_seconds
            passed = math.floor((now - self._epoch + _EARLY_SECONDS) / length)
            closes_at = self._epoch + (passed + 1) * length
            series.window = opened.setdefault(closes_at, Window(closes_at))
            self._windows.setdefault(series.window, {})[series] = None
        self._without_window.clear()
        for window in [window for window, all_series in self._windows.items() if not all_series]:
            del self._windows[window]

    def run_due(self) -> None:
        """Does what is due now, if anything is. The thread does nothing else."""
        if self._requested() or self._clock.monotonic() >= self._due_at - _EARLY_SECONDS:
            self.tick()
            self._due_at = self._next_due()
            return
        if self._watching:
            self._admit_watches(self._clock.monotonic())
            self._due_at = min(self._due_at, self._next_due())
        if self._clock.monotonic() >= self.inbox.due_at - _EARLY_SECONDS:
            self.inbox.collect()

    def _run(self) -> None:
        while True:
            left = min(self._due_at, self.inbox.due_at) - self._clock.monotonic()
            self._wake.wait(None if math.isinf(left) else max(left, 0.0))
            self._wake.clear()
            self.run_due()

    @property
    def _idle(self) -> bool:
        return not self._series and not self._watches

    def _requested(self) -> bool:
        with self._lock:
            # Who begins to look while runs are fed looks at what is read for these.
            return bool(self._arriving or self._departing or self._cuts or (self._watching and self._idle))

    def _admit_watches(self, now: float) -> None:
        """Takes those that have begun to look, and lets go of those that do not look any more."""
        with self._lock:
            arriving, self._watching = self._watching, []
        for watch in arriving:
            self._watches[watch] = None
        for watch in [watch for watch in self._watches if watch.lapsed(now)]:
            del self._watches[watch]

    def _next_due(self) -> float:
        """Returns when the next tick is due: the next multiple of the interval; missed ones are skipped."""
        intervals = [series.settings.sampling_interval for series in self._series]
        interval = min([*intervals, *(watch.interval for watch in self._watches)], default=math.inf)
        if math.isinf(interval):
            return math.inf
        passed = math.floor((self._clock.monotonic() - self._epoch + _EARLY_SECONDS) / interval)
        due_at = self._epoch + (passed + 1) * interval
        second = self._readings == 1 and self._watches
        return min(due_at, self._ticked_at + _SECOND_READING_SECONDS) if second else due_at


def _levels(samples: Sequence[Sample]) -> list[Value]:
    """Returns what is true at one moment; a rate is of the time before, when the run did not exist yet."""
    return [Value(key, kind, value) for key, kind, value, _ in samples if kind is not Kind.RATE]
