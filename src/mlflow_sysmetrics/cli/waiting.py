"""What waits in this machine's journals, and whether there can be one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow_sysmetrics.cli.durations import spoken
from mlflow_sysmetrics.cli.findings import Finding, Mark, without_password
from mlflow_sysmetrics.cli.spooled import SpooledJournal, look
from mlflow_sysmetrics.cli.table import counted
from mlflow_sysmetrics.daemon.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings

_MILLISECONDS = 1000


def findings(settings: Settings) -> list[Finding]:
    """Returns where journals are kept and what is in them.

    Args:
        settings: those in force.
    """
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    if not settings.journalled:
        text = "off: points that a server has not taken wait in memory only"
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
        found = list(look(directory))
    except JournalUnavailable as error:
        yield Finding("waiting", Mark.WRONG, f"cannot be read: {error}", "run this as the user who trains")
        return
    yield _alive([one for one in found if one.alive])
    yield _gone([one for one in found if not one.alive])


def _directory(directory: Path) -> Finding:
    """Returns whether a journal can be made, by permissions: nothing is written to find out."""
    path = without_password(str(directory))
    more = {"path": path}
    nearest = next((one for one in (directory, *directory.parents) if os.path.lexists(one)), directory)
    if not nearest.is_dir():
        text = f"{without_password(str(nearest))} is no directory: points wait in memory only"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        text = f"{without_password(str(nearest))} cannot be written: points wait in memory only"
    else:
        return Finding("directory", Mark.GOOD, path, None, more)
    return Finding("directory", Mark.WRONG, text, f"set {SPOOL_DIR} to a directory of yours", more)


def _alive(journals: Sequence[SpooledJournal]) -> Finding:
    points = sum(one.waiting for one in journals)
    more = {"journals": len(journals), "points": points}
    if not journals:
        return Finding("at work", Mark.PLAIN, "no process that lives", None, more)
    text = f"{_processes(len(journals))}, with {counted(points, 'point')} on the way"
    return Finding("at work", Mark.GOOD, text, None, more)


def _gone(journals: Sequence[SpooledJournal]) -> Finding:
    """Returns what processes that are gone have left, which is a thing to do and no fault."""
    points = sum(one.waiting for one in journals)
    runs = sum(not run.journaled.ended for one in journals for run in one.runs)
    more = {"journals": len(journals), "points": points, "runs_not_ended": runs}
    if points:
        oldest = min(run.oldest for one in journals for run in one.runs if run.oldest is not None)
        age = spoken(time.time() - oldest / _MILLISECONDS)
        text = f"{counted(points, 'point')} of {_processes(len(journals))}, the oldest {age} old"
        return Finding("left behind", Mark.NOTE, text, "mlflow-sysmetrics sync", more)
    if runs:
        text = f"{counted(runs, 'run')} without a process may still say RUNNING"
        return Finding("left behind", Mark.NOTE, text, "mlflow-sysmetrics reap", more)
    return Finding("left behind", Mark.GOOD, "nothing waits", None, more)


def _processes(count: int) -> str:
    return f"{count:,} process{'' if count == 1 else 'es'}"
