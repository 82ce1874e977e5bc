"""`mlflow-sysmetrics report`: what runs did, what that means, and which of many wasted GPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mlflow_sysmetrics.cli.options import (
    DURATION_FORMAT,
    Name,
    OneOf,
    check_tracking_uri,
    duration,
    json_option,
    tracking_uri_option,
)
from mlflow_sysmetrics.cli.output import (
    complain,
    counted,
    print_json,
    say,
    say_progress,
    say_wrapped,
)
from mlflow_sysmetrics.cli.printed_reports import print_experiment, print_run, print_runs
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.cli.tracked_runs import TrackingServer, tracking_uri_in_force
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.report.costs import Costs
from mlflow_sysmetrics.report.experiment import (
    GROUPS,
    Experiment,
    documents,
    row_of,
    tabulate,
    to_csv,
    write_parquet,
)
from mlflow_sysmetrics.report.measured_runs import read_run, read_runs
from mlflow_sysmetrics.report.one_run import RunReport, report_on
from mlflow_sysmetrics.runtime.distribution import install_command

_MILLISECONDS = 1000


def _since(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Option callback: returns a moment in milliseconds since 1970."""
    if value is None:
        return None
    return int((time.time() - duration(context, option, value)) * _MILLISECONDS)


class _File(click.Path):
    """A file to be written, in a directory that exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns its path."""
        path = Path(value)
        if not value or path.is_dir() or not path.parent.is_dir():
            self.fail(f"must be a file in a directory that exists, got {str(value)!r}", param, ctx)
        return path


@click.command(
    cls=Command,
    short_help="Say what runs did, what held them back, and what they cost.",
    exits={
        0: "the runs were reported",
        FAILED: "a run cannot be read or has no system metrics, or a file cannot be written",
    },
)
@click.argument("run_ids", metavar="[RUN_ID]...", nargs=-1)
@click.option(
    "--experiment",
    metavar="NAME",
    type=Name("the name of an experiment"),
    help="All runs of an experiment in one table, the most idle GPU-hours first.",
)
@click.option(
    "--since",
    metavar="DURATION",
    callback=_since,
    help=f"With --experiment: only runs that began so recently: {DURATION_FORMAT}.",
)
@click.option(
    "--by",
    metavar="WORD",
    type=OneOf(tuple(GROUPS)),
    help="With --experiment: sums by user, verdict or host.",
)
@click.option("--html", metavar="FILE", type=_File(), help="Write a page in one file, with curves of a run.")
@click.option(
    "--interactive",
    is_flag=True,
    help="With --html: curves to zoom into, 5 MB of JavaScript in the page; needs the extra hpo.",
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, a line per run.")
@click.option("--parquet", metavar="FILE", type=_File(), help="Write a Parquet file, a row per run.")
@tracking_uri_option("Tracking server, with user and password if it needs them.")
def report(
    *,
    run_ids: Sequence[str],
    experiment: str | None,
    since: int | None,
    by: str | None,
    html: Path | None,
    interactive: bool,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
    tracking_uri: str | None,
) -> None:
    """Say what runs did, what held them back, and what they cost.

    For one run: the machine, its figures, and the verdict by published rules. For several runs: their figures
    side by side. For an experiment: which runs left GPUs idle. docs/how_to/report.md has rules and figures.
    """
    _check_use(run_ids, experiment, since, by, as_json=as_json, as_csv=as_csv)
    if interactive and (html is None or experiment is not None):
        raise click.UsageError("--interactive needs --html and the ids of runs")
    uri = _usable_uri(tracking_uri)
    costs = Costs.from_environ(report=_warn)
    try:
        server = TrackingServer(uri)
        if experiment is not None:
            table = _experiment(server, experiment, since)
            missing: list[str] = []
            reports: list[RunReport] = []
        else:
            reports, missing = _reports(server, run_ids, costs)
            table = Experiment("", tuple(row_of(one) for one in reports), 0)
    except Fault as fault:
        raise click.ClickException(_down(uri, fault)) from fault
    _write(table, reports, costs, html=html, interactive=interactive, parquet=parquet)
    _print(table, reports, costs, by=by, as_json=as_json, as_csv=as_csv)
    for one in missing:
        complain(one)
    if missing or (experiment is not None and not table.rows and table.unmeasured):
        raise SystemExit(FAILED)


def _usable_uri(given: str | None) -> str:
    """Returns the tracking URI that was given, or that of the environment."""
    uri = given or tracking_uri_in_force()
    if not uri:
        raise click.UsageError("no tracking server: pass --tracking-uri or set MLFLOW_TRACKING_URI")
    try:
        check_tracking_uri(uri)
    except ValueError as error:
        raise click.UsageError(f"MLFLOW_TRACKING_URI {error}") from error
    return uri


def _warn(name: str, value: str, what: str) -> None:
    say_wrapped(f"{name}={value!r} {what}", err=True)


def _check_use(
    run_ids: Sequence[str],
    experiment: str | None,
    since: int | None,
    by: str | None,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    if bool(run_ids) == (experiment is not None):
        raise click.UsageError("pass the ids of runs, or --experiment NAME")
    for name, value in (("--since", since), ("--by", by)):
        if run_ids and value is not None:
            raise click.UsageError(f"{name} needs --experiment")
    if as_json and as_csv:
        raise click.UsageError("pass --json or --csv, not both")


def _down(uri: str, fault: Fault) -> str:
    return f"{redacted(uri)}: {fault}. {remedy(fault, uri)}"


def _experiment(server: TrackingServer, name: str, since: int | None) -> Experiment:
    try:
        ids = server.experiment_ids([name])
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    say_progress(f"Reading the runs of {name} ...")
    return tabulate(server, name, read_runs(server, ids, since))


def _reports(
    server: TrackingServer, run_ids: Sequence[str], costs: Costs
) -> tuple[list[RunReport], list[str]]:
    """Returns the reports, and why there is none for some runs."""
    reports, missing = [], []
    for run_id in dict.fromkeys(run_ids):
        run = read_run(server, run_id)
        if run is None:
            missing.append(
                f"{server.name} has no run {run_id!r}; the id of a run is in the address of its page"
            )
        elif not run.series:
            missing.append(
                f"run {run_id} has no system metrics; mlflow-sysmetrics doctor, on the machine and in the "
                "environment of the job, says why"
            )
        else:
            say_progress(f"Reading {counted(len(run.series), 'series')} of {run_id} ...")
            reports.append(report_on(server, run, costs))
    return reports, missing


def _write(
    table: Experiment,
    reports: Sequence[RunReport],
    costs: Costs,
    *,
    html: Path | None,
    interactive: bool,
    parquet: Path | None,
) -> None:
    """Writes the files that were asked for."""
    try:
        if html is not None and (table.rows or table.name):
            from mlflow_sysmetrics.report.page import experiment_page, run_page, runs_page

            if table.name:
                page = experiment_page(table, costs)
            elif len(reports) == 1:
                page = run_page(reports[0], interactive=interactive)
            else:
                page = runs_page(reports, interactive=interactive)
            html.write_text(page, encoding="utf-8")
        if parquet is not None and table.rows:
            write_parquet(documents(table, costs), str(parquet))
    except ImportError as error:
        library = (error.name or str(error)).partition(".")[0]
        remedy_ = (
            f"--interactive needs it: {install_command('hpo')}"
            if library == "plotly"
            else "it comes with mlflow, but not with mlflow-skinny: pip install mlflow"
        )
        raise click.ClickException(f"{library} is not installed: {remedy_}") from error
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or html or parquet} cannot be written: {error.strerror}"
        ) from error


def _print(
    table: Experiment,
    reports: Sequence[RunReport],
    costs: Costs,
    *,
    by: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    if as_csv:
        say(to_csv(documents(table, costs)).rstrip("\n"))
    elif as_json:
        print_json(_document(table, reports, costs))
    elif table.name:
        print_experiment(table, costs, by)
    elif len(reports) == 1:
        print_run(reports[0])
    elif reports:
        print_runs(reports)


def _document(table: Experiment, reports: Sequence[RunReport], costs: Costs) -> dict[str, Any]:
    if not table.name:
        return {"schema": 1, "runs": [one.document() for one in reports]}
    return {
        "schema": 1,
        "experiment": table.name,
        "runs": documents(table, costs),
        "without_system_metrics": table.unmeasured,
        "verdicts": dict(table.verdicts()),
    }
