"""The journal of one process: points on disk until their server has them.

JSON Lines, one file per process, appended by the sampler before the points go to memory, acknowledged by the
senders. See `journal_lines` for the lines and `spool` for the directory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal import compaction
from mlflow_sysmetrics.daemon.journal.file import LineFile
from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    DroppedLine,
    EndLine,
    Header,
    RunLine,
    dump,
    dump_points,
)
from mlflow_sysmetrics.daemon.journal.ownership import Ownership, hostname, new_path
from mlflow_sysmetrics.daemon.journal.scan import (
    JournaledRun,
    JournalState,
    RunState,
    read,
    read_state,
)
from mlflow_sysmetrics.errors import JournalUnavailable

# A place in the journal is a byte offset, with the number of the swap that moved all offsets above it. The
# number stands above a terabyte, which no journal has.
_GENERATION = 1 << 40
_FULL = 7 / 8  # of the bound: compacting starts here, so that there is room while it goes on
_COMPACTED = 3 / 4  # of the bound: thinning stops here
_REST_SECONDS = 60.0  # after a compaction in vain: the next one would read it all again for nothing
_NO_BOUND = 1 << 62


class Journal:
    """Holds points on disk until their server has them.

    Its lock is held over one small write or a swap, and only the sampler and the senders take it: no thread
    of the user's ever waits for a disk. `register` takes no lock.

    Attributes:
        path: where it lies.
        generation: how often what it holds has been moved.
    """

    def __init__(
        self, file: LineFile, ownership: Ownership, max_bytes: int, found: JournalState | None = None
    ) -> None:
        self.path = file.path
        self.generation = 0
        self._file = file
        self._ownership = ownership
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._compacting = threading.Lock()
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
        """Makes the journal of this process.

        Args:
            directory: made if it does not exist, for this user's eyes only.
            max_bytes: bound of its size.
            monotonic: tells when a disk that failed is tried again.
            write: the system call.

        Raises:
            JournalUnavailable: it cannot be made there.
        """
        path = new_path(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            ownership = Ownership.acquire(path)
            if ownership is None:
                raise JournalUnavailable(f"somebody else holds the lock of {path}")
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
        """Goes on with a journal whose owner died. Use `spool.claim`.

        Raises:
            OSError: it cannot be read or written.
        """
        file = LineFile(path)
        file.open()  # first, so that whatever is written from here on is noticed
        try:
            found = read_state(path)
        except OSError:
            file.close()
            raise
        return cls(file, ownership, _NO_BOUND, found)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._file.size

    @property
    def failed(self) -> str | None:
        """Why the disk is not used any more; None while it is. It is tried again after a minute."""
        return self._ownership.lost or self._file.failed

    @property
    def is_full(self) -> bool:
        """Whether it is to be compacted, by the thread of a sender."""
        return self._file.size > self._max_bytes * _FULL and self._monotonic() >= self._rests_until

    @property
    def runs(self) -> list[JournaledRun]:
        """What it knows of its runs, in the order in which they were attached."""
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
        """Returns a number for a run. Never waits; the disk hears of it with the run's first point.

        Args:
            run_id: the run.
            tracking_uri: its tracking server, absolute and without user, password and query.
            started_at: milliseconds since 1970 when the run started, if known.
            cgroup: directory of this process's own memory control group.
            oom_kills: what that group has counted so far.
        """
        number = next(self._numbers)
        self._runs[number] = RunState(RunLine(number, run_id, tracking_uri, started_at, cgroup, oom_kills))
        return number

    def append(
        self, run: int, index: int, timestamp: int, values: Mapping[str, float], step: int | None = None
    ) -> int | None:
        """Appends one point per key, with the indices from `index` on; a step of None is by their time.

        Returns:
            A place to read them from; None where the disk did not take them or there is no room: then they
            are in memory only.
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
        """Says that all points of a run below an index are delivered or given up."""
        with self._lock:
            known = self._runs.get(run)
            if known is not None and acknowledged > known.acknowledged:
                known.acknowledged = acknowledged
                if known.written:
                    self._append(dump(AcknowledgedLine(run, acknowledged)))

    def end(self, run: int) -> None:
        """Says that a run was detached: no more of its points will come."""
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
        """Empties the file, but for the runs that are still attached, if nothing in it waits.

        Returns:
            Whether nothing waits. In one that was claimed and grew meanwhile something may: its owner lives.
        """
        with self._lock:
            runs = list(self._runs.values())
            if any(run.acknowledged < run.appended for run in runs) or self._is_still_written:
                return False
            if self._file.size == self._cleared_size or self._closed or not self._file.truncate():
                return True
            self.generation += 1
            self._header_written = False
            # Those that have no point yet are not known to the file, and stay so.
            attached = [run for run in runs if not run.ended and (run.written or run.appended)]
            for run in runs:
                run.written = False
                if run.ended:
                    del self._runs[run.line.run]
            self._append(b"", *attached)
            self._cleared_size = self._file.size
            return True

    def compact(self) -> dict[int, int]:
        """Makes room: leaves out what is settled and, where that is not enough, thins the oldest points.

        Takes seconds where there is much to read, all but the swap without the lock; one thread at a time.

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
        """Reads points back that are on disk only.

        Args:
            run: number of the run.
            since: index of the first point that is wanted.
            from_offset: a place at or before it, from `append` or from the last `read`; 0 is the beginning.
                One from before a swap counts as the beginning.
            most: how many points at most, but always whole lines, and at least one.

        Returns:
            Index and point, in order, and the place to go on from. Where points were thinned there are gaps.

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
                found, end = read(source, run, since, offset, size, most)
            with self._lock:
                if generation == self.generation:
                    return found, generation * _GENERATION + end

    def forget_after_fork(self) -> None:
        """Closes the descriptors of a forked child; what they belong to stays its parent's."""
        self._closed = True
        self._lock = threading.Lock()
        self._file.close()
        self._ownership.forget_after_fork()

    def close(self, *, delete: bool) -> None:
        """Lets go of the journal.

        Args:
            delete: deletes it, unless it was claimed and grew meanwhile; else the next process takes it over.
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
                    compaction.remove_leftovers(self.path)
            self._ownership.release(delete=delete)

    @property
    def _is_still_written(self) -> bool:
        return self._claimed and self._file.has_gained()

    def _append(self, text: bytes, *runs: RunState) -> int | None:
        """Appends a line, after whatever the file does not say yet of itself and of these runs."""
        if self._closed or not self._ownership.check(self._monotonic()) or not self._file.ready():
            return None
        self._notice_losses()
        if not self._header_written:  # an empty file, or one that somebody has cut off: it knows nobody
            runs += tuple(run for run in list(self._runs.values()) if run.appended and not _is_over(run))
        due = list({run.line.run: run for run in runs if not run.written}.values())
        head = b"" if self._header_written else dump(self._header)
        begin = self._file.append(head + b"".join(_introduction(run) for run in due) + text)
        if begin is not None:
            self._header_written = True
            for run in due:
                run.written = True
        return begin

    def _notice_losses(self) -> None:
        """Has everything said again in a file that somebody has cut off or replaced."""
        if self._file.losses != self._losses:
            self._losses = self._file.losses
            self.generation += 1
            self._header_written = False
            for run in list(self._runs.values()):
                run.written = False

    def _compact(self) -> dict[int, int]:
        swapped = False
        dropped: dict[int, int] = {}
        with contextlib.suppress(OSError):
            with self._lock:
                if self._closed or (not self._header_written and self._append(b"") is None):
                    return {}
                source = self._file.reader()
                generation, end = self.generation, self._file.size
                kept = [run for run in self._runs.values() if run.written and not _is_over(run)]
                head = dump(self._header) + b"".join(_introduction(run) for run in kept)
                acknowledged = {run.line.run: run.acknowledged for run in kept}
            with source:
                most = int(self._max_bytes * _COMPACTED)
                smaller, dropped = compaction.rewrite(source, end, head, acknowledged, most, self.path)
            swapped = self._swap(smaller, generation, end, dropped)
        if not swapped:
            with contextlib.suppress(OSError):
                compaction.remove_leftovers(self.path)
        if self._file.size > self._max_bytes * _FULL:
            self._rests_until = self._monotonic() + _REST_SECONDS
        return dropped if swapped else {}

    def _swap(self, smaller: Path, generation: int, end: int, dropped: Mapping[int, int]) -> bool:
        """Puts the smaller journal in place, with what was appended meanwhile; returns whether it could.

        Raises:
            OSError: the disk did not take it.
        """
        with self._lock:
            if self._closed or self.generation != generation:
                return False
            with self._file.reader() as source:
                compaction.copy_tail(source, end, self._file.size, smaller)
            if not self._file.replace_by(smaller):
                return False
            self.generation += 1
            for number, count in dropped.items():
                self._runs[number].dropped += count  # the smaller journal says so too
            for run in list(self._runs.values()):
                if run.written and _is_over(run):
                    del self._runs[run.line.run]
            return True


def _introduction(run: RunState) -> bytes:
    """Returns all that a file must say of a run before its points."""
    number = run.line.run
    text = dump(run.line)
    if run.acknowledged:
        text += dump(AcknowledgedLine(number, run.acknowledged))
    if run.dropped:
        text += dump(DroppedLine(number, run.dropped))
    if run.ended:
        text += dump(EndLine(number))
    return text


def _is_over(run: RunState) -> bool:
    return run.ended and run.acknowledged >= run.appended
