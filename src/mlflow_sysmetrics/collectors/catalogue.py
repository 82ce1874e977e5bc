"""Every metric, described once.

Names and units are MLflow's own, so that dashboards keep working where its built-in monitor is replaced.
"""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

CPU_UTILIZATION = Metric(
    name="cpu_utilization_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning="share of CPU time spent working since the tick before, over all CPUs of the host",
)
MEMORY_USAGE = Metric(
    name="system_memory_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.MEMORY,
    meaning="memory of the host that is not available to new programs",
)
MEMORY_USAGE_PERCENTAGE = Metric(
    name="system_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.MEMORY,
    meaning="the same as a share of the host's memory",
)
DISK_USAGE_PERCENTAGE = Metric(
    name="disk_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.DISK,
    meaning="share of the working directory's filesystem that is used, of what ordinary users may use",
)
DISK_USAGE = Metric(
    name="disk_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="used space of the working directory's filesystem",
)
DISK_AVAILABLE = Metric(
    name="disk_available_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.DISK,
    meaning="space of the working directory's filesystem that an ordinary user may still take",
)
NETWORK_RECEIVE = Metric(
    name="network_receive_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes received since the run was attached, without loopback and without counting twice",
)
NETWORK_TRANSMIT = Metric(
    name="network_transmit_megabytes",
    kind=Kind.COUNTER,
    unit="MB",
    family=Family.NETWORK,
    meaning="bytes sent since the run was attached, without loopback and without counting twice",
)
GPU_UTILIZATION = Metric(
    name="gpu_{i}_utilization_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="share of the last moment in which at least one kernel ran",
)
GPU_MEMORY_USAGE = Metric(
    name="gpu_{i}_memory_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="device memory in use, by all processes",
)
GPU_MEMORY_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same as a share of the device's memory",
)
GPU_POWER_USAGE = Metric(
    name="gpu_{i}_power_usage_watts",
    kind=Kind.GAUGE,
    unit="W",
    family=Family.GPU,
    meaning="power that the device draws",
)
GPU_POWER_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_power_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same as a share of the power limit that is enforced",
)
