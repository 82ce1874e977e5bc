"""CPU time: how much of its share the job uses, and how busy the host is if that is something else.

Source:  /proc/stat: USER_HZ ticks per mode since boot, of all CPUs in its first line and of each CPU below.
         If a quota or a cpuset limits the job: the CPU time of its own cgroup.
Units:   percent, 0 to 100, of the CPUs that the job may use. In /proc/stat waiting for a disk counts as idle,
         guests as user (the kernel includes them in both), as in psutil.
Cost:    one read of /proc/stat, of which only the first line is parsed; one more small read under a limit.
         Limits may change: half of the files that set one are read at every other tick, 1 us each.
Absent:  in the first 0.15 s; if the kernel's counters did not change; the job's share at the tick that
         notices a new limit.
Check:   head -1 /proc/stat; top; cat /sys/fs/cgroup/cpu.stat
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import ClassVar, Protocol

from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import MICROSECONDS, PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters
from mlflow_sysmetrics.collectors.cpu_times import PER_UNIT, BusyTime, CpuTimes
from mlflow_sysmetrics.collectors.own_group import GroupCpuTime, LimitWatch
from mlflow_sysmetrics.collectors.processes.stat import TICKS_PER_SECOND
from mlflow_sysmetrics.collectors.rhythm import (
    CLOCKS_DIFFER,
    LOOK_UP_SECONDS,
    SHORTEST_RATE_SECONDS,
    Lap,
    Pause,
)
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cpu_share import CpuShare, cpu_share
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_bytes
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_IDLE, _IOWAIT, _GUEST = 3, 4, 8
_make = tuple.__new__
_CPU, _RATE = catalogue.CPU_UTILIZATION.name, catalogue.CPU_UTILIZATION.kind


def parse_stat(text: bytes, cpu: bytes = b"cpu") -> CpuTimes:
    """Returns the CPU time of all CPUs, or of one, from the text of /proc/stat.

    Raises:
        Malformed: the text has no such line.
    """
    fields = text.split(None, _GUEST + 1)  # of the first line, as every kernel of today writes it
    if len(fields) > _GUEST + 1 and fields[0] == cpu:
        try:
            user, nice, system, idle, waiting, irq, softirq, steal = map(int, fields[1 : _GUEST + 1])
        except ValueError:  # the line of a kernel that counts less
            pass
        else:
            busy = user + nice + system + irq + softirq + steal
            return _make(CpuTimes, (busy, busy + idle + waiting))
    start = 0 if text.startswith(cpu) else text.find(b"\n" + cpu + b" ") + 1
    fields = text[start : text.find(b"\n", start)].split()
    try:
        ticks = list(map(int, fields[1 : _GUEST + 1])) if fields and fields[0] == cpu else []
    except ValueError:
        ticks = []
    if len(ticks) <= _IDLE:
        raise Malformed(f"/proc/stat starts with {quoted(text)} and has no line of {cpu.decode()}")
    total = sum(ticks)
    waiting = ticks[_IOWAIT] if len(ticks) > _IOWAIT else 0
    return _make(CpuTimes, (total - ticks[_IDLE] - waiting, total))


class CpuLinux(Collector):
    """Busy share of CPU time: the job's, and the host's if that is different."""

    cumulative = True
    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_UTILIZATION, catalogue.HOST_CPU_UTILIZATION)

    def __init__(self, host: Host) -> None:
        self._host = host
        path = str(host.root / "proc/stat")
        self._lap = Lap()
        self._look = Pause(LOOK_UP_SECONDS, first=0.1)
        self._watch = LimitWatch(host, "cpu", "cpuset")
        self._affinity = self._read_affinity()
        self._outdated = self._looks_at_affinity = False
        try:
            text = read_bytes(path)
            self._file = host.files.keep(path)
            self._busy = BusyTime(parse_stat(text), text.count(b"\ncpu"), TICKS_PER_SECOND)
            self._job = self._find_job()
        except (OSError, ValueError) as error:
            raise Unavailable(why_unread(error)) from error

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the shares since the last reading that was old enough.

        Raises:
            Unavailable: the job's cgroup is gone, or one of its CPUs went offline; a new collector finds the
                current state.
        """
        if self._watch.changed(now):
            self._outdated = True
        self._looks_at_affinity = not self._looks_at_affinity  # every other tick: it takes as long as a file
        if self._looks_at_affinity:
            affinity = self._read_affinity()
            if affinity != self._affinity:
                self._affinity, self._outdated = affinity, True
        text = self._file.read()  # before the lap ends: if this fails, the lap continues
        # An ordinary tick of a job without limits; infinity: the pause has not begun.
        if self._job is None and not self._outdated and now < self._look.over_at < math.inf:
            lap, counter = self._lap, self._busy.counter
            span = now - lap.began
            if span >= SHORTEST_RATE_SECONDS and counter.plain:
                busy, total = times = parse_stat(text)
                busy_before, total_before = self._busy.believed
                busy, total, count = busy - busy_before, total - total_before, round(total * PER_UNIT)
                grown = count - counter.counts[0]
                if 0 <= busy <= total > 0 and grown <= counter.surely:
                    lap.began = counter.read_at = now
                    counter.counts, counter.pace, self._busy.believed = (count,), (grown,), times
                    return [_make(Sample, (_CPU, _RATE, PERCENT * busy / total, span))]
        return self._collect(now, text)

    def _collect(self, now: float, text: bytes) -> Sequence[Sample]:
        span = self._lap.seconds(now)
        if span is None:
            self._busy.begin(now)
            return ()
        host = self._busy.percentage(parse_stat(text), now)
        samples = []
        # Over a span with two limits the job has no share of either.
        was_limited = self._job is not None
        if self._outdated:
            self._job = self._find_job()
        if host is not None:
            limited = was_limited or self._job is not None
            metric = catalogue.HOST_CPU_UTILIZATION if limited else catalogue.CPU_UTILIZATION
            samples.append(metric.sample(host, span))
        if self._outdated:
            self._outdated = False
            return samples
        job = None if self._job is None else self._job.percentage(text, span, now)
        if job is not None:
            samples.append(catalogue.CPU_UTILIZATION.sample(job, span))
        if self._look.renew_if_over(now):
            self._job = self._find_job()
        return samples

    def _read_affinity(self) -> Collection[int]:
        try:
            return self._host.affinity()
        except OSError:  # forbidden by a sandbox
            return ()

    def _find_job(self) -> _Job | None:
        """Returns what measures the job's share of CPU time; None if it may use the whole host."""
        self.gaps = ()
        share = cpu_share(self._host)
        if not share.limited:
            return None
        if share.held_by_group:
            try:
                return _Group(self._host, share)
            except Unavailable as reason:
                if share.quota is not None:
                    # How busy the CPUs are says nothing about the job's use of its quota.
                    self.gaps = (f"no CPU utilization of the job: {reason}",)
                    return _Unknown()
        # Otherwise the first line is enough, and needs no second reading to find the end.
        self._file = self._host.files.keep(self._file.path, pieces=True)
        return _Lines(share.usable, self._file.read())


class _Job(Protocol):
    """Measures the job's share of CPU time if that is not the host's."""

    def percentage(self, text: bytes, span: float, now: float) -> float | None:
        """Returns the share since the previous reading; None if unknown.

        Args:
            text: the current content of /proc/stat.
            span: seconds since the previous reading.
            now: seconds of a clock that never goes back.
        """


class _Unknown(_Job):
    """The job's share if nothing counts its CPU time."""

    def percentage(self, text: bytes, span: float, now: float) -> float | None:
        return None


class _Group(_Job):
    """The job's share if a quota or a cpuset limits its cgroup: the group's use of that limit."""

    def __init__(self, host: Host, share: CpuShare) -> None:
        self._cores = share.cores
        # A group that used more than the whole host was misread.
        self._counter = Counters(CLOCKS_DIFFER * len(share.online) * MICROSECONDS)
        self._time = GroupCpuTime(host, "cpuset" if share.quota is None else "cpu")
        self._counter.follow((self._used(),), NO_CLOCK)

    def percentage(self, text: bytes, span: float, now: float) -> float | None:
        self._counter.begin(now - span)
        step = self._counter.follow((self._used(),), now)
        if step is None or not step.span:
            return None
        # Above 100 only by the difference between the group's clock and ours, or by a saved-up burst.
        return min(PERCENT * step.grown[0] / MICROSECONDS / (step.span * self._cores), PERCENT)

    def _used(self) -> int:
        return round(self._time.seconds() * MICROSECONDS)


class _Lines(_Job):
    """The job's share if it is bound to some CPUs: how busy these are, whoever uses them."""

    def __init__(self, cpus: frozenset[int], text: bytes) -> None:
        self._names = [b"cpu%d" % cpu for cpu in sorted(cpus)]
        self._busy = BusyTime(self._sum(text), len(cpus), TICKS_PER_SECOND)

    def percentage(self, text: bytes, span: float, now: float) -> float | None:
        try:
            times = self._sum(text)
            self._busy.begin(now - span)
        except Malformed as error:
            raise Unavailable("the CPUs of the job have changed") from error
        return self._busy.percentage(times, now)

    def _sum(self, text: bytes) -> CpuTimes:
        times = [parse_stat(text, name) for name in self._names]
        return CpuTimes(sum(one.busy for one in times), sum(one.total for one in times))
