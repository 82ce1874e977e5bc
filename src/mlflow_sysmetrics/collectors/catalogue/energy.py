"""Energy of the CPUs."""

from __future__ import annotations

from mlflow_sysmetrics.samples import Family, Kind, Metric

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
