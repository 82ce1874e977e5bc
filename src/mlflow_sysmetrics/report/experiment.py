"""Many runs as one table: which of them left GPUs idle, and how much all of them used."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.histories import summarise
from mlflow_sysmetrics.report.measured_runs import (
    MeasuredRun,
    Point,
    Server,
    keys_of_runs,
    read_histories,
    split_key,
)
from mlflow_sysmetrics.report.one_run import RunReport
from mlflow_sysmetrics.summary.run_statistics import is_summarised
from mlflow_sysmetrics.summary.summary import FIGURES, VERDICT_TAG, figures_of_metrics

#: What a table may be grouped by.
GROUPS: Mapping[str, Callable[[Row], str]] = {
    "user": lambda row: row.run.user,
    "verdict": lambda row: row.verdict,
    "host": lambda row: row.run.host,
}
#: Stands for a verdict that the rules cannot give.
UNKNOWN = "-"

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_HOUR = 3600
_DECIMALS = 6  # in files
_GPU_NAME = "gpu_"


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the table.

    Attributes:
        run: the run.
        figures: its numbers, by their names in `summary.FIGURES`; empty without system metrics.
        verdict: the first word of its verdict; "-" if the rules cannot say.
        nodes: number of nodes.
        gpus: number of GPUs of all nodes.
    """

    run: MeasuredRun
    figures: Mapping[str, float]
    verdict: str
    nodes: int
    gpus: int

    @property
    def idle_gpu_hours(self) -> float | None:
        """GPU-hours at a utilization of at most 1 %."""
        hours, idle = self.figures.get("gpu_hours"), self.figures.get("gpu_idle_percentage")
        return None if hours is None or idle is None else hours * idle / 100


@dataclass(frozen=True, slots=True)
class Experiment:
    """The table.

    Attributes:
        name: of the experiment.
        rows: the run with the most idle GPU-hours first.
        unmeasured: runs without system metrics.
    """

    name: str
    rows: tuple[Row, ...]
    unmeasured: int

    def total(self, value: Callable[[Row], float | None]) -> float | None:
        """Returns the sum over the runs that have a value; None if none has."""
        return total(self.rows, value)

    def verdicts(self) -> list[tuple[str, int]]:
        """Returns how many runs have each verdict, the most frequent first."""
        return Counter(row.verdict for row in self.rows).most_common()

    def groups(self, by: str) -> list[tuple[str, tuple[Row, ...]]]:
        """Returns the rows of each user, verdict or host, the group with the most idle GPU-hours first."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(GROUPS[by](row) or UNKNOWN, []).append(row)
        return sorted(
            ((name, tuple(rows)) for name, rows in found.items()),
            key=lambda group: (-(total(group[1], _idle) or 0), group[0]),
        )


def total(rows: Iterable[Row], value: Callable[[Row], float | None]) -> float | None:
    """Returns the sum over the rows that have a value; None if none has."""
    known = [one for row in rows if (one := value(row)) is not None]
    return sum(known) if known else None


def tabulate(server: Server, name: str, runs: Sequence[MeasuredRun]) -> Experiment:
    """Returns the table of some runs; of those without a summary, histories are read.

    Raises:
        Fault: the server does not answer.
    """
    figures = {run.run_id: figures_of_metrics(run.metrics) for run in runs}
    verdicts = {run.run_id: _first_word(run.tags.get(VERDICT_TAG, "")) for run in runs}
    bare = [run for run in runs if not figures[run.run_id] and run.series]
    for run, histories in _histories(server, bare):
        found = summarise(histories, run.tags)
        figures[run.run_id] = dict(found.figures)
        if found.verdicts and verdicts[run.run_id] == UNKNOWN:
            verdicts[run.run_id] = found.verdicts[0].name
    rows = [
        Row(run, figures[run.run_id], verdicts[run.run_id], *_size(run))
        for run in runs
        if figures[run.run_id]
    ]
    rows.sort(key=_order)
    return Experiment(name, tuple(rows), len(runs) - len(rows))


def _order(row: Row) -> tuple[float, float, float, str]:
    hours, cores = row.figures.get("gpu_hours", 0), row.figures.get("cpu_core_hours", 0)
    return -(row.idle_gpu_hours or 0), -hours, -cores, row.run.run_id


def _idle(row: Row) -> float | None:
    return row.idle_gpu_hours


def _histories(
    server: Server, runs: Sequence[MeasuredRun]
) -> Iterable[tuple[MeasuredRun, Mapping[str, list[Point]]]]:
    found: dict[str, dict[str, list[Point]]] = {run.run_id: {} for run in runs}
    for key, run_ids in keys_of_runs(runs).items():
        if is_summarised(split_key(key)[1]):
            for run_id, points in read_histories(server, run_ids, key).items():
                found[run_id][key] = points
    return ((run, found[run.run_id]) for run in runs)


def _size(run: MeasuredRun) -> tuple[int, int]:
    """Returns how many nodes and GPUs a run has."""
    parts = [split_key(key) for key in run.series]
    nodes = {node for node, _ in parts}
    gpus = {(node, name.split("_")[1]) for node, name in parts if name.startswith(_GPU_NAME)}
    return max(len(nodes), 1), len(gpus)


def _first_word(text: str) -> str:
    return text.partition(":")[0].strip() or UNKNOWN


def row_of(one: RunReport) -> Row:
    """Returns the row of a run whose history was read."""
    verdict = one.verdicts[0].name if one.verdicts else UNKNOWN
    return Row(one.run, one.summary.figures, verdict, *_size(one.run))


def documents(experiment: Experiment, costs: Costs) -> list[dict[str, Any]]:
    """Returns the rows for JSON, CSV and Parquet: same names in each, None for what is not known."""
    found: list[dict[str, Any]] = [
        {
            "run_id": row.run.run_id,
            "name": row.run.name,
            "user": row.run.user,
            "host": row.run.host,
            "status": row.run.status,
            "started_at": row.run.started_at,
            "hours": row.run.seconds / _HOUR,
            "nodes": row.nodes,
            "gpus": row.gpus,
            "idle_gpu_hours": row.idle_gpu_hours,
            **{figure.name: row.figures.get(figure.name) for figure in FIGURES},
            "carbon_grams": costs.carbon_grams(row.figures),
            "cost": costs.price(row.figures),
            "verdict": None if row.verdict == UNKNOWN else row.verdict,
        }
        for row in experiment.rows
    ]
    return [{name: _rounded(value) for name, value in row.items()} for row in found]


def _rounded(value: Any) -> Any:
    return round(value, _DECIMALS) if isinstance(value, float) else value


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV in which no spreadsheet finds a formula."""
    text = io.StringIO()
    if rows:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([_inert(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _inert(value: object) -> object:
    """Returns a cell that a spreadsheet shows and does not run: https://owasp.org/www-community/attacks/CSV_Injection."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return (
        f"'{shown}"
        if value.lstrip(" ").startswith(_FORMULA) or shown.lstrip().startswith(_FORMULA)
        else shown
    )


def visible(text: str) -> str:
    """Returns a text whose control characters and marks of direction are written out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def write_parquet(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Writes rows as a Parquet file, by pandas, which MLflow brings with pyarrow.

    Raises:
        ImportError: one of them is not installed.
        OSError: the file cannot be written.
    """
    import pandas as pd

    pd.DataFrame([dict(row) for row in rows]).to_parquet(path, engine="pyarrow", index=False)
