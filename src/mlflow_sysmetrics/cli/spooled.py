"""Journals, as the commands look at them: whose they are, which runs they hold, how many points wait."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark, without_password
from mlflow_sysmetrics.cli.options import spoken
from mlflow_sysmetrics.cli.table import counted
from mlflow_sysmetrics.daemon.journal.lines import Header, PointsLine, lines, parse
from mlflow_sysmetrics.daemon.journal.ownership import foreign_owner, host_of, hostname, pid_of
from mlflow_sysmetrics.daemon.journal.scan import JournaledRun, JournalState
from mlflow_sysmetrics.daemon.journal.spool import is_owned, journals, spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings

# FOLDED traces: Runs in journals: what a process that is gone left behind of one, and which ones a living process feeds.


@dataclass(frozen=True, slots=True)
class Trace:
    """A run in an orphaned journal."""

    journal: SpooledJournal
    run: SpooledRun

    @property
    def last_sign(self) -> int:
        """Milliseconds since 1970 of its newest point in there; of the last write where none is left.

        Whoever delivers a journal puts that time back, but may be killed before.
        """
        return self.journal.written_at if self.run.newest is None else self.run.newest


def runs_left(journals: Sequence[SpooledJournal]) -> dict[str, list[Trace]]:
    """Returns the runs that were not detached when their process ended: their traces, the newest first."""
    found: dict[str, list[Trace]] = {}
    for journal in journals:
        for spooled in journal.runs if journal.orphaned else ():
            if not spooled.journaled.ended:
                found.setdefault(spooled.journaled.run_id, []).append(Trace(journal, spooled))
    return {run: sorted(one, key=lambda trace: trace.last_sign, reverse=True) for run, one in found.items()}


def feeding(journals: Sequence[SpooledJournal]) -> dict[str, str]:
    """Returns the runs that a living process feeds, or another user's, with who that is."""
    return {
        run.journaled.run_id: f"{journal.owner}, feeds it"
        for journal in journals
        for run in journal.runs
        if not journal.orphaned and not run.journaled.ended
    }


def newest_values(
    traces: Sequence[Trace], last_sign: int | None, system: Mapping[str, float]
) -> tuple[int | None, dict[str, float]]:
    """Returns time and values of the newest points, of which the server may not have the last ones yet.

    Args:
        traces: the run in journals, the newest first.
        last_sign: what its server says.
        system: the same.
    """
    newest, values = last_sign, dict(system)
    for trace in reversed(traces):
        values.update(trace.run.latest)
        if trace.run.newest is not None:
            newest = max(newest or 0, trace.run.newest)
    return newest, values


# FOLDED waiting: What waits in this machine's journals, and whether there can be one.


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


_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """A run in a journal.

    Attributes:
        journaled: what the journal knows of it.
        waiting: points that are neither delivered nor given up.
        oldest: milliseconds since 1970 of the oldest of them.
        newest: of the newest point that the journal still holds.
        latest: newest value of each series that the journal still holds, of a run that was not detached.
    """

    journaled: JournaledRun
    waiting: int
    oldest: int | None
    newest: int | None
    latest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpooledJournal:
    """A journal.

    Attributes:
        path: its file.
        alive: whether the process that writes it lives, or one that delivers it at this moment; of another
            host's, whether it may.
        size: bytes.
        written_at: milliseconds since 1970 of the last write.
        header: who wrote it; None where that line cannot be read.
        runs: in the order in which they were attached.
        user: id of the other user whose journal it is; None for this one's.
    """

    path: Path
    alive: bool
    size: int
    written_at: int
    header: Header | None
    runs: tuple[SpooledRun, ...]
    user: int | None = None

    @property
    def orphaned(self) -> bool:
        """Whether it is ours to deliver."""
        return not self.alive and self.user is None

    @property
    def waiting(self) -> int:
        """Points that are neither delivered nor given up."""
        return sum(run.waiting for run in self.runs)

    @property
    def here(self) -> bool:
        """Whether a process of this host wrote it."""
        return host_of(self.path) == hostname()

    @property
    def pid(self) -> int:
        """Id of the process that wrote it."""
        return self.header.pid if self.header else pid_of(self.path)

    @property
    def owner(self) -> str:
        """The process that wrote it, for people."""
        process = f"process {self.pid}" if self.here else f"process {self.pid} on {host_of(self.path)}"
        if self.user is not None:
            return f"{process}, of user {self.user}"
        if not self.alive:
            return f"{process}, gone"
        return f"{process}, {'alive' if self.here else 'may be alive'}"


def look(directory: Path, *, any_host: bool = False) -> Iterator[SpooledJournal]:
    """Yields this machine's journals; one that is delivered and deleted meanwhile is none.

    Args:
        directory: where to look.
        any_host: those of other hosts, too.

    Raises:
        JournalUnavailable: the directory, or a journal of this user in it, cannot be read.
    """
    try:
        for path in journals(directory, any_host=any_host):
            with contextlib.suppress(FileNotFoundError):
                yield look_at(path)
    except OSError as error:
        raise JournalUnavailable(f"{error.filename or directory}: {error.strerror}") from error


def of_other_hosts(directory: Path) -> int:
    """Returns how many journals of other hosts a directory holds."""
    return len(journals(directory, any_host=True)) - len(journals(directory))


def look_at(path: Path) -> SpooledJournal:
    """Reads one journal.

    Raises:
        OSError: it cannot be read, and is this user's.
    """
    alive = is_owned(path)  # before it is read: an owner that ends in between leaves nothing new behind
    status = path.stat()
    written_at = int(status.st_mtime * _MILLISECONDS)
    user = foreign_owner(path)
    try:
        header, runs = _read(path)
    except PermissionError:
        if user is None:
            raise
        header, runs = None, ()
    return SpooledJournal(path, alive, status.st_size, written_at, header, runs, user)


@dataclass(slots=True)
class _Points:
    """The points of one run, as one pass over its journal finds them."""

    spans: list[tuple[int, int, int]] = field(default_factory=list)  # first index, the one behind, and time
    latest: dict[str, float] = field(default_factory=dict)

    def waiting(self, settled: int) -> tuple[int, int | None]:
        """Returns how many are not settled, each counted once, and the time of the first of them."""
        count, oldest = 0, None
        # Counted, not calculated from the last index: thinning leaves gaps.
        for first, behind, timestamp in self.spans:
            if behind > settled:
                count += behind - max(first, settled)
                oldest = timestamp if oldest is None else oldest
                settled = behind
        return count, oldest


def _read(path: Path) -> tuple[Header | None, tuple[SpooledRun, ...]]:
    """Reads a journal in one pass, however many runs it holds."""
    found = JournalState()
    points: dict[int, _Points] = {}
    with path.open("rb") as file:
        for text in lines(file):
            line = parse(text)
            found.note(line)
            if isinstance(line, PointsLine) and line.run in found.runs:
                of_run = points.setdefault(line.run, _Points())
                of_run.spans.append((line.first, line.first + len(line.values), line.timestamp))
                of_run.latest.update(line.values)
    runs = []
    for number, tally in found.runs.items():
        run, of_run = tally.freeze(), points.get(number, _Points())
        waiting, oldest = of_run.waiting(run.acknowledged)
        latest = {} if run.ended else of_run.latest
        runs.append(SpooledRun(run, waiting, oldest, run.last_timestamp, latest))
    return found.header, tuple(runs)
