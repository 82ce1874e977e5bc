"""The section of `doctor` about journals: whether they can be written, and which points wait in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark, without_password
from mlflow_sysmetrics.cli.output import age_of, counted
from mlflow_sysmetrics.cli.spooled_journals import SpooledJournal, notes, read_journals
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings


def findings(settings: Settings) -> list[Finding]:
    """Returns where journals are kept, and what is in them.

    Args:
        settings: the effective settings.
    """
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    if not settings.journalled:
        text = "off: undelivered points wait in memory only"
        yield Finding("directory", Mark.ABSENT, text, None, {"path": None})
    try:
        directory = spool_directory(settings)
    except JournalUnavailable as error:
        if settings.journalled:
            yield Finding("directory", Mark.WRONG, str(error), f"set {SPOOL_DIR} to a directory")
        return
    if settings.journalled:
        yield _directory(directory)
    try:
        journals = list(read_journals(directory))
    except JournalUnavailable as error:
        yield Finding("waiting", Mark.WRONG, f"cannot be read: {error}", "run this as the user who trains")
        return
    yield _alive([one for one in journals if one.alive])
    yield _left_behind([one for one in journals if not one.alive])
    about = notes(directory, journals, any_host=False)
    for text in (*about.faults, *about.remarks):
        yield Finding("journals", Mark.NOTE, without_password(text.rstrip(".")))


def _directory(directory: Path) -> Finding:
    """Returns whether a journal can be created, judged by permissions: nothing is written."""
    path = without_password(str(directory))
    more = {"path": path}
    nearest = next((one for one in (directory, *directory.parents) if os.path.lexists(one)), directory)
    if not nearest.is_dir():
        text = f"{without_password(str(nearest))} is not a directory: points wait in memory only"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        text = f"{without_password(str(nearest))} is not writable: points wait in memory only"
    elif (broken := _broken_lock()) is not None:
        text = f"{broken}: points wait in memory only"
        return Finding("directory", Mark.WRONG, text, "pip install --force-reinstall filelock", more)
    elif _is_full(nearest):
        text = f"the disk of {without_password(str(nearest))} is full: points wait in memory only"
    else:
        return Finding("directory", Mark.GOOD, path, None, more)
    return Finding("directory", Mark.WRONG, text, f"set {SPOOL_DIR} to a directory you can write to", more)


def _is_full(directory: Path) -> bool:
    try:
        return not shutil.disk_usage(directory).free
    except OSError:  # not every filesystem tells
        return False


def _broken_lock() -> str | None:
    """Returns why no journal can be locked; None if the library for it works."""
    try:
        import_module("filelock")
    except Exception as error:  # noqa: BLE001
        # A broken installation may raise anything.
        return f"filelock cannot be imported ({error})"
    return None


def _alive(journals: Sequence[SpooledJournal]) -> Finding:
    points = sum(one.waiting for one in journals)
    more = {"journals": len(journals), "points": points}
    if not journals:
        return Finding("running", Mark.PLAIN, "no process with a journal", None, more)
    text = f"{_processes(len(journals))}, with {counted(points, 'point')} to deliver"
    return Finding("running", Mark.GOOD, text, None, more)


def _left_behind(journals: Sequence[SpooledJournal]) -> Finding:
    """Returns what dead processes left behind, which is something to do and not a fault."""
    points = sum(one.waiting for one in journals)
    runs = sum(not run.journaled.ended for one in journals for run in one.runs)
    more = {"journals": len(journals), "points": points, "runs_not_ended": runs}
    if points:
        oldest = min(run.oldest for one in journals for run in one.runs if run.oldest is not None)
        text = f"{counted(points, 'point')} of {_processes(len(journals))}, the oldest {age_of(oldest)} old"
        return Finding("left behind", Mark.NOTE, text, "mlflow-sysmetrics sync", more)
    if runs:
        text = f"{counted(runs, 'run')} of dead processes may still be RUNNING"
        return Finding("left behind", Mark.NOTE, text, "mlflow-sysmetrics reap", more)
    return Finding("left behind", Mark.GOOD, "nothing", None, more)


def _processes(count: int) -> str:
    return f"{count:,} process{'' if count == 1 else 'es'}"
