"""`mlflow-sysmetrics sync`: delivers the points that dead processes left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mlflow_sysmetrics.cli.options import (
    DURATION_FORMAT,
    any_host_option,
    directory_option,
    duration_or_zero,
    json_option,
    print_skipped_hosts,
    tracking_uri_option,
    usable_directory,
)
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery, Outcome, fault_messages
from mlflow_sysmetrics.cli.output import age_of, complain, counted, print_json, print_table, say, say_wrapped
from mlflow_sysmetrics.cli.program import DONE, FAILED, Command
from mlflow_sysmetrics.cli.spooled_journals import (
    Notes,
    SpooledJournal,
    count_of_other_hosts,
    notes,
    read_journals,
)
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.daemon.journal.set_aside import delete_expired
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.tracking_uris import lasting, redacted

_HEADS = ("RUN", "POINTS", "OLDEST")


@click.command(
    cls=Command,
    short_help="Send the points that dead processes left behind.",
    exits={
        0: "everything was sent, or listed with --dry-run",
        FAILED: "something could not be sent, or a journal could not be read",
    },
)
@directory_option
@tracking_uri_option(
    "User and password for a server in the journals, which store neither, as in http://USER:PASSWORD@HOST."
    " Points always go to the server that their journal names."
)
@any_host_option
@click.option("--dry-run", is_flag=True, help="List what would be sent, and send nothing.")
@click.option(
    "--wait",
    metavar="DURATION",
    callback=duration_or_zero,
    default="10s",
    show_default=True,
    help=f"Longest wait for a server that does not answer: {DURATION_FORMAT}; 0 tries once.",
)
@json_option
def sync(
    *,
    chosen: Path | None,
    tracking_uri: str | None,
    any_host: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Send the points that dead processes left behind.

    Points keep their time and step, also on runs that have ended. Journals of living processes are left
    alone: these processes deliver themselves. --any-host includes journals of other hosts, such as a
    container that ran under another name; a journal written in the last ten minutes may belong to a living
    process there and is left alone.
    """
    directory = usable_directory(chosen)
    try:
        journals = list(read_journals(directory, any_host=any_host))
    except JournalUnavailable as error:
        raise click.ClickException(str(error)) from error
    orphans = [journal for journal in journals if journal.orphaned]
    alone = [journal for journal in journals if not journal.orphaned and journal.fault is None]
    others = 0 if any_host else count_of_other_hosts(directory)
    if dry_run:
        about = notes(directory, journals, any_host=any_host)
        _print_waiting(directory, orphans, alone, about, as_json=as_json)
        status = DONE
    else:
        delete_expired(directory, any_host=any_host)
        unreadable = [journal for journal in journals if journal.fault is not None]
        about = notes(directory, unreadable, any_host=any_host)  # of the others, delivery tells
        status = _send(
            directory, orphans, alone, about, _delivery(tracking_uri, wait, orphans), as_json=as_json
        )
    about.print()
    _print_unused(tracking_uri, orphans)
    print_skipped_hosts(others)
    if status == FAILED or about.faults:
        raise SystemExit(FAILED)


def _delivery(tracking_uri: str | None, wait: float, orphans: Sequence[SpooledJournal]) -> OrphanDelivery:
    if tracking_uri is None and any(journal.waiting for journal in orphans):
        tracking_uri = tracking_uri_in_force()
    return OrphanDelivery(tracking_uri, wait_seconds=wait)


def _send(
    directory: Path,
    orphans: Sequence[SpooledJournal],
    alone: list[SpooledJournal],
    about: Notes,
    delivery: OrphanDelivery,
    *,
    as_json: bool,
) -> int:
    """Sends the waiting points, and returns the exit status."""
    with _progress(sum(journal.waiting for journal in orphans)) as delivery.progress:
        outcomes = [(journal, delivery.deliver(journal.path)) for journal in orphans]
    done = [(journal, outcome) for journal, outcome in outcomes if outcome is not None]
    alone += [journal for journal, outcome in outcomes if outcome is None]
    if as_json:
        print_json(_document(directory, done, alone, about))
    else:
        _print_sent(directory, done, alone)
    faults = fault_messages(outcome for _, outcome in done)
    for fault in () if as_json else faults:
        complain(fault)
    if not as_json:
        _print_undelivered(done)
    return FAILED if faults else DONE


@contextmanager
def _progress(points: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar while points are sent, if the standard error is a terminal that can move back."""
    if not points or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _: None
        return
    with click.progressbar(length=points, label="Sending points", file=sys.stderr) as bar:
        yield bar.update


def _print_waiting(
    directory: Path,
    orphans: Sequence[SpooledJournal],
    alone: Sequence[SpooledJournal],
    about: Notes,
    *,
    as_json: bool,
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
        document = {"directory": str(directory), "dry_run": True, "runs": runs, "left_alone": _left(alone)}
        print_json(document | _about(about))
        return
    if waiting:
        for server in dict.fromkeys(run.journaled.tracking_uri for run in waiting):
            say_wrapped(server)
            of_server = [run for run in waiting if run.journaled.tracking_uri == server]
            rows = [(run.journaled.run_id, f"{run.waiting:,}", age_of(run.oldest)) for run in of_server]
            print_table(_HEADS, rows, indent="  ")
            say("")
        say_wrapped(f"Would send {counted(sum(run.waiting for run in waiting), 'point')}; nothing was sent.")
    else:
        say_wrapped(_nothing_to_send(directory))
    _print_alone(alone)


def _print_sent(
    directory: Path, done: Sequence[tuple[SpooledJournal, Outcome]], alone: Sequence[SpooledJournal]
) -> None:
    """Prints what was sent."""
    sent = sum(outcome.delivered for _, outcome in done)
    if sent:
        journals = counted(sum(outcome.delivered > 0 for _, outcome in done), "journal")
        say_wrapped(f"Sent {counted(sent, 'point')} from {journals}.")
    elif any(outcome.waiting or outcome.dropped or outcome.damage for _, outcome in done):
        say("Nothing was sent.")
    else:
        say_wrapped(_nothing_to_send(directory))
    # Journals that still hold points are for the next `sync`; the ones below are for `reap`.
    kept = [
        run
        for journal, outcome in done
        if not outcome.waiting and journal.path.exists()
        for run in journal.runs
        if not run.journaled.ended
    ]
    if kept:
        runs = counted(len(kept), "run")
        say_wrapped(f"{runs} of dead processes may still be RUNNING; see mlflow-sysmetrics reap.")
    _print_alone(alone)


def _print_undelivered(done: Sequence[tuple[SpooledJournal, Outcome]]) -> None:
    """Prints what to do about points that could not be sent."""
    runs = [run for journal, outcome in done if outcome.unreachable for run in journal.runs if run.waiting]
    servers = sorted({run.journaled.tracking_uri for run in runs})
    remote = [uri for uri in servers if uri.startswith(("http://", "https://"))]
    if remote:  # `check` would create the file of another store
        say_wrapped("These points stay in their journals. Test the server, then run sync again:", err=True)
        say(f"  mlflow-sysmetrics check --tracking-uri {remote[0]}", err=True)
    elif servers:
        say_wrapped(
            f"These points stay in their journals: run sync again when {servers[0]} is back.", err=True
        )


def _nothing_to_send(directory: Path) -> str:
    return f"Nothing to send: no dead process left points in {directory}."


def _print_alone(alone: Sequence[SpooledJournal]) -> None:
    for journal in alone:
        points = counted(journal.waiting, "point")
        say_wrapped(f"Left alone: {journal.path} ({journal.owner}; {points} waiting).", err=True)


def _print_unused(tracking_uri: str | None, orphans: Sequence[SpooledJournal]) -> None:
    """Prints a note if no point waits for the server of ``--tracking-uri``."""
    wanted = {run.journaled.tracking_uri for one in orphans for run in one.runs if run.waiting}
    if tracking_uri is not None and wanted and lasting(tracking_uri) not in wanted:
        servers = ", ".join(sorted(wanted))
        say_wrapped(
            f"Note: no point waits for {redacted(tracking_uri)}, so --tracking-uri was not used;"
            f" points go to the servers that their journals name: {servers}.",
            err=True,
        )


def _document(
    directory: Path,
    done: Sequence[tuple[SpooledJournal, Outcome]],
    alone: Sequence[SpooledJournal],
    about: Notes,
) -> dict[str, object]:
    """Returns what was sent, for JSON."""
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
                "faults": fault_messages([outcome]),
            }
            for journal, outcome in done
        ],
        "left_alone": _left(alone),
        **_about(about),
    }


def _about(about: Notes) -> dict[str, object]:
    return {"faults": about.faults, "set_aside": about.set_aside}


def _left(alone: Sequence[SpooledJournal]) -> list[dict[str, object]]:
    return [{"journal": str(one.path), "pid": one.pid, "points": one.waiting} for one in alone]
