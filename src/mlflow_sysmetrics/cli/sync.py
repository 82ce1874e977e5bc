"""`mlflow-sysmetrics sync`: delivers what processes that are gone had owed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mlflow_sysmetrics.cli.delivery import Delivery, told
from mlflow_sysmetrics.cli.durations import FORMAT, wait
from mlflow_sysmetrics.cli.options import (
    any_host_option,
    directory_option,
    json_option,
    tell_of_other_hosts,
    usable_directory,
)
from mlflow_sysmetrics.cli.spooled import SpooledJournal, look, of_other_hosts
from mlflow_sysmetrics.cli.sync_report import document, list_waiting, tell
from mlflow_sysmetrics.cli.table import print_json
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.cli.tracking_uri_option import tracking_uri_option
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.tracking_uris import lasting, redacted


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
def sync(  # noqa: PLR0913 - the options of the command
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
