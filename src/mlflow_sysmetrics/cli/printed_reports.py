"""What `mlflow-sysmetrics report` prints for people: one run, several runs, an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlflow_sysmetrics.cli.output import counted, cut, print_table, say, say_wrapped, wrapped
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.experiment import Experiment, Row, total
from mlflow_sysmetrics.report.one_run import RunReport
from mlflow_sysmetrics.summary.amounts import ABSENT, LABELS, amount, carbon, moment, number
from mlflow_sysmetrics.summary.amounts import duration as length

_ROWS = 40  # of a table in a terminal; files have all of them
_NAME, _USER, _GROUP = 18, 10, 30  # columns
_BESIDE = 2  # runs in a table of 80 columns
_HOUR = 3600


def print_run(one: RunReport) -> None:
    """Prints the report on one run."""
    run = one.run
    state = f"{run.status.lower()}, {length(run.seconds)} from {moment(run.started_at)}"
    say_wrapped(f"Run {run.name or run.run_id}{f' of {run.user}' if run.user else ''}: {state}")
    say("")
    for verdict in one.verdicts:
        node = f" (node {verdict.node})" if verdict.node else ""
        say(wrapped(f"{verdict.name}{node}: ", verdict.text, indent="  "))
    if not one.verdicts:
        say_wrapped("No verdict: the run is too short, or lacks what the rules need, or no rule fits.")
    say("")
    width = max(map(len, (*LABELS.values(), *(label for label, _ in one.machine))))
    for label, value in one.machine:
        say(wrapped(f"{label:{width}}  ", value))
    say("")
    for label, value in [*one.labelled_figures, *one.labelled_costs]:
        say(wrapped(f"{label:{width}}  ", value))


def print_runs(reports: Sequence[RunReport]) -> None:
    """Prints the figures of several runs side by side."""
    names = [name for name in LABELS if any(name in one.summary.figures for one in reports)]
    for start in range(0, len(reports), _BESIDE):
        some = reports[start : start + _BESIDE]
        rows = [
            (LABELS[name], *(amount(name, one.summary.figures.get(name)) for one in some)) for name in names
        ]
        rows.append(("Verdict", *(", ".join(v.name for v in one.verdicts) or ABSENT for one in some)))
        print_table(("", *(cut(one.run.name or one.run.run_id, _NAME) for one in some)), rows)
        say("")
    for one in reports:
        for verdict in one.verdicts:
            say(wrapped(f"{one.run.name or one.run.run_id}: {verdict.name}: ", verdict.text, indent="  "))


def print_experiment(table: Experiment, costs: Costs, by: str | None) -> None:
    """Prints the table of an experiment, or its sums by user, verdict or host."""
    if not table.rows:
        say(f"No run of {table.name} has system metrics.")
    elif by is None:
        _print_columns(table.rows[:_ROWS], costs)
        if len(table.rows) > _ROWS:
            say(f"... and {counted(len(table.rows) - _ROWS, 'run')} more: see --html, --csv or --json")
    else:
        print_table(
            (by, "runs", "GPU-h", "idle GPU-h", "kWh", "verdicts"),
            [
                (
                    cut(name, _GROUP),
                    f"{len(rows):,}",
                    number(total(rows, lambda row: row.figures.get("gpu_hours"))),
                    number(total(rows, lambda row: row.idle_gpu_hours)),
                    number(total(rows, lambda row: costs.kwh(row.figures))),
                    ", ".join(f"{word} {count}" for word, count in Experiment("", rows, 0).verdicts()),
                )
                for name, rows in table.groups(by)
            ],
        )
    if table.rows:
        say("")
        say_wrapped(_sums(table, costs))
        say_wrapped(f"Verdicts: {', '.join(f'{name} {count}' for name, count in table.verdicts())}.")
    if table.unmeasured:
        say_wrapped(f"Left out: {counted(table.unmeasured, 'run')} without system metrics.")


def _print_columns(rows: Sequence[Row], costs: Costs) -> None:
    """Prints a line per run; a column that would be empty, or all the same user, is left out."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("run", lambda row: cut(row.run.name or row.run.run_id, _NAME)),
        ("user", lambda row: cut(row.run.user or ABSENT, _USER)),
        ("hours", lambda row: number(row.run.seconds / _HOUR)),
        ("GPUs", lambda row: f"{row.nodes}x{row.gpus // row.nodes}" if row.gpus else ABSENT),
        ("GPU-h", lambda row: number(row.figures.get("gpu_hours"))),
        ("mean", lambda row: _percent(row, "gpu_utilization_mean_percentage")),
        ("p95", lambda row: _percent(row, "gpu_utilization_p95_percentage")),
        ("idle", lambda row: number(row.idle_gpu_hours)),
        *(() if any(row.gpus for row in rows) else _OF_CPUS),
        ("kWh", lambda row: number(costs.kwh(row.figures))),
        ("mem", lambda row: _percent(row, "memory_max_percentage")),
        ("verdict", lambda row: row.verdict),
    ]
    filled = [(head, [cell(row) for row in rows]) for head, cell in columns]
    kept = [
        (head, cells)
        for head, cells in filled
        if set(cells) != {ABSENT} and (head != "user" or len(set(cells)) > 1)
    ]
    print_table([head for head, _ in kept], list(zip(*(cells for _, cells in kept), strict=True)))


def _core_hours(row: Row) -> str:
    return number(row.figures.get("cpu_core_hours"))


def _percent(row: Row, name: str) -> str:
    value = row.figures.get(name)
    return ABSENT if value is None else f"{value:.0f}"


def _sums(table: Experiment, costs: Costs) -> str:
    parts = [
        counted(len(table.rows), "run"),
        f"{number(table.total(lambda row: row.run.seconds / _HOUR))} hours",
    ]
    gpu_hours = table.total(lambda row: row.figures.get("gpu_hours"))
    idle = table.total(lambda row: row.idle_gpu_hours)
    if gpu_hours:
        share = f" ({100 * idle / gpu_hours:.0f} %)" if idle is not None else ""
        parts.append(f"{number(gpu_hours)} GPU-hours, {number(idle)} of them idle{share}")
    kwh = table.total(lambda row: costs.kwh(row.figures))
    if kwh is not None:
        parts.append(f"{number(kwh)} kWh measured{f' x PUE {costs.pue:g}' if costs.pue else ''}")
    grams = table.total(lambda row: costs.carbon_grams(row.figures))
    if grams is not None:
        parts.append(carbon(grams))
    price = table.total(lambda row: costs.price(row.figures))
    if price is not None:
        parts.append(f"cost {number(price)}")
    return f"Sum: {', '.join(parts)}."


#: Columns of a table without GPUs.
_OF_CPUS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("core-h", _core_hours),
    ("CPU mean", lambda row: _percent(row, "cpu_utilization_mean_percentage")),
)
