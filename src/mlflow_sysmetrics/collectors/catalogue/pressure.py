"""Pressure stall information: time lost to waiting.

https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

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
