"""CPU time, and the busy share of it."""

from __future__ import annotations

from typing import NamedTuple

from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters

# A CPU counts a second in a second. A machine that was paused, or CPUs that are added, count more at once.
_MOST_SECONDS = 8.0
PER_UNIT = 1000  #: of the counter, whose readings are whole numbers


class CpuTimes(NamedTuple):
    """CPU time since boot, in the unit of its source."""

    busy: float
    total: float


def busy_percentage(before: CpuTimes, now: CpuTimes) -> float | None:
    """Returns the busy share of CPU time between two readings, 0 to 100; None if unknown."""
    total = now[1] - before[1]
    busy = now[0] - before[0]
    # iowait may go back by a tick, hence the bounds. https://docs.kernel.org/filesystems/proc.html
    if total <= 0 or busy > total:
        return None
    return PERCENT * busy / total if busy > 0 else 0.0


class BusyTime:
    """Makes busy shares of CPU times that are read one after the other, without what a bad reading makes up.

    Args:
        times: the first reading.
        cpus: how many CPUs they are the time of.
        per_second: units of the source in a second.

    Attributes:
        counter: decides which readings are believed; its reading is the total.
        believed: the last reading that is.
    """

    def __init__(self, times: CpuTimes, cpus: int, per_second: float = 1.0) -> None:
        self.counter = Counters(_MOST_SECONDS * cpus * per_second * PER_UNIT)
        self.counter.follow((_counted(times),), NO_CLOCK)
        self.believed = self._doubted = times

    def begin(self, now: float) -> None:
        """Gives the first reading, which was taken without a clock, its time."""
        self.counter.begin(now)

    def percentage(self, times: CpuTimes, now: float) -> float | None:
        """Returns the busy share since the last reading that is believed, 0 to 100; None if unknown.

        Args:
            times: the current reading.
            now: seconds of a clock that never goes back.
        """
        busy, total = times
        step = self.counter.follow((round(total * PER_UNIT),), now)
        if step is None:
            self._doubted = times
            return None
        before, self.believed = self.believed, times
        if step[2]:
            total -= before[1]
            busy -= before[0]
            if 0 <= busy <= total > 0:
                return PERCENT * busy / total
        else:
            before = self._doubted
            if _counted(times) - _counted(before) != step.grown[0]:  # it goes on from a reading before that
                return None
        return busy_percentage(before, times)


def _counted(times: CpuTimes) -> int:
    return round(times.total * PER_UNIT)
