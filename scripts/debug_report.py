"""The result of `debug_run`, and how it is printed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mlflow_sysmetrics.collectors import COLLECTORS, load_classes

PREFIX = "system/"
ROOMY = 100  # columns of a terminal that is wide enough for generous padding
UNITS = {metric.name: metric.unit for collector in load_classes(COLLECTORS) for metric in collector.metrics}
MEANINGS = {
    "sys.cpu": "CPU model",
    "sys.cpu_cores": "logical CPUs of the host",
    "sys.cpu_cores_physical": "physical cores",
    "sys.cpu_cores_effective": "CPUs available to this job",
    "sys.memory_gb": "memory of the host, GB",
    "sys.memory_limit_gb": "memory limit of this job, GB",
    "sys.disk_free_gb": "free disk space here, GB",
    "sys.gpu": "visible GPUs",
    "sys.gpu_count": "number of visible GPUs",
    "sys.gpu_memory_gb": "memory of each GPU, GB",
    "sys.gpu_driver": "GPU driver",
    "sys.gpu_cuda": "newest CUDA supported by the driver",
    "sys.gpu_uuid": "UUID of each GPU",
    "sys.platform": "operating system and kernel",
    "sys.os": "operating system",
    "sys.hostname": "name of the host",
    "sys.python": "Python",
    "sys.container": "kind of container",
    "sys.cloud": "cloud provider and instance type",
    "sys.scheduler": "scheduler of this job",
    "sys.job_id": "job id of the scheduler",
    "sys.node": "this node of the job",
    "sys.metrics": "whether metrics are logged",
    "sysmetrics.error": "what could not be determined",
}


@dataclass(frozen=True)
class Series:
    """One metric of a run: its unit, the number of its points, and their statistics."""

    unit: str
    points: int
    first: float
    mean: float
    min: float
    max: float
    last: float

    @classmethod
    def of(cls, key: str, history: Sequence[Any]) -> Series:
        """Summarises the result of `MlflowClient.get_metric_history`, in any order."""
        values = [point.value for point in sorted(history, key=lambda point: point.timestamp)]
        name = re.sub(r"^gpu_\d+_", "gpu_{i}_", key.rpartition("/")[2])
        return cls(
            UNITS.get(name, ""), len(values), values[0], fmean(values), min(values), max(values), values[-1]
        )


@dataclass
class Report:
    """The result of one debug run.

    Attributes:
        run_id: the run; None if none could be created.
        tags: our tags of the run, as stored.
        metrics: our series of the run, as stored.
        not_available: what this machine does not have, and why.
        problems: what is missing in the store, and what to do about it; empty if nothing is missing.
        open_with: the command or the address that shows the run.
    """

    run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)
    not_available: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    open_with: str | None = None


def show_json(report: Report) -> None:
    """Prints the report as JSON."""
    tags = {name: {"value": value, "meaning": MEANINGS.get(name, "")} for name, value in report.tags.items()}
    json.dump({"ok": not report.problems, **asdict(report), "tags": tags}, sys.stdout, indent=2)
    sys.stdout.write("\n")


def show(report: Report, console: Console) -> None:
    """Prints the report for people."""
    if report.run_id is not None:
        _show_table(console, "Tags: what this machine is", _tags(report.tags))
        _show_table(console, "Metrics: what it did", _metrics(report.metrics))
    _show_list(console, "Not available on this machine", report.not_available, "bold yellow")
    _show_list(console, "Problems", report.problems, "bold red")
    if not report.problems:
        points = sum(series.points for series in report.metrics.values())
        summary = f"{len(report.tags)} tags and {len(report.metrics)} metrics with {points} points"
        console.print(f"It works: {summary} are in the store.\n", style="bold green")
    if report.run_id is not None:
        console.print(f"Run     {report.run_id}", soft_wrap=True)
        console.print(f"See it  {report.open_with}", soft_wrap=True)
        console.print('        and open the run\'s tab "System metrics"')


def _show_table(console: Console, title: str, table: Table) -> None:
    console.print(title, style="bold")
    if table.row_count:
        table.padding = (0, 2 if console.width >= ROOMY else 1, 0, 0)
        console.print(table)
    else:
        console.print("  none in the store\n")


def _tags(tags: dict[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("tag", style="cyan", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", style="dim", overflow="fold")
    known = {name: place for place, name in enumerate(MEANINGS)}
    for name in sorted(tags, key=lambda name: (known.get(name, len(known)), name)):
        table.add_row(name, tags[name], MEANINGS.get(name, ""))
    return table


def _metrics(metrics: dict[str, Series]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("metric", style="cyan", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for name in ("points", "first", "mean", "min", "max", "last"):
        table.add_column(name, justify="right", overflow="fold")
    for key, series in sorted(metrics.items()):
        numbers = (series.first, series.mean, series.min, series.max, series.last)
        table.add_row(key, series.unit, str(series.points), *(_number(number) for number in numbers))
    return table


def _number(value: float) -> str:
    """Returns a number with fewer decimals the larger it is."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _show_list(console: Console, title: str, lines: Sequence[str], style: str) -> None:
    if lines:
        console.print(title, style=style)
        for line in lines:
            console.print(f"  - {line}", soft_wrap=True)
        console.print()
