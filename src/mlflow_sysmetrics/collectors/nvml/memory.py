"""Device memory in use, by all processes.

Source:  nvmlDeviceGetMemoryInfo. Version 2 has what the driver reserves apart; version 1 counts it as used.
Absent:  devices that share the host's memory (GB10, Thor, Orin) are "not supported", or have none at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT
from mlflow_sysmetrics.collectors.nvml.alternatives import FirstOf
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.library import Handle, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.samples import Sample


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
        if used is not None and used <= total:
            yield self._device.sample(catalogue.GPU_MEMORY_USAGE, used / MEGABYTE)
            yield self._device.sample(catalogue.GPU_MEMORY_USAGE_PERCENTAGE, PERCENT * used / total)

    def _ask(self, *version: int) -> Handle:
        return self._nvml.ask("nvmlDeviceGetMemoryInfo", self._device.handle, *version)
