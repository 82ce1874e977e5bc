"""Temperatures of the chip and of its memory.

Source:  nvmlDeviceGetTemperatureV, or nvmlDeviceGetTemperature, which CUDA 14 removes; for the memory, field
         NVML_FI_DEV_MEMORY_TEMP.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.nvml.alternatives import FirstOf
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.fields import MEMORY_TEMPERATURE, Field, Fields
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.samples import Sample

_SENSOR_GPU = 0  # NVML_TEMPERATURE_GPU
_MEMORY = (Field(MEMORY_TEMPERATURE),)


class Temperature(Reading):
    """Temperature of the chip."""

    name = "temperature"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._device = device
        self._celsius: FirstOf[float] = FirstOf(
            lambda: nvml.ask("nvmlDeviceGetTemperatureV", device.card, _SENSOR_GPU),
            lambda: nvml.ask("nvmlDeviceGetTemperature", device.card, _SENSOR_GPU),
        )

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the temperature."""
        celsius = known(self._celsius())
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
        celsius = known(self._fields.values(_MEMORY, now)[0])
        if celsius:  # boards without the sensor answer 0
            yield self._device.sample(catalogue.GPU_MEMORY_TEMPERATURE, celsius)
