"""CPU time of the host.

Source:  /proc/stat, first line: USER_HZ ticks per mode since boot.
Units:   percent of the CPU time of all CPUs, 0 to 100. Waiting for a disk counts as idle, guests as user (the
         kernel has them in both), as in psutil.
Cost:    one read of /proc/stat, of which only the first line is parsed.
Absent:  in the first 0.15 s; where the kernel's counters did not move.
Check:   head -1 /proc/stat; top
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import cpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.cpu_times import CpuTimes, busy_percentage
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host, read_bytes
from mlflow_sysmetrics.samples import Family, Metric, Sample

_IDLE, _IOWAIT, _GUEST = 3, 4, 8


def parse_stat(text: bytes) -> CpuTimes:
    """Returns the CPU time of all CPUs from the text of /proc/stat.

    Raises:
        ValueError: the text does not start with the line of all CPUs.
    """
    label, *fields = text.partition(b"\n")[0].split() or [b""]
    if label != b"cpu" or len(fields) <= _IDLE:
        raise ValueError(f"/proc/stat starts with {text[:40]!r}, not with the line of all CPUs")
    ticks = [int(field) for field in fields]
    total = sum(ticks[:_GUEST])
    return CpuTimes(total - sum(ticks[_IDLE : _IOWAIT + 1]), total)


class CpuLinux(Collector):
    """Share of time that the CPUs of the host worked."""

    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_UTILIZATION,)

    def __init__(self, host: Host) -> None:
        self._path = str(host.root / "proc/stat")
        self._lap = Lap()
        try:
            self._times = self._read()
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the share since the last reading that was old enough."""
        span = self._lap.seconds(now)
        if span is None:
            return
        before, self._times = self._times, self._read()
        share = busy_percentage(before, self._times)
        if share is not None:
            yield catalogue.CPU_UTILIZATION.sample(share, span)

    def _read(self) -> CpuTimes:
        return parse_stat(read_bytes(self._path))
