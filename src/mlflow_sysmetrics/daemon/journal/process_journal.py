"""The journal of this process as the daemon uses it: created late, and optional.

The sampler appends points and ends runs, the senders do the rest. All disk access happens in the journal's
thread; the sampler waits for it, briefly, the senders do not. Other threads only read counts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Protocol

from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.ownership import exposure
from mlflow_sysmetrics.daemon.journal.thread import JournalThread, Result, why
from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.cgroups import V1, controller_directory
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.runtime.threads import Thread, start_thread
from mlflow_sysmetrics.settings import SPOOL_DIR

COMPACTION_THREAD_NAME = "sysmetrics-compaction"

_RETRY_SECONDS = 60.0  # a directory may be mounted later, a disk may be cleaned up
_OFF = "switched off"
_REMEDY = f"set {SPOOL_DIR} to a new directory below it, which will be of this user only"
# About ten minutes of one run's points; reading them all takes a millisecond.
_GROWN_BYTES = 64 * 1024
# A short pause of the disk is not worth a message: points wait in memory until it is over.
_SILENCE_SECONDS = 5.0

_COUNTS = {V1: "memory.oom_control"}  # https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_COUNTS_V2 = "memory.events"

_logger = Log()


class ProcessRun(Protocol):
    """A run in this journal."""

    @property
    def number(self) -> int | None:
        """Its number; None before its first points."""


class ProcessJournal:
    """The journal of this process, or the reason why there is none.

    Args:
        create: creates it; called at the first point, and again a minute after each failure. None keeps
            points in memory only.
        clock: the time source.
        oom_evidence: returns directory and out-of-memory kills of the own control group, from which `reap`
            later determines how a run ended; called once.
        thread: runs what may wait for a disk; by default the caller does.

    Attributes:
        deleted: set when the journal has been deleted, after `delete_when_empty`.
    """

    def __init__(
        self,
        create: Callable[[], Journal] | None,
        clock: Clock,
        oom_evidence: Callable[[], tuple[str | None, int | None]] = lambda: (None, None),
        thread: JournalThread | None = None,
    ) -> None:
        self._create = create
        self._clock = clock
        self._read_oom_evidence = oom_evidence
        self._thread = thread or JournalThread(clock, threaded=False)
        self._compaction: Thread | None = None
        self._oom_evidence: tuple[str | None, int | None] = (None, None)
        self._journal: Journal | None = None
        self._unavailable = _OFF if create is None else None
        self._retry_at = -math.inf
        self._logged: str | None = _OFF if create is None else None
        self._exposed: str | None = None
        self._cleared_size = -1
        self._deleting = False
        self._settled: dict[ProcessRun, int] = {}
        self.deleted = Event()

    @property
    def path(self) -> Path | None:
        """The file; None if there is none."""
        return None if self._journal is None else self._journal.path

    @property
    def loops(self) -> list[Loop]:
        """The thread that writes, if it was started."""
        return [] if self._thread.loop is None else [self._thread.loop]

    @property
    def size(self) -> int:
        """Size in bytes; 0 if there is no file."""
        return 0 if self._journal is None else self._journal.size

    @property
    def failed(self) -> str | None:
        """Why points are in memory only; None if they are on disk, or before the first point."""
        if self._journal is None:
            return self.disk_delay or self._unavailable or self._thread.failed
        return self.disk_delay or self._journal.failed or self._thread.failed

    @property
    def disk_delay(self) -> str | None:
        """For how long the disk has not answered, or not in time; None if that is not worth a message."""
        seconds = self._thread.silent_seconds
        if seconds >= _SILENCE_SECONDS:
            return f"the disk has not answered for {seconds:.0f} s"
        seconds = self._thread.slow_seconds
        return f"the disk has been too slow for {seconds:.0f} s" if seconds >= _SILENCE_SECONDS else None

    @property
    def is_full(self) -> bool:
        """Whether a sender should make room."""
        return self._journal is not None and self._journal.is_full

    @property
    def accepts_points(self) -> bool:
        """Whether appending is worth a try. Called by the sampler."""
        if self._journal is None and (self._create is None or self._clock.monotonic() < self._retry_at):
            return False
        return self._thread.accepts_requests

    def call(self, job: Callable[[], Result | None]) -> Result | None:
        """Runs a job that appends, and waits for it at most a second; returns None if it takes longer.

        Called by the sampler. A job that takes longer is finished later.
        """
        return self._thread.call(job)

    def submit(self, key: Hashable, job: Callable[[], None], *, wake: bool = True) -> None:
        """Queues a job to run after all earlier ones; does not wait. See `JournalThread.submit`."""
        self._thread.submit(key, job, wake=wake)

    def settle(self, run: ProcessRun, acknowledged: int) -> None:
        """Records, with the next job, that the points of a run below an index were delivered or given up."""
        self._settled[run] = acknowledged
        self._thread.submit("settled", self._write_settled, wake=False)

    def _write_settled(self) -> None:
        """Writes all of them at once: a thousand runs are delivered a hundred times a second."""
        found: dict[int, int] = {}
        while self._settled:
            run, acknowledged = self._settled.popitem()  # others add to it meanwhile
            if run.number is not None:
                found[run.number] = acknowledged
        if self._journal is not None:
            self._journal.acknowledge_all(found)

    def wake(self) -> None:
        """Has the queued jobs run now: a sender has nothing more to send for the moment."""
        self._thread.wake()

    def check_disk(self) -> None:
        """Raises an OSError if the disk is known not to answer, so that the caller does not wait for it."""
        if self._thread.is_stuck:
            raise OSError(None, f"the disk has not answered for {self._thread.silent_seconds:.0f} s")

    def available(self) -> Journal | None:
        """Returns the journal, created now if necessary; None if it cannot be. May wait for a disk."""
        if self._journal is not None or self._create is None or self._clock.monotonic() < self._retry_at:
            return self._journal
        try:
            self._journal = self._create()
        # Libraries find the directory and take the lock, and memory may be short. Whatever it is, it is said.
        except Exception as error:  # noqa: BLE001
            self._unavailable = str(error) if isinstance(error, OSError) else why(error)
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
            return None
        with contextlib.suppress(Exception):  # points are worth saving without it
            self._oom_evidence = self._read_oom_evidence()
        self._exposed = exposure(self._journal.path.parent, ignore_group=True)
        return self._journal

    def register(self, journal: Journal, run_id: str, tracking_uri: str, started_at: int | None) -> int:
        """Returns a number for a run in the journal."""
        cgroup, oom_kills = self._oom_evidence
        return journal.register(run_id, tracking_uri, started_at, cgroup=cgroup, oom_kills=oom_kills)

    def tidy(self, *, idle: bool, prompt: bool = True) -> None:
        """Empties the journal if nothing waits, or compacts it if it is full. Called by the senders.

        Args:
            idle: whether nothing waits, as far as the caller knows.
            prompt: empties it now. Otherwise only once it has grown, since more points are to come.
        """
        journal = self._journal
        if journal is None:
            return
        # A journal that was just emptied has not grown since.
        grown = abs(journal.size - self._cleared_size)
        if idle and (self._deleting or grown > (0 if prompt else _GROWN_BYTES)):
            self._thread.submit("empty", partial(self._empty, journal))
        elif journal.is_full:
            self._make_room(journal)

    def _empty(self, journal: Journal) -> None:
        if journal.clear():
            self._cleared_size = journal.size
            if self._deleting:
                journal.close(delete=True)
                self.deleted.set()
        elif journal.is_full:
            self._make_room(journal)

    def _make_room(self, journal: Journal) -> None:
        """Compacts a full journal in another thread, since that takes seconds and points keep coming."""
        if not self._thread.is_threaded:
            journal.compact()
        elif self._compaction is None or not self._compaction.is_alive():
            # No thread can start at a limit of the system, or when the interpreter is shutting down.
            with contextlib.suppress(ThreadUnavailable):
                self._compaction = start_thread(lambda: _compact(journal), COMPACTION_THREAD_NAME)

    def delete_when_empty(self) -> bool:
        """Lets a sender delete the journal once it is empty; returns whether there is a journal."""
        self._deleting = True
        return self._journal is not None

    def log_health(self) -> None:
        """Logs a change of its health, once. Called by the senders, since a log handler may block."""
        exposed, self._exposed = self._exposed, None
        if exposed is not None:
            _logger.warning("mlflow-sysmetrics: Other users can replace journals: %s; %s.", exposed, _REMEDY)
        failed = self.failed
        if failed in {self._logged, _OFF}:
            return
        self._logged, before = failed, self._logged
        if failed is None:
            _logger.info("mlflow-sysmetrics: System metrics are journalled again in %s.", self.path)
        elif before is None:
            _logger.warning(
                "mlflow-sysmetrics: System metrics are kept in memory only, not on disk: %s.",
                failed,
            )

    def forget_after_fork(self) -> None:
        """Closes the descriptors in a forked child; the journal belongs to the parent."""
        journal, self._journal, self._create = self._journal, None, None
        if journal is not None:
            journal.forget_after_fork()


def oom_evidence(host: Host) -> tuple[str | None, int | None]:
    """Returns the directory of the own memory control group and its count of out-of-memory kills so far.

    The kernel counts a kill in the group of the killed process. The count after a death minus this one tells
    what the dead process cannot: whether it ran out of memory.
    """
    try:
        group = controller_directory(host, "memory")
    except Unavailable:
        return None, None
    directory = host.root / group.own
    try:
        text = read_short(str(directory / _COUNTS.get(group.version, _COUNTS_V2)))
    except OSError:
        return str(directory), None
    return str(directory), number_after(b"oom_kill ", text)


def _compact(journal: Journal) -> None:
    try:
        with contextlib.suppress(OSError):  # the journal records the failure
            journal.compact()
    except Exception as error:  # noqa: BLE001 - this thread only compacts; a full journal is tried again
        _logger.warning("mlflow-sysmetrics: The journal stays full: %s: %s.", type(error).__name__, error)
