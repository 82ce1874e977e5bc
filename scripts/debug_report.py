"""The result of `debug_run`, and how it is printed."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mlflow_sysmetrics.collectors import COLLECTORS, load_classes

PREFIX = "system/"
ROOMY = 100  # columns of a terminal that is wide enough for whole names and their meaning
SIGNIFICANT, SMALL = 100, 0.001
# The end of a name says the unit, which has a column of its own.
FOLDED = (
    "_megabytes_per_second",
    "_per_second",
    "_megabytes",
    "_percentage",
    "_watts",
    "_celsius",
    "_megahertz",
    "_seconds",
    "_joules",
)
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
        least, most = min(values), max(values)
        mean = min(max(fmean(values), least), most)  # rounding may put the mean of equal values beside them
        return cls(UNITS.get(name, ""), len(values), values[0], mean, least, most, values[-1])


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
        roomy = console.width >= ROOMY
        _show_table(console, "Tags: what this machine is", _tags(report.tags, meanings=roomy))
        _show_table(console, "Metrics: what it did", _metrics(report.metrics, whole_names=roomy))
    _show_list(console, "Not available on this machine", report.not_available, "bold yellow")
    _show_list(console, "Problems", report.problems, "bold red")
    if not report.problems:
        points = sum(series.points for series in report.metrics.values())
        summary = f"{len(report.tags)} tags and {len(report.metrics)} metrics with {points} points"
        console.print(f"It works: {summary} are in the store.\n", style="bold green")
    if report.run_id is not None:
        console.print(f"Run {report.run_id}", soft_wrap=True)
        console.print('To see it, open this, and then the run\'s tab "System metrics":')
        console.print(f"  {report.open_with}", soft_wrap=True)


def _show_table(console: Console, title: str, table: Table) -> None:
    console.print(title, style="bold")
    if table.row_count:
        table.padding = (0, 2 if console.width >= ROOMY else 1, 0, 0)
        console.print(table)
    else:
        console.print("  none in the store\n")


def _tags(tags: dict[str, str], *, meanings: bool) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("tag", style="cyan", no_wrap=True)
    table.add_column("value", overflow="fold")
    if meanings:
        table.add_column("meaning", style="dim", overflow="fold")
    known = {name: place for place, name in enumerate(MEANINGS)}
    for name in sorted(tags, key=lambda name: (known.get(name, len(known)), name)):
        table.add_row(name, tags[name], *([MEANINGS.get(name, "")] if meanings else []))
    return table


def _metrics(metrics: dict[str, Series], *, whole_names: bool) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("metric", style="cyan", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for name in ("points", "mean", "min", "max", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, series in sorted(metrics.items()):
        numbers = (series.mean, series.min, series.max, series.last)
        name = key if whole_names else short_name(key)
        table.add_row(name, series.unit, str(series.points), *map(number_text, numbers))
    return table


def short_name(key: str) -> str:
    """Returns the name of a metric without ``system/`` and without the unit at its end."""
    name = key.removeprefix(PREFIX)
    ending = next((one for one in FOLDED if name.endswith(one)), "")
    return name.removesuffix(ending)


def number_text(value: float) -> str:
    """Returns a number with the digits that mean something: three, or all of those before the point."""
    if value == 0 or abs(value) >= SIGNIFICANT:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= SMALL else f"<{SMALL}"


def _show_list(console: Console, title: str, lines: Sequence[str], style: str) -> None:
    if lines:
        console.print(title, style=style)
        for line in lines:
            # Not by rich, which would break paths.
            item = textwrap.fill(
                line,
                console.width,
                initial_indent="  - ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            console.print(item, soft_wrap=True)
        console.print()
