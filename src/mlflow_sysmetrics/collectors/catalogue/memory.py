"""Memory: how much of its limit the job holds."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

MEMORY_USAGE = Metric(
    name="system_memory_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.MEMORY,
    meaning=(
        "memory in use: on the host, memory that is not available to new programs; under a limit the working "
        "set of the job's cgroup, which the kernel compares with the limit before it kills"
    ),
    source=(
        "/proc/meminfo (MemTotal - MemAvailable, or an estimate where that reads 0 although memory is free); "
        "under a limit memory.current - inactive_file (v1 memory.usage_in_bytes - total_inactive_file); "
        "psutil.virtual_memory elsewhere"
    ),
    bad="a steady rise: a leak, or a data set that is read into memory",
)
MEMORY_USAGE_PERCENTAGE = Metric(
    name="system_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.MEMORY,
    meaning=(
        "the same, as a share of the host's memory or of the smallest limit on the job's cgroup and its "
        "ancestors"
    ),
    source="as system_memory_usage_megabytes; limits: memory.max and memory.high (v1 memory.limit_in_bytes)",
    bad="near 100: the kernel is about to kill a process of the job",
)
HOST_MEMORY_USAGE_PERCENTAGE = Metric(
    name="host_memory_usage_percentage",
    kind=Kind.GAUGE,
    unit="%",
    family=Family.MEMORY,
    meaning="share of the host's memory in use, whoever uses it",
    source="/proc/meminfo",
    bad="near 100: the host may run out of memory although the job stays below its limit",
    only="if the job is limited to less than the host's memory",
)
MEMORY_AVAILABLE = Metric(
    name="memory_available_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.MEMORY,
    meaning="memory that the job can still allocate: the least that the host and each of its limits allow",
    source="/proc/meminfo MemAvailable; limit minus working set of every limited cgroup above the job",
    bad="near 0: the next allocation may fail",
)
SWAP_USAGE = Metric(
    name="swap_usage_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.MEMORY,
    meaning="swap space in use, of the host or, under a memory limit, of the job's cgroup",
    source=(
        "/proc/meminfo (SwapTotal - SwapFree); under a limit memory.swap.current (v1 total_swap); "
        "psutil.swap_memory elsewhere"
    ),
    bad="rising: memory is short, and everything slows down",
    only="if there is swap space",
)
MEMORY_OOM_KILLS = Metric(
    name="memory_oom_kills",
    kind=Kind.EVENTS,
    unit="kills",
    family=Family.MEMORY,
    meaning="processes of the job's cgroup that the out-of-memory killer ended since the run was attached",
    source="memory.events oom_kill of the job's cgroup (v1 memory.oom_control oom_kill)",
    bad="any: a process, perhaps a data loader, was killed",
    only="once it has happened",
)
