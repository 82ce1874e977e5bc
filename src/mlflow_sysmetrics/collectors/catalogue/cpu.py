"""CPU time: how much of its share the job uses."""

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
