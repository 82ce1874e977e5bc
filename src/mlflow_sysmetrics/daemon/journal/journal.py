"""A journal: points on disk until their server has them.

JSON Lines, one file per process. The sampler appends points before they go to memory; the senders acknowledge
them. See `lines` for the format and `spool` for the directory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.file import LineFile
from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    EndLine,
    Header,
    RunLine,
    copy_lines,
    dump,
    dump_points,
)
from mlflow_sysmetrics.daemon.journal.ownership import Ownership, hostname, leftovers, new_path
from mlflow_sysmetrics.daemon.journal.scan import (
    JournaledRun,
    JournalState,
    RunState,
    read,
    read_state,
)
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.runtime.native import Lock

# A place in the journal is a byte offset plus a generation number, which changes with each swap that moves
# the offsets. The generation is counted in units of a terabyte, more than any journal has.
_GENERATION = 1 << 40
_FULL = 7 / 8  # of the bound: compaction starts here, so that there is room while it runs
_COMPACTED = 3 / 4  # of the bound: thinning stops here
_REST_SECONDS = (
    60.0  # after a compaction that freed too little: the next would read everything again for nothing
)
_NO_BOUND = 1 << 62


class Journal:
    """Holds points on disk until their server has them.

    The lock is held over one small write or a swap, and only the sampler and the senders take it: no thread
    of the program ever waits for a disk. `register` takes no lock.

    Attributes:
        path: the file.
        generation: how often its contents have been moved.
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
        self._header = (found and found.header) or Header(
            hostname(), os.getpid(), time.time_ns() // 1_000_000
        )
        self._claimed = self._header_written = found is not None
        self._runs: dict[int, RunState] = found.runs if found else {}
        self._numbers = itertools.count(max(self._runs, default=-1) + 1)
        self._monotonic = file.monotonic
        self._rests_until = 0.0
        self._losses = file.losses
        self._cleared_size = -1
        self._closed = False

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
            except OSError:
                ownership.release(delete=True)
                raise
        except OSError as error:
            raise JournalUnavailable(f"{directory}: {error.strerror or error}") from error
        journal = cls(file, ownership, max_bytes)
        with journal._lock:
            journal._append(b"")
        return journal

    @classmethod
    def open(cls, path: Path, ownership: Ownership) -> Journal:
        """Opens a journal whose owner died. Callers use `spool.claim`.

        Raises:
            OSError: it cannot be read or written.
        """
        file = LineFile(path)
        file.open()  # before reading, so that later writes of others are noticed
        try:
            found = read_state(path)
        except OSError:
            file.close()
            raise
        return cls(file, ownership, _NO_BOUND, found)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._file.size

    @property
    def failed(self) -> str | None:
        """Why the disk is not in use, None if it is. A failed disk is tried again after a minute."""
        return self._ownership.lost or self._file.failed

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

        Args:
            run_id: the run.
            tracking_uri: its tracking server, absolute and without user, password and query.
            started_at: milliseconds since 1970 when the run started, if known.
            cgroup: directory of this process's own memory control group.
            oom_kills: that group's count of out-of-memory kills so far.
        """
        number = next(self._numbers)
        self._runs[number] = RunState(RunLine(number, run_id, tracking_uri, started_at, cgroup, oom_kills))
        return number

    def append(
        self, run: int, index: int, timestamp: int, values: Mapping[str, float], step: int | None = None
    ) -> int | None:
        """Appends one point per key, with indices from `index` on; a step of None is derived from the time.

        Returns:
            Where to read them from; None if they could not be written or there is no room. They are then in
            memory only.
        """
        text = dump_points(run, index, timestamp, values, step)
        with self._lock:
            known = self._runs.get(run)
            if known is None or self._file.size + len(text) > self._max_bytes:
                return None
            begin = self._append(text, known)
            if begin is None:
                return None
            known.appended = index + len(values)
            known.last_timestamp = timestamp
            return self.generation * _GENERATION + begin

    def acknowledge(self, run: int, acknowledged: int) -> None:
        """Records that all points of a run below an index were delivered or given up."""
        with self._lock:
            known = self._runs.get(run)
            if known is not None and acknowledged > known.acknowledged:
                known.acknowledged = acknowledged
                if known.written:
                    self._append(dump(AcknowledgedLine(run, acknowledged)))

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

        Returns:
            Whether nothing waits. A claimed journal that has grown since may have waiting points: its owner
            is alive.
        """
        with self._lock:
            runs = list(self._runs.values())
            if any(run.acknowledged < run.appended for run in runs) or self._is_still_written:
                return False
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
        if not self._compacting.acquire(blocking=False):
            return {}
        try:
            return self._compact()
        finally:
            self._compacting.release()

    def read(self, run: int, since: int, from_offset: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Reads back points that are on disk only.

        Args:
            run: number of the run.
            since: index of the first point wanted.
            from_offset: a place at or before that point, from `append` or the last `read`; 0 is the
                beginning, and so is a place from before a swap.
            most: maximum number of points; only whole lines are returned, and at least one.

        Returns:
            (index, point) pairs in order, and the place to continue from. Thinned points leave gaps.

        Raises:
            OSError: the file cannot be read.
        """
        while True:
            with self._lock:
                source = self._file.reader()
                self._notice_losses()
                generation, size = self.generation, self._file.size
            offset = from_offset % _GENERATION if from_offset // _GENERATION == generation else 0
            with source:
                found, end = read(source, run, since=since, offset=offset, end=size, most=most)
            with self._lock:
                if generation == self.generation:
                    return found, generation * _GENERATION + end

    def forget_after_fork(self) -> None:
        """Closes the descriptors in a forked child; the file and the lock belong to the parent."""
        self._closed = True
        self._lock = Lock()
        self._file.close()
        self._ownership.forget_after_fork()

    def close(self, *, delete: bool) -> None:
        """Closes the journal and releases its lock.

        Args:
            delete: deletes it, unless it was claimed and has grown since; otherwise the next process takes it
                over.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            delete = delete and not self._is_still_written
            self._file.close()
            if delete:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
                    self._remove_leftovers()
            self._ownership.release(delete=delete)

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

    def _remove_leftovers(self) -> None:
        for path in leftovers(self.path):
            path.unlink(missing_ok=True)

    def _compact(self) -> dict[int, int]:
        from mlflow_sysmetrics.daemon.journal import compaction  # most processes never need it

        swapped = False
        dropped: dict[int, int] = {}
        with contextlib.suppress(OSError):
            with self._lock:
                if self._closed or (not self._header_written and self._append(b"") is None):
                    return {}
                source = self._file.reader()
                generation, end = self.generation, self._file.size
                kept = [run for run in self._runs.values() if run.written and not run.is_over]
                head = dump(self._header) + b"".join(run.introduction() for run in kept)
                acknowledged = {run.line.run: run.acknowledged for run in kept}
            with source:
                most = int(self._max_bytes * _COMPACTED)
                smaller, dropped = compaction.rewrite(
                    source, end, head=head, acknowledged=acknowledged, most=most, journal=self.path
                )
            swapped = self._swap(smaller, generation, end, dropped)
        if not swapped:
            with contextlib.suppress(OSError):
                self._remove_leftovers()
        if self._file.size > self._max_bytes * _FULL:
            self._rests_until = self._monotonic() + _REST_SECONDS
        return dropped if swapped else {}

    def _swap(self, smaller: Path, generation: int, end: int, dropped: Mapping[int, int]) -> bool:
        """Puts the smaller journal in place, with what was appended meanwhile; returns whether it could.

        Raises:
            OSError: it could not be written to disk.
        """
        with self._lock:
            if self._closed or self.generation != generation:
                return False
            with self._file.reader() as source:
                copy_lines(source, end, self._file.size, smaller)
            if not self._file.replace_by(smaller):
                return False
            self.generation += 1
            for number, count in dropped.items():
                self._runs[number].dropped += count  # the smaller journal contains this count too
            for run in list(self._runs.values()):
                if run.written and run.is_over:
                    del self._runs[run.line.run]
            return True
