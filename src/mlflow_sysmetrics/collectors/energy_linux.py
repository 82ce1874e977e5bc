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

import re
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.counters import NO_CLOCK, Counters, Step
from mlflow_sysmetrics.collectors.kernel_files import count, listed, text_of
from mlflow_sysmetrics.collectors.presence import NO_RAPL, POWERCAP
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.machine.reasons import why_unread
from mlflow_sysmetrics.samples import Family, Metric, Sample

_TOP_ZONE = re.compile(r"intel-rapl(-mmio)?:\d+")  # intel-rapl:0:1 is a part of intel-rapl:0
_PACKAGE = re.compile(r"package-(\d+)(?:-die-\d+)?")
_PACKAGE_IDS = "sys/devices/system/cpu"
# Zones that show one counter differ by what the package draws between two reads: the register is updated once
# a millisecond. Counters of their own are within this of each other by a chance of 1 to 15,000.
_IN_STEP_UJ = 2_000_000
_APART_READINGS = 3  # a thread may be interrupted between two reads, but not at every tick
_SECONDS_PER_HOUR = 3600.0
_MICROJOULES = 1e6
# A counter that could have wrapped at this power since it was read (65 kJ on some servers: after 65 s) may
# have wrapped unseen.
_MOST_MICROWATTS = bounds.PACKAGE_WATTS * _MICROJOULES


class Zone(NamedTuple):
    """One zone of a package.

    Attributes:
        path: path of its counter.
        range_uj: the value at which the counter wraps; 0 if unknown.
        package: number of the package.
    """

    path: str
    range_uj: int
    package: str = ""


class Mirrors:
    """Zones that show the counter of another zone.

    Processors of AMD with several dies have one zone per die, and all of them show the counter of their
    socket (mlco2/codecarbon#1274); the dies of Intel's have counters of their own. Those of one socket that
    keep in step are one counter. Zones of different packages can be one only if there are fewer packages.

    Args:
        zones: all zones.
        packages: number of packages by the CPUs' own account; 0 if unknown.
    """

    def __init__(self, zones: Sequence[Zone], packages: int) -> None:
        self._zones = zones
        self._ambiguous = 0 < packages < len({zone.package for zone in zones})
        self._mirrored: dict[int, int] = {}  # a zone -> the zone whose counter it shows
        self._apart: dict[int, int] = {}

    def find(self, readings: Sequence[int]) -> None:
        """Finds the zones that show another one's counter, from the first readings of all."""
        for place, zone in enumerate(self._zones):
            for earlier in range(place):
                alike = self._ambiguous or zone.package == self._zones[earlier].package
                if alike and earlier not in self._mirrored and self._in_step(earlier, place, readings):
                    self._mirrored[place] = earlier
                    break

    def of(self, readings: Sequence[int]) -> Collection[int]:
        """Returns the places of the zones that do not count, from the current readings of all."""
        for place, earlier in tuple(self._mirrored.items()):
            apart = 0 if self._in_step(earlier, place, readings) else self._apart.get(place, 0) + 1
            self._apart[place] = apart
            if apart >= _APART_READINGS:
                del self._mirrored[place]
        return self._mirrored.keys()

    def _in_step(self, one: int, other: int, readings: Sequence[int]) -> bool:
        distance = abs(readings[other] - readings[one])
        around = self._zones[one].range_uj - distance
        return min(distance, around if around > 0 else distance) <= _IN_STEP_UJ


def count_packages(host: Host) -> int:
    """Returns the number of packages that the CPUs belong to; 0 if unknown."""
    directory = str(host.root / _PACKAGE_IDS)
    names = filter(re.compile(r"cpu\d+").fullmatch, listed(directory))
    ids = {text_of(f"{directory}/{name}/topology/physical_package_id") for name in names}
    return len(ids - {"", "-1"})


def packages(host: Host) -> list[Zone]:
    """Returns the zones of all packages of the host, one per package or die.

    Raises:
        Unavailable: there is no package, or one that may not be read.
    """
    zones = sorted(filter(_TOP_ZONE.fullmatch, listed(str(host.root / POWERCAP))), key=_msr_first)
    found: dict[str, Zone] = {}
    refused: dict[str, str] = {}
    for zone in zones:
        package = text_of(str(host.root / POWERCAP / zone / "name"))
        number = _PACKAGE.fullmatch(package)
        if number is None or package in found:
            continue
        path = f"{POWERCAP}/{zone}/energy_uj"
        try:
            count(read_short(str(host.root / path)))
        except PermissionError:
            refused.setdefault(
                package, f"/{path} is readable by root only: ask the administrator for read access"
            )
        except (OSError, ValueError) as error:
            refused.setdefault(package, why_unread(error, f"/{path}"))
        else:
            found[package] = Zone(str(host.root / path), _range(host, zone), number[1])
    unread = [reason for package, reason in refused.items() if package not in found]
    if unread or not found:
        raise Unavailable(unread[0] if unread else NO_RAPL)
    # A zone of the whole package contains those of its dies.
    return [
        zone for name, zone in found.items() if "-die-" not in name or f"package-{zone.package}" not in found
    ]


def _msr_first(zone: str) -> tuple[bool, str]:
    return "mmio" in zone, zone


def _range(host: Host, zone: str) -> int:
    try:
        return count(read_short(str(host.root / POWERCAP / zone / "max_energy_range_uj")))
    except (OSError, ValueError):
        return 0


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
