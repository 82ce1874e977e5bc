"""Figures for people: labels, units, and as many digits as they deserve."""

from __future__ import annotations

from datetime import datetime, timezone

LABELS = {
    "measured_hours": "Measured",
    "gpu_hours": "GPU-hours",
    "gpu_utilization_mean_percentage": "GPU utilization, mean",
    "gpu_utilization_p95_percentage": "GPU utilization, p95",
    "gpu_idle_percentage": "GPU idle",
    "gpu_memory_max_percentage": "GPU memory, peak",
    "gpu_power_mean_watts": "Power per GPU, mean",
    "energy_watt_hours": "Energy, measured",
    "cpu_core_hours": "CPU core-hours",
    "cpu_utilization_mean_percentage": "CPU, mean",
    "cpu_utilization_p95_percentage": "CPU, p95",
    "memory_max_percentage": "Memory, peak",
    "process_memory_max_megabytes": "Memory of the job, peak",
}

# The end of a name, its unit, and the one for a thousand of it. The first that fits counts.
_UNITS = (
    ("_percentage", "%", ""),
    ("_watt_hours", "Wh", "kWh"),
    ("_hours", "h", ""),
    ("_watts", "W", "kW"),
    ("_megabytes", "MB", "GB"),
)
ABSENT = "-"
_SHORT, _DAYS = 10, 48
_THOUSAND, _HOUR, _MINUTE = 1000, 3600, 60


def number(value: float | None) -> str:
    """Returns a number with up to three digits, or a dash for None: 0.25, 3.1, 45, 12,345."""
    if value is None:
        return ABSENT
    if value and abs(value) < 1:
        return f"{value:.2g}" if abs(value) >= 0.01 else f"{value:.1g}"  # noqa: PLR2004 - two digits
    return f"{value:.1f}".removesuffix(".0") if abs(value) < _SHORT else f"{value:,.0f}"


def amount(name: str, value: float | None) -> str:
    """Returns a value with its unit, which the name of its figure says."""
    if value is None:
        return ABSENT
    if name == "measured_hours":
        return duration(value * _HOUR)
    for ending, unit, large_unit in _UNITS:
        if name.endswith(ending):
            is_large = bool(large_unit) and value >= _THOUSAND
            return f"{number(value / _THOUSAND)} {large_unit}" if is_large else f"{number(value)} {unit}"
    return number(value)


def duration(seconds: float) -> str:
    """Returns a length of time, rounded: "45 s", "2 min 5 s", "45 min", "2 h 5 min", "3 d 4 h"."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _SHORT * _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if whole < _DAYS * _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // 60} min"
    return f"{whole // (24 * _HOUR)} d {whole % (24 * _HOUR) // _HOUR} h"


def moment(milliseconds: int) -> str:
    """Returns a time in UTC, to the minute; of milliseconds since 1970."""
    try:
        found = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):  # a program may create a run with any start
        return "an unknown time"
    return found.strftime("%Y-%m-%d %H:%M UTC")


def carbon(grams: float) -> str:
    """Returns grams of CO2 equivalent with their unit."""
    return f"{number(grams / _THOUSAND)} kg CO2e" if grams >= _THOUSAND else f"{number(grams)} g CO2e"
