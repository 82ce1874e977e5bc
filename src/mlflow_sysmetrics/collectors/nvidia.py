"""NVIDIA GPUs.

Source:  NVML through nvidia-ml-py: nvmlDeviceGetUtilizationRates, ...GetMemoryInfo, ...GetPowerUsage,
         ...GetEnforcedPowerLimit. https://docs.nvidia.com/deploy/nvml-api
Units:   percent, megabytes (1e6 bytes), watts.
Cost:    four calls per device, 10 to 100 microseconds each.
Absent:  no driver library, no device that the job may see; per device, what NVML answers "not supported".
Check:   nvidia-smi --query-gpu=utilization.gpu,memory.used,power.draw --format=csv
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample
from mlflow_sysmetrics.visible_gpus import visible_gpus

_MILLIWATTS = 1000.0
# A driver reload may bring a call back; asking again this seldom costs nothing.
_ASK_AGAIN_SECONDS = 600.0


class Nvidia(Collector):
    """Utilisation, memory and power of the GPUs that the job may see."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_UTILIZATION,
        catalogue.GPU_MEMORY_USAGE,
        catalogue.GPU_MEMORY_USAGE_PERCENTAGE,
        catalogue.GPU_POWER_USAGE,
        catalogue.GPU_POWER_USAGE_PERCENTAGE,
    )

    def __init__(self, host: Host) -> None:
        try:
            nvml = host.load_nvml()
        except ImportError as error:
            raise Unavailable(f"nvidia-ml-py cannot be imported: {error}") from error
        try:
            # Never shut down: NVML counts its users in this process, and another one may rely on ours.
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        except nvml.NVMLError as error:
            raise Unavailable(f"NVML: {error}") from error
        visible = visible_gpus(host.environ, uuids)
        if not visible:
            raise Unavailable("NVML: no device" if not handles else "NVML: no device that this job may see")
        self._devices = [_Device(nvml, handles[index], ordinal) for ordinal, index in enumerate(visible)]

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields what each device answers.

        Raises:
            Unavailable: no device answered at all; a new collector may find them again.
        """
        silent = True
        for device in self._devices:
            for sample in device.collect(now):
                silent = False
                yield sample
        if silent:
            raise Unavailable("NVML: no device answers")


class _Device:
    """One GPU: its readings, and which of them it does not support."""

    def __init__(self, nvml: Any, handle: Any, ordinal: int) -> None:  # noqa: ANN401 - nvidia-ml-py ships no types
        self._nvml = nvml
        self._handle = handle
        self._keys = {metric: metric.key(i=ordinal) for metric in Nvidia.metrics}
        self._readings: tuple[Callable[[], Iterator[Sample]], ...] = (
            self._utilization,
            self._memory,
            self._power,
            self._power_share,
        )
        self._milliwatts: float | None = None
        self._ask_again_at = dict.fromkeys(self._readings, float("-inf"))

    def collect(self, now: float) -> Iterator[Sample]:
        for reading in self._readings:
            if now < self._ask_again_at[reading]:
                continue
            try:
                yield from reading()
            except self._nvml.NVMLError_NotSupported:
                self._ask_again_at[reading] = now + _ASK_AGAIN_SECONDS
            except self._nvml.NVMLError:
                continue  # this reading is absent at this tick; the others are not its business

    def _utilization(self) -> Iterator[Sample]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        yield self._sample(catalogue.GPU_UTILIZATION, rates.gpu)

    def _memory(self) -> Iterator[Sample]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        yield self._sample(catalogue.GPU_MEMORY_USAGE, memory.used / MEGABYTE)
        if memory.total:  # 0 on devices that share the host's memory
            yield self._sample(catalogue.GPU_MEMORY_USAGE_PERCENTAGE, PERCENT * memory.used / memory.total)

    def _power(self) -> Iterator[Sample]:
        self._milliwatts = None
        self._milliwatts = self._nvml.nvmlDeviceGetPowerUsage(self._handle)
        yield self._sample(catalogue.GPU_POWER_USAGE, self._milliwatts / _MILLIWATTS)

    def _power_share(self) -> Iterator[Sample]:
        if self._milliwatts is None:
            return
        limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)
        if limit:
            yield self._sample(catalogue.GPU_POWER_USAGE_PERCENTAGE, PERCENT * self._milliwatts / limit)

    def _sample(self, metric: Metric, value: float) -> Sample:
        return Sample(self._keys[metric], metric.kind, value)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
