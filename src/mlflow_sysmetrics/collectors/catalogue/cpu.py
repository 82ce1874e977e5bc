"""CPU time: what the job uses of what it may use."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

CPU_UTILIZATION = Metric(
    name="cpu_utilization_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning=(
        "share of the CPU time that this job may use in which CPUs worked: of all CPUs of the host, or of "
        "its quota and CPUs where it has fewer"
    ),
    source=(
        "/proc/stat; under a quota or cpuset the own cgroup's usage_usec (v1 cpuacct.usage); "
        "psutil.cpu_times elsewhere"
    ),
    bad="near 100: the job waits for CPU; far below it beside an idle GPU: it waits for something else",
)
HOST_CPU_UTILIZATION = Metric(
    name="host_cpu_utilization_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning="share of CPU time in which all CPUs of the host worked, whoever used them",
    source="/proc/stat",
    bad="near 100 while the job's own is low: neighbours use the host",
    only="where the job may use less than the host's CPUs",
)
CPU_THROTTLED = Metric(
    name="cpu_throttled_percentage",
    kind=Kind.RATE,
    unit="%",
    family=Family.CPU,
    meaning=(
        "share of the quota's enforcement periods in which the group was stopped because its quota was "
        "used up"
    ),
    source="cpu.stat of the cgroup that has the quota: nr_throttled of nr_periods",
    bad="above 0: the quota slows the job down, even where its mean use is below 100 %",
    only="under a CPU quota",
)
