"""`mlflow-sysmetrics watch`: what runs do right now, as curves in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click

from mlflow_sysmetrics.cli.options import (
    Name,
    check_tracking_uri,
    directory_option,
    journals_directory,
    tracking_uri_option,
)
from mlflow_sysmetrics.cli.output import can_show, complain, say, say_progress
from mlflow_sysmetrics.cli.program import FAILED, Command, Stopped, raising_on_signals
from mlflow_sysmetrics.cli.tracked_runs import TrackingServer, tracking_uri_in_force
from mlflow_sysmetrics.live.board import Board, WatchedRun
from mlflow_sysmetrics.live.local import LocalRuns
from mlflow_sysmetrics.live.loop import Source
from mlflow_sysmetrics.live.loop import watch as watch_board
from mlflow_sysmetrics.live.remote import RemoteRuns
from mlflow_sysmetrics.live.requests import Requests
from mlflow_sysmetrics.live.screen import draw, plain
from mlflow_sysmetrics.live.view import View
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.runtime.distribution import install_command

UNKNOWN_RUN, UNREACHABLE = 3, 4
_ONCE_LINES = 200  # of a picture that is printed: everything
_ONCE_SECONDS = 60.0  # and as long as its history takes


@click.command(
    cls=Command,
    short_help="Watch runs live in the terminal.",
    exits={
        0: "the view was left, or printed with --once",
        FAILED: "there is nothing to show, or rich is not installed",
        UNKNOWN_RUN: "the server does not have the run",
        UNREACHABLE: "the server could not be reached at the start, or refused the credentials",
    },
)
@click.argument("run_id", metavar="[RUN_ID]", required=False)
@click.option("--local", is_flag=True, help="Runs of this machine's processes; the default without RUN_ID.")
@click.option(
    "--experiment",
    metavar="NAME",
    type=Name("the name of an experiment"),
    help="The newest runs of an experiment.",
)
@click.option("--once", is_flag=True, help="Print one picture and exit; the default without a terminal.")
@directory_option
@tracking_uri_option("Tracking server, with user and password if it needs them.")
def watch(
    *,
    run_id: str | None,
    local: bool,
    experiment: str | None,
    once: bool,
    chosen: Path | None,
    tracking_uri: str | None,
) -> None:
    """Watch runs live in the terminal: curves per node, family and GPU, with the verdict on top.

    Runs of this machine are read from the journals of their processes, others from the tracking server, with
    at most one request a second. ? shows the keys. docs/how_to/watch.md has pictures.
    """
    if sum((run_id is not None, local, experiment is not None)) > 1:
        raise click.UsageError("pass one of RUN_ID, --local and --experiment NAME")
    is_remote = run_id is not None or experiment is not None
    if is_remote and chosen is not None:
        raise click.UsageError("--dir is for the runs of this machine")
    if not is_remote and tracking_uri is not None:
        raise click.UsageError("--tracking-uri needs RUN_ID or --experiment NAME")
    once = once or not _is_terminal()
    if not once and find_spec("rich") is None:
        raise click.ClickException(f"rich is not installed: {install_command('cli')}, or pass --once")
    if is_remote:
        board, source = _remote(run_id, experiment, tracking_uri, once=once)
    else:
        board, source = _local(journals_directory(chosen), once=once)
    if once:
        _print(board)
    else:
        _show(board, source)


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


def _local(directory: Path, *, once: bool) -> tuple[Board, Source]:
    board, source = Board(f"runs of this machine, from {directory}"), LocalRuns(directory)
    source.step(board)
    if len(board.runs) == 1:
        board.chosen = next(iter(board.runs))
    if once and not board.runs:
        trouble = f" ({board.trouble})" if board.trouble else ""
        raise click.ClickException(f"no process of this machine has a journal in {directory}{trouble}")
    return board, source


def _remote(
    run_id: str | None, experiment: str | None, tracking_uri: str | None, *, once: bool
) -> tuple[Board, Source]:
    uri = tracking_uri or tracking_uri_in_force()
    if not uri:
        raise click.UsageError("no tracking server: pass --tracking-uri or set MLFLOW_TRACKING_URI")
    try:
        check_tracking_uri(uri)
    except ValueError as error:
        raise click.UsageError(f"MLFLOW_TRACKING_URI {error}") from error
    say_progress(f"Asking {redacted(uri)} ...")
    try:
        server = TrackingServer(uri)
        board = Board(f"{experiment or run_id} on {server.name}")
        asking = Requests(server)
        if experiment is not None:
            asking.reach()  # first: MLflow's own client would try for minutes
        source = RemoteRuns(asking, run_id, server.experiment_ids([experiment]) if experiment else ())
        source.begin(board)
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    except Fault as fault:
        message, code = _refusal(uri, run_id, fault)
        complain(message)
        raise SystemExit(code) from None
    if run_id is not None:
        board.chosen = next(iter(board.runs))
        _check(board.runs[board.chosen], once=once)
    if once and board.chosen is not None:
        _fill(board, source)
    return board, source


def _fill(board: Board, source: RemoteRuns) -> None:
    """Reads the history of the series that a first look shows."""
    ends = time.monotonic() + _ONCE_SECONDS
    while time.monotonic() < ends and not source.is_filled(board) and not board.trouble:
        time.sleep(source.step(board))


def _check(run: WatchedRun, *, once: bool) -> None:
    if not run.series and (once or run.ended_at is not None):
        raise click.ClickException(
            f"run {run.run_id} has no system metrics; mlflow-sysmetrics doctor, on the machine and in the "
            "environment of the job, says why"
        )


def _refusal(uri: str, run_id: str | None, fault: Fault) -> tuple[str, int]:
    name = redacted(uri)
    if fault.cause is Cause.MISSING and run_id is not None:
        return f"{name} has no run {run_id!r}; the id of a run is in the address of its page", UNKNOWN_RUN
    return f"{name}: {fault}. {remedy(fault, uri)}", UNREACHABLE


def _print(board: Board) -> None:
    width = shutil.get_terminal_size().columns
    with board.lock:
        if board.chosen is not None:
            board.runs[board.chosen].judge()
        rows = draw(board, View(), (width, _ONCE_LINES), time.time(), ascii_only=not can_show("▁█"))
    say(plain(rows[:-1]))


def _show(board: Board, source: Source) -> None:
    from rich.console import Console

    from mlflow_sysmetrics.live.terminal import Terminal

    try:
        with raising_on_signals():
            watch_board(board, source, Terminal(Console()), ascii_only=not can_show("▁█"))
    except Stopped:
        raise click.Abort from None
