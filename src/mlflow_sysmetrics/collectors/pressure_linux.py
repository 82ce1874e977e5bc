"""Time lost to waiting for CPU, memory and block devices.

Source:  cpu.pressure, memory.pressure, io.pressure of the job's cgroup (v2, in a hybrid layout too), else
         /proc/pressure: total of the line "some", in microseconds. https://docs.kernel.org/accounting/psi.html
Units:   percent of time in which at least one task waited, 0 to 100.
Cost:    three reads of 100 bytes.
Absent:  a kernel before 4.20, or without psi=1 if that is not the default.
Check:   cat /sys/fs/cgroup/*.pressure /proc/pressure/*
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import MICROSECONDS, PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters
from mlflow_sysmetrics.collectors.kernel_files import count
from mlflow_sysmetrics.collectors.own_group import OwnGroup
from mlflow_sysmetrics.collectors.rhythm import CLOCKS_DIFFER, Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.cgroups import ControllerDirectory, unified_directory
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import KeptFile
from mlflow_sysmetrics.machine.reasons import Malformed, quoted, why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_MOST_DIGITS = 19  # a number of so many is less than 2**64
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
    end = text.find(b"\n")
    start = text.rfind(b" total=", 0, max(end, 0))
    total = text[start + 7 : end]  # the length of " total="
    if start < 0 or not total.isdigit() or not text.startswith(b"some "):
        raise Malformed(f"{quoted(text)} is not a pressure file")
    return count(total + b"\n") if len(total) > _MOST_DIGITS else int(total)


class PressureLinux(Collector):
    """Share of time in which tasks waited."""

    cumulative = True
    family: ClassVar[Family] = Family.PRESSURE
    metrics: ClassVar[tuple[Metric, ...]] = tuple(_RESOURCES.values())

    def __init__(self, host: Host) -> None:
        self._lap = Lap()
        self._group = OwnGroup(host)
        own = _own_group(host)
        self._waited: list[tuple[Metric, KeptFile, Counters]] = []
        missing = {}
        for resource, metric in _RESOURCES.items():
            try:
                file, waited = _find(host, own, resource)
                counter = Counters(CLOCKS_DIFFER * MICROSECONDS)
                counter.follow((waited,), NO_CLOCK)
                self._waited.append((metric, file, counter))
            except Unavailable as reason:
                missing[resource] = reason
        if not self._waited:
            raise Unavailable(str(missing["cpu"]))
        gaps = [f"no {resource} pressure: {reason}" for resource, reason in missing.items()]
        if (
            own is not None
            and own.group != "/"
            and any(own.own not in file.path for _, file, _ in self._waited)
        ):
            gaps.append(f"the pressure is the host's: the cgroup {own.group} has none")
        self._lasting_gaps = self.gaps = tuple(gaps)

    def collect(self, now: float) -> Sequence[Sample]:
        """Returns the shares since the last reading that was old enough.

        Raises:
            Unavailable: no pressure can be read any more, or the job's cgroup has changed; a new collector
                         finds it.
        """
        if self._group.changed(now):
            self._group.confirm()
        span = self._lap.seconds(now)
        if span is None:
            for _, _, counter in self._waited:
                counter.begin(now)
            return ()
        samples, silent = [], []
        for metric, file, counter in self._waited:
            try:
                step = counter.follow((parse_pressure(file.read()),), now)
            except (OSError, ValueError) as error:  # unknown at this tick; the others are still read
                silent.append(why_unread(error, file.path))
                continue
            if step is not None and step[1]:
                share = step[0][0] / (step[1] * MICROSECONDS)
                samples.append(metric.sample(PERCENT * share if share < 1 else PERCENT, span))
        if len(silent) == len(self._waited):
            raise Unavailable(silent[0])
        self.gaps = (*self._lasting_gaps, *silent) if silent else self._lasting_gaps
        return samples


def _own_group(host: Host) -> ControllerDirectory | None:
    try:
        return unified_directory(host)
    except Unavailable:
        return None


def _find(host: Host, own: ControllerDirectory | None, resource: str) -> tuple[KeptFile, int]:
    """Returns the pressure file of a resource, and its current value."""
    places = [] if own is None else [f"{own.own}/{resource}.pressure"]
    places.append(f"proc/pressure/{resource}")
    for place in places:
        file = host.files.keep(str(host.root / place))
        try:
            return file, parse_pressure(file.read())
        except (OSError, ValueError) as error:  # disabled for the group, or for the whole kernel
            reason = why_unread(error, f"/{place}")
    raise Unavailable(reason)
