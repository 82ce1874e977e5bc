"""AMD GPUs on Linux, without root and without external tools.

Source:  files of the amdgpu driver: /sys/class/drm/card<n>/device/{gpu_busy_percent,mem_info_vram_used,
         mem_info_vram_total}, hwmon/hwmon<n>/{power1_average,power1_input,power1_cap,temp<n>_input},
         ras/umc_err_count; the order of /sys/class/kfd, which is HIP's; /proc/<pid>/fdinfo of the job's
         processes. https://docs.kernel.org/gpu/amdgpu/thermal.html amdsmi is not used: it reads the same
         driver.
Units:   percent; megabytes (1e6 bytes); watts, watt-hours integrated over the ticks; degrees Celsius of the
         edge sensor, or of the junction on cards without one. In a processor with graphics, memory is the RAM
         reserved for it (vram) plus the RAM that it may use in addition (gtt).
Cost:    seven reads per device, each 3 us plus the driver's own time; the power limit every 10 s, errors once
         a minute; the files of the job's processes every 5 s, at most 0.1 % of a core; a check of the list of
         devices every two minutes.
Absent:  no such card; while the kernel has the card switched off, since reading would switch it on. Power of
         a processor with graphics, whose sensor includes the CPU, and of the second die of an MI250, which
         is included in the first one's. Utilization and memory of partitions (MI300), which exist for the
         whole card only; its power, temperature and errors are reported for its first partition. Throttling,
         which the driver exposes in a binary table only.
Check:   grep . /sys/class/drm/card*/device/{gpu_busy_percent,mem_info_vram_used,hwmon/hwmon*/power1_*}
Unconfirmed: recorded and constructed files
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.collectors.counters import Counters
from mlflow_sysmetrics.collectors.drm.cards import Card
from mlflow_sysmetrics.collectors.drm.clients import DrmClient, GpuPlace
from mlflow_sysmetrics.collectors.drm.gpus import DrmGpus
from mlflow_sysmetrics.collectors.drm.hwmon import MICRO, MILLI, EnergyIntegral, Hwmon, reading, why_silent
from mlflow_sysmetrics.collectors.drm.watched_gpus import GpuSamples, RepeatedSearch, watched_amd_devices
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.rhythm import DEVICES_SECONDS, POWER_LIMIT_SECONDS, Pause
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.samples import Family, Metric, Sample

# The driver queries all memory channels for errors, which may take milliseconds.
_ECC_SECONDS = 60.0
_SECONDS_PER_HOUR = 3600.0
_MOST_MICROWATTS = bounds.GPU_WATTS.most / MICRO
_MOST_MILLICELSIUS = int(bounds.CELSIUS.most / MILLI)


class Gauge(NamedTuple):
    """A file whose number is a sample.

    Attributes:
        metric: the metric of the sample.
        label: its name in a gap.
        path: the file; "" if the device has none.
        scale: units of the metric per unit of the file.
        least: smaller numbers are rejected.
        most: larger numbers are rejected.
    """

    metric: Metric
    label: str
    path: str
    scale: float
    least: int
    most: int


def parse_error_count(text: bytes) -> int | None:
    """Returns the number of errors in the text of ras/umc_err_count; None if it has none.

    ue: uncorrected, ce: corrected, de: deferred until the data are used (MI300 and newer).
    https://docs.kernel.org/gpu/amdgpu/ras.html
    """
    counts = [number_after(label, text) for label in (b"ue: ", b"ce: ", b"de: ")]
    if counts[0] is None or counts[1] is None:
        return None
    return sum(filter(None, counts))


def _reads_power(path: str) -> bool:
    return bool(reading(path, _MOST_MICROWATTS))


class AmdGpu:
    """One device with sensors.

    Args:
        card: where its files are.
        samples: makes its samples.
        partitioned: True for the first partition of a card.

    Attributes:
        card: where its files are.
        samples: makes its samples.
        gaps: which readings are missing, and why.
        has_sensors: True: it has readings at every tick while it is switched on.
        regions: its memory regions, as the driver names them.
    """

    def __init__(self, card: Card, samples: GpuSamples, *, partitioned: bool) -> None:
        self.card, self.samples, self.has_sensors = card, samples, True
        self._partitioned = partitioned
        path = card.device
        hwmon = Hwmon(path)
        # Only processors with graphics report the voltage of the north bridge (kernel, amdgpu hwmon).
        self._integrated = bool(hwmon.path("in1_input"))
        self.regions = ("vram", "gtt") if self._integrated else ("vram",)
        self._used = [f"{path}/mem_info_{region}_used" for region in self.regions]
        self._totals = [f"{path}/mem_info_{region}_total" for region in self.regions]
        self._gauges = self._find_gauges(path, hwmon)
        # Not all products support both (kernel, hwmon_attributes_visible).
        names = ("power1_average", "power1_input")
        self._powers = [path for path in map(hwmon.path, names) if path] or [""]
        self._power = self._powers[0]
        self._cap_path = hwmon.path("power1_cap")
        self._ecc_path = f"{path}/ras/umc_err_count"
        self._energy = EnergyIntegral()
        self._errors = Counters(bounds.ECC_ERRORS, from_zero=bounds.FROM_ZERO)
        self._more_errors = 0
        self._look, self._ecc_pause = Pause(DEVICES_SECONDS, read=False), Pause(_ECC_SECONDS, read=False)
        self._cap_pause = Pause(POWER_LIMIT_SECONDS, read=False)
        self._total = self._cap = 0
        self.gaps: tuple[str, ...] = ()

    def collect(self, now: float, clients: Sequence[DrmClient] | None) -> Iterator[Sample]:
        """Yields the readings of the device."""
        if self._cap_pause.renew_if_over(now):
            self._cap = reading(self._cap_path, _MOST_MICROWATTS) or 0
        if self._look.renew_if_over(now):
            self._power = next(filter(_reads_power, self._powers), self._power)
            self._total = sum(filter(None, (reading(path, bounds.GPU_BYTES.most) for path in self._totals)))
            self.gaps = self._find_gaps()
        for gauge in self._gauges:
            number = reading(gauge.path, gauge.most)
            if number is not None and number >= gauge.least:
                yield self.samples.of(gauge.metric, number * gauge.scale)
        if not self._partitioned:
            yield from self._memory()
        yield from self._power_and_energy(now)
        yield from self._ecc(now)

    def rest(self) -> None:
        """Records that the device is switched off."""
        self._energy.pause()

    def _find_gauges(self, path: str, hwmon: Hwmon) -> tuple[Gauge, ...]:
        edge = hwmon.labelled("temp", "edge", "junction") or hwmon.path("temp1_input")
        memory = hwmon.labelled("temp", "mem")
        # A sensor without a value reports 0 degrees.
        sensors = (
            Gauge(catalogue.GPU_TEMPERATURE, "temperature", edge, MILLI, 1, _MOST_MILLICELSIUS),
            Gauge(
                catalogue.GPU_MEMORY_TEMPERATURE, "memory temperature", memory, MILLI, 1, _MOST_MILLICELSIUS
            ),
        )
        if self._partitioned:
            return sensors
        return (
            Gauge(catalogue.GPU_UTILIZATION, "utilization", f"{path}/gpu_busy_percent", 1, 0, 100),
            *sensors,
        )

    def _find_gaps(self) -> tuple[str, ...]:
        silent = {
            gauge.label: why_silent(gauge.path)
            for gauge in self._gauges
            if reading(gauge.path, gauge.most) is None
        }
        power = reading(self._power, _MOST_MICROWATTS)
        if self._integrated:
            silent["power"] = "the sensor includes the CPU"
        elif power == 0:
            silent["power"] = "it reads 0, as on the second die of an MI250, where the first die reports both"
        elif power is None:
            silent["power"] = why_silent(self._power)
        elif not reading(self._cap_path):
            silent["power limit"] = "none is set" if self._cap_path else why_silent("")
        if self._partitioned:
            silent["utilization, no memory usage"] = "the card reports all its partitions together"
        elif reading(self._used[0]) is None:
            silent["memory usage"] = why_silent(self._used[0])
        elif self._total and sum(filter(None, map(reading, self._used))) > self._total:
            silent["memory usage"] = "more of it is said to be in use than there is"
        reasons: dict[str, list[str]] = {}
        for label, reason in silent.items():
            reasons.setdefault(reason, []).append(label)
        return tuple(
            f"gpu_{self.samples.ordinal}: no {', no '.join(labels)}: {reason}"
            for reason, labels in reasons.items()
        )

    def _memory(self) -> Iterator[Sample]:
        parts = [reading(path) for path in self._used]
        known = [part for part in parts if part is not None]
        used = sum(known)
        # More used than total memory: one of the two was misread.
        if len(known) < len(parts) or used > (self._total or bounds.GPU_BYTES.most):
            return
        yield self.samples.of(catalogue.GPU_MEMORY_USAGE, used / MEGABYTE)
        if self._total:
            yield self.samples.of(catalogue.GPU_MEMORY_USAGE_PERCENTAGE, PERCENT * used / self._total)

    def _power_and_energy(self, now: float) -> Iterator[Sample]:
        microwatts = None if self._integrated else reading(self._power, _MOST_MICROWATTS)
        # A device that is on draws power: 0 is the second die of a package, or a missing reading.
        if not microwatts:
            return
        watts = microwatts * MICRO
        yield self.samples.of(catalogue.GPU_POWER_USAGE, watts)
        if self._cap:
            # The cap holds on average, so power exceeds it only briefly.
            share = min(PERCENT * microwatts / self._cap, PERCENT)
            yield self.samples.of(catalogue.GPU_POWER_USAGE_PERCENTAGE, share)
        yield self.samples.of(catalogue.GPU_ENERGY, self._energy.add(now, watts) / _SECONDS_PER_HOUR)

    def _ecc(self, now: float) -> Iterator[Sample]:
        if not self._ecc_pause.renew_if_over(now):
            return
        try:
            errors = parse_error_count(read_short(self._ecc_path))
        except OSError:  # a card without error correction
            return
        if errors is None:  # "Query currently inaccessible"
            return
        step = self._errors.follow((errors,), now)  # the count restarts with the driver
        if step is not None:
            self._more_errors += step.grown[0]
            yield self.samples.of(catalogue.GPU_ECC_ERRORS, self._more_errors)


class AmdLinux(Collector):
    """Load, memory, power and temperature of AMD GPUs that the job may see."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_UTILIZATION,
        catalogue.GPU_MEMORY_USAGE,
        catalogue.GPU_MEMORY_USAGE_PERCENTAGE,
        catalogue.GPU_PROCESS_MEMORY,
        catalogue.GPU_POWER_USAGE,
        catalogue.GPU_POWER_USAGE_PERCENTAGE,
        catalogue.GPU_ENERGY,
        catalogue.GPU_TEMPERATURE,
        catalogue.GPU_MEMORY_TEMPERATURE,
        catalogue.GPU_ECC_ERRORS,
    )

    def __init__(self, host: Host) -> None:
        self._search = RepeatedSearch(host, watched_amd_devices)
        devices, self._doubts = self._search.found
        samples = {ordinal: GpuSamples(ordinal, self.metrics) for ordinal in devices}
        gpus = [
            AmdGpu(device.card, samples[ordinal], partitioned=device.partitioned)
            for ordinal, device in devices.items()
            if device.card is not None
        ]
        regions = {gpu.samples.ordinal: gpu.regions for gpu in gpus}
        places = {
            ordinal: GpuPlace(
                "" if device.card is None or device.partitioned else device.card.slot,
                device.nodes,
                regions.get(ordinal, ("vram",)),
            )
            for ordinal, device in devices.items()
        }
        bare = [f"gpu_{ordinal}" for ordinal, device in devices.items() if device.card is None]
        if bare:
            self._doubts += (f"{', '.join(bare)}: partitions, for which only this job's memory is known",)
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
