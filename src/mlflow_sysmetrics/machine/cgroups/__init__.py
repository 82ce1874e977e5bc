"""The job's own control group: where its files lie, and the limits in force on it."""

from __future__ import annotations

from mlflow_sysmetrics.machine.cgroups.limits import (
    GroupLimit,
    allowed_cpus,
    cpu_quotas,
    memory_limits,
    smallest_cpu_quota,
    smallest_memory_limit,
)
from mlflow_sysmetrics.machine.cgroups.placement import (
    V1,
    V2,
    ControllerDirectory,
    controller_directory,
    unified_directory,
)

__all__ = [
    "V1",
    "V2",
    "ControllerDirectory",
    "GroupLimit",
    "allowed_cpus",
    "controller_directory",
    "cpu_quotas",
    "memory_limits",
    "smallest_cpu_quota",
    "smallest_memory_limit",
    "unified_directory",
]
