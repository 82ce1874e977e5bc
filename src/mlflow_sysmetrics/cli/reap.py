"""`mlflow-sysmetrics reap`: ends runs whose process died without ending them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mlflow_sysmetrics.cli.dead_runs import DeadRun, DeadRunSearch
from mlflow_sysmetrics.cli.options import (
    DURATION_FORMAT,
    Name,
    check_tracking_uri,
    directory_option,
    duration,
    json_option,
    print_skipped_hosts,
    tracking_uri_option,
    usable_directory,
)
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery, fault_messages
from mlflow_sysmetrics.cli.output import (
    age_of,
    complain,
    counted,
    print_json,
    print_table,
    say,
    say_progress,
    say_wrapped,
)
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.cli.spooled_journals import SpooledJournal, count_of_other_hosts, notes, read_journals
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.report.completion import complete
from mlflow_sysmetrics.settings import Settings

_NAME_A_SERVER = "pass --tracking-uri or set MLFLOW_TRACKING_URI"
_HEADS = ("RUN", "LAST POINT", "NAME")


@click.command(
    cls=Command,
    short_help="End runs whose process died without ending them.",
    exits={
        0: "the runs were listed, or ended with --apply; there may be none",
        FAILED: "a server or a journal could not be read, or a run could not be ended",
    },
)
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=duration,
    default="10m",
    show_default=True,
    help=f"Consider a run without a journal here dead if its last point is older: {DURATION_FORMAT}.",
)
@click.option("--apply", is_flag=True, help="End the runs; without this nothing is changed.")
@click.option(
    "--experiment",
    "experiments",
    metavar="NAME",
    type=Name("the name of an experiment"),
    multiple=True,
    help="Only this one; repeatable.",
)
@click.option("--any-host", is_flag=True, help="Include runs and journals of other hosts.")
@directory_option
@tracking_uri_option("Server to search besides the journals, with user and password if it needs them.")
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
    """End runs whose process died without ending them.

    Finds runs that are still RUNNING on their server although (a) the journal of their process is on this
    machine and that process is dead, or (b) they began on this machine (tag sys.hostname), have system
    metrics, and have had no point for longer than --older-than. (b) searches the server of --tracking-uri
    or MLFLOW_TRACKING_URI. With --apply, the points in their journals are delivered first; then the runs are
    set to KILLED, ended at the time of their last point, with the reason in the tag sysmetrics.reaped, and
    get the summary and the verdict that their process could not write any more. Runs
    fed by a living process of this machine are left alone, and so are runs whose last sign of life is less
    than two minutes old (or less than --older-than, if that is shorter).
    """
    directory = usable_directory(chosen)
    uri = tracking_uri or _uri_in_force()
    if experiments and uri is None:
        raise click.UsageError(f"--experiment needs a server: {_NAME_A_SERVER}")
    where = f"the journals in {directory}" + (f" and on {redacted(uri)}" if uri else "")
    say_progress(f"Looking for runs without a process in {where} ...")
    search = DeadRunSearch(uri, older_than, experiments, any_host)
    try:
        journals = list(read_journals(directory, any_host=any_host))
        dead = search.dead_runs(journals)
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    except LookupError as error:
        raise click.BadParameter(
            f"must name an experiment: {error.args[0]}", param_hint="--experiment"
        ) from error
    killed = Reaper(search, journals).reap(dead) if apply else []
    about = notes(directory, journals if not apply else _unreadable(journals), any_host=any_host)
    report = _Report(dead, killed, search.alone, search.faults, uri is not None)
    if as_json:
        print_json(_document(report, applied=apply))
    else:
        _print(report, applied=apply)
    about.print()
    print_skipped_hosts(0 if any_host else count_of_other_hosts(directory))
    if report.faults or about.faults:
        raise SystemExit(FAILED)


def _unreadable(journals: Iterable[SpooledJournal]) -> list[SpooledJournal]:
    return [journal for journal in journals if journal.fault is not None]


def _uri_in_force() -> str | None:
    uri = tracking_uri_in_force()
    if uri is not None:
        try:
            check_tracking_uri(uri)
        except ValueError as error:
            raise click.UsageError(f"MLFLOW_TRACKING_URI {error}") from error
    return uri


class Reaper:
    """Delivers the journals of dead runs, ends the runs, then deletes the journals.

    Args:
        search: the search that found them; faults are added to it.
        journals: the journals of this machine.
    """

    def __init__(self, search: DeadRunSearch, journals: Iterable[SpooledJournal]) -> None:
        self._search = search
        self._delivery = OrphanDelivery(search.tracking_uri)
        self._orphans = [journal for journal in journals if journal.orphaned]

    def reap(self, runs: Sequence[DeadRun]) -> list[str]:
        """Returns the ids of the runs that were set to KILLED."""
        paths = {path for dead in runs for path in dead.journals}
        delivered = {path for path in sorted(paths) if self._deliver(path)}
        killed = [
            dead.run.run_id for dead in runs if delivered.issuperset(dead.journals) and self._kill(dead)
        ]
        for journal in self._orphans:
            # A second delivery deletes the journal, now that its runs have ended. Points waiting in other
            # journals are left for `sync`.
            if journal.path in delivered or not journal.waiting:
                self._delivery.deliver(journal.path)
        return killed

    def _deliver(self, path: Path) -> bool:
        """Delivers an orphaned journal; returns whether no point waits in it any more."""
        outcome = self._delivery.deliver(path)
        if outcome is None:
            self._search.faults.append(f"{path}: another process is delivering it; run reap again")
            return False
        self._search.faults += fault_messages([outcome])
        return not outcome.waiting

    def _kill(self, dead: DeadRun) -> bool:
        try:
            # Ask again: delivery may have taken minutes, and the run may have been ended meanwhile.
            run = dead.server.run(dead.run.run_id)
            if run is None or not run.running:
                return False
            # Everything delivered here is older than the last sign of life seen by the search.
            if (sign := run.last_sign or 0) > (dead.last_sign or 0) and not self._search.is_old(sign):
                self._search.alone[run.run_id] = "another process has begun to feed it"
                return False
            dead.server.kill(run.run_id, max(run.last_sign or 0, run.started_at), dead.cause)
        except Fault as error:
            self._search.faults.append(f"{dead.server.name}: run {dead.run.run_id}: {error}")
            return False
        self._complete(dead)
        return True

    def _complete(self, dead: DeadRun) -> None:
        """Writes the summary and the verdict that the process of a run could not write any more."""
        settings = Settings.from_environ()
        try:
            if settings.summary:
                complete(dead.server, dead.run.run_id, describe=settings.description)
        except Fault as error:
            fault = f"{dead.server.name}: run {dead.run.run_id} gets no summary: {error}"
            self._search.faults.append(fault)


@dataclass(frozen=True, slots=True)
class _Report:
    """What was found and done.

    Attributes:
        dead: the dead runs.
        killed: ids of the runs that were set to KILLED.
        alone: run id -> why a run was left alone.
        faults: what could not be determined or done.
        searched: whether a server was searched besides the journals.
    """

    dead: Sequence[DeadRun]
    killed: Sequence[str]
    alone: dict[str, str]
    faults: Sequence[str]
    searched: bool


def _print(report: _Report, *, applied: bool) -> None:
    if report.dead:
        for server, cause in dict.fromkeys((one.server.name, one.cause) for one in report.dead):
            say_wrapped(f"{server}: {cause}")
            alike = [one for one in report.dead if (one.server.name, one.cause) == (server, cause)]
            print_table(
                _HEADS, [(one.run.run_id, age_of(one.last_sign), one.run.name) for one in alike], indent="  "
            )
            say("")
    waiting = sum(dead.waiting for dead in report.dead)
    if not report.dead and not report.faults:
        say("No run is RUNNING without a process that feeds it.")
    elif report.dead and applied:
        say(f"{counted(len(report.killed), 'run')} set to KILLED.")
    elif report.dead:
        first = f"deliver {counted(waiting, 'point')} and " if waiting else ""
        say_wrapped(
            f"Nothing was changed. Use --apply to {first}set {counted(len(report.dead), 'run')} to KILLED."
        )
    for run_id, why in report.alone.items():
        say_wrapped(f"Left alone: {run_id}: {why}.", err=True)
    if not report.searched:
        say_wrapped(f"Only journals were searched; to search a server too, {_NAME_A_SERVER}.", err=True)
    for fault in report.faults:
        complain(fault)


def _document(report: _Report, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "runs": [
            {
                "run_id": dead.run.run_id,
                "name": dead.run.name,
                "tracking_uri": dead.server.name,
                "last_point": dead.last_sign,
                "reason": dead.cause,
                "points_waiting": dead.waiting,
                "journals": [str(path) for path in dead.journals],
                "killed": dead.run.run_id in report.killed,
            }
            for dead in report.dead
        ],
        "left_alone": report.alone,
        "faults": list(report.faults),
    }
