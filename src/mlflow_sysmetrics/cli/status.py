"""`mlflow-sysmetrics status`: what this machine's journals hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from mlflow_sysmetrics.cli.durations import spoken
from mlflow_sysmetrics.cli.options import directory_option, journals_directory, json_option
from mlflow_sysmetrics.cli.spooled import SpooledJournal, SpooledRun, look
from mlflow_sysmetrics.cli.table import counted, print_json, print_table
from mlflow_sysmetrics.errors import JournalUnavailable

_HEADS = ("RUN", "SERVER", "POINTS", "AGE", "DROPPED", "OWNER")
_MILLISECONDS = 1000


@click.command()
@directory_option
@json_option
def status(*, chosen: Path | None, as_json: bool) -> None:
    """Show what this machine's journals hold.

    One line per run: its tracking server, the points that wait for delivery, how long the oldest of them
    has waited, the points that were dropped to keep the journal within its bound, and the process that wrote
    the journal. What a process that is gone left behind is sent by the next program that logs system metrics
    here, or by `mlflow-sysmetrics sync`.
    """
    directory = journals_directory(chosen)
    try:
        found = list(look(directory))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    now = time.time()
    if as_json:
        print_json({"directory": str(directory), "journals": [_document(one, now) for one in found]})
    elif any(journal.runs for journal in found):
        print_table(_HEADS, [_row(journal, run, now) for journal in found for run in journal.runs])
    else:
        click.echo(f"No run has a journal in {directory}.")
    orphans = sum(journal.waiting for journal in found if not journal.alive)
    if orphans and not as_json:
        click.echo(
            f"\n{counted(orphans, 'point')} of processes that are gone: send with mlflow-sysmetrics sync."
        )


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
        "pid": journal.header.pid if journal.header else None,
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
