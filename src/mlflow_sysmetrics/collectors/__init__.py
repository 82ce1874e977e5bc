"""What the host does: one file per source, one explicit registry.

`COLLECTORS` is all that is read on this operating system, in the order of a tick.
"""

from __future__ import annotations

import sys

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.cpu_psutil import CpuPsutil
from mlflow_sysmetrics.collectors.disk import Disk
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux
from mlflow_sysmetrics.collectors.memory_psutil import MemoryPsutil
from mlflow_sysmetrics.collectors.network_linux import NetworkLinux
from mlflow_sysmetrics.collectors.network_psutil import NetworkPsutil
from mlflow_sysmetrics.collectors.nvidia import Nvidia

LINUX: tuple[type[Collector], ...] = (CpuLinux, MemoryLinux, Disk, NetworkLinux, Nvidia)
PORTABLE: tuple[type[Collector], ...] = (CpuPsutil, MemoryPsutil, Disk, NetworkPsutil, Nvidia)
COLLECTORS = LINUX if sys.platform == "linux" else PORTABLE

__all__ = ["COLLECTORS", "LINUX", "PORTABLE", "Collector"]
