"""Readings of one Intel GPU: its sensors, and the job's use of it as the driver accounts for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.drm.cards import Card
from mlflow_sysmetrics.collectors.drm.clients import DrmClient
from mlflow_sysmetrics.collectors.drm.energy import EnergyCounter
from mlflow_sysmetrics.collectors.drm.engine_time import EngineTime
from mlflow_sysmetrics.collectors.drm.gpu_samples import GpuSamples
from mlflow_sysmetrics.collectors.drm.hwmon import MICRO, MILLI, Hwmon, reading, why_silent
from mlflow_sysmetrics.collectors.rhythm import DEVICES_SECONDS, POWER_LIMIT_SECONDS, Pause
from mlflow_sysmetrics.samples import Sample

# Files with number 1 belong to the whole card; with xe, 2 is the package alone and 3 its memory (kernel,
# Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon). i915 has a temperature in newer kernels only
# (sysfs-driver-intel-i915-hwmon).
_CARD, _PACKAGE = 1, 2
_MOST_MILLICELSIUS = bounds.CELSIUS.most / MILLI
_MOST_MICROWATTS = bounds.GPU_WATTS.most / MICRO


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
