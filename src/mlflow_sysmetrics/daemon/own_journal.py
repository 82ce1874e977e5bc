"""The journal of this process, as the daemon uses it: made late, missing at worst, never in anybody's way.

The sampler appends and ends, the senders do the rest. No other thread comes here but for counting.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow_sysmetrics.clock import Clock
from mlflow_sysmetrics.daemon.journal import Journal
from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.errors import JournalUnavailable

_RETRY_SECONDS = 60.0  # a directory may be mounted later, a disk may be cleaned up
_OFF = "switched off"

_logger = logging.getLogger("mlflow_sysmetrics")


class OwnJournal:
    """Holds the journal of this process, or the reason why there is none.

    Args:
        create: makes it; called by the sampler at the first point, again a minute after each failure. None
            where points are to be kept in memory only.
        clock: tells the time.
        footprint: returns directory and count of memory kills of the own control group, for who asks later
            what became of a run; called once, by the sampler.
    """

    def __init__(
        self,
        create: Callable[[], Journal] | None,
        clock: Clock,
        footprint: Callable[[], tuple[str | None, int | None]] = lambda: (None, None),
    ) -> None:
        self._create = create
        self._clock = clock
        self._find_footprint = footprint
        self._footprint: tuple[str | None, int | None] = (None, None)
        self._journal: Journal | None = None
        self._unavailable = _OFF if create is None else None
        self._retry_at = -math.inf
        self._told: str | None = _OFF if create is None else None
        self._cleared_size = -1
        self._leaving = False
        self.left = threading.Event()  #: set when the journal has been deleted, after `leave`

    @property
    def path(self) -> Path | None:
        """Where it lies; None where there is none."""
        return None if self._journal is None else self._journal.path

    @property
    def size(self) -> int:
        """Its bytes."""
        return 0 if self._journal is None else self._journal.size

    @property
    def failed(self) -> str | None:
        """Why points are in memory only; None while they are on disk, or before the first."""
        return self._unavailable if self._journal is None else self._journal.failed

    @property
    def is_full(self) -> bool:
        """Whether a sender is to make room."""
        return self._journal is not None and self._journal.is_full

    def available(self) -> Journal | None:
        """Returns the journal, made now where there was none. For the sampler."""
        if self._journal is not None or self._create is None or self._clock.monotonic() < self._retry_at:
            return self._journal
        try:
            self._footprint = self._find_footprint()
            self._journal = self._create()
        except (JournalUnavailable, OSError) as reason:
            self._unavailable = str(reason)
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
        return self._journal

    def register(self, journal: Journal, run_id: str, tracking_uri: str, started_at: int | None) -> int:
        """Returns the number of a run in the journal."""
        cgroup, oom_kills = self._footprint
        return journal.register(run_id, tracking_uri, started_at, cgroup=cgroup, oom_kills=oom_kills)

    def tidy(self, *, idle: bool) -> None:
        """Empties the journal if nothing waits, or makes room in a full one. For the senders.

        Args:
            idle: whether nothing waits, as far as the caller knows.
        """
        journal = self._journal
        if journal is None:
            return
        try:
            # One that has just been emptied has grown by nothing.
            if idle and journal.size != self._cleared_size and journal.clear():
                self._cleared_size = journal.size
            if journal.is_full:
                journal.compact()
            if self._leaving and idle and journal.clear():
                journal.close(delete=True)
                self.left.set()
        except OSError as error:
            _logger.debug("The journal %s could not be tidied: %s.", journal.path, error)

    def leave(self) -> bool:
        """Has the next sender that is done delete the journal; returns whether there is one. At the end."""
        self._leaving = True
        return self._journal is not None

    def tell(self) -> None:
        """Logs a change of its health, once. For the senders, since a log handler may block."""
        failed = self.failed
        if failed in {self._told, _OFF}:
            return
        self._told, before = failed, self._told
        if failed is None:
            _logger.info("mlflow-sysmetrics: System metrics are journalled again, in %s.", self.path)
        elif before is None:
            _logger.warning(
                "mlflow-sysmetrics: System metrics are kept in memory only, and not on disk: %s.",
                failed,
            )

    def forget_after_fork(self) -> None:
        """Closes a forked child's descriptors; the journal stays its parent's."""
        journal, self._journal, self._create = self._journal, None, None
        if journal is not None:
            journal.forget_after_fork()


class OwnRun:
    """One run of this process in its journal. It gets a number there with its first point.

    Args:
        journal: of this process.
        run_id: the run.
        tracking_uri: its server, without secrets.
        started_at: milliseconds since 1970 when it started, if known.
    """

    def __init__(self, journal: OwnJournal, run_id: str, tracking_uri: str, started_at: int | None) -> None:
        self._own = journal
        self._description = (run_id, tracking_uri, started_at)
        self._run: RunBacking | None = None

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Puts points of one moment on disk; returns the place to read them from, None where it cannot."""
        if self._run is None:
            journal = self._own.available()
            if journal is None:
                return None
            self._run = RunBacking(journal, self._own.register(journal, *self._description))
        return self._run.append(index, points)

    def acknowledge(self, settled: int) -> None:
        """Says that all points below an index are delivered or given up."""
        if self._run is not None:
            self._run.acknowledge(settled)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns points from an index on, with their indices, and the place to go on from."""
        return ([], place) if self._run is None else self._run.read(since, place, most)

    def end(self) -> None:
        """Says that no more points will come."""
        if self._run is not None:
            self._run.end()


class RunBacking:
    """One run in a journal.

    Args:
        journal: of this process, or of one that died.
        number: of the run there.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self._journal = journal
        self._number = number

    def append(self, index: int, points: Sequence[Point]) -> int | None:
        """Puts points of one moment on disk; returns the place to read them from, None where it cannot."""
        values = {point.key: point.value for point in points}
        return self._journal.append(self._number, index, points[0].timestamp, values)

    def acknowledge(self, settled: int) -> None:
        """Says that all points below an index are delivered or given up."""
        self._journal.acknowledge(self._number, settled)

    def read(self, since: int, place: int, most: int) -> tuple[list[tuple[int, Point]], int]:
        """Returns points from an index on, with their indices, and the place to go on from.

        Raises:
            OSError: the disk does not answer.
        """
        return self._journal.read(self._number, since, place, most)

    def end(self) -> None:
        """Says that no more points will come."""
        self._journal.end(self._number)
