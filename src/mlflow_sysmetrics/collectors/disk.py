"""Space of the filesystem that the job works on.

Source:  statvfs of the working directory (GetDiskFreeSpaceEx on Windows), through `shutil.disk_usage`.
Units:   megabytes (1e6 bytes); percent of what ordinary users may use, as in df and psutil.
Cost:    one system call.
Absent:  where the working directory is gone or its filesystem does not answer.
Check:   df .
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import disk as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample


class Disk(Collector):
    """Space of the working directory's filesystem."""

    family: ClassVar[Family] = Family.DISK
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.DISK_USAGE_PERCENTAGE,
        catalogue.DISK_USAGE,
        catalogue.DISK_AVAILABLE,
    )

    def __init__(self, host: Host) -> None:
        self._disk_usage = host.disk_usage
        try:
            # Remembered as it is now: a program that changes its directory does not change its disk's curve.
            self._path = os.getcwd()  # noqa: PTH109 - a string is what the system call takes
            self._disk_usage(self._path)
        except OSError as error:
            raise Unavailable(str(error)) from error

    def collect(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - a level needs no clock
        """Yields used and available space."""
        _, used, free = self._disk_usage(self._path)
        if used + free > 0:
            yield catalogue.DISK_USAGE_PERCENTAGE.sample(PERCENT * used / (used + free))
        yield catalogue.DISK_USAGE.sample(used / MEGABYTE)
        yield catalogue.DISK_AVAILABLE.sample(free / MEGABYTE)
