"""The thread that ticks, and watches on its last reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mlflow_sysmetrics.daemon.delivery.inbox import Inbox
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.window import Value, Window
from mlflow_sysmetrics.runtime.clock import Clock, Stamper
from mlflow_sysmetrics.runtime.native import Event, RLock
from mlflow_sysmetrics.runtime.threads import OneThread
from mlflow_sysmetrics.samples import Kind, Sample

THREAD_NAME = "sysmetrics-sampler"

# A wait may end this early, and multiples of a tenth of a second are not exact in binary: a tick that comes
# too soon by less than this is the scheduled one.
_EARLY_SECONDS = 0.001
# After a pause this long without a run the collectors are rebuilt. Otherwise the time of the pause, and
# processes started in it, would show in the first rates of the next run.
_PAUSE_SECONDS = 1.0
# A new watch needs two readings before it has rates. The second is not read on schedule, but as soon as the
# span is long enough for a rate (collectors/rhythm.py).
_SECOND_READING_SECONDS = 0.2
# A watch that was not read for this long, or never closed, lapses: the sampler may stop. It resumes at the
# next read.
_LAPSES_SECONDS = 60.0
# A reading is normally as old as one interval. One that is several intervals old, and was not just delayed
# for a moment, is out of date.
_STALE_INTERVALS = 3
_STALE_SECONDS = 5.0

# A change of the tag `sys.metrics` is sent at once, but not more often than this.
_STATE_SECONDS = 5.0
ON = "on"  #: the tag's value while nothing is missing

_NOTHING: Mapping[str, float] = MappingProxyType({})


class Watch:
    """Keeps the sampler ticking while it is read, and shows the last reading.

    Args:
        sampler: the sampler.
        clock: the time source.
        interval: seconds between two readings.
    """

    def __init__(self, sampler: Sampler, clock: Clock, interval: float) -> None:
        self.interval = interval
        self._sampler = sampler
        self._clock = clock
        self._read_at = clock.monotonic()
        self._closed = False
        sampler.watch(self)

    def read(self) -> Mapping[str, float]:
        """Returns the last reading by key, without ``system/``; empty while there is none. Never blocks.

        Rates need two readings; the second follows the first after a fifth of a second.
        """
        if self._closed:
            return _NOTHING
        now = self._clock.monotonic()
        lapsed, self._read_at = self.lapsed(now), now
        if lapsed:
            self._sampler.watch(self)
        taken_at, samples = self._sampler.latest
        if now - taken_at > max(_STALE_INTERVALS * self.interval, _STALE_SECONDS):
            return _NOTHING
        return {sample.key: sample.value for sample in samples}

    def wait(self, readings: int, timeout: float) -> bool:
        """Waits for a number of readings since the sampler was last idle; returns whether they happened."""
        ends = self._clock.monotonic() + timeout
        pause = Event()
        while self._sampler.readings < readings:
            if self._clock.monotonic() >= ends:
                return False
            pause.wait(0.005)  # poll: the sampler does not signal
        return True

    def close(self) -> None:
        """Ends the watch."""
        self._closed = True
        self._read_at = -math.inf

    def lapsed(self, now: float) -> bool:
        """Returns whether the watch was not read for a minute. Called by the sampler."""
        return now - self._read_at > _LAPSES_SECONDS


class Sampler:
    """Reads all collectors at each tick and hands closed windows to the series of the runs.

    Ticks follow an absolute schedule while there are runs or watches. An arrival, a departure and a flush
    cause a tick at once, so a run of 50 ms has points too. Otherwise the thread waits and costs nothing.

    Args:
        probes: the guarded collectors.
        clock: the time source.

    Attributes:
        ticks: number of ticks so far.
        latest: monotonic time and samples of the last tick.
        inbox: points of the program itself, collected by this thread.
    """

    def __init__(self, probes: Sequence[Probe], clock: Clock) -> None:
        self.ticks = self._readings = 0
        self.latest: tuple[float, Sequence[Sample]] = (-math.inf, ())
        self._probes = probes
        self._clock = clock
        self._thread = OneThread(self._run, THREAD_NAME)
        self._stamper = Stamper(clock)
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._wake = Event()
        self.inbox = Inbox(clock, self._wake.set)
        self._watches: dict[Watch, None] = {}
        self._new_watches: list[Watch] = []
        self._arriving: list[RunSeries] = []
        self._departing: list[RunSeries] = []
        self._flushes: list[Event] = []
        self._series: dict[RunSeries, None] = {}
        self._windows: dict[Window, dict[RunSeries, None]] = {}
        self._without_window: list[RunSeries] = []
        self._epoch = 0.0
        self._ticked_at = 0.0
        self._due_at = math.inf
        self._state = self.state()
        self._state_due_at = -math.inf

    def state(self) -> str:
        """Returns what the tag ``sys.metrics`` of a run says: "on", or "on, but ..." with what is missing."""
        return ON

    def start(self) -> None:
        """Starts the thread.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        self._thread.start()

    def add(self, series: RunSeries) -> None:
        """Adds a run, with a tick at once."""
        with self._lock:
            self._arriving.append(series)
        self._wake.set()

    def remove(self, series: RunSeries) -> None:
        """Removes a run, with a last tick at once; `series.ended` is set when its last point is queued."""
        with self._lock:
            self._departing.append(series)
        self._wake.set()

    def flush(self) -> Event:
        """Closes all windows with a tick at once; the event is set when their points are queued."""
        done = Event()
        with self._lock:
            self._flushes.append(done)
        self._wake.set()
        return done

    def watch(self, watch: Watch) -> None:
        """Keeps ticking until a watch lapses; ticks at once if nothing else causes ticks."""
        with self._lock:
            self._new_watches.append(watch)
        self._wake.set()

    @property
    def readings(self) -> int:
        """Number of readings since the sampler was last idle; 0 if the next one starts afresh."""
        return 0 if self._idle and self._has_paused(self._clock.monotonic()) else self._readings

    def run_due(self) -> None:
        """Does what is due now, if anything."""
        if self._requested() or self._clock.monotonic() >= self._due_at - _EARLY_SECONDS:
            self.tick()
            self._due_at = self._next_due()
            return
        if self._new_watches:
            self._update_watches(self._clock.monotonic())
            self._due_at = min(self._due_at, self._next_due())
        if self._clock.monotonic() >= self.inbox.due_at - _EARLY_SECONDS:
            self.inbox.collect()

    def tick(self) -> None:
        """Does one pass over all collectors and all windows."""
        self.inbox.collect()
        with self._lock:
            arriving, departing, flushes = self._take_requests()
        now = self._clock.monotonic()
        if self._idle:
            self._epoch = now  # the schedule starts afresh with the first run after a pause
            if self._has_paused(now):
                self._readings = 0
                for probe in self._probes:
                    probe.renew()
        self._update_watches(now)
        # Each probe gets its own time: a source that stalls must not distort the rates of those after it.
        samples = [sample for probe in self._probes for sample in probe.read(self._clock.monotonic())]
        timestamp = self._stamper.next()
        self.latest = (now, self._visible(now, samples))
        self.ticks += 1
        self._readings += 1
        for window in self._windows:
            window.add(samples, now - self._ticked_at)
        self._ticked_at = now
        self._close_windows(now, timestamp, everything=bool(flushes))
        self._end(departing, timestamp)
        self._update_state(now)
        self._begin(arriving, samples, timestamp)
        self._end([series for series in departing if series in self._series], timestamp)
        for series in departing:
            series.ended.set()  # also one that never came: its attach was interrupted
        self._open_windows(now)
        for done in flushes:
            done.set()

    def _run(self) -> None:
        while True:
            left = min(self._due_at, self.inbox.due_at) - self._clock.monotonic()
            self._wake.wait(None if math.isinf(left) else max(left, 0.0))
            self._wake.clear()
            self.run_due()

    @property
    def _idle(self) -> bool:
        return not self._series and not self._watches

    def _has_paused(self, now: float) -> bool:
        return now - self._ticked_at > _PAUSE_SECONDS

    def _requested(self) -> bool:
        with self._lock:
            # While there are runs, a new watch shows what is read for them and needs no tick.
            new_watch = self._new_watches and self._idle
            return bool(self._arriving or self._departing or self._flushes or new_watch)

    def _take_requests(self) -> tuple[list[RunSeries], list[RunSeries], list[Event]]:
        departing, self._departing = self._departing, []
        flushes, self._flushes = self._flushes, []
        # A run that ends and is resumed within one tick waits for the next: one point per key and timestamp.
        # If it ends again while it waits, it is over without a tick.
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
        return arriving, departing, flushes

    def _visible(self, now: float, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Returns what watches show: after a tick too soon for rates, the rates of the one before."""
        before_at, before = self.latest
        if now - before_at >= _SECOND_READING_SECONDS:
            return samples
        fresh = {sample.key for sample in samples}
        return [*samples, *(sample for sample in before if sample.key not in fresh)]

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
            if levels:
                series.put_state(self._state)
            series.emit(levels, timestamp)
            self._series[series] = None
            self._without_window.append(series)

    def _update_state(self, now: float) -> None:
        """Tells the runs of a change, so rarely that a source which comes and goes costs few requests."""
        state = self.state()
        if state == self._state or now < self._state_due_at:
            return
        self._state = state
        self._state_due_at = now + _STATE_SECONDS
        for series in self._series:
            series.put_state(state, at_once=True)

    def _end(self, departing: list[RunSeries], timestamp: int) -> None:
        for series in departing:
            if series.window is not None:  # a partial window, not one that has just closed
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
        for window in [window for window, members in self._windows.items() if not members]:
            del self._windows[window]

    def _update_watches(self, now: float) -> None:
        """Adds new watches and removes those that have lapsed."""
        with self._lock:
            arriving, self._new_watches = self._new_watches, []
        for watch in arriving:
            self._watches[watch] = None
        for watch in [watch for watch in self._watches if watch.lapsed(now)]:
            del self._watches[watch]

    def _next_due(self) -> float:
        """Returns the time of the next tick: the next multiple of the interval; missed ones are skipped."""
        intervals = [series.settings.sampling_interval for series in self._series]
        interval = min([*intervals, *(watch.interval for watch in self._watches)], default=math.inf)
        if math.isinf(interval):
            return math.inf
        passed = math.floor((self._clock.monotonic() - self._epoch + _EARLY_SECONDS) / interval)
        due_at = self._epoch + (passed + 1) * interval
        second = self._readings == 1 and self._watches
        return min(due_at, self._ticked_at + _SECOND_READING_SECONDS) if second else due_at


def _levels(samples: Sequence[Sample]) -> list[Value]:
    """Returns the values of one moment; no rates, since they cover time before the run existed."""
    return [Value(key, kind, value) for key, kind, value, _ in samples if kind is not Kind.RATE]
