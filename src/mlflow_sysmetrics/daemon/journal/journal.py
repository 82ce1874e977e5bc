"""A journal: points on disk until their server has them.

JSON Lines, one file per process. The sampler appends points before they go to memory; the senders acknowledge
them. See `lines` for the format and `spool` for the directory.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.file import LineFile, delete_journal
from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    EndLine,
    Header,
    NewPoints,
    RunLine,
    dump,
    dump_points,
)
from mlflow_sysmetrics.daemon.journal.ownership import Ownership, hostname, new_path
from mlflow_sysmetrics.daemon.journal.scan import Damage, JournaledRun, JournalState, RunState
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.runtime.native import Lock

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.journal.compaction import SmallerJournal, Snapshot
    from mlflow_sysmetrics.daemon.journal.line_index import LineIndex

# A place in the journal is a byte offset plus a generation number, which changes with each swap that moves
# the offsets. The generation is counted in units of a terabyte, more than any journal has.
_GENERATION = 1 << 40
_FULL = 7 / 8  # of the bound: compaction starts here, so that there is room while it runs
_COMPACTED = 3 / 4  # of the bound: thinning stops here
_REST_SECONDS = 60.0  # after a compaction that freed too little: the next would read it all for nothing


class Journal:
    """Holds points on disk until their server has them.

    The lock is held over one small write or a swap, and only the sampler and the senders take it: no thread
    of the program ever waits for a disk. `register` takes no lock.

    Attributes:
        path: the file.
        generation: how often its contents have been moved.
        damage: what in it is not understood; None if everything is. A journal with damage is never emptied
            or deleted, but set aside.
    """

    def __init__(
        self, file: LineFile, ownership: Ownership, max_bytes: int, found: JournalState | None = None
    ) -> None:
        self.path = file.path
        self.generation = 0
        self._file = file
        self._ownership = ownership
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._compacting = Lock()
        began = time.time_ns() // 1_000_000
        self._header = (found and found.header) or Header(hostname(), os.getpid(), began)
        self._claimed = self._header_written = found is not None
        self._runs: dict[int, RunState] = found.runs if found else {}
        self._numbers = itertools.count(max(self._runs, default=-1) + 1)
        self._monotonic = file.monotonic
        self._losses = file.losses
        self._rests_until, self._cleared_size = 0.0, -1
        self._index: LineIndex | None = None
        self._closed = self._has_no_room = False
        self.damage: Damage | None = found.damage if found else None

    @classmethod
    def create(
        cls,
        directory: Path,
        max_bytes: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes], int] = os.write,
    ) -> Journal:
        """Creates a journal for this process.

        Args:
            directory: created if it does not exist, readable by this user only.
            max_bytes: bound on the size.
            monotonic: clock for retries after a disk failure.
            write: the system call.

        Raises:
            JournalUnavailable: it cannot be created there.
        """
        path = new_path(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            ownership = Ownership.acquire(path)
            if ownership is None:
                raise JournalUnavailable(f"another process holds the lock of {path}")
            file = LineFile(path, monotonic, ownership.reacquire, write)
            try:
                file.create()
                journal = cls(file, ownership, max_bytes)
                with journal._lock:
                    journal._append(b"")
            except BaseException:  # memory may be short; nothing is in the file yet
                file.close()
                path.unlink(missing_ok=True)
                ownership.release(delete=True)
                raise
        except OSError as error:
            raise JournalUnavailable(f"{directory}: {error.strerror or error}") from error
        return journal

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._file.size

    @property
    def failed(self) -> str | None:
        """Why points are not written to it; None if they are. A failed disk is tried again after a minute."""
        full = f"the journal is full ({self._max_bytes / 1e6:g} MB)" if self._has_no_room else None
        return self._ownership.lost or self._file.failed or full

    @property
    def is_full(self) -> bool:
        """Whether a sender should have it compacted."""
        return self._file.size > self._max_bytes * _FULL and self._monotonic() >= self._rests_until

    @property
    def runs(self) -> list[JournaledRun]:
        """State of the runs, in the order in which they were attached."""
        return [run.freeze() for run in list(self._runs.values())]

    def register(
        self,
        run_id: str,
        tracking_uri: str,
        started_at: int | None,
        *,
        cgroup: str | None = None,
        oom_kills: int | None = None,
    ) -> int:
        """Returns a number for a run. Never blocks; the run is written to disk with its first point.

        The arguments are those of `RunLine`; the URI is absolute and without user, password and query.
        """
        number = next(self._numbers)
        self._runs[number] = RunState(RunLine(number, run_id, tracking_uri, started_at, cgroup, oom_kills))
        return number

    def append(
        self, run: int, index: int, timestamp: int, values: Mapping[str, float], step: int | None = None
    ) -> int | None:
        """Appends one point per key, with indices from `index` on; a step of None is derived from the time.

        Returns:
            Where to read them from; None if they are in memory only: there is no room, or the disk fails.
        """
        text = dump_points(run, index, timestamp, values, step)
        places = self.append_lines([NewPoints(run, index, len(values), timestamp, text)])
        return None if places is None else places[0]

    def append_lines(self, lines: Sequence[NewPoints]) -> list[int] | None:
        """Appends lines with one write; returns where to read each from, or None as `append` does."""
        with self._lock:
            runs = [self._runs[line.run] for line in lines if line.run in self._runs]
            text = b"".join([line.text for line in lines])
            self._has_no_room = self._file.size + len(text) > self._max_bytes
            begin = None if self._has_no_room or len(runs) < len(lines) else self._append(text, *runs)
            if begin is None:
                return None
            places = []
            for line, run in zip(lines, runs, strict=True):
                run.appended, run.last_timestamp = line.first + line.points, line.timestamp
                places.append(self.generation * _GENERATION + begin)
                begin += len(line.text)
            return places

    def acknowledge(self, run: int, acknowledged: int) -> None:
        """Records that all points of a run below an index were delivered or given up."""
        self.acknowledge_all({run: acknowledged})

    def acknowledge_all(self, acknowledged: Mapping[int, int]) -> None:
        """Does so for several runs with one write; takes an index by number of the run."""
        with self._lock:
            texts = []
            for run, below in acknowledged.items():
                known = self._runs.get(run)
                if known is not None and below > known.acknowledged:
                    known.acknowledged = below
                    if known.written:
                        texts.append(dump(AcknowledgedLine(run, below)))
            if texts:
                self._append(b"".join(texts))

    def end(self, run: int) -> None:
        """Records that a run was detached: no more of its points will come."""
        with self._lock:
            known = self._runs.get(run)
            if known is None or known.ended:
                return
            known.ended = True
            if known.written:
                self._append(dump(EndLine(run)))
            else:
                del self._runs[run]

    def clear(self) -> bool:
        """Empties the file, except for runs that are still attached, if nothing in it waits.

        A damaged one stays as it is, until it is compacted or closed.

        Returns:
            Whether nothing waits. It may in a claimed journal that has grown since: its owner is alive.
        """
        with self._lock:
            runs = list(self._runs.values())
            if any(run.acknowledged < run.appended for run in runs) or self._is_still_written:
                return False
            if self._is_damaged:
                return True
            if self._file.size == self._cleared_size or self._closed or not self._file.truncate():
                return True
            self.generation += 1
            self._header_written = False
            # Runs without a point yet are not in the file, and stay so.
            attached = [run for run in runs if not run.ended and (run.written or run.appended)]
            for run in runs:
                run.written = False
                if run.ended:
                    del self._runs[run.line.run]
            self._append(b"", *attached)
            self._cleared_size = self._file.size
            return True

    def compact(self) -> dict[int, int]:
        """Makes room: leaves out acknowledged points and, if that is not enough, thins the oldest.

        Takes seconds if there is much to read, all but the swap without the lock. One thread at a time.

        Returns:
            How many points of each run were dropped, by its number.
        """
        from mlflow_sysmetrics.daemon.journal.compaction import compact  # most processes never need it

        if not self._compacting.acquire(blocking=False):
            return {}
        try:
            return compact(self, self.path, int(self._max_bytes * _COMPACTED))
        finally:
            if self._file.size > self._max_bytes * _FULL:
                self._rests_until = self._monotonic() + _REST_SECONDS
            self._compacting.release()

    def snapshot(self) -> Snapshot | None:
        """Returns what a compaction begins with, None if there is nothing; may raise an OSError."""
        from mlflow_sysmetrics.daemon.journal.compaction import Snapshot

        with self._lock:
            if self._closed or (not self._header_written and self._append(b"") is None):
                return None
            source = self._file.reader()
            kept = [run for run in self._runs.values() if run.written and not run.is_over]
            head = dump(self._header) + b"".join(run.introduction() for run in kept)
            acknowledged = {run.line.run: run.acknowledged for run in kept}
            return Snapshot(source, self.generation, self._file.size, head, acknowledged)

    def swap(self, smaller: SmallerJournal, snapshot: Snapshot) -> bool:
        """Puts a smaller journal in place, with what was appended meanwhile; returns whether it could.

        Raises:
            OSError: it could not be written to disk.
        """
        with self._lock:
            if self._closed or self.generation != snapshot.generation:
                return False
            with self._file.reader() as source:
                smaller.file.copy_lines(source, snapshot.end, self._file.size)
            if not self._file.replace_by(smaller.file):
                return False
            self.generation += 1
            self._index = None
            for number, count in smaller.dropped.items():
                self._runs[number].dropped += count  # the smaller journal contains this count too
            for run in list(self._runs.values()):
                if run.written and run.is_over:
                    del self._runs[run.line.run]
            return True

    def read(self, run: int, since: int, from_offset: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Reads back points that are on disk only.

        Args:
            run: number of the run.
            since: index of the first point wanted.
            from_offset: a place at or before it, from `append` or the last `read`; 0, or one from before a
                swap, is the beginning.
            most: maximum number of points; only whole lines are returned, and at least one.

        Returns:
            (index, point) pairs in order, and the place to continue from. Thinned points leave gaps.

        Raises:
            OSError: the file cannot be read.
        """
        from mlflow_sysmetrics.daemon.journal.line_index import LineIndex  # rarely needed

        while True:
            with self._lock:
                source, size = self._file.reader(), self._file.size
                self._notice_losses()
                generation = self.generation
                index = self._index
                if index is None or index.generation != generation:
                    index = self._index = LineIndex(generation)
            offset = from_offset % _GENERATION if from_offset // _GENERATION == generation else 0
            with source:
                found, end = index.read(source, run, since=since, offset=offset, end=size, most=most)
            with self._lock:
                if generation == self.generation:
                    return found, generation * _GENERATION + end

    def forget_after_fork(self) -> None:
        """Closes the descriptors in a forked child; the file and the lock belong to the parent."""
        self._closed = True
        self._lock = Lock()
        self._file.close()
        self._ownership.forget_after_fork()

    def restore_time(self, written_at: float) -> None:
        """Sets the modification time, in seconds since 1970."""
        self._file.touch(written_at)

    def close(self, *, delete: bool) -> Path | None:
        """Closes the journal and releases its lock.

        Args:
            delete: deletes it, unless it was claimed and has grown since. A damaged one is set aside instead.

        Returns:
            Where it was set aside; None if it was not.
        """
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            delete = delete and not self._is_still_written
            if delete and self._is_damaged:
                self._file.touch()  # the month begins now
            self._file.close()
            aside = delete_journal(self.path, set_aside=self._is_damaged) if delete else None
            self._ownership.release(delete=delete)
        if aside is not None:
            from mlflow_sysmetrics.daemon.journal.set_aside import log

            log(aside, self.damage)
        return aside

    @property
    def _is_damaged(self) -> bool:
        return self.damage is not None or (self._index is not None and self._index.is_damaged)

    @property
    def _is_still_written(self) -> bool:
        return self._claimed and self._file.has_gained()

    def _append(self, text: bytes, *runs: RunState) -> int | None:
        """Appends a line, after the header and the run lines that the file still lacks."""
        if self._closed or not self._ownership.check(self._monotonic()) or not self._file.ready():
            return None
        self._notice_losses()
        if not self._header_written:  # an empty file, or one that others have truncated: it has no runs
            runs += tuple(run for run in list(self._runs.values()) if run.appended and not run.is_over)
        due = list({run.line.run: run for run in runs if not run.written}.values())
        head = b"" if self._header_written else dump(self._header)
        begin = self._file.append(head + b"".join(run.introduction() for run in due) + text)
        if begin is not None:
            self._header_written = True
            for run in due:
                run.written = True
        return begin

    def _notice_losses(self) -> None:
        """Has header and runs written again to a file that others have truncated or replaced."""
        if self._file.losses != self._losses:
            self._losses = self._file.losses
            self.generation += 1
            self._header_written = False
            for run in list(self._runs.values()):
                run.written = False
