"""CPU time, and the busy share of it."""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.contract import PERCENT


class CpuTimes(NamedTuple):
    """CPU time since boot, in the unit of its source."""

    busy: float
    total: float


def busy_percentage(before: CpuTimes, now: CpuTimes) -> float | None:
    """Returns the busy share of CPU time between two readings, 0 to 100; None if unknown."""
    total = now.total - before.total
    busy = now.busy - before.busy
    # iowait may go back by a tick, hence the bounds. https://docs.kernel.org/filesystems/proc.html
    if total <= 0 or busy > total:
        return None
    return PERCENT * max(busy, 0.0) / total
