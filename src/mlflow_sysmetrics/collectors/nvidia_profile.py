"""How well NVIDIA GPUs are used: multiprocessors, tensor cores, memory bandwidth, links, clocks.

Source:  NVML: GPM on Hopper and newer, else counters of the links; nvmlDeviceGetClockInfo,
         nvmlDeviceGetUtilizationRates.
         https://docs.nvidia.com/deploy/nvml-api/group__nvmlGpmFunctions.html
Units:   percent, megabytes (1e6 bytes) per second, megahertz.
Cost:    five calls per device and tick.
Absent:  before Hopper all but links, clocks and memory utilization; at the first tick all but the latter two.
         Memory utilization of a MIG slice.
Check:   dcgmi dmon -e 1002,1003,1004,1005,1009,1010,1011,1012; nvidia-smi --query-gpu=clocks.sm,clocks.mem
Unconfirmed: a stand-in for NVML
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.devices import SYSTEM_CLOCK, Devices
from mlflow_sysmetrics.collectors.nvml.fields import Fields
from mlflow_sysmetrics.collectors.nvml.gauges import MemoryClock, MemoryUtilization, SmClock
from mlflow_sysmetrics.collectors.nvml.gpm import Profile
from mlflow_sysmetrics.collectors.nvml.library import Nvml
from mlflow_sysmetrics.collectors.nvml.links import Nvlink, Pcie
from mlflow_sysmetrics.collectors.nvml.processes import Tree
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.samples import Family, Metric, Sample


class NvidiaProfile(Collector):
    """Activity of the parts of the GPUs that the job may see."""

    family: ClassVar[Family] = Family.GPU_PROFILE
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.GPU_SM_CLOCK,
        catalogue.GPU_MEMORY_CLOCK,
        catalogue.GPU_MEMORY_UTILIZATION,
        catalogue.GPU_SM_ACTIVE,
        catalogue.GPU_SM_OCCUPANCY,
        catalogue.GPU_TENSOR_ACTIVE,
        catalogue.GPU_DRAM_ACTIVE,
        catalogue.GPU_PCIE_RECEIVE,
        catalogue.GPU_PCIE_TRANSMIT,
        catalogue.GPU_NVLINK_RECEIVE,
        catalogue.GPU_NVLINK_TRANSMIT,
    )

    def __init__(self, host: Host, clock: Clock = SYSTEM_CLOCK) -> None:
        self._host, self._clock = host, clock
        self._devices = Devices(host, _readings, clock)
        self.gaps = self._devices.gaps

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the readings of each device.

        Raises:
            Unavailable: the process was forked; a new collector starts its own NVML.
        """
        if self._devices.is_outdated:
            self._devices = Devices(self._host, _readings, self._clock)
        yield from self._devices.samples(now)
        self.gaps = self._devices.gaps


def _readings(nvml: Nvml, device: Device, tree: Tree) -> list[Reading]:
    profile = Profile(nvml, device)
    readings: list[Reading] = [profile, SmClock(nvml, device), MemoryClock(nvml, device)]
    if device.slice is None:
        fields = Fields(nvml, device)
        readings += [
            MemoryUtilization(nvml, device),
            Pcie(device, fields, profile),
            Nvlink(device, fields, profile),
        ]
    return readings
