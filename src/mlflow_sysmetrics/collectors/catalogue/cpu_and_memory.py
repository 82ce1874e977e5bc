"""CPU, memory and processes: what the job uses of its share and waits for, and the energy of the CPUs.

The time lost to waiting is the kernel's pressure stall information,
https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

CPU_UTILIZATION = Metric(
    name="cpu_utilization_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning=(
        "busy share of the CPU time that this job may use: of all CPUs of the host, or of its quota or CPUs "
        "if it is limited to fewer"
    ),
    source=(
        "/proc/stat; under a quota or cpuset usage_usec of the job's cgroup (v1 cpuacct.usage); "
        "psutil.cpu_times elsewhere"
    ),
    bad="near 100: the job waits for CPU; far below 100 with an idle GPU: it waits for something else",
)
HOST_CPU_UTILIZATION = Metric(
    name="host_cpu_utilization_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning="busy share of the CPU time of the whole host, whoever used it",
    source="/proc/stat",
    bad="near 100 while the job's own share is low: other jobs use the host",
    only="if the job may not use all CPUs of the host",
)
CPU_THROTTLED = Metric(
    name="cpu_throttled_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning=(
        "share of the quota's enforcement periods in which the group was stopped because it had used up its "
        "quota"
    ),
    source="cpu.stat of the cgroup with the quota: nr_throttled of nr_periods",
    bad="above 0: the quota slows the job down, even if its mean use is below 100 %",
    only="under a CPU quota",
)
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
CPU_PRESSURE = Metric(
    name="cpu_pressure_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.PRESSURE,
    meaning=(
        "share of time in which at least one task of the job's cgroup, or of the host if the job has "
        "none, waited for a CPU"
    ),
    source="cpu.pressure of the job's cgroup (v2), else /proc/pressure/cpu: total of the line some",
    bad="above 10: more threads than CPUs, or a quota that throttles",
)
MEMORY_PRESSURE = Metric(
    name="memory_pressure_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.PRESSURE,
    meaning=(
        "share of time in which at least one task of the job's cgroup, or of the host if the job has "
        "none, waited for memory to be freed or read back"
    ),
    source="memory.pressure of the job's cgroup (v2), else /proc/pressure/memory: total of the line some",
    bad="above 1: memory is so short that work waits for it",
)
IO_PRESSURE = Metric(
    name="io_pressure_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.PRESSURE,
    meaning=(
        "share of time in which at least one task of the job's cgroup, or of the host if the job has "
        "none, waited for a disk or another block device"
    ),
    source="io.pressure of the job's cgroup (v2), else /proc/pressure/io: total of the line some",
    bad="high with an idle GPU: the input pipeline waits for storage",
)


PROCESS_CPU = Metric(
    name="process_cpu_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.PROCESS,
    meaning=(
        "CPU time of this process and all its descendants, as a share of ONE core: 250 is two and a half "
        "cores"
    ),
    source=(
        "CPU clocks and /proc/<pid>/stat; children that have ended through their parent's cutime; psutil "
        "elsewhere"
    ),
    bad="near 100 with many CPUs: a single thread is the bottleneck",
)
PROCESS_RSS = Metric(
    name="process_memory_rss_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.PROCESS,
    meaning=(
        "resident memory of this process and all its descendants; shared pages count once for each process"
    ),
    source="/proc/<pid>/stat rss; psutil memory_info().rss elsewhere",
    bad="a steady rise: a leak in the training or in its data loaders",
)
PROCESS_USS = Metric(
    name="process_memory_uss_megabytes",
    kind=Kind.GAUGE,
    unit="MB",
    family=Family.PROCESS,
    meaning=(
        "memory pages that only one of these processes uses: the amount that would be freed if they ended"
    ),
    source=(
        "/proc/<pid>/smaps_rollup Private_*, once a minute since it is expensive; psutil "
        "memory_full_info().uss elsewhere"
    ),
    bad="a rise in data loaders that only read: updates of reference counts copy shared pages",
)
PROCESS_THREADS = Metric(
    name="process_threads",
    kind=Kind.GAUGE,
    unit="threads",
    family=Family.PROCESS,
    meaning="threads of this process and all its descendants",
    source="/proc/<pid>/stat num_threads; psutil elsewhere",
    bad="far more than CPUs: threads compete for them; rising: threads leak",
)
PROCESS_OPEN_FILES = Metric(
    name="process_open_files",
    kind=Kind.GAUGE,
    unit="files",
    family=Family.PROCESS,
    meaning="open file descriptors of this process and all its descendants",
    source="/proc/<pid>/fd; psutil num_fds elsewhere",
    bad="rising: files, sockets or shared-memory tensors leak",
)
PROCESS_CHILDREN = Metric(
    name="process_children",
    kind=Kind.GAUGE,
    unit="processes",
    family=Family.PROCESS,
    meaning="living descendants of this process",
    source="parent ids in /proc/<pid>/stat; psutil children() elsewhere",
    bad="not equal to the number of workers: some have died, or are left over",
)


CPU_ENERGY = Metric(
    name="cpu_energy_watt_hours",
    kind=Kind.COUNTER,
    unit="Wh",
    family=Family.ENERGY,
    meaning="energy that the CPU packages of the whole host used since the run was attached",
    source="/sys/class/powercap: RAPL energy_uj of the package zones; zones that show one counter count once",
    bad="none by itself",
)
CPU_POWER = Metric(
    name="cpu_power_watts",
    kind=Kind.RATE,
    unit="W",
    family=Family.ENERGY,
    meaning="power that the CPU packages of the whole host draw",
    source="as cpu_energy_watt_hours",
    bad="at the processor's design power: it lowers its clock",
)
