"""The thread that delivers to one tracking server."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable, Sequence

from mlflow_sysmetrics.daemon.delivery.flush import Backlog, Flusher
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Batch, Point, Spilled, read_back
from mlflow_sysmetrics.daemon.delivery.policy import DeliveryCounts, DeliveryPolicy
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.daemon.delivery.sink import Connection, Sink
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.threads import start_thread

_logger = logging.getLogger("mlflow_sysmetrics")


class Sender:
    """Delivers what the queues of one tracking server hold, each at its own interval.

    Nothing that a caller may wait for is done under the lock but counting: a request that hangs holds up
    this thread alone, and so does a disk.

    Args:
        tracking_uri: the server.
        open_sink: makes the sink; called in the sender's thread, again after each failure to make one.
        clock: tells the time.
        jitter: returns a factor around 1 for the pauses of the back-off.
        allowance: bound of the memory of the process; over it the oldest points are dropped.
        journal: of this process, tidied up between two batches.
    """

    def __init__(
        self,
        tracking_uri: str,
        open_sink: Callable[[str], Sink],
        clock: Clock,
        *,
        # A training's seed is its own: nothing is drawn from the numbers that it has seeded.
        jitter: Callable[[], float] = lambda: random.SystemRandom().uniform(0.75, 1.25),
        memory: MemoryBudget | None = None,
        journal: ProcessJournal | None = None,
    ) -> None:
        self._connection = Connection(tracking_uri, open_sink)
        self._clock = clock
        self._memory = memory or MemoryBudget()
        self._journal = journal or ProcessJournal(None, clock)
        self._changed = threading.Condition()
        self._schedule = SendSchedule(jitter)
        self._policy = DeliveryPolicy(self._connection, self._schedule, self._memory)
        self._waiting = Flusher(self._changed, self._schedule, clock)
        self._wakes_at = -math.inf
        self._untidy = False

    def start(self, name: str) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        start_thread(self._run, name)

    def append(
        self,
        queue: RunQueue,
        points: Sequence[Point] = (),
        tags: dict[str, str] | None = None,
        *,
        place: int | None = None,
    ) -> bool:
        """Takes points and tags for delivery within the queue's interval. Never blocks on I/O.

        Args:
            queue: of the run.
            points: points.
            tags: tags.
            place: where the points are on disk; None where they are not.

        Returns:
            Whether the run still takes points. If not, these are given up.
        """
        with self._changed:
            if queue.refused is not None:
                queue.buffer(points)
                self._policy.own.dropped += queue.give_up()
                return False
            self._schedule.add(queue)
            queue.tags.update(tags or {})
            if place is not None and points and (queue.spills or self._memory.is_used_up):
                queue.spill(len(points), place)
            else:
                queue.buffer(points, place)
                self._memory.add(len(points))
            self._policy.own.pending += len(points)
            self._policy.enforce_memory_budget()
            # One that failed has its time already.
            due_at = None if queue.empty or queue.failures else self._schedule.plan(queue, self._now())
            if due_at is not None and due_at < self._wakes_at:
                self._changed.notify_all()
            if not self._untidy and self._journal.is_full:
                self._untidy = True
                self._changed.notify_all()
            return True

    def count_lost(self, queue: RunQueue, count: int) -> None:
        """Counts points of a run that never reached its queue, and has the run say so."""
        with self._changed:
            self._schedule.add(queue)
            queue.count_dropped(count)
            self._policy.own.dropped += count
            if not queue.failures:
                self._schedule.plan(queue, self._now())
            self._changed.notify_all()

    def adopt(self, queue: RunQueue) -> None:
        """Takes over what a process that died had owed. Nobody waits for it, and it is counted apart."""
        with self._changed:
            queue.due_at = self._now()
            self._schedule.add(queue)
            self._policy.replayed.pending += queue.waiting
            self._changed.notify_all()

    def close(self, queue: RunQueue) -> None:
        """Says that nothing more will come, so that the queue is let go when it is empty."""
        with self._changed:
            queue.closed = True
            if queue.empty:
                self._schedule.remove(queue)

    def wake(self) -> None:
        """Has the thread look after the journal."""
        with self._changed:
            self._untidy = True
            self._changed.notify_all()

    def expedite(self, queues: Iterable[RunQueue] | None = None) -> Backlog:
        """Makes what the queues hold due now; by default those of all runs of this process.

        Returns:
            What is owed at this moment, to wait for.
        """
        return self._waiting.expedite(queues)

    def wait(self, backlog: Backlog, ends: float, *, full_timeout: bool = False) -> bool:
        """Waits until a debt is settled, at most until a monotonic time; returns whether it is.

        Args:
            debt: what `hasten` returned.
            ends: that time.
            patient: waits until then even where an outage has used up the program's patience.
        """
        return self._waiting.wait(backlog, ends, full_timeout=full_timeout)

    def counts(self) -> DeliveryCounts:
        """Returns the counts so far of the runs of this process."""
        with self._changed:
            return self._policy.own.freeze(sum(queue.unsaved for queue in self._schedule))

    def counts_of_replayed(self) -> DeliveryCounts:
        """Returns those of what processes that died had left."""
        with self._changed:
            return self._policy.replayed.freeze(0)

    def due_in(self) -> float:
        """Returns in how many seconds something is to be sent; infinity where nothing waits."""
        with self._changed:
            return self._schedule.next_due_at() - self._now()

    def send_next(self) -> bool:
        """Sends one batch if one is due; returns whether one was. The thread does little else."""
        with self._changed:
            queue = self._schedule.next_due(self._now())
            if queue is None:
                return False
            front, tags = queue.first(self._policy.size.most), dict(queue.tags)
            queue.due_at = None  # set again by whatever asks for the next send while this one is under way
            queue.sent_at = self._now()
        batch = Batch([], queue.acknowledged)
        try:
            batch = self._read_back(queue, front) if isinstance(front, Spilled) else front
            batch = batch.shortened(self._policy.size.fitting(batch.points, tags))
            self._connection.send(queue, batch.points, tags)
        except Exception as error:  # noqa: BLE001
            # A server may answer anything, and without this thread every run of it would be lost.
            with self._changed:
                self._policy.failed(queue, batch, tags, error, self._now())
                self._changed.notify_all()
        else:
            with self._changed:
                self._policy.delivered(queue, batch, tags, self._now())
                self._waiting.reset()
                self._changed.notify_all()
        if queue.run_journal is not None:
            queue.run_journal.acknowledge(queue.acknowledged)
        return True

    def log_messages(self) -> None:
        """Logs what has happened. A log handler may block; so it is the thread's, and holds no lock."""
        with self._changed:
            news = self._policy.news()
        for level, message in news:
            _logger.log(level, "%s", message)
        self._journal.log_health()

    def tidy(self) -> None:
        """Has the journal emptied if nothing of this server's waits, or room made in it."""
        with self._changed:
            self._untidy = False
            idle = self._policy.own.pending == 0
        self._journal.tidy(idle=idle)

    def _run(self) -> None:
        while True:
            while self.send_next():
                self.tidy()
                self.log_messages()
            self.tidy()
            self.log_messages()
            with self._changed:
                if (
                    self._schedule.next_due(self._now()) is None
                    and not self._policy.has_news
                    and not self._untidy
                ):
                    self._wakes_at = self._schedule.next_due_at()
                    left = self._wakes_at - self._now()
                    self._changed.wait(None if math.isinf(left) else max(left, 0.0))
                    self._wakes_at = -math.inf

    def _now(self) -> float:
        return self._clock.monotonic()

    def _read_back(self, queue: RunQueue, spilled: Spilled) -> Batch:
        assert queue.run_journal is not None  # noqa: S101 - only what it has taken is spilled
        try:
            return read_back(queue.run_journal, spilled, self._policy.size.most)
        except OSError as error:  # a disk that was unmounted may come back
            raise JournalUnavailable(f"the journal cannot be read: {error.strerror or error}") from error
