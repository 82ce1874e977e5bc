"""A journal whose owner died: what it owes, to whom, and what becomes of it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.run_journal import FileRunJournal
from mlflow_sysmetrics.daemon.journal.scan import JournaledRun
from mlflow_sysmetrics.mlflow_api.tracking_uris import with_secrets

_SEND_INTERVAL_SECONDS = 10.0  # only after a failure: a backlog goes out batch by batch
# A server that is away, or is not the one it was, is put right within a month; a run that still says RUNNING
# after that is nobody's any more.
_KEPT_SECONDS = 30 * 86400

_MANY_FAILURES = 3  # by then, some ten seconds, a server has had its chance to be only busy

_logger = logging.getLogger("mlflow_sysmetrics")


class Orphan:
    """Gives out what a journal owes as queues that read from it and acknowledge in it.

    At most one batch of it is in memory at a time, and only while that is sent.

    Args:
        journal: claimed.
        progress: told how many points more are settled, by the thread of a sender.
    """

    def __init__(self, journal: Journal, progress: Callable[[int], None]) -> None:
        self.journal = journal
        self._progress = progress
        self._queues: dict[RunQueue, str] = {}
        self._written_at = _modified(journal.path)
        for run in journal.runs:
            if run.acknowledged < run.appended:
                self._queues[self._queue(run)] = run.tracking_uri

    @property
    def servers(self) -> set[str]:
        """Tracking URIs of what it owes, without secrets."""
        return set(self._queues.values())

    @property
    def kept_until(self) -> float:
        """Seconds since 1970 from which on it is not kept any more, a month after it was written last."""
        return self._written_at + _KEPT_SECONDS

    @property
    def expired(self) -> bool:
        """Whether it has been kept long enough."""
        return time.time() >= self.kept_until

    @property
    def acknowledged(self) -> bool:
        """Whether nothing waits."""
        return all(queue.empty for queue in self._queues)

    @property
    def set_aside(self) -> list[RunQueue]:
        """What waits, but is not to be tried again by this process."""
        return [queue for queue in self._queues if queue.set_aside is not None and not queue.empty]

    @property
    def done(self) -> bool:
        """Whether nothing else waits."""
        return all(queue.empty or queue.set_aside is not None for queue in self._queues)

    @property
    def fails(self) -> bool:
        """Whether all that waits has failed again and again."""
        waiting = [queue for queue in self._queues if not queue.empty and queue.set_aside is None]
        return bool(waiting) and all(queue.failures >= _MANY_FAILURES for queue in waiting)

    @property
    def waiting(self) -> int:
        """How many points wait."""
        return sum(queue.waiting for queue in self._queues)

    def by_server(self) -> dict[str, list[RunQueue]]:
        """Returns what it owes, by tracking URI."""
        found: dict[str, list[RunQueue]] = {}
        for queue, uri in self._queues.items():
            found.setdefault(uri, []).append(queue)
        return found

    def yield_slot(self) -> None:
        """Has it done with the next failure, so that others get its place."""
        for queue in self._queues:
            queue.limit_to_one_try()

    def give_up(self, queues: Iterable[RunQueue]) -> int:
        """Gives up what some of its runs are owed, and returns how many points that were."""
        points = 0
        for queue in queues:
            points += queue.give_up()
            if queue.run_journal is not None:
                queue.run_journal.acknowledge(queue.acknowledged)
        if points:
            _logger.info(
                "mlflow-sysmetrics: %d points in %s are given up: in a month no server took them.",
                points,
                self.journal.path,
            )
        return points

    def release(
        self, open_sink: Callable[[str], Sink], known_uris: Iterable[str], most_questions: int | None = None
    ) -> int:
        """Closes the journal, and deletes it if nothing waits in it and none of its runs says RUNNING.

        Args:
            open_sink: makes the sink to ask of a run.
            known_uris: tracking URIs with their credentials.
            most_questions: how many requests that is worth; by default as many as it takes.

        Returns:
            How many it took.
        """
        asked = 0
        # One that owed nothing stays as it is, since its file's time says how long it has been kept.
        wanted = not self.acknowledged or (bool(self._queues) and not self.journal.clear())
        if not wanted and not self.expired:
            for run in self.journal.runs:
                if run.ended:
                    continue
                if most_questions is not None and asked >= most_questions:
                    wanted = True
                    break
                asked += 1
                if not _has_ended(run, open_sink, known_uris):
                    wanted = True
                    break
        if wanted:
            self._put_back_time()
        self.journal.close(delete=not wanted)
        return asked

    def _put_back_time(self) -> None:
        """Has the file's time say when its owner last wrote, which tells how long its runs are silent."""
        with contextlib.suppress(OSError):
            os.utime(self.journal.path, (self._written_at, self._written_at))

    def _queue(self, run: JournaledRun) -> RunQueue:
        return RunQueue.left_behind(
            run,
            _SEND_INTERVAL_SECONDS,
            lambda queue: _OrphanRunJournal(self.journal, run.number, queue, self._progress),
        )


class _OrphanRunJournal(FileRunJournal):
    """One run of an orphan; it tells how the delivery goes on."""

    def __init__(
        self, journal: Journal, number: int, queue: RunQueue, progress: Callable[[int], None]
    ) -> None:
        super().__init__(journal, number)
        self._queue = queue
        self._tell = progress
        self._told = queue.acknowledged

    def acknowledge(self, acknowledged: int) -> None:
        """Says that all points below an index are delivered or given up."""
        super().acknowledge(acknowledged)
        queue = self._queue
        if acknowledged > self._told or queue.empty or queue.set_aside or queue.failures >= _MANY_FAILURES:
            self._tell(acknowledged - self._told)
            self._told = acknowledged


def _has_ended(run: JournaledRun, open_sink: Callable[[str], Sink], known_uris: Iterable[str]) -> bool:
    """Asks the server whether a run is over; one that cannot be asked, or is not known there, may go on."""
    try:
        return open_sink(with_secrets(run.tracking_uri, known_uris)).has_ended(run.run_id)
    except Exception:  # noqa: BLE001
        # A store is made by MLflow or by a plugin, and may raise anything. One that does not know the run may
        # be another one than that which has it.
        return False


def _modified(path: Path) -> float:
    """Returns when a file was written last, in seconds since 1970; now if it is not there any more."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
