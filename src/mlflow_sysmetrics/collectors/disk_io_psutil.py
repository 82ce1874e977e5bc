"""Disk throughput of a host that is not Linux.

Source:  psutil.disk_io_counters: IOCTL_DISK_PERFORMANCE on Windows, IOBlockStorageDriver on macOS.
Units:   megabytes (1e6 bytes) per second over all disks; the disk of a path is unknown there.
Cost:    one call that queries every disk.
Absent:  in the first 0.15 s; if no disk counts. Busy time, always: psutil reports it on neither system.
Check:   python -c "import psutil; print(psutil.disk_io_counters(nowrap=False))"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import disk_and_network as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import why_refused
from mlflow_sysmetrics.samples import Family, Metric, Sample


class DiskIoPsutil(Collector):
    """Throughput of all disks of the host."""

    cumulative = True
    family: ClassVar[Family] = Family.DISK
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.DISK_READ, catalogue.DISK_WRITE)

    def __init__(self, host: Host) -> None:
        self._lap = Lap()
        self._counters = Counters(*[bounds.ARRAY_BYTES] * 2, from_zero=bounds.FROM_ZERO)
        self._counters.follow(_read(), NO_CLOCK)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the rates since the last reading that was old enough; none while a counter is doubted.

        Raises:
            Unavailable: the host's disks are gone.
        """
        span = self._lap.seconds(now)
        if span is None:
            self._counters.begin(now)
            return
        step = self._counters.follow(_read(), now)
        if step is not None and step.span:
            read, written = step.grown
            yield catalogue.DISK_READ.sample(read / MEGABYTE / step.span, span)
            yield catalogue.DISK_WRITE.sample(written / MEGABYTE / step.span, span)


def _read() -> tuple[int, int]:
    """Returns the bytes that all disks have read and written.

    Raises:
        Unavailable: psutil lists no disk.
    """
    try:
        # Without nowrap, which keeps a history of every disk: a counter that goes back gives no rate here
        # anyway.
        counters = psutil.disk_io_counters(perdisk=False, nowrap=False)
    except (psutil.Error, OSError, RuntimeError) as error:
        raise Unavailable(why_refused("disk_io_counters", error)) from error
    if counters is None:
        raise Unavailable("psutil.disk_io_counters: no disk")
    return counters.read_bytes, counters.write_bytes
