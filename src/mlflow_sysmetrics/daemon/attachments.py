"""Which runs are attached, and who holds them.

An exception may arrive here at any point: a signal handler of the program raises, as RQ's and Celery's
timeouts do. So each step can be done again, and what was begun is undone or done by the next call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from mlflow_sysmetrics.daemon.delivery.inbox import RunKey
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries, Steps
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.runtime.native import RLock

_MOST_ENDED = 256  # runs that may be resumed within the second of their last point
_REPORTS = "mlflow_sysmetrics.report.artifact"  # by name, because that is on a floor above


@contextmanager
def reported_at_end(series: RunSeries | None, timeout: float | None) -> Iterator[None]:
    """Adds the report of a run to its artifacts if the ``with`` block has ended it and the user wants one.

    Args:
        series: the run; None for none.
        timeout: longest wait in seconds for all of it; None means the flush timeout.
    """
    began = time.monotonic()
    yield
    if series is not None and series.is_to_be_reported:
        longest = series.settings.flush_timeout if timeout is None else timeout
        left = max(longest - (time.monotonic() - began), 0.0)
        tracking_uri, run_id = series.key
        import_module(_REPORTS).add_report(run_id, tracking_uri, left)


class Attachments:
    """The attached runs: each is sampled once, however many holders it has.

    Args:
        sampler: samples them.
        lock: the daemon's.
    """

    def __init__(self, sampler: Sampler, lock: RLock) -> None:
        self._sampler = sampler
        self._lock = lock
        self._series: dict[RunKey, RunSeries] = {}
        self._steps: dict[RunKey, Steps] = {}

    def held(self, key: RunKey, holder: object) -> RunSeries | None:
        """Returns the series of a run if it has that holder."""
        series = self._series.get(key)
        return series if series is not None and holder in series.holders else None

    def all(self) -> list[RunSeries]:
        """Returns the series of all runs."""
        return list(self._series.values())

    def run_ids(self) -> tuple[str, ...]:
        """Returns the attached runs."""
        return tuple(run_id for _, run_id in list(self._series))  # a copy: others attach meanwhile

    def steps_of(self, key: RunKey) -> Steps:
        """Returns the steps of a run, which go on when it is attached again."""
        with self._lock:
            series = self._series.get(key)
            steps = self._steps.pop(key, None) if series is None else series.steps
            self._steps[key] = steps = steps or Steps()
            while len(self._steps) > _MOST_ENDED:
                del self._steps[next(iter(self._steps))]
            return steps

    def hold(self, key: RunKey, holder: object, create: Callable[[], RunSeries]) -> RunSeries:
        """Adds a holder to a run and returns its series.

        Args:
            key: tracking URI and run id.
            holder: whom to add.
            create: returns the series of a run that is not attached yet.
        """
        with self._lock:
            series = self._series.get(key)
            if series is not None and series.holders:
                series.holders.add(holder)
                return series
            series = create()
            series.steps = self.steps_of(key)
            try:
                series.holders.add(holder)
                self._series[key] = series
                self._sampler.add(series)
            except BaseException:  # raised by a signal handler: the run is not attached
                self.release(series, holder)
                raise
            return series

    def release(self, series: RunSeries, holder: object) -> bool:
        """Removes a holder, the last of which ends the series; returns whether it was the last.

        Safe to call again.
        """
        with self._lock:
            series.holders.discard(holder)
            if series.holders:
                return False
            if not series.ended.is_set():
                self._sampler.remove(series)
            if self._series.get(series.key) is series:
                self.steps_of(series.key)  # kept: the run may be resumed at once
                del self._series[series.key]
        return True

    def release_all(self) -> list[RunSeries]:
        """Ends all series and returns them."""
        with self._lock:
            all_series = list(self._series.values())
            for series in all_series:
                series.holders.clear()
                self._sampler.remove(series)
            self._series.clear()
        return all_series
