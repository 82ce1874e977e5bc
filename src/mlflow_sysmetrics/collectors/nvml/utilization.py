"""How busy a device is.

Source:  nvmlDeviceGetUtilizationRates, over the driver's own window of 1/6 to 1 s. It is not supported inside
         MIG; there GPM's graphics activity of the slice's GPU instance, over the tick.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.gpm import GRAPHICS_UTIL, Gpm
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.samples import Sample


class Utilization(Reading):
    """Shares of time in which a GPU and its memory were used."""

    name = "utilization"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device

    def read(self, now: float) -> Iterator[Sample]:
        """Yields both shares."""
        rates = self._nvml.ask("nvmlDeviceGetUtilizationRates", self._device.handle)
        gpu, memory = rates.gpu, rates.memory
        if gpu <= PERCENT:  # "not available" is far over it
            yield self._device.sample(catalogue.GPU_UTILIZATION, gpu)
        if memory <= PERCENT:
            yield self._device.sample(catalogue.GPU_MEMORY_UTILIZATION, memory)


class SliceUtilization(Reading):
    """Share of time in which a MIG slice was used."""

    name = "utilization"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._device = device
        self._gpm = Gpm(nvml, device)

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the share since the tick before."""
        for value in self._gpm.values((GRAPHICS_UTIL,), now).values():
            yield self._device.sample(catalogue.GPU_UTILIZATION, min(value, PERCENT), self._gpm.span)

    def restart(self) -> None:
        """Forgets the sample of the tick before."""
        self._gpm.restart()
