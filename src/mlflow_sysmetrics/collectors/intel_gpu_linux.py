"""Intel GPUs on Linux, without root and without external tools.

Source:  drivers i915 and xe: /sys/class/drm/card<n>/device/hwmon/hwmon<n>/{energy1_input,power1_max,
         temp<n>_input}; the package (2 instead of 1) if the card as a whole is not measured.
         /proc/<pid>/fdinfo of the job's processes: drm-engine-* (i915), drm-cycles-* (xe), drm-resident-*.
         https://docs.kernel.org/gpu/drm-usage-stats.html
Units:   percent of time in which the busiest engine class worked for this job's processes, over 5 s or more:
         without root no driver reports the use by others; megabytes (1e6 bytes); watts; watt-hours; degrees
         Celsius.
Cost:    four reads per card, each 3 us plus the driver's own time; the files of the job's processes every
         5 s, at most 0.1 % of a core.
Absent:  no such card; while the kernel has the card switched off, since reading would switch it on. Memory
         usage of all processes. A GPU within a processor usually has no sensors: it has no series until one
         of this job's processes uses it.
Check:   sensors 'i915-*' 'xe-*'; grep drm- /proc/<pid>/fdinfo/*; sudo intel_gpu_top
Unconfirmed: recorded and constructed files
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import Counters, CounterSet
from mlflow_sysmetrics.collectors.drm.cards import Card
from mlflow_sysmetrics.collectors.drm.clients import DrmClient, GpuPlace
from mlflow_sysmetrics.collectors.drm.gpus import DrmGpus
from mlflow_sysmetrics.collectors.drm.hwmon import MICRO, MILLI, EnergyCounter, Hwmon, reading, why_silent
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples, RepeatedSearch, watched_intel_cards
from mlflow_sysmetrics.collectors.rhythm import DEVICES_SECONDS, POWER_LIMIT_SECONDS, Pause
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

_NANOSECONDS = 1e9
_MOST_NANOSECONDS = 10 * _NANOSECONDS  # some drivers count a long job when it ends
_MOST_CYCLES = 1e11  # a second of 100 engines at 1 GHz
# Files with number 1 belong to the whole card; with xe, 2 is the package alone and 3 its memory (kernel,
# Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon). i915 has a temperature in newer kernels only
# (sysfs-driver-intel-i915-hwmon).
_CARD, _PACKAGE = 1, 2
_MOST_MILLICELSIUS = bounds.CELSIUS.most / MILLI
_MOST_MICROWATTS = bounds.GPU_WATTS.most / MICRO


class Share(NamedTuple):
    """A share of time in percent, and the seconds that it covers."""

    percentage: float
    span: float


class EngineTime:
    """Compares the clients of one GPU with the previous reading.

    i915 counts nanoseconds; xe counts used and elapsed cycles. Both are summed over the clients and divided
    by the number of engines in a class. https://docs.kernel.org/gpu/drm-usage-stats.html The kernel allows
    the counters to go back until they catch up.
    """

    def __init__(self) -> None:
        self._read_at = math.inf
        self._capacity: dict[str, int] = {}
        self._busy = CounterSet(lambda name: Counters(_MOST_NANOSECONDS * self._capacity[name]))
        self._cycles = CounterSet(lambda _: Counters(_MOST_CYCLES, _MOST_CYCLES))

    def busiest(self, now: float, clients: Sequence[DrmClient]) -> Share | None:
        """Returns how busy the busiest engine class was; None if no client has ever used an engine.

        Args:
            now: seconds of a clock that never goes back.
            clients: all clients of the GPU; a new one counts from the next reading on.
        """
        span, self._read_at = now - self._read_at, now
        busy: dict[str, tuple[int, ...]] = {}
        cycles: dict[str, tuple[int, ...]] = {}
        used = {
            client.identity for client in clients if any((*client.busy.values(), *client.cycles.values()))
        }
        self._capacity.clear()
        for client in clients:
            for engine in (*client.busy, *client.cycles):
                self._capacity[f"{client.identity} {engine}"] = client.capacity.get(engine, 1)
            busy |= {f"{client.identity} {engine}": (spent,) for engine, spent in client.busy.items()}
            cycles |= {
                f"{client.identity} {engine}": (spent, client.total_cycles[engine])
                for engine, spent in client.cycles.items()
                if engine in client.total_cycles
            }
        shares: dict[str, float] = defaultdict(float)
        for name, step in self._busy.follow(busy, now).items():
            self._add(shares, used, name, step.grown[0] / _NANOSECONDS, step.span)
        for name, step in self._cycles.follow(cycles, now).items():
            self._add(shares, used, name, *(step.grown if step.span else (0, 0)))
        if not shares or span <= 0:
            return None
        return Share(min(PERCENT * max(shares.values()), PERCENT), span)

    def _add(
        self, shares: dict[str, float], used: Collection[int], name: str, spent: float, passed: float
    ) -> None:
        """Adds the share of one engine class that one client has used."""
        identity, _, engine = name.partition(" ")
        if passed > 0 and int(identity) in used:  # else new, or opened but not used
            shares[engine] += spent / passed / self._capacity[name]


class IntelGpu:
    """One card.

    Args:
        card: where its files are.
        samples: makes its samples.

    Attributes:
        card: where its files are.
        samples: makes its samples.
        gaps: which readings are missing, and why.
        has_sensors: False for most GPUs within a processor.
    """

    def __init__(self, card: Card, samples: GpuSamples) -> None:
        self.card, self.samples = card, samples
        hwmon = Hwmon(card.device)
        is_xe = card.driver == "xe"
        self._temperature = hwmon.path("temp2_input" if is_xe else "temp1_input")
        self._memory_temperature = hwmon.path("temp3_input") if is_xe else ""
        counters = (f"energy{number}_input" for number in (_CARD, _PACKAGE))
        self.has_sensors = bool(self._temperature or hwmon.path(*counters))
        self._hwmon = hwmon
        self._channel: int | None = None
        self._energy = EnergyCounter("", samples)
        self._limit: int | None = None
        self._look = Pause(DEVICES_SECONDS, read=False)
        self._limit_pause = Pause(POWER_LIMIT_SECONDS)
        self._engines = EngineTime()
        self.gaps: tuple[str, ...] = ()

    def collect(self, now: float, clients: Sequence[DrmClient] | None) -> Iterator[Sample]:
        """Yields the readings of the device."""
        share = None if clients is None else self._engines.busiest(now, clients)
        if share is not None:
            yield self.samples.of(catalogue.GPU_UTILIZATION, *share)
        if self._look.renew_if_over(now):
            self._find_energy()
            self.gaps = tuple(self._find_gaps())
        elif self._limit_pause.renew_if_over(now):
            self._limit = self._find_limit()
        for metric, path in (
            (catalogue.GPU_TEMPERATURE, self._temperature),
            (catalogue.GPU_MEMORY_TEMPERATURE, self._memory_temperature),
        ):
            degrees = reading(path, _MOST_MILLICELSIUS)
            if degrees:  # a sensor without a value reports 0
                yield self.samples.of(metric, degrees * MILLI)
        yield from self._energy.collect(now, self._limit)

    def rest(self) -> None:
        """Records that the device is switched off."""
        self._energy.rest()

    def _find_energy(self) -> None:
        """Finds the counter to follow, and the limit that belongs to it."""
        if self._channel is None:
            # The package replaces a card whose counter is missing or stays at 0, not one that cannot be read
            # at the moment.
            counters = {one: self._hwmon.path(f"energy{one}_input") for one in (_CARD, _PACKAGE)}
            counting = (one for one, path in counters.items() if path and reading(path) != 0)
            self._channel = next(counting, None)
            self._energy = EnergyCounter(self._energy_path(), self.samples)
        self._limit = self._find_limit()

    def _find_limit(self) -> int | None:
        # Sustained limit (PL1), else the one for bursts (PL2); not `crit`, at which the card is shut down. 0
        # means that a limit is switched off.
        paths = [self._hwmon.path(f"power{self._channel or _CARD}_{limit}") for limit in ("max", "cap")]
        return next(filter(None, (reading(path, _MOST_MICROWATTS) for path in paths)), None)

    def _energy_path(self) -> str:
        return self._hwmon.path(f"energy{self._channel or _CARD}_input")

    def _find_gaps(self) -> Iterator[str]:
        name = f"gpu_{self.samples.ordinal}"
        if not self.has_sensors:
            yield f"{name}: only this job's utilization: not supported by this device"
            return
        yield f"{name}: utilization covers this job only; no memory usage: no permission"
        sensors = {"power": self._energy_path(), "temperature": self._temperature}
        if self.card.driver == "xe":  # i915 has no such sensor at all
            sensors["memory temperature"] = self._memory_temperature
        for label, path in sensors.items():
            most = None if label == "power" else _MOST_MILLICELSIUS
            if not reading(path, most):
                yield f"{name}: no {label}: {'it reads 0' if reading(path) == 0 else why_silent(path)}"
        if not self._limit and self._energy_path():
            yield f"{name}: no power limit: none is set"


# The names in i915 and xe, followed by the number of the tile: local0, vram0.
_DEVICE_MEMORY = ("local", "vram")


class IntelLinux(Collector):
    """Power, temperature and this job's load and memory of the Intel GPUs that it may see."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_UTILIZATION,
        catalogue.GPU_PROCESS_MEMORY,
        catalogue.GPU_POWER_USAGE,
        catalogue.GPU_POWER_USAGE_PERCENTAGE,
        catalogue.GPU_ENERGY,
        catalogue.GPU_TEMPERATURE,
        catalogue.GPU_MEMORY_TEMPERATURE,
    )

    def __init__(self, host: Host) -> None:
        self._search = RepeatedSearch(host, watched_intel_cards)
        cards, self._doubts = self._search.found
        samples = {ordinal: GpuSamples(ordinal, self.metrics) for ordinal in cards}
        gpus = [IntelGpu(card, samples[ordinal]) for ordinal, card in cards.items()]
        places = {
            gpu.samples.ordinal: GpuPlace(
                gpu.card.slot, gpu.card.nodes, _DEVICE_MEMORY if gpu.has_sensors else ()
            )
            for gpu in gpus
        }
        self._gpus = DrmGpus(host, gpus, places, samples)
        self.gaps = (*self._doubts, *self._gpus.gaps)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device.

        Raises:
            Unavailable: a device no longer responds, or the devices have changed; a new collector finds them.
        """
        self._search.check(now)
        yield from self._gpus.collect(now)
        self.gaps = (*self._doubts, *self._gpus.gaps)
