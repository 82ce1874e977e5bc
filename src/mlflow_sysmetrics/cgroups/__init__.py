"""The job's own control group: where its files lie, and the limits in force on it."""

from __future__ import annotations

from mlflow_sysmetrics.cgroups.limits import (
    CgroupLimits,
    GroupLimit,
    allowed_cpus,
    cpu_quotas,
    limits,
    memory_limits,
    smallest_cpu_quota,
)
from mlflow_sysmetrics.cgroups.placement import (
    V1,
    V2,
    ControllerDirectory,
    controller_directory,
    unified_directory,
)

__all__ = [
    "V1",
    "V2",
    "CgroupLimits",
    "ControllerDirectory",
    "GroupLimit",
    "allowed_cpus",
    "controller_directory",
    "cpu_quotas",
    "limits",
    "memory_limits",
    "smallest_cpu_quota",
    "unified_directory",
]
