"""`mlflow-sysmetrics reap`: ends the runs whose process died without saying so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mlflow_sysmetrics.cli.deaths import Death, Search, age
from mlflow_sysmetrics.cli.delivery import Delivery, told
from mlflow_sysmetrics.cli.options import (
    FORMAT,
    check_tracking_uri,
    directory_option,
    duration,
    json_option,
    tell_of_other_hosts,
    tracking_uri_option,
    usable_directory,
)
from mlflow_sysmetrics.cli.spooled import SpooledJournal, look, of_other_hosts
from mlflow_sysmetrics.cli.table import counted, print_json, print_table
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Fault

# FOLDED reaping: What `reap --apply` does: delivers what the dead left, ends their runs, clears away their journals.


class Reaper:
    """Ends dead runs.

    Args:
        search: how they were found; it takes what goes wrong.
        journals: those of this machine.
    """

    def __init__(self, search: Search, journals: Iterable[SpooledJournal]) -> None:
        self._search = search
        self._delivery = Delivery(search.tracking_uri)
        self._orphans = [journal for journal in journals if journal.orphaned]

    def reap(self, deaths: Sequence[Death]) -> list[str]:
        """Returns the ids of the runs that were set to KILLED."""
        owing = {path for death in deaths for path in death.journals}
        delivered = {path for path in sorted(owing) if self._deliver(path)}
        killed = [
            death.run.run_id for death in deaths if delivered.issuperset(death.journals) and self._kill(death)
        ]
        for journal in self._orphans:
            # Once more, now that its runs have ended: it is deleted then. What waits in others is for `sync`.
            if journal.path in delivered or not journal.waiting:
                self._delivery.deliver(journal.path)
        return killed

    def _deliver(self, path: Path) -> bool:
        """Delivers an orphaned journal; returns whether nothing of it waits any more."""
        outcome = self._delivery.deliver(path)
        if outcome is None:
            self._search.faults.append(f"{path}: another process delivers it now; run reap again")
            return False
        self._search.faults += told([outcome])
        return not outcome.waiting

    def _kill(self, death: Death) -> bool:
        try:
            # Asked again: delivering may have taken minutes, in which somebody else may have ended it.
            run = death.server.run(death.run.run_id)
            if run is None or not run.running:
                return False
            # All that we have delivered is older than what was known at its death.
            if (sign := run.last_sign or 0) > (death.last_sign or 0) and not self._search.is_old(sign):
                self._search.alone[run.run_id] = "another process has begun to feed it"
                return False
            death.server.kill(run.run_id, max(run.last_sign or 0, run.started_at), death.why)
        except Fault as error:
            self._search.faults.append(f"{death.server.name}: run {death.run.run_id}: {error}")
            return False
        return True


_NAME_A_SERVER = "--tracking-uri or MLFLOW_TRACKING_URI names one"
_HEADS = ("RUN", "NAME", "SERVER", "LAST POINT", "WHY")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found and done.

    Attributes:
        deaths: the dead runs.
        killed: ids of those that were set to KILLED.
        alone: run id -> why a run was left alone.
        faults: what could not be found out or done.
        searched: whether a server was searched, beside the journals.
    """

    deaths: Sequence[Death]
    killed: Sequence[str]
    alone: dict[str, str]
    faults: Sequence[str]
    searched: bool


@click.command()
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=duration,
    default="10m",
    show_default=True,
    help=f"Take a run without a journal here for dead when its last point is older: {FORMAT}.",
)
@click.option("--apply", is_flag=True, help="Do it; without this nothing is changed.")
@click.option("--experiment", "experiments", metavar="NAME", multiple=True, help="Only this one; repeatable.")
@click.option("--any-host", is_flag=True, help="Runs and journals of other hosts, too.")
@directory_option
@tracking_uri_option("Server to search beside the journals, with the user and password that it needs.")
@json_option
def reap(
    *,
    older_than: float,
    apply: bool,
    experiments: tuple[str, ...],
    any_host: bool,
    chosen: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """End the runs whose process died without saying so.

    Finds runs that still say RUNNING on their server although (a) the journal of their process lies on this
    machine and that process is gone, or (b) they began on this machine, carry sys.metrics=on and have had no
    point for long. (b) asks the server of --tracking-uri or MLFLOW_TRACKING_URI. With --apply, what waits in
    their journal is delivered first; then they are set to KILLED, with the time of their last point as
    their end, and the tag sysmetrics.reaped says why. Runs that a living process of this machine feeds are
    left alone, and so are those whose last sign of life is younger than a minute, or than --older-than where
    that is less.
    """
    directory = usable_directory(chosen)
    uri = tracking_uri or _uri_in_force()
    if experiments and uri is None:
        raise click.UsageError(f"--experiment needs a server: {_NAME_A_SERVER}")
    search = Search(uri, older_than, experiments, any_host)
    try:
        found = list(look(directory, any_host=any_host))
        deaths = search.deaths(found)
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    except LookupError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="--experiment") from error
    killed = Reaper(search, found).reap(deaths) if apply else []
    report = Report(deaths, killed, search.alone, search.faults, uri is not None)
    if as_json:
        print_json(_document(report, applied=apply))
    else:
        _print(report, applied=apply)
    tell_of_other_hosts(0 if any_host else of_other_hosts(directory))
    if report.faults:
        raise SystemExit(1)


def _uri_in_force() -> str | None:
    uri = tracking_uri_in_force()
    if uri is not None:
        try:
            check_tracking_uri(uri)
        except ValueError as error:
            raise click.UsageError(f"MLFLOW_TRACKING_URI: {error}") from error
    return uri


def _print(report: Report, *, applied: bool) -> None:
    if report.deaths:
        rows = [(one.run.run_id, one.run.name, one.server.name, age(one), one.why) for one in report.deaths]
        print_table(_HEADS, rows)
        click.echo()
    waiting = sum(death.waiting for death in report.deaths)
    if not report.deaths and not report.faults:
        click.echo("No run says RUNNING without a process that feeds it.")
    elif report.deaths and applied:
        click.echo(f"{counted(len(report.killed), 'run')} set to KILLED.")
    elif report.deaths:
        first = f"delivers {counted(waiting, 'point')} and " if waiting else ""
        click.echo(
            f"Nothing was changed. --apply {first}sets {counted(len(report.deaths), 'run')} to KILLED."
        )
    for run_id, why in report.alone.items():
        click.echo(f"Left alone: {run_id}: {why}.", err=True)
    if not report.searched:
        click.echo(f"No server was searched, only journals: {_NAME_A_SERVER}.", err=True)
    for fault in report.faults:
        click.echo(f"Error: {fault}", err=True)


def _document(report: Report, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "runs": [
            {
                "run_id": death.run.run_id,
                "name": death.run.name,
                "tracking_uri": death.server.name,
                "last_point": death.last_sign,
                "reason": death.why,
                "points_waiting": death.waiting,
                "journals": [str(path) for path in death.journals],
                "killed": death.run.run_id in report.killed,
            }
            for death in report.deaths
        ],
        "left_alone": report.alone,
        "faults": list(report.faults),
    }
