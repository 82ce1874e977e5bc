"""CPU time lost to a cgroup quota.

Source:  cpu.stat of each group above the job that has a quota, v1 and v2: nr_periods, nr_throttled.
Units:   percent of enforcement periods in which the group was stopped, 0 to 100; of several groups the
         largest.
Cost:    one 200-byte read per group with a quota.
Absent:  no quota; a kernel without CONFIG_CFS_BANDWIDTH.
Check:   cat /sys/fs/cgroup/cpu.stat
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters, CounterSet, Step
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.own_group import LimitWatch
from mlflow_sysmetrics.collectors.rhythm import LOOK_UP_SECONDS, Lap, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import controller_directory, cpu_quotas
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import KeptFile
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample


class Periods(NamedTuple):
    """Enforcement periods of a quota since the group was created."""

    elapsed: int
    throttled: int


def parse_cpu_stat(text: bytes) -> Periods:
    """Returns the periods in the text of cpu.stat.

    Raises:
        Malformed: the text has none.
    """
    elapsed, throttled = number_after(b"nr_periods ", text), number_after(b"nr_throttled ", text)
    if elapsed is None or throttled is None:
        raise Malformed("cpu.stat has no nr_periods or no nr_throttled")
    return Periods(elapsed, throttled)


class ThrottlingLinux(Collector):
    """Share of periods in which a quota stopped the job."""

    cumulative = True
    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_THROTTLED,)

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lap = Lap()
        self._look = Pause(LOOK_UP_SECONDS, first=0.3)
        self._watch = LimitWatch(host, "cpu")
        self._outdated = False
        self._counters = CounterSet(lambda _: Counters(bounds.QUOTA_PERIODS, bounds.QUOTA_PERIODS))
        self._files: dict[str, KeptFile] = {}
        self._find(NO_CLOCK)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the share since the last reading that was old enough.

        Raises:
            Unavailable: the quota was removed.
        """
        self._outdated |= self._watch.changed(now)
        span = self._lap.seconds(now)
        if span is None:
            self._counters.begin(now)
            return
        steps = self._counters.follow(_read(self._files.values()), now)
        shares = [_share(step) for step in steps.values()]
        known = [share for share in shares if share is not None]
        if known:
            yield catalogue.CPU_THROTTLED.sample(max(known), span)
        if self._look.renew_if_over(now) or self._outdated:
            self._outdated = False
            self._find(now)

    def _find(self, now: float) -> None:
        """Finds the files of the groups with a quota; new ones count from their first reading."""
        quotas = cpu_quotas(self._host, controller_directory(self._host, "cpu"))
        if not quotas:
            raise Unavailable("no CPU quota")
        files = [str(self._host.root / path / "cpu.stat") for path, _ in quotas]
        kept = {file: self._files.get(file) or self._host.files.keep(file) for file in files}
        self._counters.follow(_read(kept[file] for file in files if file not in self._files), now)
        self._files = kept


def _read(files: Iterable[KeptFile]) -> dict[str, Periods]:
    try:
        return {file.path: parse_cpu_stat(file.read()) for file in files}
    except (OSError, ValueError) as error:
        raise Unavailable(f"the periods of the CPU quota cannot be read: {why_unread(error)}") from error


def _share(step: Step) -> float | None:
    """Returns the share of periods that were throttled; periods only elapse while the group has work."""
    elapsed, throttled = step.grown
    if throttled > elapsed or not step.span:
        return None
    return PERCENT * throttled / elapsed if elapsed else 0.0
