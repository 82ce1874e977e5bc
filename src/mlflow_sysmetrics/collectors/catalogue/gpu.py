"""GPUs, one series per device that the job may see."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

GPU_UTILIZATION = Metric(
    name="gpu_{i}_utilization_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="share of the last moment in which at least one kernel ran",
    source="NVML nvmlDeviceGetUtilizationRates",
    bad="low: the GPU waits for data; 100 says that a kernel ran, not that it filled the GPU",
)
GPU_MEMORY_USAGE = Metric(
    name="gpu_{i}_memory_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="device memory in use, by all processes",
    source="NVML nvmlDeviceGetMemoryInfo",
    bad="a steady rise: tensors are kept alive",
)
GPU_MEMORY_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same as a share of the device's memory",
    source="NVML nvmlDeviceGetMemoryInfo",
    bad="near 100: the next allocation may fail; low: a larger batch fits",
)
GPU_POWER_USAGE = Metric(
    name="gpu_{i}_power_usage_watts",
    kind=Kind.GAUGE,
    unit="W",
    family=Family.GPU,
    meaning="power that the device draws",
    source="NVML nvmlDeviceGetPowerUsage",
    bad="low at a high utilisation: kernels wait for memory or for each other",
)
GPU_POWER_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_power_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same as a share of the power limit that is enforced",
    source="NVML nvmlDeviceGetPowerUsage, nvmlDeviceGetEnforcedPowerLimit",
    bad="near 100: the limit lowers the clock",
)
