"""Journals as the commands see them: their owners, their runs and points, and what is wrong with them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.cli.output import complain, counted, say_wrapped
from mlflow_sysmetrics.daemon.journal.lines import Header, PointsLine, lines, understood
from mlflow_sysmetrics.daemon.journal.open_file import open_to_read
from mlflow_sysmetrics.daemon.journal.ownership import (
    check_lock,
    exposure,
    foreign_owner,
    host_of,
    hostname,
    lock_path,
    pid_of,
)
from mlflow_sysmetrics.daemon.journal.scan import Damage, JournaledRun, JournalState, read_state
from mlflow_sysmetrics.daemon.journal.set_aside import DamagedJournal, all_set_aside
from mlflow_sysmetrics.daemon.journal.spool import is_owned, journals, not_files
from mlflow_sysmetrics.errors import JournalUnavailable

_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """A run in a journal.

    Attributes:
        journaled: what the journal says about it.
        waiting: points that are neither delivered nor given up.
        oldest: milliseconds since 1970 of the oldest waiting point.
        newest: milliseconds since 1970 of the newest point still in the journal.
        latest: newest value of each series still in the journal; empty if the run was detached.
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
        alive: whether the process that writes or delivers it is alive; for a journal of another host,
            whether it may be.
        size: bytes.
        written_at: milliseconds since 1970 of the last write.
        header: who wrote it; None if that line cannot be read.
        runs: in the order in which they were attached.
        user: id of the user who owns it; None for the current user.
        damage: what in it is not understood; None if everything is.
        fault: why none of its points can be delivered, for example since its format is newer.
    """

    path: Path
    alive: bool
    size: int
    written_at: int
    header: Header | None
    runs: tuple[SpooledRun, ...]
    user: int | None = None
    damage: Damage | None = None
    fault: str | None = None

    @property
    def orphaned(self) -> bool:
        """Whether this user may deliver it."""
        return not self.alive and self.user is None and self.fault is None

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
            return f"{process}, dead"
        return f"{process}, {'alive' if self.here else 'may be alive'}"


@dataclass(frozen=True, slots=True)
class OrphanedRun:
    """A run in one orphaned journal."""

    journal: SpooledJournal
    run: SpooledRun

    @property
    def last_sign(self) -> int:
        """Milliseconds since 1970 of its newest point in the journal; of the last write if none is left.

        Delivery restores that modification time, but may be killed before it does.
        """
        return self.journal.written_at if self.run.newest is None else self.run.newest


def read_journals(directory: Path, *, any_host: bool = False) -> Iterator[SpooledJournal]:
    """Yields this machine's journals, skipping those that are delivered and deleted meanwhile.

    Args:
        directory: where to look.
        any_host: include journals of other hosts.

    Raises:
        JournalUnavailable: the directory cannot be read.
    """
    try:
        for path in journals(directory, any_host=any_host):
            with contextlib.suppress(FileNotFoundError):
                yield read_journal(path)
    except OSError as error:
        raise JournalUnavailable(f"{error.filename or directory}: {error.strerror}") from error


def read_journal(path: Path) -> SpooledJournal:
    """Reads one journal.

    Raises:
        FileNotFoundError: it no longer exists.
    """
    fault = _lock_fault(path)
    alive = is_owned(path)  # before reading: an owner that exits in between leaves nothing unread
    status = path.lstat()
    user = foreign_owner(path, status)
    state = JournalState()
    runs: tuple[SpooledRun, ...] = ()
    try:
        state, runs = _read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        if user is None or not isinstance(error, PermissionError):
            fault = f"it cannot be read: {error.strerror or error}"
    if state.newer is not None:
        state, runs, fault = JournalState(), (), f"it {state.newer}"
    written_at = int(status.st_mtime * _MILLISECONDS)
    return SpooledJournal(
        path, alive, status.st_size, written_at, state.header, runs, user, state.damage, fault
    )


def _lock_fault(path: Path) -> str | None:
    """Returns why the lock of a journal cannot be tried, so that no program delivers it; None if it can."""
    if foreign_owner(path) is None:
        try:
            check_lock(lock_path(path))
        except OSError as error:
            return f"its owner is not known: {error.strerror or error}"
    return None


def count_of_other_hosts(directory: Path) -> int:
    """Returns how many journals of other hosts a directory holds."""
    try:
        return len(journals(directory, any_host=True)) - len(journals(directory))
    except OSError:  # whoever reads the journals reports it
        return 0


def orphaned_runs(journals: Sequence[SpooledJournal]) -> dict[str, list[OrphanedRun]]:
    """Returns, by run id, the runs that were not detached when their process ended, newest journal first."""
    runs: dict[str, list[OrphanedRun]] = {}
    for journal in journals:
        for spooled in journal.runs if journal.orphaned else ():
            if not spooled.journaled.ended:
                runs.setdefault(spooled.journaled.run_id, []).append(OrphanedRun(journal, spooled))
    return {run: sorted(one, key=lambda orphan: orphan.last_sign, reverse=True) for run, one in runs.items()}


def fed_runs(journals: Sequence[SpooledJournal]) -> dict[str, str]:
    """Returns, by run id, which process feeds it, for runs fed by living processes or by other users."""
    return {
        run.journaled.run_id: f"{journal.owner}, feeds it"
        for journal in journals
        for run in journal.runs
        if not journal.orphaned and not run.journaled.ended
    }


def newest_values(
    orphans: Sequence[OrphanedRun], last_sign: int | None, system: Mapping[str, float]
) -> tuple[int | None, dict[str, float]]:
    """Returns time and values of a run's newest points; the last of them may not be on the server yet.

    Args:
        orphans: the run in its journals, the newest first.
        last_sign: time of its newest point on the server.
        system: newest value of each series on the server.
    """
    newest, values = last_sign, dict(system)
    for orphan in reversed(orphans):
        values.update(orphan.run.latest)
        if orphan.run.newest is not None:
            newest = max(newest or 0, orphan.run.newest)
    return newest, values


@dataclass(slots=True)
class _Points:
    """The points of one run, collected in one pass over its journal."""

    spans: list[tuple[int, int, int]] = field(default_factory=list)  # first index, end (exclusive), time
    latest: dict[str, float] = field(default_factory=dict)

    def waiting(self, acknowledged: int) -> tuple[int, int | None]:
        """Returns how many points are unacknowledged, each counted once, and the time of the first."""
        count, oldest = 0, None
        # Counted span by span: thinning leaves gaps between the indices.
        for first, end, timestamp in self.spans:
            if end > acknowledged:
                count += end - max(first, acknowledged)
                oldest = timestamp if oldest is None else oldest
                acknowledged = end
        return count, oldest


def _read(path: Path) -> tuple[JournalState, tuple[SpooledRun, ...]]:
    """Reads a journal in one pass, whatever the number of runs in it."""
    state = JournalState()
    points: dict[int, _Points] = {}
    with open_to_read(path) as file:
        for text in lines(file):
            for line in understood(text):
                state.note(line)
                if isinstance(line, PointsLine):
                    of_run = points.setdefault(line.run, _Points())
                    of_run.spans.append((line.first, line.first + len(line.values), line.timestamp))
                    of_run.latest.update(line.values)
    runs = []
    for number, tally in state.runs.items():
        run, of_run = tally.freeze(), points.get(number, _Points())
        waiting, oldest = of_run.waiting(run.acknowledged)
        latest = {} if run.ended else of_run.latest
        runs.append(SpooledRun(run, waiting, oldest, run.last_timestamp, latest))
    return state, tuple(runs)


@dataclass(frozen=True, slots=True)
class Notes:
    """What people should know about a directory of journals besides what waits in it.

    Attributes:
        faults: why journals cannot be delivered at all; a command that meets one exits with status 1.
        remarks: about damaged journals, and others that are left alone.
        set_aside: the journals that were set aside, as JSON.
    """

    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    set_aside: tuple[dict[str, Any], ...]

    def print(self) -> None:
        """Prints them to standard error."""
        for remark in self.remarks:
            say_wrapped(remark, err=True)
        for fault in self.faults:
            complain(fault)


def notes(directory: Path, journals: Sequence[SpooledJournal], *, any_host: bool) -> Notes:
    """Returns what people should know about a directory of journals.

    Args:
        directory: the directory.
        journals: the journals in it.
        any_host: include journals of other hosts.
    """
    aside = [(one, _damage(one.path)) for one in all_set_aside(directory, any_host=any_host)]
    faults = (f"{one.path}: {one.fault}" for one in journals if one.fault is not None and one.user is None)
    documents = (_document(one, damage) for one, damage in aside)
    return Notes(
        tuple(faults), tuple(_remarks(directory, journals, aside, any_host=any_host)), tuple(documents)
    )


def _remarks(
    directory: Path,
    journals: Sequence[SpooledJournal],
    aside: Sequence[tuple[DamagedJournal, Damage | None]],
    *,
    any_host: bool,
) -> Iterator[str]:
    for journal in journals:
        if journal.damage is not None:
            yield f"Damaged: {journal.path}: {journal.damage}; the rest can be sent."
        if journal.fault is not None and journal.user is not None:
            yield f"Left alone: {journal.path} ({journal.owner}): {journal.fault}."
    for one, damage in aside:
        date = time.strftime("%Y-%m-%d", time.localtime(one.kept_until))
        what = f"{damage}" if damage else counted(one.size, "byte")
        yield f"Set aside: {one.path}: {what}; deleted after {date}."
    with contextlib.suppress(OSError):  # whoever reads the journals reports it
        for path in not_files(directory, any_host=any_host):
            yield f"Left alone: {path} is not a regular file."
    if (exposed := exposure(directory)) is not None:
        yield f"Note: other users can replace journals: {exposed}."


def _damage(path: Path) -> Damage | None:
    with contextlib.suppress(OSError):
        return read_state(path).damage
    return None


def _document(one: DamagedJournal, damage: Damage | None) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "bytes": one.size,
        "damaged_lines": damage.lines if damage else None,
        "points_of_unknown_runs": damage.points if damage else None,
        "kept_until": int(one.kept_until * _MILLISECONDS),
        "user": one.user,
    }
