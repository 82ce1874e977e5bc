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
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT, SHORTEST_RATE_SECONDS
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host, read_bytes
from mlflow_sysmetrics.samples import Family, Metric, Sample

_IDLE, _IOWAIT, _GUEST = 3, 4, 8


class CpuTimes(NamedTuple):
    """CPU time since boot, in kernel ticks."""

    busy: int
    total: int


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


class CpuLinux:
    """Share of time that the CPUs of the host worked."""

    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_UTILIZATION,)

    def __init__(self, host: Host) -> None:
        self._path = str(host.root / "proc/stat")
        self._read_at = float("-inf")
        try:
            self._times = self._read()
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the share since the last reading that was old enough."""
        if self._read_at == float("-inf"):  # the constructor has no clock; its reading ages from here
            self._read_at = now
        span = now - self._read_at
        if span < SHORTEST_RATE_SECONDS:
            return
        before, self._times, self._read_at = self._times, self._read(), now
        total = self._times.total - before.total
        busy = self._times.busy - before.busy
        # iowait may run backwards by a tick, hence the bounds. https://docs.kernel.org/filesystems/proc.html
        if total > 0 and busy <= total:
            share = max(busy, 0) / total
            yield catalogue.CPU_UTILIZATION.sample(PERCENT * share, span)

    def _read(self) -> CpuTimes:
        return parse_stat(read_bytes(self._path))
