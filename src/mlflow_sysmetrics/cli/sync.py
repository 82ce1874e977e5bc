"""`mlflow-sysmetrics sync`: delivers what processes that are gone had owed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mlflow_sysmetrics.cli.delivery import Delivery, Outcome, told
from mlflow_sysmetrics.cli.options import (
    FORMAT,
    any_host_option,
    directory_option,
    json_option,
    spoken,
    tell_of_other_hosts,
    tracking_uri_option,
    usable_directory,
    wait,
)
from mlflow_sysmetrics.cli.spooled import SpooledJournal, look, of_other_hosts
from mlflow_sysmetrics.cli.table import counted, print_json, print_table
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.tracking_uris import lasting, redacted

# FOLDED sync_report: What `sync` prints: what would be sent, what was, and what was left alone.

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


@click.command()
@directory_option
@tracking_uri_option(
    "User and password, as in http://USER:PASSWORD@HOST, for the server of this name in the journals, which"
    " have none. Points go where their journal says."
)
@any_host_option
@click.option("--dry-run", is_flag=True, help="List what would be sent, and send nothing.")
@click.option(
    "--wait",
    "patience",
    metavar="DURATION",
    callback=wait,
    default="10s",
    show_default=True,
    help=f"Longest wait for a server that does not answer: {FORMAT}; 0 tries once.",
)
@json_option
def sync(
    *,
    chosen: Path | None,
    tracking_uri: str | None,
    any_host: bool,
    dry_run: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Send what processes that are gone had not delivered.

    Points keep their time and step, on runs that have ended too. Journals of processes that live are left
    alone: these deliver themselves. With --any-host those of other hosts are sent too, such as a container
    that went under another name; one that was written in the last ten minutes may have a process there, and
    is left alone. The exit status is 0 when all was sent, 1 when something could not be.
    """
    directory = usable_directory(chosen)
    try:
        found = list(look(directory, any_host=any_host))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    orphans = [journal for journal in found if journal.orphaned]
    alone = [journal for journal in found if not journal.orphaned]
    others = 0 if any_host else of_other_hosts(directory)
    if dry_run:
        list_waiting(directory, orphans, alone, as_json=as_json)
        status = 0
    else:
        status = _send(directory, orphans, alone, _delivery(tracking_uri, patience, orphans), as_json=as_json)
    _tell_of_unused(tracking_uri, orphans)
    tell_of_other_hosts(others)
    raise SystemExit(status)


def _delivery(tracking_uri: str | None, patience: float, orphans: Sequence[SpooledJournal]) -> Delivery:
    if tracking_uri is None and any(journal.waiting for journal in orphans):
        tracking_uri = tracking_uri_in_force()  # asking MLflow costs a second of import
    return Delivery(tracking_uri, patience_seconds=patience)


def _send(
    directory: Path,
    orphans: Sequence[SpooledJournal],
    alone: list[SpooledJournal],
    delivery: Delivery,
    *,
    as_json: bool,
) -> int:
    """Sends what waits, and returns the exit status."""
    with _progress(sum(journal.waiting for journal in orphans)) as delivery.progress:
        outcomes = [(journal, delivery.deliver(journal.path)) for journal in orphans]
    done = [(journal, outcome) for journal, outcome in outcomes if outcome is not None]
    alone += [journal for journal, outcome in outcomes if outcome is None]
    if as_json:
        print_json(document(directory, done, alone))
    else:
        tell(directory, done, alone)
    faults = told(outcome for _, outcome in done)
    for fault in () if as_json else faults:
        click.echo(f"Error: {fault}", err=True)
    return 1 if faults else 0


def _tell_of_unused(tracking_uri: str | None, orphans: Sequence[SpooledJournal]) -> None:
    """Says that a server was named which no point waits for."""
    wanted = {run.journaled.tracking_uri for one in orphans for run in one.runs if run.waiting}
    if tracking_uri is not None and wanted and lasting(tracking_uri) not in wanted:
        servers = ", ".join(sorted(wanted))
        click.echo(
            f"Note: no point waits for {redacted(tracking_uri)}, so --tracking-uri was not used;"
            f" points go where their journal says: {servers}.",
            err=True,
        )


@contextmanager
def _progress(points: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while points are sent, where somebody looks: on a terminal."""
    if not points or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=points, label="Sending points", file=sys.stderr) as bar:
        yield bar.update
