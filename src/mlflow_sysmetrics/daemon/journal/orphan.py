"""A journal whose owner died: its queues, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.run_journal import FileRunJournal
from mlflow_sysmetrics.daemon.journal.scan import JournaledRun
from mlflow_sysmetrics.daemon.journal.set_aside import KEPT_SECONDS
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.tracking_uris import with_secrets

_SEND_INTERVAL_SECONDS = 10.0  # only after a failure: a backlog is sent batch after batch
_MANY_FAILURES = 3  # some ten seconds, by which a server that was only busy would have answered

_logger = Log()


class Orphan:
    """Reads the undelivered points of a journal as queues, and acknowledges them in it.

    At most one batch of it is in memory, while that is sent.

    Args:
        journal: claimed.
        progress: called with the number of points delivered or given up since the last call, in a sender's
            thread.

    Attributes:
        journal: the journal.
        aside: where it was set aside when it was released, because it is damaged.
    """

    def __init__(self, journal: Journal, progress: Callable[[int], None]) -> None:
        self.journal = journal
        self._progress = progress
        self.aside: Path | None = None
        self._queues: dict[RunQueue, str] = {}
        self._written_at = _modified(journal.path)
        for run in journal.runs:
            if run.acknowledged < run.appended:
                self._queues[self._queue(run)] = run.tracking_uri

    @property
    def servers(self) -> set[str]:
        """Tracking URIs of its queues, without secrets."""
        return set(self._queues.values())

    @property
    def kept_until(self) -> float:
        """When it expires, in seconds since 1970: a month after the last write."""
        return self._written_at + KEPT_SECONDS

    @property
    def expired(self) -> bool:
        """Whether it has been kept long enough."""
        return time.time() >= self.kept_until

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return all(queue.empty for queue in self._queues)

    @property
    def set_aside(self) -> list[RunQueue]:
        """Queues that this process does not try again."""
        return [queue for queue in self._queues if queue.set_aside is not None and not queue.empty]

    @property
    def done(self) -> bool:
        """Whether nothing waits except for queues that are set aside."""
        return all(queue.empty or queue.set_aside is not None for queue in self._queues)

    @property
    def failing(self) -> bool:
        """Whether all queues that wait have failed repeatedly."""
        waiting = [queue for queue in self._queues if not queue.empty and queue.set_aside is None]
        return bool(waiting) and all(queue.failures >= _MANY_FAILURES for queue in waiting)

    @property
    def waiting(self) -> int:
        """Number of points that wait."""
        return sum(queue.waiting for queue in self._queues)

    def by_server(self) -> dict[str, list[RunQueue]]:
        """Returns its queues by tracking URI."""
        queues: dict[str, list[RunQueue]] = {}
        for queue, uri in self._queues.items():
            queues.setdefault(uri, []).append(queue)
        return queues

    def yield_slot(self) -> None:
        """Marks it to be abandoned at the next failure, freeing its slot."""
        for queue in self._queues:
            queue.limit_to_one_try()

    def give_up(self, queues: Iterable[RunQueue]) -> int:
        """Gives up the points of some queues and returns how many that were."""
        points = 0
        for queue in queues:
            points += queue.give_up()
            if queue.run_journal is not None:
                queue.run_journal.acknowledge(queue.acknowledged)
        if points:
            _logger.info(
                "mlflow-sysmetrics: giving up %d points in %s: no server accepted them within a month.",
                points,
                self.journal.path,
            )
        return points

    def release(
        self, open_sink: Callable[[str], Sink], known_uris: Iterable[str], max_requests: int | None = None
    ) -> int:
        """Closes the journal, and deletes it if nothing waits in it and none of its runs says RUNNING.

        A damaged one is set aside instead: `aside` says where.

        Args:
            open_sink: opens the sink that is asked whether a run has ended.
            known_uris: tracking URIs with their credentials.
            max_requests: maximum number of these requests; by default unlimited.

        Returns:
            The number of requests made.
        """
        request_count = 0
        # A journal without points to deliver is not touched: its modification time says how long it was kept.
        wanted = not self.empty or (bool(self._queues) and not self.journal.clear())
        if not wanted and not self.expired:
            for run in self.journal.runs:
                if run.ended:
                    continue
                if max_requests is not None and request_count >= max_requests:
                    wanted = True
                    break
                request_count += 1
                if not _has_ended(run, open_sink, known_uris):
                    wanted = True
                    break
        if wanted:  # `reap` reads the runs' silence from its owner's last write
            self.journal.restore_time(self._written_at)
        self.aside = self.journal.close(delete=not wanted)
        return request_count

    def _queue(self, run: JournaledRun) -> RunQueue:
        return RunQueue.left_behind(
            run,
            _SEND_INTERVAL_SECONDS,
            lambda queue: _OrphanRunJournal(self.journal, run.number, queue, self._progress),
        )


class _OrphanRunJournal(FileRunJournal):
    """One run of an orphan; reports the progress of its delivery."""

    def __init__(
        self, journal: Journal, number: int, queue: RunQueue, progress: Callable[[int], None]
    ) -> None:
        super().__init__(journal, number)
        self._queue = queue
        self._report = progress
        self._reported = queue.acknowledged

    def acknowledge(self, acknowledged: int) -> None:
        """Records that all points below an index were delivered or given up."""
        super().acknowledge(acknowledged)
        queue = self._queue
        if (
            acknowledged > self._reported
            or queue.empty
            or queue.set_aside
            or queue.failures >= _MANY_FAILURES
        ):
            self._report(acknowledged - self._reported)
            self._reported = acknowledged


def _has_ended(run: JournaledRun, open_sink: Callable[[str], Sink], known_uris: Iterable[str]) -> bool:
    """Asks the server whether a run is over. False if it cannot be asked or does not know the run."""
    try:
        with closing(open_sink(with_secrets(run.tracking_uri, known_uris))) as sink:
            return sink.has_ended(run.run_id)
    except Exception:  # noqa: BLE001
        # A store comes from MLflow or a plugin and may raise anything. One that does not have the run may be
        # another store than the one that has it.
        return False


def _modified(path: Path) -> float:
    """Returns the time of the last write, in seconds since 1970; now if the file no longer exists."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()
