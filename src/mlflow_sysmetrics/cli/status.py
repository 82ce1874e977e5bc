"""`mlflow-sysmetrics status`: shows what this machine's journals hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mlflow_sysmetrics.cli.options import (
    any_host_option,
    directory_fault,
    directory_option,
    journals_directory,
    json_option,
    print_skipped_hosts,
)
from mlflow_sysmetrics.cli.output import (
    age_of,
    age_seconds,
    counted,
    print_json,
    print_table,
    say,
    say_wrapped,
)
from mlflow_sysmetrics.cli.program import FAILED, Command
from mlflow_sysmetrics.cli.spooled_journals import (
    SpooledJournal,
    SpooledRun,
    count_of_other_hosts,
    notes,
    orphaned_runs,
    read_journals,
)
from mlflow_sysmetrics.daemon.journal.ownership import host_of
from mlflow_sysmetrics.errors import JournalUnavailable

_HEADS = ("RUN", "POINTS", "OLDEST", "PROCESS")
_HEADS_WITH_DROPPED = ("RUN", "POINTS", "OLDEST", "DROPPED", "PROCESS")


@click.command(
    cls=Command,
    short_help="Show what this machine's journals hold.",
    exits={0: "the journals were read", FAILED: "no journal can be kept, or one cannot be read"},
)
@directory_option
@any_host_option
@click.option("--print-dir", is_flag=True, help="Print only the directory of the journals.")
@json_option
def status(*, chosen: Path | None, any_host: bool, print_dir: bool, as_json: bool) -> None:
    """Show what this machine's journals hold.

    For each tracking server one line per run: the number of points waiting for delivery, the age of the
    oldest of them, the number of points dropped to keep the journal within its size limit (if any were), and
    the process that wrote the journal. Points left behind by a dead process are sent by the next program that
    logs system metrics here, or by `mlflow-sysmetrics sync`.
    """
    directory = journals_directory(chosen)
    if print_dir:
        print_json({"directory": str(directory)}) if as_json else say(str(directory))
        return
    # A directory given on the command line may be a read-only copy made for inspection.
    fault = directory_fault(directory) if chosen is None else None
    try:
        found = list(read_journals(directory, any_host=any_host))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    others = 0 if any_host else count_of_other_hosts(directory)
    about = notes(directory, found, any_host=any_host)
    if as_json:
        document = {"directory": str(directory), "fault": fault, "of_other_hosts": others}
        journals = [_document(one) for one in found]
        print_json(document | {"journals": journals, "set_aside": about.set_aside})
    else:
        _print(directory, found, silent=fault is not None)
        about.print()
        print_skipped_hosts(others)
    if fault is not None:
        raise click.ClickException(fault)
    if about.faults:
        raise SystemExit(FAILED)


def _print(directory: Path, journals: Sequence[SpooledJournal], *, silent: bool) -> None:
    """Prints the runs, and what to do about them."""
    servers: dict[str, list[tuple[SpooledJournal, SpooledRun]]] = {}
    for journal in journals:
        for run in journal.runs:
            servers.setdefault(run.journaled.tracking_uri, []).append((journal, run))
    if servers:
        say_wrapped(f"Journals in {directory}:")
        dropped = any(run.journaled.dropped for runs in servers.values() for _, run in runs)
        for server, runs in servers.items():
            say(f"\n{server}")
            heads = _HEADS_WITH_DROPPED if dropped else _HEADS
            print_table(heads, [_row(*one, dropped=dropped) for one in runs], indent="  ")
    elif not silent:
        say_wrapped(f"No run has a journal in {directory}.")
    for journal in journals:
        if journal.user is not None and not journal.runs and journal.fault is None:
            say_wrapped(f"Cannot be read: {journal.path} ({journal.owner}).", err=True)
    if hints := _hints([journal for journal in journals if journal.orphaned]):
        say("")
        for hint in hints:
            say_wrapped(hint)


def _hints(orphans: Sequence[SpooledJournal]) -> list[str]:
    """Returns what to do about orphaned journals."""
    any_host = "" if all(journal.here for journal in orphans) else " --any-host"
    hints = []
    if waiting := sum(journal.waiting for journal in orphans):
        points = counted(waiting, "point")
        hints.append(f"{points} of dead processes: send with mlflow-sysmetrics sync{any_host}.")
    if unended := len(orphaned_runs(orphans)):
        runs = counted(unended, "run")
        hints.append(f"{runs} of dead processes may still be RUNNING: see mlflow-sysmetrics reap{any_host}.")
    return hints


def _row(journal: SpooledJournal, run: SpooledRun, *, dropped: bool) -> tuple[str, ...]:
    known = run.journaled
    cells = [known.run_id, f"{run.waiting:,}", age_of(run.oldest)]
    return (*cells, *([f"{known.dropped:,}"] if dropped else []), journal.owner.removeprefix("process "))


def _document(journal: SpooledJournal) -> dict[str, Any]:
    return {
        "path": str(journal.path),
        "bytes": journal.size,
        "owner_alive": journal.alive,
        "host": host_of(journal.path),
        "pid": journal.pid,
        "user": journal.user,
        "began": journal.header.began if journal.header else None,
        "written": journal.written_at,
        "fault": journal.fault,
        "damaged_lines": journal.damage.lines if journal.damage else 0,
        "points_of_unknown_runs": journal.damage.points if journal.damage else 0,
        "runs": [
            {
                "run_id": run.journaled.run_id,
                "tracking_uri": run.journaled.tracking_uri,
                "points_waiting": run.waiting,
                "points_dropped": run.journaled.dropped,
                "oldest_point": run.oldest,
                "age_seconds": None if run.oldest is None else round(age_seconds(run.oldest), 1),
                "detached": run.journaled.ended,
            }
            for run in journal.runs
        ],
    }
