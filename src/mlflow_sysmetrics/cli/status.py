"""`mlflow-sysmetrics status`: what this machine's journals hold."""

from __future__ import annotations

import time
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
    spoken,
    tell_of_other_hosts,
)
from mlflow_sysmetrics.cli.spooled import SpooledJournal, SpooledRun, look, of_other_hosts, runs_left
from mlflow_sysmetrics.cli.table import counted, print_json, print_table
from mlflow_sysmetrics.daemon.journal.ownership import host_of
from mlflow_sysmetrics.errors import JournalUnavailable

_HEADS = ("RUN", "SERVER", "POINTS", "AGE", "DROPPED", "OWNER")
_MILLISECONDS = 1000


@click.command()
@directory_option
@any_host_option
@json_option
def status(*, chosen: Path | None, any_host: bool, as_json: bool) -> None:
    """Show what this machine's journals hold.

    One line per run: its tracking server, the points that wait for delivery, how long the oldest of them
    has waited, the points that were dropped to keep the journal within its bound, and the process that wrote
    the journal. What a process that is gone left behind is sent by the next program that logs system metrics
    here, or by `mlflow-sysmetrics sync`. The exit status is 1 where no journal can be kept.
    """
    directory = journals_directory(chosen)
    # A directory that somebody has copied here to look at it may well be read-only.
    fault = directory_fault(directory) if chosen is None else None
    try:
        found = list(look(directory, any_host=any_host))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    now = time.time()
    others = 0 if any_host else of_other_hosts(directory)
    if as_json:
        journals = [_document(one, now) for one in found]
        print_json(
            {"directory": str(directory), "fault": fault, "of_other_hosts": others, "journals": journals}
        )
    else:
        _print(directory, found, now, silent=fault is not None)
        tell_of_other_hosts(others)
    if fault is not None:
        raise click.ClickException(fault)


def _print(directory: Path, found: Sequence[SpooledJournal], now: float, *, silent: bool) -> None:
    """Prints the runs, and what to do about them."""
    if any(journal.runs for journal in found):
        print_table(_HEADS, [_row(journal, run, now) for journal in found for run in journal.runs])
    elif not silent:
        click.echo(f"No run has a journal in {directory}.")
    for journal in found:
        if journal.user is not None and not journal.runs:
            click.echo(f"Cannot be read: {journal.path} ({journal.owner}).", err=True)
    if hints := _hints([journal for journal in found if journal.orphaned]):
        click.echo("\n" + "\n".join(hints))


def _hints(left: Sequence[SpooledJournal]) -> list[str]:
    """Returns what to do about orphans."""
    any_host = "" if all(journal.here for journal in left) else " --any-host"
    hints = []
    if orphans := sum(journal.waiting for journal in left):
        points = counted(orphans, "point")
        hints.append(f"{points} of processes that are gone: send with mlflow-sysmetrics sync{any_host}.")
    if unended := len(runs_left(left)):
        runs = f"{counted(unended, 'run')} of processes that are gone"
        hints.append(f"{runs} may still say RUNNING: see mlflow-sysmetrics reap{any_host}.")
    return hints


def _row(journal: SpooledJournal, run: SpooledRun, now: float) -> tuple[str, ...]:
    known = run.journaled
    age = "-" if run.oldest is None else spoken(now - run.oldest / _MILLISECONDS)
    return (
        known.run_id,
        known.tracking_uri,
        f"{run.waiting:,}",
        age,
        f"{known.dropped:,}",
        journal.owner,
    )


def _document(journal: SpooledJournal, now: float) -> dict[str, Any]:
    return {
        "path": str(journal.path),
        "bytes": journal.size,
        "owner_alive": journal.alive,
        "host": host_of(journal.path),
        "pid": journal.pid,
        "user": journal.user,
        "began": journal.header.began if journal.header else None,
        "written": journal.written_at,
        "runs": [
            {
                "run_id": run.journaled.run_id,
                "tracking_uri": run.journaled.tracking_uri,
                "points_waiting": run.waiting,
                "points_dropped": run.journaled.dropped,
                "oldest_point": run.oldest,
                "age_seconds": None if run.oldest is None else round(now - run.oldest / _MILLISECONDS, 1),
                "detached": run.journaled.ended,
            }
            for run in journal.runs
        ],
    }
