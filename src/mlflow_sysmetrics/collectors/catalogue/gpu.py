"""GPUs: one series per device that the job may see, with the same names for every vendor."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

GPU_UTILIZATION = Metric(
    name="gpu_{i}_utilization_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="share of the driver's last sampling period in which at least one kernel ran",
    source=(
        "NVML nvmlDeviceGetUtilizationRates, inside MIG GPM graphics activity; amdgpu gpu_busy_percent; "
        "IOAccelerator on Apple silicon"
    ),
    bad="low: the GPU waits for data; 100 means that a kernel ran, not that it filled the GPU",
)
GPU_MEMORY_USAGE = Metric(
    name="gpu_{i}_memory_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="device memory in use, by all processes",
    source=(
        "NVML nvmlDeviceGetMemoryInfo (version 2, without the driver's reservation); amdgpu "
        "mem_info_vram_used"
    ),
    bad="a steady rise: tensors are kept alive",
)
GPU_MEMORY_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same, as a share of the device's memory",
    source="as gpu_{i}_memory_usage_megabytes",
    bad="near 100: the next allocation may fail; low: a larger batch fits",
)
GPU_PROCESS_MEMORY = Metric(
    name="gpu_{i}_process_memory_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="device memory that this process and its children hold",
    source="NVML nvmlDeviceGetComputeRunningProcesses; drm fdinfo of the job's processes on AMD and Intel",
    bad="far below gpu_{i}_memory_usage_megabytes: another job uses this GPU too",
    only="while the job holds device memory",
)
GPU_POWER_USAGE = Metric(
    name="gpu_{i}_power_usage_watts",
    kind=Kind.GAUGE,
    unit="W",
    family=Family.GPU,
    meaning="power that the device draws",
    source=(
        "NVML nvmlDeviceGetPowerUsage; hwmon power1_average or power1_input; on Intel the growth of hwmon "
        "energy1_input"
    ),
    bad="low at a high utilization: kernels wait for memory or for each other",
)
GPU_POWER_USAGE_PERCENTAGE = Metric(
    name="gpu_{i}_power_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU,
    meaning="the same, as a share of the enforced power limit",
    source="NVML nvmlDeviceGetEnforcedPowerLimit; hwmon power1_cap or power1_max",
    bad="near 100: the limit lowers the clock",
)
GPU_ENERGY = Metric(
    name="gpu_{i}_energy_watt_hours",
    kind=Kind.COUNTER,
    unit="Wh",
    family=Family.GPU,
    meaning="energy that the device used since the run was attached",
    source=(
        "NVML nvmlDeviceGetTotalEnergyConsumption, else power integrated over the ticks; hwmon energy1_input"
    ),
    bad="none by itself",
)
GPU_TEMPERATURE = Metric(
    name="gpu_{i}_temperature_celsius",
    kind=Kind.GAUGE,
    unit="deg C",
    family=Family.GPU,
    meaning="temperature of the chip",
    source="NVML nvmlDeviceGetTemperature; hwmon temp1_input",
    bad="above 85: it is about to slow down",
)
GPU_MEMORY_TEMPERATURE = Metric(
    name="gpu_{i}_memory_temperature_celsius",
    kind=Kind.GAUGE,
    unit="deg C",
    family=Family.GPU,
    meaning="temperature of the device's memory",
    source="NVML field NVML_FI_DEV_MEMORY_TEMP; hwmon temperature labelled mem",
    bad="above 95: it is about to slow down",
)
GPU_THROTTLED = Metric(
    name="gpu_{i}_throttled_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.GPU,
    meaning=(
        "share of time in which a power limit, heat or a power brake slowed the device down; idling and "
        "clocks set by the user do not count"
    ),
    source=(
        "NVML's counters of the time lost to power and heat; a tick with an event reason that none of them "
        "counts, such as a brake, counts in full"
    ),
    bad="above 0: the same work takes longer than it could",
)
GPU_ECC_ERRORS = Metric(
    name="gpu_{i}_ecc_errors",
    kind=Kind.EVENTS,
    unit="errors",
    family=Family.GPU,
    meaning="memory errors, corrected and uncorrected, since the run was attached",
    source="NVML nvmlDeviceGetTotalEccErrors, volatile counters",
    bad="rising: the device needs service",
    only="once it has happened",
)
GPU_XID_ERRORS = Metric(
    name="gpu_{i}_xid_errors",
    kind=Kind.EVENTS,
    unit="errors",
    family=Family.GPU,
    meaning="critical errors that the driver reported since the run was attached",
    source="NVML event set, nvmlEventTypeXidCriticalError",
    bad="any: the job's results on this device are doubtful",
    only="once it has happened",
)
GPU_REMAPPED_ROWS = Metric(
    name="gpu_{i}_remapped_rows",
    kind=Kind.EVENTS,
    unit="rows",
    family=Family.GPU,
    meaning="rows of memory that were replaced since the run was attached",
    source="NVML nvmlDeviceGetRemappedRows",
    bad="any: the device's memory is wearing out",
    only="once it has happened",
)
GPU_TORCH_ALLOCATED = Metric(
    name="gpu_{i}_torch_allocated_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="memory in tensors, as counted by torch",
    source="torch.cuda.memory_allocated, only if the program has imported torch and started CUDA",
    bad="a steady rise: tensors are kept alive",
    only="if the program uses torch on the device",
)
GPU_TORCH_RESERVED = Metric(
    name="gpu_{i}_torch_reserved_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.GPU,
    meaning="memory that torch's allocator holds, in tensors or free",
    source="torch.cuda.memory_reserved, as gpu_{i}_torch_allocated_megabytes",
    bad="far above gpu_{i}_torch_allocated_megabytes: memory is fragmented",
    only="if the program uses torch on the device",
)
GPU_SM_CLOCK = Metric(
    name="gpu_{i}_sm_clock_megahertz",
    kind=Kind.GAUGE,
    unit="MHz",
    family=Family.GPU_PROFILE,
    meaning="clock of the streaming multiprocessors or shader engines",
    source="NVML nvmlDeviceGetClockInfo; amdgpu freq1_input; i915 gt_act_freq_mhz, xe act_freq",
    bad="falling at a steady load: power or heat slows the device",
)
GPU_MEMORY_CLOCK = Metric(
    name="gpu_{i}_memory_clock_megahertz",
    kind=Kind.GAUGE,
    unit="MHz",
    family=Family.GPU_PROFILE,
    meaning="clock of the device's memory",
    source="NVML nvmlDeviceGetClockInfo; amdgpu freq2_input",
    bad="falling at a steady load: power or heat slows the device",
)
GPU_MEMORY_UTILIZATION = Metric(
    name="gpu_{i}_memory_utilization_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU_PROFILE,
    meaning="share of the driver's last sampling period in which device memory was read or written",
    source="NVML nvmlDeviceGetUtilizationRates; amdgpu mem_busy_percent",
    bad="near 100: kernels wait for memory",
)
GPU_SM_ACTIVE = Metric(
    name="gpu_{i}_sm_active_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU_PROFILE,
    meaning="share of multiprocessor cycles with at least one warp",
    source="NVML GPM NVML_GPM_METRIC_SM_UTIL, Hopper and newer",
    bad="far below gpu_{i}_utilization_percentage: kernels are too small for the device",
)
GPU_SM_OCCUPANCY = Metric(
    name="gpu_{i}_sm_occupancy_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU_PROFILE,
    meaning="resident warps as a share of the maximum",
    source="NVML GPM NVML_GPM_METRIC_SM_OCCUPANCY, Hopper and newer",
    bad="low at a high activity: registers or shared memory limit the kernels",
)
GPU_TENSOR_ACTIVE = Metric(
    name="gpu_{i}_tensor_active_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU_PROFILE,
    meaning="share of cycles in which tensor cores were active",
    source="NVML GPM NVML_GPM_METRIC_ANY_TENSOR_UTIL, Hopper and newer",
    bad="near 0 in mixed precision: matrix products do not reach the tensor cores",
)
GPU_DRAM_ACTIVE = Metric(
    name="gpu_{i}_dram_active_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.GPU_PROFILE,
    meaning="share of cycles in which device memory moved data",
    source="NVML GPM NVML_GPM_METRIC_DRAM_BW_UTIL, Hopper and newer",
    bad="near 100: kernels wait for memory",
)
GPU_PCIE_RECEIVE = Metric(
    name="gpu_{i}_pcie_receive_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.GPU_PROFILE,
    meaning="bytes received per second over PCI Express",
    source="NVML GPM or counters; never the call that blocks for 20 ms",
    bad="at the link's limit: copies to and from the host slow the training down",
)
GPU_PCIE_TRANSMIT = Metric(
    name="gpu_{i}_pcie_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.GPU_PROFILE,
    meaning="bytes sent per second over PCI Express",
    source="NVML GPM or counters; never the call that blocks for 20 ms",
    bad="at the link's limit: copies to and from the host slow the training down",
)
GPU_NVLINK_RECEIVE = Metric(
    name="gpu_{i}_nvlink_receive_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.GPU_PROFILE,
    meaning="bytes received per second over NVLink",
    source="NVML GPM or counters; never the call that blocks for 20 ms",
    bad="at the link's limit: communication between GPUs slows the training down",
)
GPU_NVLINK_TRANSMIT = Metric(
    name="gpu_{i}_nvlink_transmit_megabytes_per_second",
    kind=Kind.RATE,
    unit="MB/s",
    family=Family.GPU_PROFILE,
    meaning="bytes sent per second over NVLink",
    source="NVML GPM or counters; never the call that blocks for 20 ms",
    bad="at the link's limit: communication between GPUs slows the training down",
)
