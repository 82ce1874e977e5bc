"""The journal of this process, as the daemon uses it: made late, missing at worst, never in anybody's way.

The sampler appends and ends, the senders do the rest. All of it is done by a thread of the journal's own; the
sampler waits for it, a moment at most, and the senders do not. No other thread comes here but for counting.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path

from mlflow_sysmetrics.collectors.fields import number_after
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.errors import JournalUnavailable, Unavailable
from mlflow_sysmetrics.machine.cgroups import V1, controller_directory
from mlflow_sysmetrics.machine.host import Host, read_short
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.threads import start_thread

# FOLDED footprint: What a journal says of the process for later: whether the kernel has killed it for memory.

_COUNTS = {V1: "memory.oom_control"}  # https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_COUNTS_V2 = "memory.events"


def oom_evidence(host: Host) -> tuple[str | None, int | None]:
    """Returns the directory of the own memory control group and how many kills it has counted so far.

    A kill counts in the group of the killed process, whoever looks: so the count after the death, minus this
    one, tells what a process cannot tell of itself.
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


COMPACTION_THREAD_NAME = "sysmetrics-compaction"

_RETRY_SECONDS = 60.0  # a directory may be mounted later, a disk may be cleaned up
_OFF = "switched off"
# A disk that was busy for a moment is nobody's concern: until then points wait in memory without a word.
_SILENCE_SECONDS = 5.0

_logger = logging.getLogger("mlflow_sysmetrics")


class ProcessJournal:
    """Holds the journal of this process, or the reason why there is none.

    Args:
        create: makes it; called at the first point, again a minute after each failure. None where points
            are to be kept in memory only.
        clock: tells the time.
        footprint: returns directory and count of memory kills of the own control group, for who asks later
            what became of a run; called once.
        thread: does what may wait for a disk; by default whoever calls does.
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
        self._find_oom_evidence = oom_evidence
        self._thread = thread or JournalThread(clock, threaded=False)
        self._compaction: threading.Thread | None = None
        self._oom_evidence: tuple[str | None, int | None] = (None, None)
        self._journal: Journal | None = None
        self._unavailable = _OFF if create is None else None
        self._retry_at = -math.inf
        self._told: str | None = _OFF if create is None else None
        self._cleared_size = -1
        self._deleting = False
        self.deleted = threading.Event()  #: set when the journal has been deleted, after `leave`

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
        return self.disk_delay or (self._unavailable if self._journal is None else self._journal.failed)

    @property
    def disk_delay(self) -> str | None:
        """For how long the disk has not answered, or not in time; None where that is not worth a word."""
        seconds = self._thread.silent_seconds
        if seconds >= _SILENCE_SECONDS:
            return f"the disk has not answered for {seconds:.0f} s"
        seconds = self._thread.slow_seconds
        return f"the disk has been too slow for {seconds:.0f} s" if seconds >= _SILENCE_SECONDS else None

    @property
    def is_full(self) -> bool:
        """Whether a sender is to make room."""
        return self._journal is not None and self._journal.is_full

    @property
    def accepts_points(self) -> bool:
        """Whether it is worth asking for a place for points. For the sampler."""
        if self._journal is None and (self._create is None or self._clock.monotonic() < self._retry_at):
            return False
        return self._thread.accepts_requests

    def call(self, job: Callable[[], int | None]) -> int | None:
        """Has something appended and waits for it, a second at most; returns None where it took longer.

        For the sampler. What took longer is on disk later, which nobody needs to know.
        """
        return self._thread.call(job)

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Has something done in the journal after all that was asked for before, without waiting."""
        self._thread.submit(key, job)

    def check_disk(self) -> None:
        """Raises an OSError where the disk is known not to answer, so that nobody else waits for it."""
        if self._thread.is_stuck:
            raise OSError(None, f"the disk has not answered for {self._thread.silent_seconds:.0f} s")

    def available(self) -> Journal | None:
        """Returns the journal, made now where there was none. May wait for a disk."""
        if self._journal is not None or self._create is None or self._clock.monotonic() < self._retry_at:
            return self._journal
        try:
            self._oom_evidence = self._find_oom_evidence()
            self._journal = self._create()
        except (JournalUnavailable, OSError) as reason:
            self._unavailable = str(reason)
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
        return self._journal

    def register(self, journal: Journal, run_id: str, tracking_uri: str, started_at: int | None) -> int:
        """Returns the number of a run in the journal."""
        cgroup, oom_kills = self._oom_evidence
        return journal.register(run_id, tracking_uri, started_at, cgroup=cgroup, oom_kills=oom_kills)

    def tidy(self, *, idle: bool) -> None:
        """Has the journal emptied if nothing waits, or room made in a full one. For the senders.

        Args:
            idle: whether nothing waits, as far as the caller knows.
        """
        journal = self._journal
        if journal is None:
            return
        # One that has just been emptied has grown by nothing.
        if idle and (self._deleting or journal.size != self._cleared_size):
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
        """Has a full journal compacted: beside its thread, since it takes seconds and points go on coming."""
        if not self._thread.is_threaded:
            journal.compact()
        elif self._compaction is None or not self._compaction.is_alive():
            with contextlib.suppress(RuntimeError):  # a limit of the system, or the interpreter shuts down
                self._compaction = start_thread(lambda: _compact(journal), COMPACTION_THREAD_NAME)

    def delete_when_empty(self) -> bool:
        """Has the next sender that is done delete the journal; returns whether there is one. At the end."""
        self._deleting = True
        return self._journal is not None

    def log_health(self) -> None:
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


def _compact(journal: Journal) -> None:
    with contextlib.suppress(OSError):  # it tells by itself
        journal.compact()
