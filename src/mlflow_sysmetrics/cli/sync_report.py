"""What `sync` prints: what would be sent, what was, and what was left alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from mlflow_sysmetrics.cli.delivery import Outcome, told
from mlflow_sysmetrics.cli.durations import spoken
from mlflow_sysmetrics.cli.spooled import SpooledJournal
from mlflow_sysmetrics.cli.table import counted, print_json, print_table

_HEADS = ("RUN", "SERVER", "POINTS", "AGE")
_MILLISECONDS = 1000


def list_waiting(
    directory: Path, orphans: Sequence[SpooledJournal], alone: Sequence[SpooledJournal], *, as_json: bool
) -> None:
    """Prints what would be sent."""
    waiting = [run for journal in orphans for run in journal.runs if run.oldest is not None]
    if as_json:
        runs = [
            {
                "run_id": run.journaled.run_id,
                "tracking_uri": run.journaled.tracking_uri,
                "points": run.waiting,
                "oldest_point": run.oldest,
                "newest_point": run.newest,
            }
            for run in waiting
        ]
        print_json({"directory": str(directory), "dry_run": True, "runs": runs, "left_alone": _left(alone)})
        return
    now = time.time()
    if waiting:
        rows = [
            (
                run.journaled.run_id,
                run.journaled.tracking_uri,
                f"{run.waiting:,}",
                spoken(now - (run.oldest or 0) / _MILLISECONDS),
            )
            for run in waiting
        ]
        print_table(_HEADS, rows)
        points = counted(sum(run.waiting for run in waiting), "point")
        click.echo(f"\n{points} would be sent; nothing was.")
    else:
        click.echo(f"Nothing to send: no process that is gone left points in {directory}.")
    _tell_of(alone)


def tell(
    directory: Path, done: Sequence[tuple[SpooledJournal, Outcome]], alone: Sequence[SpooledJournal]
) -> None:
    """Prints what was sent."""
    sent = sum(outcome.delivered for _, outcome in done)
    if sent:
        journals = counted(sum(outcome.delivered > 0 for _, outcome in done), "journal")
        click.echo(f"Sent {counted(sent, 'point')} from {journals}.")
    elif any(outcome.waiting or outcome.dropped for _, outcome in done):
        click.echo("Nothing was sent.")
    else:
        click.echo(f"Nothing to send: no process that is gone left points in {directory}.")
    # Those that have points yet are for the next `sync`; these are for `reap`.
    kept = [
        run
        for journal, outcome in done
        if not outcome.waiting and journal.path.exists()
        for run in journal.runs
        if not run.journaled.ended
    ]
    if kept:
        runs = counted(len(kept), "run")
        click.echo(f"{runs} may still say RUNNING without a process; see mlflow-sysmetrics reap.")
    _tell_of(alone)


def _tell_of(alone: Sequence[SpooledJournal]) -> None:
    for journal in alone:
        points = counted(journal.waiting, "point")
        click.echo(f"Left alone: {journal.path} ({journal.owner}; {points} waiting).", err=True)


def _left(alone: Sequence[SpooledJournal]) -> list[dict[str, object]]:
    return [{"journal": str(one.path), "pid": one.pid, "points": one.waiting} for one in alone]


def document(
    directory: Path, done: Sequence[tuple[SpooledJournal, Outcome]], alone: Sequence[SpooledJournal]
) -> dict[str, object]:
    """Returns the same for programs."""
    return {
        "directory": str(directory),
        "dry_run": False,
        "points_sent": sum(outcome.delivered for _, outcome in done),
        "points_dropped": sum(outcome.dropped for _, outcome in done),
        "points_waiting": sum(outcome.waiting for _, outcome in done),
        "journals": [
            {
                "journal": str(journal.path),
                "points_sent": outcome.delivered,
                "points_dropped": outcome.dropped,
                "points_waiting": outcome.waiting,
                "faults": told([outcome]),
            }
            for journal, outcome in done
        ],
        "left_alone": _left(alone),
    }
