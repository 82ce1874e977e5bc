"""What follows from an attempt to deliver: what is settled, tried again, given up, and said."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlflow_sysmetrics.daemon.delivery.limits import BatchSize, MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Batch
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.daemon.delivery.sink import Connection
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Counts of one sender, since it began.

    Attributes:
        delivered: points that the server took.
        pending: points that wait.
        unsaved: how many of them are in memory only.
        dropped: points that were given up: refused by the server, or too many for memory or disk.
        last_error: why the last attempt failed, None when it did not.
    """

    delivered: int
    pending: int
    unsaved: int
    dropped: int
    last_error: str | None


@dataclass(slots=True)
class Counters:
    """Counts of one sender, while they grow.

    Attributes:
        delivered: as in `DeliveryCounts`.
        pending: as there.
        dropped: as there.
        last_error: as there.
    """

    delivered: int = 0
    pending: int = 0
    dropped: int = 0
    last_error: str | None = None

    def remove(self, gone: int, lost: int) -> None:
        """Takes note of points that wait no more, and how many of them will not reach the server."""
        self.delivered += gone - lost
        self.dropped += lost
        self.pending -= gone

    def freeze(self, unsaved: int) -> DeliveryCounts:
        """Returns the counts so far."""
        return DeliveryCounts(self.delivered, self.pending, unsaved, self.dropped, self.last_error)


_REMEDY = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class DeliveryPolicy:
    """Keeps queues, turns and counts of one server true. Only the sender calls it, under its lock.

    Args:
        server: where the attempts go.
        turns: the queues.
        allowance: of the memory of the process.

    Attributes:
        own: counts of the runs of this process.
        replayed: counts of what processes that died had left.
        size: how many points the server takes at once.
    """

    def __init__(self, server: Connection, schedule: SendSchedule, memory: MemoryBudget) -> None:
        self.own = Counters()
        self.replayed = Counters()
        self.size = BatchSize()
        self._server = server
        self._schedule = schedule
        self._memory = memory
        self._messages: list[tuple[int, str]] = []

    def messages(self) -> list[tuple[int, str]]:
        """Returns what is to be logged, with its level, each once; the thread does so without the lock."""
        messages, self._messages = self._messages, []
        return messages

    def counters(self, queue: RunQueue) -> Counters:
        """Returns the counts that a queue belongs to."""
        return self.replayed if queue.replayed else self.own

    @property
    def has_messages(self) -> bool:
        """Whether something is to be logged."""
        return bool(self._messages)

    def delivered(self, queue: RunQueue, batch: Batch, tags: dict[str, str], now: float) -> None:
        """Takes note of what the server took."""
        self.size.taken(len(batch.points))
        if queue.failures:
            self._say(queue, logging.INFO, f"{self._server} takes points of run {queue.run_id} again.")
        buffered = queue.buffered
        self._count(queue, buffered, *queue.accept(batch, tags))
        self._schedule.answered()
        self.counters(queue).last_error = None
        self._go_on(queue, now, more=len(batch.points) >= self.size.most)

    def failed(
        self, queue: RunQueue, batch: Batch, tags: dict[str, str], error: Exception, now: float
    ) -> None:
        """Decides what becomes of what the server did not take."""
        reason = self._server.reason(error)
        fault = error if isinstance(error, Fault) else None
        if fault is not None and fault.cause is Cause.TOO_LARGE:
            self._halve(queue, batch, tags, reason)
            self._go_on(queue, now, more=True)
        elif fault is not None and fault.refuses_run:
            queue.refuse(reason)
            # Another store at the same address, or a mistake of its owner, must not cost what lies on disk.
            if queue.replayed and not fault.run_is_deleted:
                self._set_aside(queue, reason)
            else:
                self._give_up(queue, reason)
        elif queue.replayed and (queue.last_try or (fault is not None and fault.refuses_credentials)):
            self._set_aside(queue, reason)
        else:
            self._back_off(queue, error, reason, now)

    def enforce_memory_budget(self) -> None:
        """Lets go of points while memory holds too many: first of those that are on disk, too."""
        if self._memory.excess:
            for queue in self._schedule:
                buffered = queue.buffered
                queue.spill()
                self._memory.add(queue.buffered - buffered)
        while self._memory.excess:
            fullest = max(self._schedule, key=lambda queue: queue.unsaved)
            if not fullest.unsaved:  # it is another server's points that fill the memory
                return
            dropped = fullest.drop_oldest(self._memory.excess)
            if self.own.dropped == 0:
                message = f"{self._server} has been away for too long: dropping the oldest system metrics."
                self._say(fullest, logging.WARNING, message)
            self._memory.add(-dropped)
            self.own.remove(dropped, dropped)

    def _count(self, queue: RunQueue, buffered: int, gone: int, lost: int) -> None:
        """Counts points that left a queue which had `buffered` of its points in memory."""
        self._memory.add(queue.buffered - buffered)
        self.counters(queue).remove(gone, lost)

    def _go_on(self, queue: RunQueue, now: float, *, more: bool) -> None:
        queue.resume(now, more=more)
        self._schedule.rotate(queue)

    def _halve(self, queue: RunQueue, batch: Batch, tags: dict[str, str], reason: str) -> None:
        """Has fewer points sent at once; what is too large by itself is given up."""
        if len(batch.points) > 1:
            self.size.refused(len(batch.points))
        elif tags:
            queue.discard_tags(tags)
            message = f"Run {queue.run_id} does not take the tags {sorted(tags)}: {reason}."
            self._say(queue, logging.WARNING, message)
        else:
            self.size.reset()
            buffered = queue.buffered
            self._count(queue, buffered, *queue.discard(batch))
            if queue.dropped == len(batch.points):
                key = batch.points[0].key
                self._say(queue, logging.WARNING, f"Run {queue.run_id} does not take {key}: {reason}.")

    def _back_off(self, queue: RunQueue, error: Exception, reason: str, now: float) -> None:
        counters = self.counters(queue)
        if counters.last_error is None and not queue.failures:
            remedy = f"; {_REMEDY}" if isinstance(error, Fault) and error.refuses_credentials else ""
            message = f"{self._server} does not take system metrics ({reason}); keeping them and trying again"
            if isinstance(error, JournalUnavailable):
                message = f"System metrics of run {queue.run_id} wait on disk, and {reason}; trying again"
            self._say(queue, logging.WARNING, f"{message}{remedy}.")
        counters.last_error = reason
        self._schedule.back_off(queue, now, error)

    def _set_aside(self, queue: RunQueue, reason: str) -> None:
        """Leaves what a process that died had owed where it lies, for another process to try."""
        queue.put_aside(reason)
        self.replayed.last_error = reason
        self.replayed.pending -= queue.waiting
        self._schedule.remove(queue)
        if not queue.failures:  # else it is said already
            message = f"{self._server} does not take what run {queue.run_id} is owed ({reason}); keeping it."
            self._say(queue, logging.INFO, message)

    def _give_up(self, queue: RunQueue, reason: str) -> None:
        buffered, lost = queue.buffered, queue.give_up()
        self._memory.add(-buffered)
        self.counters(queue).remove(lost, lost)
        self._schedule.remove(queue)
        message = f"Run {queue.run_id} takes no system metrics any more: {reason}."
        self._say(queue, logging.WARNING, message)

    def _say(self, queue: RunQueue, level: int, message: str) -> None:
        """Has something logged; what processes that died had left is no trouble of this program."""
        level = min(level, logging.INFO) if queue.replayed else level
        self._messages.append((level, f"mlflow-sysmetrics: {message}"))
