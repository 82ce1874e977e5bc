"""Levels that one call returns: utilization, used memory, temperatures and clocks.

Utilization: nvmlDeviceGetUtilizationRates, over the driver's own window of 1/6 to 1 s. It is not supported
             inside MIG; a slice has GPM's graphics activity of its GPU instance instead, over the tick.
Memory:      nvmlDeviceGetMemoryInfo. Version 2 reports the driver's reservation separately, version 1 counts
             it as used. Devices that share the host's memory (GB10, Thor, Orin) answer "not supported", or
             report a total of 0.
Temperature: nvmlDeviceGetTemperatureV, or nvmlDeviceGetTemperature, which CUDA 14 removes; for the memory,
             field NVML_FI_DEV_MEMORY_TEMP.
Clocks:      nvmlDeviceGetClockInfo, in megahertz; a slice has the clocks of its GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known, possible
from mlflow_sysmetrics.collectors.nvml.fields import MEMORY_TEMPERATURE, Field, Fields
from mlflow_sysmetrics.collectors.nvml.gpm import GRAPHICS_UTIL, MOST_PERCENT, Gpm
from mlflow_sysmetrics.collectors.nvml.library import FirstOf, Handle, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.samples import Metric, Sample


class Utilization(Reading):
    """Share of time in which a GPU was busy."""

    name = "utilization"
    metric = catalogue.GPU_UTILIZATION

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share."""
        share = possible(self._share(), bounds.PERCENT)
        if share is not None:
            yield self._device.sample(self.metric, share)

    def _share(self) -> int | None:
        share: int | None = self._rates().gpu
        return share

    def _rates(self) -> Any:
        return self._nvml.ask("nvmlDeviceGetUtilizationRates", self._device.handle)


class MemoryUtilization(Utilization):
    """Share of time in which the memory of a GPU was read or written."""

    name = "memory utilization"
    metric = catalogue.GPU_MEMORY_UTILIZATION

    def _share(self) -> int | None:
        share: int | None = self._rates().memory
        return share


class SliceUtilization(Reading):
    """Share of time in which a MIG slice was busy."""

    name = "utilization"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._device = device
        self._gpm = Gpm(nvml, device)

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share since the previous tick."""
        for value in self._gpm.values((GRAPHICS_UTIL,), now).values():
            if value <= MOST_PERCENT:
                yield self._device.sample(catalogue.GPU_UTILIZATION, min(value, PERCENT), self._gpm.span)

    def restart(self) -> None:
        """Drops the sample of the previous tick."""
        self._gpm.restart()


class MemoryUsage(Reading):
    """Used memory of a GPU or a slice."""

    name = "memory usage"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device
        version = nvml.constant("nvmlMemory_v2")
        newer = () if version is None else (lambda: self._ask(version),)
        self._memory = FirstOf(*newer, self._ask)

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the used memory and its share of the device's."""
        memory = self._memory()
        total, used = known(memory.total), known(memory.used)
        if not total:
            raise NvmlError("the device shares the host's memory", Verdict.UNSUPPORTED)
        if used is not None:
            yield self._device.sample(catalogue.GPU_MEMORY_USAGE, used / MEGABYTE)
            yield self._device.sample(catalogue.GPU_MEMORY_USAGE_PERCENTAGE, PERCENT * used / total)

    def _ask(self, *version: int) -> Handle:
        memory = self._nvml.ask("nvmlDeviceGetMemoryInfo", self._device.handle, *version)
        total, used = possible(memory.total, bounds.GPU_BYTES), known(memory.used)
        if total and used is not None and used > total:
            raise NvmlError("more of it is said to be in use than there is", Verdict.UNUSABLE)
        return memory


_SENSOR_GPU = 0  # NVML_TEMPERATURE_GPU
_MEMORY = (Field(MEMORY_TEMPERATURE),)


class Temperature(Reading):
    """Temperature of the chip."""

    name = "temperature"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._device = device

        def ask(function: str) -> float | None:
            return possible(nvml.ask(function, device.card, _SENSOR_GPU), bounds.CELSIUS)

        self._celsius: FirstOf[float | None] = FirstOf(
            lambda: ask("nvmlDeviceGetTemperatureV"), lambda: ask("nvmlDeviceGetTemperature")
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the temperature."""
        celsius = self._celsius()
        if celsius is not None:
            yield self._device.sample(catalogue.GPU_TEMPERATURE, celsius)


class MemoryTemperature(Reading):
    """Temperature of the device's memory."""

    name = "memory temperature"

    def __init__(self, device: Device, fields: Fields) -> None:
        self._device = device
        self._fields = fields

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the temperature."""
        celsius = possible(self._fields.values(_MEMORY, now)[0], bounds.CELSIUS)
        if celsius:  # boards without the sensor answer 0
            yield self._device.sample(catalogue.GPU_MEMORY_TEMPERATURE, celsius)


_CURRENT = 0  # NVML_CLOCK_ID_CURRENT


class _Clock(Reading):
    """One clock of a GPU."""

    metric: Metric
    domain: int

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._device = device

        def ask(function: str, *more: int) -> float | None:
            return possible(nvml.ask(function, device.card, self.domain, *more), bounds.GPU_MEGAHERTZ)

        self._megahertz: FirstOf[float | None] = FirstOf(
            lambda: ask("nvmlDeviceGetClockInfo"), lambda: ask("nvmlDeviceGetClock", _CURRENT)
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the clock."""
        megahertz = self._megahertz()
        if megahertz is not None:
            yield self._device.sample(self.metric, megahertz)


class SmClock(_Clock):
    """Clock of the multiprocessors."""

    name = "SM clock"
    metric = catalogue.GPU_SM_CLOCK
    domain = 1  # NVML_CLOCK_SM


class MemoryClock(_Clock):
    """Clock of the memory."""

    name = "memory clock"
    metric = catalogue.GPU_MEMORY_CLOCK
    domain = 2  # NVML_CLOCK_MEM
