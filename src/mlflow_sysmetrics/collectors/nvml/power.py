"""Power that a GPU draws, its share of the limit, and the energy that it used.

Source:  nvmlDeviceGetPowerUsage, in milliwatts, or field NVML_FI_DEV_POWER_INSTANT; every 10 s
         nvmlDeviceGetEnforcedPowerLimit, or nvmlDeviceGetPowerManagementLimit;
         nvmlDeviceGetTotalEnergyConsumption, in millijoules since the driver was loaded (Volta and newer), or
         field NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION. Without such a counter, power is integrated.
Absent:  a power that no device can draw (`bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, Total, known, possible
from mlflow_sysmetrics.collectors.nvml.fields import POWER_INSTANT, TOTAL_ENERGY, Field, Fields
from mlflow_sysmetrics.collectors.nvml.library import FirstOf, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.collectors.rhythm import POWER_LIMIT_SECONDS, Pause
from mlflow_sysmetrics.samples import Sample

_MILLIWATTS = 1000.0
_MILLIJOULES = 1000.0
_MILLIJOULES_PER_WATT_HOUR = 3.6e6
_JOULES_PER_WATT_HOUR = 3600.0
_FAILURES_TO_CHANGE = 3
# If no reading was taken for longer than this, for instance because a laptop slept, power in between is
# unknown.
_LONGEST_STEP_SECONDS = 120.0


def _watts(milliwatts: float) -> float | None:
    found = known(milliwatts)
    return possible(None if found is None else found / _MILLIWATTS, bounds.GPU_WATTS)


class PowerUsage(Reading):
    """Power of a GPU."""

    name = "power"

    def __init__(self, nvml: Nvml, device: Device, fields: Fields) -> None:
        self._device = device
        self._watts: float | None = None
        self._read_at: float | None = None
        self._ask: FirstOf[float | None] = FirstOf(
            lambda _: _watts(nvml.ask("nvmlDeviceGetPowerUsage", device.handle)),
            lambda now: _watts(fields.values((Field(POWER_INSTANT),), now)[0]),
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the power."""
        self._read_at = None
        self._watts = self._ask(now)
        if self._watts is not None:
            self._read_at = now
            yield self._device.sample(catalogue.GPU_POWER_USAGE, self._watts)

    def watts(self, now: float) -> float | None:
        """Returns the power read at this tick; None if it was not read."""
        return self._watts if self._read_at == now else None


class PowerShare(Reading):
    """Power of a GPU as a share of the enforced limit."""

    name = "power limit"

    def __init__(self, nvml: Nvml, device: Device, power: PowerUsage) -> None:
        self.needs = power
        self._power = power
        self._device = device
        self._pause = Pause(POWER_LIMIT_SECONDS, read=False)
        self._limit: float | None = None
        self._ask: FirstOf[float | None] = FirstOf(
            lambda: _watts(nvml.ask("nvmlDeviceGetEnforcedPowerLimit", device.handle)),
            lambda: _watts(nvml.ask("nvmlDeviceGetPowerManagementLimit", device.handle)),
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share."""
        if self._pause.renew_if_over(now) or self._limit is None:
            self._limit = None  # until it is answered
            self._limit = self._ask() or 0.0
        watts = self._power.watts(now)
        if watts is not None and self._limit:
            share = possible(PERCENT * watts / self._limit, bounds.POWER_LIMIT_PERCENT)
            if share is not None:
                yield self._device.sample(catalogue.GPU_POWER_USAGE_PERCENTAGE, share)


class OfTheWholeCard(Reading):
    """Readings that a MIG slice does not have: its GPU's power includes all slices."""

    name = "power, energy"

    def read(self, now: float) -> Iterator[Sample]:
        """Raises the reason why there is none."""
        raise NvmlError("reported for the whole GPU, not for a slice", Verdict.UNSUPPORTED)


class Energy(Reading):
    """Energy of a GPU, from its counter or its power: the total goes on if the counter fails for good."""

    name = "energy"

    def __init__(self, nvml: Nvml, device: Device, fields: Fields, power: PowerUsage) -> None:
        self._device = device
        self._power = power
        self._ask: FirstOf[float] = FirstOf(
            lambda _: nvml.ask("nvmlDeviceGetTotalEnergyConsumption", device.handle),
            lambda now: fields.values((Field(TOTAL_ENERGY),), now)[0],
        )
        self._failures = 0
        self._counter = Total(bounds.GPU_WATTS.most * _MILLIWATTS)
        self._counted = False
        self._last: tuple[float, float] | None = None
        self._integral = 0.0

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the energy since the collector was built."""
        if self.needs is None:
            try:
                count = known(self._ask(now))
            except NvmlError as error:
                self._failures += 1
                if error.verdict is Verdict.LOST or (self._counted and self._failures < _FAILURES_TO_CHANGE):
                    raise
                self.needs = self._power
                self._integral = self._counter.value / _MILLIJOULES
            else:
                self._failures = 0
                if count is not None:
                    self._counted = True
                    if self._counter.follow(count, now):
                        yield self._sample(self._counter.value / _MILLIJOULES_PER_WATT_HOUR)
                return
        yield from self._integrate(now)

    def _integrate(self, now: float) -> Iterator[Sample]:
        watts = self._power.watts(now)
        before, self._last = self._last, None if watts is None else (now, watts)
        if watts is None:
            return
        if before is not None and 0 < now - before[0] <= _LONGEST_STEP_SECONDS:
            self._integral += (now - before[0]) * (watts + before[1]) / 2  # the trapezoid between the two
        yield self._sample(self._integral / _JOULES_PER_WATT_HOUR)

    def restart(self) -> None:
        """Drops the previous power, since the power in between is unknown."""
        self._last = None

    def _sample(self, watt_hours: float) -> Sample:
        return self._device.sample(catalogue.GPU_ENERGY, watt_hours)
