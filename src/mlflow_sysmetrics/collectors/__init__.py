"""What the host does: one file per source, one explicit registry.

`COLLECTORS` is all that is read on this operating system, in the order of a tick.
"""

from __future__ import annotations

import sys

from mlflow_sysmetrics.collectors.amd_linux import AmdLinux
from mlflow_sysmetrics.collectors.apple_gpu import AppleGpu
from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.cpu_psutil import CpuPsutil
from mlflow_sysmetrics.collectors.disk import Disk
from mlflow_sysmetrics.collectors.disk_io_linux import DiskIoLinux
from mlflow_sysmetrics.collectors.disk_io_psutil import DiskIoPsutil
from mlflow_sysmetrics.collectors.drm_clocks_linux import DrmClocks
from mlflow_sysmetrics.collectors.energy_linux import EnergyLinux
from mlflow_sysmetrics.collectors.infiniband_linux import InfinibandLinux
from mlflow_sysmetrics.collectors.intel_gpu_linux import IntelLinux
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux
from mlflow_sysmetrics.collectors.memory_psutil import MemoryPsutil
from mlflow_sysmetrics.collectors.network_linux import NetworkLinux
from mlflow_sysmetrics.collectors.network_psutil import NetworkPsutil
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvidia_profile import NvidiaProfile
from mlflow_sysmetrics.collectors.oom_linux import OomLinux
from mlflow_sysmetrics.collectors.pressure_linux import PressureLinux
from mlflow_sysmetrics.collectors.process_linux import ProcessLinux
from mlflow_sysmetrics.collectors.process_psutil import ProcessPsutil
from mlflow_sysmetrics.collectors.throttling_linux import ThrottlingLinux
from mlflow_sysmetrics.collectors.torch_allocator import TorchAllocator

LINUX: tuple[type[Collector], ...] = (
    CpuLinux,
    ThrottlingLinux,
    MemoryLinux,
    OomLinux,
    PressureLinux,
    ProcessLinux,
    Disk,
    DiskIoLinux,
    NetworkLinux,
    InfinibandLinux,
    EnergyLinux,
    Nvidia,
    NvidiaProfile,
    AmdLinux,
    IntelLinux,
    DrmClocks,
    TorchAllocator,
)
PORTABLE: tuple[type[Collector], ...] = (
    CpuPsutil,
    MemoryPsutil,
    ProcessPsutil,
    Disk,
    DiskIoPsutil,
    NetworkPsutil,
    Nvidia,
    NvidiaProfile,
    AppleGpu,
    TorchAllocator,
)
COLLECTORS = LINUX if sys.platform == "linux" else PORTABLE

__all__ = ["COLLECTORS", "LINUX", "PORTABLE", "Collector"]
