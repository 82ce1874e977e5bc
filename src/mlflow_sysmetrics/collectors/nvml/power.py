"""Power that a GPU draws, its share of the limit, and the energy that it used.

Source:  nvmlDeviceGetPowerUsage, in milliwatts; nvmlDeviceGetEnforcedPowerLimit, once a minute;
         nvmlDeviceGetTotalEnergyConsumption, in millijoules since the driver was loaded (Volta and newer).
         Without such a counter, power is integrated over the ticks.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, Total, known
from mlflow_sysmetrics.collectors.nvml.library import Nvml, NvmlError, Verdict
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.samples import Sample

_MILLIWATTS = 1000.0
_MILLIJOULES_PER_WATT_HOUR = 3.6e6
_JOULES_PER_WATT_HOUR = 3600.0
_LIMIT_SECONDS = 60.0  # an administrator may change it while the job runs
# If no reading was taken for longer than this, for instance because a laptop slept, power in between is
# unknown.
_LONGEST_STEP_SECONDS = 120.0


class PowerUsage(Reading):
    """Power of a GPU."""

    name = "power"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device
        self._watts: float | None = None
        self._read_at: float | None = None

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the power."""
        self._read_at = None
        milliwatts = known(self._nvml.ask("nvmlDeviceGetPowerUsage", self._device.handle))
        if milliwatts is not None:
            self._watts, self._read_at = milliwatts / _MILLIWATTS, now
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
        self._nvml = nvml
        self._device = device
        self._pause = Pause(_LIMIT_SECONDS, read=False)
        self._limit: float | None = None

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share."""
        if self._pause.renew_if_over(now) or self._limit is None:
            self._limit = None  # until it is answered
            milliwatts = self._nvml.ask("nvmlDeviceGetEnforcedPowerLimit", self._device.handle)
            self._limit = (known(milliwatts) or 0.0) / _MILLIWATTS
        watts = self._power.watts(now)
        if watts is not None and self._limit:
            yield self._device.sample(catalogue.GPU_POWER_USAGE_PERCENTAGE, PERCENT * watts / self._limit)


class OfTheWholeCard(Reading):
    """Readings that a MIG slice does not have: its GPU's power includes all slices."""

    name = "power, energy"

    def read(self, now: float) -> Iterator[Sample]:
        """Raises the reason why there is none."""
        raise NvmlError("reported for the whole GPU, not for a slice", Verdict.UNSUPPORTED)


class Energy(Reading):
    """Energy of a GPU, from its counter or from its power; the choice is made once."""

    name = "energy"

    def __init__(self, nvml: Nvml, device: Device, power: PowerUsage) -> None:
        self._nvml = nvml
        self._device = device
        self._power = power
        self._counter = Total(bounds.GPU_WATTS.most * _MILLIWATTS)
        self._counted = False
        self._last: tuple[float, float] | None = None
        self._integral = 0.0

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the energy since the collector was built."""
        if self.needs is None:
            try:
                count = known(self._nvml.ask("nvmlDeviceGetTotalEnergyConsumption", self._device.handle))
            except NvmlError as error:
                if self._counted or error.verdict not in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN):
                    raise
                self.needs = self._power
            else:
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
