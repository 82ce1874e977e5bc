"""NVIDIA GPUs.

Source:  NVML through nvidia-ml-py; the readings are modules of `collectors.nvml`.
         https://docs.nvidia.com/deploy/nvml-api
Units:   percent, megabytes (1e6 bytes), watts, watt-hours, degrees Celsius.
Cost:    nine calls per device and tick, 10 to 100 microseconds each.
Absent:  no driver library, or no device that the job may see; per device, readings that NVML does not
         provide by any version of a call, or that no device can have (`bounds`). A MIG slice has no power and
         no energy: those of its GPU include all its slices. Temperature, throttling and errors of the GPU
         affect each of its slices, so they are reported for each.
Check:   nvidia-smi --query-gpu=utilization.gpu,memory.used,power.draw --format=csv
Unconfirmed: a stand-in for NVML
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.devices import SYSTEM_CLOCK, Devices
from mlflow_sysmetrics.collectors.nvml.faults import EccErrors, RemappedRows
from mlflow_sysmetrics.collectors.nvml.fields import Fields
from mlflow_sysmetrics.collectors.nvml.gauges import (
    MemoryTemperature,
    MemoryUsage,
    SliceUtilization,
    Temperature,
    Utilization,
)
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.collectors.nvml.power import Energy, OfTheWholeCard, PowerShare, PowerUsage
from mlflow_sysmetrics.collectors.nvml.processes import ProcessMemory, Tree
from mlflow_sysmetrics.collectors.nvml.throttling import Throttling
from mlflow_sysmetrics.collectors.nvml.xid import XidErrors, XidEvents
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.samples import Family, Metric, Sample


class Nvidia(Collector):
    """Use, power, temperature and errors of the GPUs that the job may see."""

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
        catalogue.GPU_THROTTLED,
        catalogue.GPU_ECC_ERRORS,
        catalogue.GPU_XID_ERRORS,
        catalogue.GPU_REMAPPED_ROWS,
    )

    def __init__(self, host: Host, clock: Clock = SYSTEM_CLOCK) -> None:
        self._host, self._clock = host, clock
        self._events: XidEvents | None = None
        self._devices = Devices(host, self._readings, clock)
        self.gaps = self._devices.gaps

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device.

        Raises:
            Unavailable: the process was forked; a new collector starts its own NVML.
        """
        if self._devices.is_outdated:
            self._events = None
            self._devices = Devices(self._host, self._readings, self._clock)
        if self._events is not None:
            self._events.begin_tick()
        yield from self._devices.samples(now)
        self.gaps = self._devices.gaps

    def _readings(self, nvml: Nvml, device: Device, tree: Tree) -> list[Reading]:
        if self._events is None:
            self._events = XidEvents(nvml)
        fields = Fields(nvml, device)
        power = PowerUsage(nvml, device, fields)
        own: list[Reading] = (
            [SliceUtilization(nvml, device), OfTheWholeCard()]
            if device.slice
            else [
                Utilization(nvml, device),
                power,
                PowerShare(nvml, device, power),
                Energy(nvml, device, fields, power),
            ]
        )
        return [
            # First: a GPU that falls off the bus reports an error before the other readings lose it.
            XidErrors(device, self._events),
            *own,
            MemoryUsage(nvml, device),
            ProcessMemory(nvml, device, tree),
            Temperature(nvml, device),
            MemoryTemperature(device, fields),
            Throttling(nvml, device, fields),
            EccErrors(nvml, device, fields),
            RemappedRows(nvml, device, fields),
        ]
