"""Figures as text: medians, spreads, ratios, tables, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mlflow_sysmetrics.runtime.distribution import distribution_name

NOISE = (
    "Timings on a shared machine are noisy: trust the ratios, which come from the same minutes, "
    "more than the figures, and several runs more than a single one."
)
_LOW, _HIGH, _HIGHEST = 4, 94, 98  # which of 99 percentiles
_FEW = 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure, measured several times."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def p95(self) -> float:
        """The 95th percentile."""
        return statistics.quantiles(self.values, n=100, method="inclusive")[_HIGH]

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return statistics.quantiles(self.values, n=100, method="inclusive")[_HIGHEST]

    def show(self) -> str:
        """Returns the median and, in parentheses, the spread: all of few values, else 5 % to 95 %."""
        if len(self.values) == 1:
            return figure(self.values[0])
        low, high = min(self.values), max(self.values)
        if len(self.values) > _FEW:
            percentiles = statistics.quantiles(self.values, n=100, method="inclusive")
            low, high = percentiles[_LOW], percentiles[_HIGH]
        return f"{figure(self.median)} ({figure(low)} to {figure(high)})"

    def show_mean(self) -> str:
        """Returns the mean."""
        return figure(self.mean)


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a heading and rows."""

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.heading, *self.rows, strict=True)]
        rule = ["-" * width for width in widths]
        lines = [
            "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
            for row in (self.heading, rule, *self.rows)
        ]
        return "\n".join([f"### {self.title}", "", *lines, ""])


def figure(value: float) -> str:
    """Returns a number with three significant digits, or with all digits of its integer part."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def ratio(built_in: float, ours: float) -> str:
    """Returns the built-in value divided by ours."""
    return figure(built_in / ours) if ours else "-"


def machine() -> dict[str, str]:
    """Returns the properties of the machine that matter for the figures."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "load at the start": " ".join(figure(load) for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "MLflow": version("mlflow"),
        "psutil": version("psutil"),
        "mlflow-sysmetrics": version(distribution_name()),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
