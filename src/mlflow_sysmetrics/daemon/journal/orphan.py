"""A journal whose owner died: what it owes, to whom, and what becomes of it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow_sysmetrics.daemon.delivery.run_queue import POINTS_DROPPED, RunQueue
from mlflow_sysmetrics.daemon.delivery.sink import Sink
from mlflow_sysmetrics.daemon.journal.journal import Journal, JournaledRun
from mlflow_sysmetrics.daemon.journal.run_backing import RunBacking
from mlflow_sysmetrics.mlflow_api.tracking_uris import with_secrets

_SEND_INTERVAL_SECONDS = 10.0  # only after a failure: a backlog goes out batch by batch
# A server that is away, or is not the one it was, is put right within a month; a run that still says RUNNING
# after that is nobody's any more.
_KEPT_SECONDS = 30 * 86400

_MANY_FAILURES = 3  # by then, some ten seconds, a server has had its chance to be only busy

_logger = logging.getLogger("mlflow_sysmetrics")


class Orphan:
    """Gives out what a journal owes as outboxes that read from it and acknowledge in it.

    At most one batch of it is in memory at a time, and only while that is sent.

    Args:
        journal: claimed.
        progress: told how many points more are settled, by the thread of a sender.
    """

    def __init__(self, journal: Journal, progress: Callable[[int], None]) -> None:
        self.journal = journal
        self._progress = progress
        self._outboxes: dict[RunQueue, str] = {}
        self._written_at = _modified(journal.path)
        for run in journal.runs:
            if run.settled < run.appended:
                self._outboxes[self._outbox(run)] = run.tracking_uri

    @property
    def servers(self) -> set[str]:
        """Tracking URIs of what it owes, without secrets."""
        return set(self._outboxes.values())

    @property
    def kept_until(self) -> float:
        """Seconds since 1970 from which on it is not kept any more, a month after it was written last."""
        return self._written_at + _KEPT_SECONDS

    @property
    def expired(self) -> bool:
        """Whether it has been kept long enough."""
        return time.time() >= self.kept_until

    @property
    def settled(self) -> bool:
        """Whether nothing waits."""
        return all(outbox.empty for outbox in self._outboxes)

    @property
    def set_aside(self) -> list[RunQueue]:
        """What waits, but is not to be tried again by this process."""
        return [outbox for outbox in self._outboxes if outbox.set_aside is not None and not outbox.empty]

    @property
    def done(self) -> bool:
        """Whether nothing else waits."""
        return all(outbox.empty or outbox.set_aside is not None for outbox in self._outboxes)

    @property
    def fails(self) -> bool:
        """Whether all that waits has failed again and again."""
        waiting = [box for box in self._outboxes if not box.empty and box.set_aside is None]
        return bool(waiting) and all(box.failures >= _MANY_FAILURES for box in waiting)

    @property
    def waiting(self) -> int:
        """How many points wait."""
        return sum(outbox.waiting for outbox in self._outboxes)

    def by_server(self) -> dict[str, list[RunQueue]]:
        """Returns what it owes, by tracking URI."""
        found: dict[str, list[RunQueue]] = {}
        for outbox, uri in self._outboxes.items():
            found.setdefault(uri, []).append(outbox)
        return found

    def give_way(self) -> None:
        """Has it done with the next failure, so that others get its place."""
        for outbox in self._outboxes:
            outbox.last_try = True

    def give_up(self, outboxes: Iterable[RunQueue]) -> int:
        """Gives up what some of its runs are owed, and returns how many points that were."""
        points = 0
        for outbox in outboxes:
            points += outbox.give_up()
            if outbox.backing is not None:
                outbox.backing.acknowledge(outbox.settled)
        if points:
            _logger.info(
                "mlflow-sysmetrics: %d points in %s are given up: in a month no server took them.",
                points,
                self.journal.path,
            )
        return points

    def let_go(
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
        wanted = not self.settled or (bool(self._outboxes) and not self.journal.clear())
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

    def _outbox(self, run: JournaledRun) -> RunQueue:
        outbox = RunQueue(run.run_id, run.started_at, _SEND_INTERVAL_SECONDS, replayed=True)
        outbox.backing = _OrphanRun(self.journal, run.number, outbox, self._progress)
        outbox.appended = outbox.settled = run.settled
        outbox.spill(run.appended - run.settled, 0)
        outbox.closed = True
        # What the journal had thinned is missing in it: it is not to be counted a second time.
        outbox.dropped = outbox.foretold = run.dropped
        if run.dropped:
            outbox.tags[POINTS_DROPPED] = str(run.dropped)
        return outbox


class _OrphanRun(RunBacking):
    """One run of an orphan; it tells how the delivery goes on."""

    def __init__(
        self, journal: Journal, number: int, outbox: RunQueue, progress: Callable[[int], None]
    ) -> None:
        super().__init__(journal, number)
        self._outbox = outbox
        self._tell = progress
        self._told = outbox.settled

    def acknowledge(self, settled: int) -> None:
        """Says that all points below an index are delivered or given up."""
        super().acknowledge(settled)
        box = self._outbox
        if settled > self._told or box.empty or box.set_aside or box.failures >= _MANY_FAILURES:
            self._tell(settled - self._told)
            self._told = settled


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
