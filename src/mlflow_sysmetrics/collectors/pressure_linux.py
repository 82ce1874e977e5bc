"""Time lost to waiting for CPU, memory and block devices.

Source:  cpu.pressure, memory.pressure, io.pressure of the job's cgroup (v2, in a hybrid layout too), else
         /proc/pressure: total of the line "some", in microseconds. https://docs.kernel.org/accounting/psi.html
Units:   percent of time in which at least one task waited, 0 to 100.
Cost:    three reads of 100 bytes.
Absent:  a kernel before 4.20, or without psi=1 if that is not the default.
Check:   cat /sys/fs/cgroup/*.pressure /proc/pressure/*
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import pressure as catalogue
from mlflow_sysmetrics.collectors.contract import MICROSECONDS, PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters
from mlflow_sysmetrics.collectors.kernel_files import count
from mlflow_sysmetrics.collectors.own_group import OwnGroup
from mlflow_sysmetrics.collectors.rhythm import CLOCKS_DIFFER, Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import ControllerDirectory, unified_directory
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_RESOURCES = {
    "cpu": catalogue.CPU_PRESSURE,
    "memory": catalogue.MEMORY_PRESSURE,
    "io": catalogue.IO_PRESSURE,
}


def parse_pressure(text: bytes) -> int:
    """Returns the microseconds in which some task waited, since boot or since the group was created.

    Raises:
        Malformed: the text has no such total.
    """
    line, end, _ = text.partition(b"\n")
    label, _, total = line.rpartition(b" total=")
    if not end or not label.startswith(b"some "):
        raise Malformed(f"{quoted(text)} is not a pressure file")
    return count(total + end)


class PressureLinux(Collector):
    """Share of time in which tasks waited."""

    family: ClassVar[Family] = Family.PRESSURE
    metrics: ClassVar[tuple[Metric, ...]] = tuple(_RESOURCES.values())

    def __init__(self, host: Host) -> None:
        self._lap = Lap()
        self._group = OwnGroup(host)
        own = _own_group(host)
        self._waited: dict[tuple[Metric, str], Counters] = {}
        missing = {}
        for resource, metric in _RESOURCES.items():
            try:
                path, waited = _find(host, own, resource)
                self._waited[metric, path] = Counters(CLOCKS_DIFFER * MICROSECONDS)
                self._waited[metric, path].follow((waited,), NO_CLOCK)
            except Unavailable as reason:
                missing[resource] = reason
        if not self._waited:
            raise Unavailable(str(missing["cpu"]))
        gaps = [f"no {resource} pressure: {reason}" for resource, reason in missing.items()]
        if own is not None and own.group != "/" and any(own.own not in path for _, path in self._waited):
            gaps.append(f"the pressure is the host's: the cgroup {own.group} has none")
        self._lasting_gaps = self.gaps = tuple(gaps)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the shares since the last reading that was old enough.

        Raises:
            Unavailable: no pressure can be read any more, or the job's cgroup has changed; a new collector
                         finds it.
        """
        self._group.check(now)
        span = self._lap.seconds(now)
        if span is None:
            for counter in self._waited.values():
                counter.begin(now)
            return
        silent = []
        for (metric, path), counter in self._waited.items():
            try:
                step = counter.follow((parse_pressure(read_short(path)),), now)
            except (OSError, ValueError) as error:  # unknown at this tick; the others are still read
                silent.append(why_unread(error, path))
                continue
            if step is not None and step.span:
                share = step.grown[0] / (step.span * MICROSECONDS)
                yield metric.sample(min(PERCENT * share, PERCENT), span)
        if len(silent) == len(self._waited):
            raise Unavailable(silent[0])
        self.gaps = (*self._lasting_gaps, *silent)


def _own_group(host: Host) -> ControllerDirectory | None:
    try:
        return unified_directory(host)
    except Unavailable:
        return None


def _find(host: Host, own: ControllerDirectory | None, resource: str) -> tuple[str, int]:
    """Returns the pressure file of a resource, and its current value."""
    places = [] if own is None else [f"{own.own}/{resource}.pressure"]
    places.append(f"proc/pressure/{resource}")
    for place in places:
        path = str(host.root / place)
        try:
            return path, parse_pressure(read_short(path))
        except (OSError, ValueError) as error:  # disabled for the group, or for the whole kernel
            reason = why_unread(error, f"/{place}")
    raise Unavailable(reason)
