"""Clocks of the multiprocessors and of the memory.

Source:  nvmlDeviceGetClockInfo, in megahertz; a slice has those of its GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.samples import Metric, Sample


class _Clock(Reading):
    """One clock of a GPU."""

    metric: Metric
    domain: int

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self._nvml = nvml
        self._device = device

    def read(self, now: float) -> Iterator[Sample]:
        """Yields the clock."""
        megahertz = known(self._nvml.ask("nvmlDeviceGetClockInfo", self._device.card, self.domain))
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
