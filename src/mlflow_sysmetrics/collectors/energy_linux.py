"""Energy and power of the CPU packages.

Source:  /sys/class/powercap: energy_uj of the RAPL zones `package-<n>`, through MSR (intel-rapl, AMD too) or
         through MMIO (intel-rapl-mmio), which show the same packages: each counts once. The zones dram, core
         and psys are parts of a package, or exceed it. https://docs.kernel.org/power/powercap/powercap.html
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

from mlflow_sysmetrics.collectors.catalogue import energy as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.kernel_files import count
from mlflow_sysmetrics.collectors.rapl import joules_between, packages
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_SECONDS_PER_HOUR = 3600.0


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
        self._last = first

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the energy so far and the power since the last reading that was old enough."""
        readings = self._read()
        if readings is None:
            return  # the next readings include what was missed: the counters continue
        span = self._lap.seconds(now)
        if span is not None:
            before, self._last = self._last, readings
            grown = [
                joules_between(then, reading, zone.range_uj, span)
                for then, reading, zone in zip(before, readings, self._zones, strict=True)
            ]
            known = [joules for joules in grown if joules is not None]
            if len(known) < len(grown):
                self.gaps = (f"no energy over the last {span:.0f} s: a counter may have wrapped unseen",)
                return
            self._joules += sum(known)
            yield catalogue.CPU_POWER.sample(sum(known) / span, span)
        yield catalogue.CPU_ENERGY.sample(self._joules / _SECONDS_PER_HOUR)

    def _read(self) -> list[int] | None:
        """Returns one count per package; None if one does not respond."""
        self.gaps: Sequence[str] = ()
        try:
            return [count(read_short(zone.path)) for zone in self._zones]
        except (OSError, ValueError) as error:
            self.gaps = (f"no energy at the last tick: {why_unread(error)}",)
            return None
