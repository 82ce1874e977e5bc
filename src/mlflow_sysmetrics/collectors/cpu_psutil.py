"""CPU time of a host that is not Linux.

Source:  psutil.cpu_times: GetSystemTimes on Windows, host_statistics of Mach on macOS.
Units:   percent of the CPU time of all CPUs, 0 to 100.
Cost:    one call.
Absent:  in the first 0.15 s; if the counters did not change.
Check:   python -c "import psutil; print(psutil.cpu_times())"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.cpu_times import BusyTime, CpuTimes
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_refused
from mlflow_sysmetrics.samples import Family, Metric, Sample

_MOST_CPUS = 8192  # if their number is unknown: the largest kernel is built for so many


class CpuPsutil(Collector):
    """Busy share of the CPU time of the host."""

    cumulative = True
    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_UTILIZATION,)

    def __init__(self, host: Host) -> None:
        self._lap = Lap()
        self._busy = BusyTime(self._read(), psutil.cpu_count() or _MOST_CPUS)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the share since the last reading that was old enough."""
        # Not psutil.cpu_percent: it keeps its last reading per thread, so a first call in another thread
        # gives noise.
        times = self._read()
        span = self._lap.seconds(now)
        if span is None:
            self._busy.begin(now)
            return
        share = self._busy.percentage(times, now)
        if share is not None:
            yield catalogue.CPU_UTILIZATION.sample(share, span)

    @staticmethod
    def _read() -> CpuTimes:
        try:
            times = psutil.cpu_times()
        except (psutil.Error, OSError) as error:
            raise Unavailable(why_refused("cpu_times", error)) from error
        total = sum(times)
        return CpuTimes(busy=total - times.idle, total=total)
