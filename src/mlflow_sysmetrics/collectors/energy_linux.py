"""Energy and power of the CPU packages.

Source:  /sys/class/powercap: energy_uj of the RAPL zones `package-<n>`, through MSR (intel-rapl, AMD too) or
         through MMIO (intel-rapl-mmio), which show the same packages: each counts once. The zones dram, core
         and psys are parts of a package, or exceed it. Dies that show their socket's counter, as in AMD's
         processors, count once. https://docs.kernel.org/power/powercap/powercap.html
Units:   watt-hours since the collector was built (the daemon counts from each run's attach); watts.
Cost:    one read per package, which its own CPU serves.
Absent:  no RAPL (virtual machines, Arm); since Linux 5.10 if only root may read it (CVE-2020-8694); at a tick
         at which one package does not respond, since the sum of the others would be too small.
Check:   cat /sys/class/powercap/intel-rapl:0/energy_uj; turbostat
Unconfirmed: constructed files
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters, Step
from mlflow_sysmetrics.collectors.kernel_files import count
from mlflow_sysmetrics.collectors.rapl import Mirrors, count_packages, packages
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_SECONDS_PER_HOUR = 3600.0
_MICROJOULES = 1e6
# A counter that could have wrapped at this power since it was read (65 kJ on some servers: after 65 s) may
# have wrapped unseen.
_MOST_MICROWATTS = bounds.PACKAGE_WATTS * _MICROJOULES


class EnergyLinux(Collector):
    """Energy that all CPU packages of the host used, and the power that they draw."""

    family: ClassVar[Family] = Family.ENERGY
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.CPU_ENERGY, catalogue.CPU_POWER)

    def __init__(self, host: Host) -> None:
        self._lap = Lap()
        self._joules = 0.0
        self._zones = packages(host)
        first = self._read()
        if first is None:
            raise Unavailable(self.gaps[0])
        self._counters = [Counters(_MOST_MICROWATTS, wraps_at=zone.range_uj) for zone in self._zones]
        for counter, reading in zip(self._counters, first, strict=True):
            counter.follow((reading,), NO_CLOCK)
        self._mirrors = Mirrors(self._zones, count_packages(host))
        self._mirrors.find(first)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the energy so far and the power since the last reading that was old enough."""
        readings = self._read()
        if readings is None:
            return  # the next readings include what was missed: the counters continue
        mirrored = self._mirrors.of(readings)
        span = self._lap.seconds(now)
        if span is None:
            for counter in self._counters:
                counter.begin(now)
        else:
            steps = [self._step(place, reading, now) for place, reading in enumerate(readings)]
            known = [step for place, step in enumerate(steps) if step is not None and place not in mirrored]
            self._joules += sum(step.grown[0] for step in known) / _MICROJOULES
            if len(known) + len(mirrored) < len(steps):
                if any(counter.unusable for counter in self._counters):
                    self.gaps = ("no energy: a counter does not go on from where it was",)
                return
            watts = [step.grown[0] / _MICROJOULES / step.span for step in known if step.span]
            if watts:
                yield catalogue.CPU_POWER.sample(sum(watts), span)
        yield catalogue.CPU_ENERGY.sample(self._joules / _SECONDS_PER_HOUR)

    def _step(self, place: int, reading: int, now: float) -> Step | None:
        """Returns the growth of a counter; None if it is unknown."""
        counter, range_uj = self._counters[place], self._zones[place].range_uj
        passed = now - counter.read_at
        if range_uj and passed * _MOST_MICROWATTS >= range_uj:
            counter.restart((reading,), now)
            self.gaps = (f"no energy over the last {passed:.0f} s: a counter may have wrapped unseen",)
            return None
        return counter.follow((reading,), now)

    def _read(self) -> list[int] | None:
        """Returns one count per package; None if one does not respond."""
        self.gaps: Sequence[str] = ()
        try:
            return [count(read_short(zone.path)) for zone in self._zones]
        except (OSError, ValueError) as error:
            self.gaps = (f"no energy at the last tick: {why_unread(error)}",)
            return None
