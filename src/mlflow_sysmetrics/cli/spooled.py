"""Journals, as the commands look at them: whose they are, which runs they hold, how many points wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.daemon.journal_lines import Header, PointsLine, lines, parse
from mlflow_sysmetrics.daemon.journal_scan import Contents, JournaledRun
from mlflow_sysmetrics.daemon.ownership import host_of, hostname, pid_of
from mlflow_sysmetrics.daemon.spool import is_owned, journals
from mlflow_sysmetrics.daemon.writer import stranger
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
    user = stranger(path)
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
    found = Contents()
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
        waiting, oldest = of_run.waiting(run.settled)
        latest = {} if run.ended else of_run.latest
        runs.append(SpooledRun(run, waiting, oldest, run.last_timestamp, latest))
    return found.header, tuple(runs)
