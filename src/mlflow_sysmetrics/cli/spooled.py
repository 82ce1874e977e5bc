"""This machine's journals, as the commands look at them: whose they are, which runs, how many points wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow_sysmetrics.daemon.journal_lines import Header
from mlflow_sysmetrics.daemon.journal_scan import JournaledRun, contents, unsettled
from mlflow_sysmetrics.daemon.spool import is_owned, journals
from mlflow_sysmetrics.errors import JournalUnavailable

_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """A run in a journal.

    Attributes:
        journaled: what the journal knows of it.
        waiting: points that are neither delivered nor given up.
        oldest: milliseconds since 1970 of the oldest of them.
        newest: of the newest point that the journal still holds.
    """

    journaled: JournaledRun
    waiting: int
    oldest: int | None
    newest: int | None


@dataclass(frozen=True, slots=True)
class SpooledJournal:
    """A journal.

    Attributes:
        path: its file.
        alive: whether the process that writes it lives, or one that delivers it at this moment.
        size: bytes.
        written_at: milliseconds since 1970 of the last write.
        header: who wrote it; None where that line cannot be read.
        runs: in the order in which they were attached.
    """

    path: Path
    alive: bool
    size: int
    written_at: int
    header: Header | None
    runs: tuple[SpooledRun, ...]

    @property
    def waiting(self) -> int:
        """Points that are neither delivered nor given up."""
        return sum(run.waiting for run in self.runs)

    @property
    def owner(self) -> str:
        """The process that wrote it, for people."""
        pid = f"process {self.header.pid}" if self.header else "a process"
        return f"{pid}, {'alive' if self.alive else 'gone'}"


def look(directory: Path) -> Iterator[SpooledJournal]:
    """Yields this machine's journals; one that is delivered and deleted meanwhile is none.

    Raises:
        JournalUnavailable: the directory, or a journal in it, cannot be read.
    """
    try:
        for path in journals(directory):
            with contextlib.suppress(FileNotFoundError):
                yield look_at(path)
    except OSError as error:
        raise JournalUnavailable(f"{error.filename or directory}: {error.strerror}") from error


def look_at(path: Path) -> SpooledJournal:
    """Reads one journal.

    Raises:
        OSError: it cannot be read.
    """
    alive = is_owned(path)  # before it is read: an owner that ends in between leaves nothing new behind
    status = path.stat()
    found = contents(path)
    runs = tuple(_look_at_run(path, run.freeze()) for run in found.runs.values())
    written_at = int(status.st_mtime * _MILLISECONDS)
    return SpooledJournal(path, alive, status.st_size, written_at, found.header, runs)


def _look_at_run(path: Path, run: JournaledRun) -> SpooledRun:
    waiting = 0
    oldest = None
    # Counted, not calculated from the indices: thinning leaves gaps in them.
    for waiting, (_, point) in enumerate(unsettled(path, run.number), start=1):  # noqa: B007 - the last one is wanted
        oldest = point.timestamp if oldest is None else oldest
    return SpooledRun(run, waiting, oldest, run.last_timestamp)
