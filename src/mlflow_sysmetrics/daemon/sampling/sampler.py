"""Ticks: reads all collectors, and hands closed windows to the series of the runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from mlflow_sysmetrics.collectors.watched_paths import NO_ANSWER
from mlflow_sysmetrics.daemon.delivery.inbox import Inbox
from mlflow_sysmetrics.daemon.sampling.probe import Probe, ProbeSchedule
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler_thread import SamplerThread, Tick
from mlflow_sysmetrics.daemon.sampling.window import Value, Window, levels
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.clock import Clock, Stamper
from mlflow_sysmetrics.runtime.native import Event, RLock
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.summary.tick_history import TickHistory

if TYPE_CHECKING:
    from mlflow_sysmetrics.exports.watch import Watch

# A tick that comes too soon by less than this is the scheduled one: waits and sums of tenths are not exact.
_EARLY_SECONDS = 0.001
# After a pause this long without a run the collectors are rebuilt. Otherwise the time of the pause, and
# processes started in it, would show in the first rates of the next run.
_PAUSE_SECONDS = 1.0
# A new watch needs two readings before it has rates. The second is not read on schedule, but as soon as the
# span is long enough for a rate (collectors/rhythm.py).
_SECOND_READING_SECONDS = 0.2
_LATE_SECONDS = 10.0  # a source that hangs delays a tick by less

SAMPLED = "on"  #: what the tag `METRICS_TAG` of a run says while nothing is missing

_logger = Log()


class Sampler:
    """Reads all collectors at each tick and hands closed windows to the series of the runs.

    Ticks follow an absolute schedule while there are runs or watches. An arrival, a departure and a flush
    cause a tick at once, so a run of 50 ms has points too. Otherwise the thread waits and costs nothing.

    Args:
        probes: the guarded collectors.
        clock: the time source.

    Attributes:
        ticks: number of ticks so far.
        last: time and samples of the last tick, and of the one that what it did not read is from.
        inbox: points of the program itself, collected by this thread.
        history: what was measured, for the summaries of runs.
        thread: the thread, or the one that took its place.
        stirred: called at the first tick after a pause.
        together: entered around what gives points to many runs.
        delayed: called when something is requested while a tick is under way.
        window_seconds: length of the shortest window; 0 if there is none.
        state: value of the tag `METRICS_TAG` that runs get with their first points.
    """

    def __init__(self, probes: Sequence[Probe], clock: Clock) -> None:
        self.ticks = self._readings = 0
        self._shown: tuple[float, Sequence[Sample]] = (-math.inf, ())  # of the last tick that read everything
        self.last: tuple[tuple[float, Sequence[Sample]], tuple[float, Sequence[Sample]]] = (self._shown,) * 2
        self._probes = probes
        self._clock = clock
        self._stamper = Stamper(clock)
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._wake = Event()
        self.inbox = Inbox(clock, self._wake.set)
        self.history = TickHistory()
        self._watches: dict[Watch, None] = {}
        self._new_watches: list[Watch] = []
        self._arriving: list[RunSeries] = []
        self._departing: list[RunSeries] = []
        self._flushes: list[Event] = []
        self._series: dict[RunSeries, None] = {}
        self._windows: dict[Window, dict[RunSeries, None]] = {}
        self._without_window: list[RunSeries] = []
        self._epoch = self._ticked_at = self.window_seconds = 0.0
        self._due_at = self._interval = self._closes_at = math.inf
        self.state = SAMPLED
        self.stirred: Callable[[], None] = lambda: None
        self.together: AbstractContextManager[None] = nullcontext()
        self.delayed: Callable[[], None] = lambda: None
        self.thread = SamplerThread(self._step, clock)
        self._pass: Tick | None = None
        self._schedule = ProbeSchedule(probes)

    @property
    def latest(self) -> tuple[float, Sequence[Sample]]:
        """Monotonic time and samples of the last tick, and what it did not read, as rates, from before."""
        (now, samples), (_, before) = self.last
        fresh = {sample.key for sample in samples} if before else ()
        return now, [*samples, *(sample for sample in before if sample.key not in fresh)]

    def start(self) -> None:
        """Starts the thread.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        self.thread.loop.start()

    def replace_if_stuck(self) -> float:
        """Lets another thread go on if this one is stuck; see `SamplerThread.replace_if_stuck`."""
        return self.thread.replace_if_stuck(0.0 if self.is_ticking else self.reads_in)

    @property
    def delay(self) -> str | None:
        """How late a tick is; None if that is not worth a message."""
        late = self._clock.monotonic() - self._due_at
        return f"the sampling is {late:.0f} s late" if late > _LATE_SECONDS else None

    @property
    def reads_in(self) -> float:
        """Seconds until sources are read; 0 while they are."""
        if self._pass is not None:
            return self._interval if self._pass.is_counted else 0.0
        return max(self._due_at - self._clock.monotonic(), 0.0)

    def silent_sources(self) -> list[str]:
        """Returns the sources that do not answer, and those of whose paths one does not."""
        return [probe.name for probe in self._probes if probe.hangs or NO_ANSWER in probe.health]

    def add(self, series: RunSeries) -> None:
        """Adds a run, with a tick at once."""
        with self._lock:
            self._arriving.append(series)
        self._call()

    def remove(self, series: RunSeries) -> None:
        """Removes a run, with a last tick at once; `series.ended` is set when its last point is queued."""
        with self._lock:
            self._departing.append(series)
        self._call()

    def flush(self) -> Event:
        """Closes all windows with a tick at once; the event is set when their points are queued."""
        done = Event()
        with self._lock:
            self._flushes.append(done)
        self._call()
        return done

    def watch(self, watch: Watch) -> None:
        """Keeps ticking until a watch lapses; ticks at once if nothing else causes ticks."""
        with self._lock:
            self._new_watches.append(watch)
        self._call()

    def _call(self) -> None:
        self._wake.set()
        if self._pass is not None:  # which may not end: a source may hang
            self.delayed()

    @property
    def is_ticking(self) -> bool:
        """Whether a tick is under way."""
        return self._pass is not None

    @property
    def readings(self) -> int:
        """Number of whole readings since the sampler was last idle; 0 if the next one starts afresh."""
        return 0 if self._idle and self._has_paused(self._clock.monotonic()) else self._readings

    def run_due(self) -> None:
        """Does what is due now, if anything."""
        self._run_due(self.thread.charge)

    def tick(self) -> None:
        """Does one pass over all collectors and all windows."""
        self._tick(self.thread.charge)

    def _step(self, charge: object) -> bool:
        """Waits for what is due and does it; returns whether this thread goes on."""
        if self.thread.charge is not charge:
            return False
        if self._pass is None:
            left = min(self._due_at, self.inbox.due_at) - self._clock.monotonic()
            self._wake.wait(None if math.isinf(left) else max(left, 0.0))
        self._wake.clear()
        return self._run_due(charge)

    def _run_due(self, charge: object) -> bool:
        if self._clock.monotonic() >= self._due_at - _EARLY_SECONDS or self._pass or self._requested():
            return self._tick(charge)
        if self._new_watches:
            self._update_watches(self._clock.monotonic())
            self._due_at = min(self._due_at, self._next_due())
        if self._clock.monotonic() >= self.inbox.due_at - _EARLY_SECONDS:
            self.inbox.collect()
        return True

    # A tick finds the processor's caches cold: each function that it enters costs as much as a short file.
    def _tick(self, charge: object) -> bool:
        """Begins a tick, or continues one in which something failed; returns False if another thread does."""
        tick = self._pass
        if tick is None:
            now = self._clock.monotonic()
            if self._arriving or self._departing or self._flushes or not (self._series or self._watches):
                tick = self._begin_with_requests(now)
            else:
                if self._watches or self._new_watches:
                    self._update_watches(now)
                whole = bool(self._watches) or self._closes_at <= now + _EARLY_SECONDS
                tick = self._pass = Tick(self._schedule.awake(now, whole=whole), now, whole=whole)
        if self.inbox.due_at != math.inf:
            self.inbox.collect()  # afterwards: who asked for a flush has left its points before
        if not self.thread.read(tick, charge):
            return False
        if not tick.is_counted:
            self._count(tick)
        if tick.makes_points:
            self._make_points(tick)
        self._due_at = self._next_due()
        self._pass = None
        return True

    def _count(self, tick: Tick) -> None:
        """Counts the readings of a tick as those of one moment."""
        now = tick.now
        if tick.makes_points or self._closes_at <= now + _EARLY_SECONDS:
            tick.timestamp, tick.makes_points = self._stamper.next(), True
        tick.is_counted = True
        passed, samples = now - self._ticked_at, tick.samples
        before = (now, ()) if tick.is_whole and passed >= _SECOND_READING_SECONDS else self._shown
        self.last = ((now, samples), before)
        if tick.is_whole:
            self._shown = (before[0], self.latest[1]) if before[1] else (now, samples)
        self.ticks += 1
        self._readings += tick.is_whole
        for window in self._windows:
            window.add(samples, passed)
        self.history.add(samples, passed)
        self._ticked_at = now

    def _make_points(self, tick: Tick) -> None:
        """Makes points of windows that close, and begins and ends runs."""
        with self.together:
            self._close_windows(tick.now, tick.timestamp, everything=bool(tick.flushes))
        if tick.departing or tick.arriving:
            self._end(tick.departing, tick.timestamp)
            self._begin(tick.arriving, levels(tick.samples), tick.timestamp)
            self._end(tick.departing, tick.timestamp, began=True)
        self._open_windows(tick.now)
        self._find_interval()
        for done in tick.flushes:
            done.set()

    def _begin_with_requests(self, now: float) -> Tick:
        tick = Tick(self._probes, now)
        tick.arriving, tick.makes_points = [], True
        if self._idle:
            self._epoch = now  # the schedule starts afresh with the first run after a pause
            if self._has_paused(now):
                self._readings = 0
                for probe in self._probes:
                    probe.renew()
        with self._lock:
            self._pass = tick
            self._take_requests(tick)
        if self._idle:
            self.stirred()
        self._update_watches(now)
        return tick

    @property
    def _idle(self) -> bool:
        return not (self._series or self._watches)

    def _has_paused(self, now: float) -> bool:
        return now - self._ticked_at > _PAUSE_SECONDS

    def _requested(self) -> bool:
        # Without the lock: who adds to these lists wakes this thread afterwards.
        if self._arriving or self._departing or self._flushes:
            return True
        # While everything is read for the runs, a new watch shows that and needs no tick.
        return bool(self._new_watches and (self._idle or self.last[1][1]))

    def _take_requests(self, tick: Tick) -> None:
        tick.departing, self._departing = self._departing, []
        tick.flushes, self._flushes = self._flushes, []
        # A run that ends and is resumed within one tick waits for the next: one point per key and timestamp.
        # If it ends again while it waits, it is over without a tick.
        ended = set(tick.departing)
        taken = {series.key for series in tick.departing if series in self._series}
        waiting: list[RunSeries] = []
        for series in self._arriving:
            if series.key not in taken:
                tick.arriving.append(series)
                taken.add(series.key)
            elif series in ended:
                series.ended.set()
            else:
                waiting.append(series)
        self._arriving = waiting
        if self._arriving:
            self._wake.set()

    # Work leaves its list only once it is done: if something fails, the next step of the loop does the rest.

    def _close_windows(self, now: float, timestamp: int, *, everything: bool) -> None:
        closing = [
            window for window in self._windows if everything or window.closes_at <= now + _EARLY_SECONDS
        ]
        for window in closing:
            values = window.values()
            members = self._windows[window]
            for series in list(members):
                self._do(series, series.emit_all if everything else series.emit, values, timestamp)
                series.window = None
                self._without_window.append(series)
                del members[series]
            del self._windows[window]

    def _begin(self, arriving: list[RunSeries], levels: Sequence[Value], timestamp: int) -> None:
        while arriving:
            series = arriving[0]
            self._do(series, series.begin, levels, timestamp, self.state)
            self._series[series] = None
            self._without_window.append(series)
            del arriving[0]

    def _end(self, departing: list[RunSeries], timestamp: int, *, began: bool = False) -> None:
        """Ends runs; those that have arrived in the same tick only after they have begun."""
        for series in list(departing):
            if series.window is not None:  # a partial window, not one that has just closed
                self._do(series, series.emit_all, series.window.values(), timestamp)
                self._windows[series.window].pop(series, None)
                series.window = None
            if series in self._series:
                self._do(series, series.end)
                del self._series[series]
            elif not began:
                continue
            elif not series.ended.is_set():  # one that never came: its attach was interrupted
                self._do(series, series.end)
            departing.remove(series)

    def _do(self, series: RunSeries, act: Callable[..., None], *arguments: object) -> None:
        """Does something for a run; what fails twice is left out, so that no run holds up the others."""
        try:
            act(*arguments)
        except BaseException as error:
            if not series.failed:  # not enough memory, or an exception set in this thread
                series.failed = True
                raise
            _logger.warning(
                "mlflow-sysmetrics: Points of run %s are lost: %s: %s.",
                series.key[1],
                type(error).__name__,
                error,
            )
        series.failed = False

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
        for window in [window for window, members in self._windows.items() if not members]:
            del self._windows[window]
        self._closes_at = min((window.closes_at for window in self._windows), default=math.inf)

    def _update_watches(self, now: float) -> None:
        """Adds new watches and removes those that have lapsed."""
        with self._lock:
            arriving, self._new_watches = self._new_watches, []
        for watch in arriving:
            self._watches[watch] = None
        for watch in [watch for watch in self._watches if watch.lapsed(now)]:
            del self._watches[watch]
        self._find_interval()

    def _find_interval(self) -> None:
        """Finds the interval of ticks: the shortest of all runs and watches."""
        settings = [series.settings for series in self._series]
        watches = [watch.interval for watch in self._watches]
        self._interval = min([*(one.sampling_interval for one in settings), *watches], default=math.inf)
        self.window_seconds = min([*(one.window_seconds for one in settings), *watches], default=0.0)
        if not math.isinf(self._interval):
            self.thread.follow_interval(self._interval)

    def _next_due(self) -> float:
        """Returns the time of the next tick: the next multiple of the interval; missed ones are skipped."""
        passed = (self._clock.monotonic() - self._epoch + _EARLY_SECONDS) // self._interval
        due_at = self._epoch + (passed + 1) * self._interval
        if self._readings == 1 and self._watches:
            due_at = min(due_at, self._ticked_at + _SECOND_READING_SECONDS)
        return due_at
