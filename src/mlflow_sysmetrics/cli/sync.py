"""`mlflow-sysmetrics sync`: delivers what processes that are gone had owed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mlflow_sysmetrics.cli.delivery import Delivery, Outcome
from mlflow_sysmetrics.cli.durations import duration, spoken
from mlflow_sysmetrics.cli.options import (
    directory_option,
    journals_directory,
    json_option,
    tracking_uri_option,
)
from mlflow_sysmetrics.cli.spooled import SpooledJournal, look
from mlflow_sysmetrics.cli.table import counted, print_json, print_table
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.errors import JournalUnavailable

_HEADS = ("RUN", "SERVER", "POINTS", "AGE")
_MILLISECONDS = 1000


@click.command()
@directory_option
@tracking_uri_option
@click.option("--dry-run", is_flag=True, help="List what would be sent, and send nothing.")
@click.option(
    "--wait",
    metavar="DURATION",
    callback=duration,
    default="10s",
    show_default=True,
    help="Longest wait for a server that does not answer.",
)
@json_option
def sync(*, chosen: Path | None, tracking_uri: str | None, dry_run: bool, wait: float, as_json: bool) -> None:
    """Send what processes that are gone had not delivered.

    Points keep their time and step, on runs that have ended too. Journals of processes that live are left
    alone: these deliver themselves. The exit status is 0 when all was sent, 1 when something could not be.
    """
    directory = journals_directory(chosen)
    try:
        found = list(look(directory))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    orphans = [journal for journal in found if not journal.alive]
    alive = [journal for journal in found if journal.alive]
    if dry_run:
        _list(directory, orphans, alive, as_json=as_json)
        return
    with _progress(sum(journal.waiting for journal in orphans)) as advance:
        delivery = Delivery(tracking_uri or tracking_uri_in_force(), advance, patience_seconds=wait)
        outcomes = [(journal, delivery.deliver(journal.path)) for journal in orphans]
    done = [(journal, outcome) for journal, outcome in outcomes if outcome is not None]
    alive += [journal for journal, outcome in outcomes if outcome is None]
    if as_json:
        print_json(_document(directory, done, alive))
    else:
        _tell(directory, done, alive)
    if any(outcome.faults for _, outcome in done):
        raise SystemExit(1)


@contextmanager
def _progress(points: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while points are sent, where somebody looks: on a terminal."""
    if not points or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=points, label="Sending points", file=sys.stderr) as bar:
        yield bar.update


def _list(
    directory: Path, orphans: Sequence[SpooledJournal], alive: Sequence[SpooledJournal], *, as_json: bool
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
        print_json({"directory": str(directory), "dry_run": True, "runs": runs, "left_alone": _left(alive)})
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
    _tell_of(alive)


def _tell(
    directory: Path, done: Sequence[tuple[SpooledJournal, Outcome]], alive: Sequence[SpooledJournal]
) -> None:
    sent = sum(outcome.delivered for _, outcome in done)
    if sent or any(journal.waiting for journal, _ in done):
        click.echo(f"Sent {counted(sent, 'point')} from {counted(len(done), 'journal')}.")
    else:
        click.echo(f"Nothing to send: no process that is gone left points in {directory}.")
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
    _tell_of(alive)
    for _, outcome in done:
        for fault in outcome.faults:
            click.echo(f"Error: {fault}", err=True)


def _tell_of(alive: Sequence[SpooledJournal]) -> None:
    for journal in alive:
        points = counted(journal.waiting, "point")
        click.echo(f"Left alone: {journal.path} ({journal.owner}; {points} waiting).", err=True)


def _left(alive: Sequence[SpooledJournal]) -> list[dict[str, object]]:
    return [
        {"journal": str(one.path), "pid": one.header.pid if one.header else None, "points": one.waiting}
        for one in alive
    ]


def _document(
    directory: Path, done: Sequence[tuple[SpooledJournal, Outcome]], alive: Sequence[SpooledJournal]
) -> dict[str, object]:
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
                "faults": list(outcome.faults),
            }
            for journal, outcome in done
        ],
        "left_alone": _left(alive),
    }
