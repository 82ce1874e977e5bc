"""What follows from an attempt to deliver: points are settled, retried or given up, and it is logged."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_sysmetrics.daemon.delivery.limits import BatchSize, MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Batch
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.schedule import SendSchedule
from mlflow_sysmetrics.daemon.delivery.sink import BatchRefused, Connection
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.faults import Fault

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.delivery.bisection import Bisection


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Counts of one sender since its start.

    Attributes:
        delivered: points that the server accepted.
        pending: points that wait for delivery.
        unsaved: how many of these are in memory only.
        dropped: points that were given up: refused by the server, or too many for memory or disk.
        last_error: why the last attempt failed; None if it succeeded.
    """

    delivered: int
    pending: int
    unsaved: int
    dropped: int
    last_error: str | None


@dataclass(slots=True)
class Counters:
    """Counts of one sender while they change.

    Attributes:
        delivered: as in `DeliveryCounts`.
        pending: as in `DeliveryCounts`.
        dropped: as in `DeliveryCounts`.
        last_error: as in `DeliveryCounts`.
    """

    delivered: int = 0
    pending: int = 0
    dropped: int = 0
    last_error: str | None = None

    def remove(self, gone: int, lost: int) -> None:
        """Counts points that have left a queue; `lost` of them will never reach the server."""
        self.delivered += gone - lost
        self.dropped += lost
        self.pending -= gone

    def freeze(self, unsaved: int) -> DeliveryCounts:
        """Returns a snapshot of the counts."""
        return DeliveryCounts(self.delivered, self.pending, unsaved, self.dropped, self.last_error)


# A run that takes no point at all, although it takes an empty batch, costs this many requests.
_MOST_REFUSALS_IN_A_ROW = 1000
# Looking through all queues for what to drop takes milliseconds if thousands of runs have just ended.
_ENFORCE_SECONDS = 1.0


class DeliveryPolicy:
    """Updates the queues, schedule and counts of one server after each attempt, and collects log messages.

    Used by the sender only, under its lock.

    Args:
        server: where the attempts go.
        schedule: the queues.
        memory: the memory budget of the process.

    Attributes:
        own: counts for the runs of this process.
        replayed: counts for points that processes that died left behind.
        size: how many points the server takes in one request.
    """

    def __init__(self, server: Connection, schedule: SendSchedule, memory: MemoryBudget) -> None:
        self.own = Counters()
        self.replayed = Counters()
        self.size = BatchSize()
        self._server = server
        self._schedule = schedule
        self._memory = memory
        self._messages: list[tuple[int, str]] = []
        self._enforce_at = -math.inf

    def messages(self) -> list[tuple[int, str]]:
        """Returns new messages with their log levels, once; the thread logs them without the lock."""
        messages, self._messages = self._messages, []
        return messages

    def counters(self, queue: RunQueue) -> Counters:
        """Returns the counts that a queue belongs to."""
        return self.replayed if queue.replayed else self.own

    @property
    def has_messages(self) -> bool:
        """Whether log messages are pending."""
        return bool(self._messages)

    def delivered(self, queue: RunQueue, batch: Batch, tags: dict[str, str], now: float) -> None:
        """Settles points and tags that the server accepted."""
        if queue.bisection is not None and queue.bisection.control:
            self._control_accepted(queue, queue.bisection, batch, now)
            return
        self.size.taken(len(batch.points))
        if queue.failures and queue.bisection is None:
            self._log(queue, logging.INFO, f"{self._server} accepts points of run {queue.run_id} again.")
        more = len(batch.points) >= queue.most_at_once(self.size.most)
        buffered = queue.buffered
        self._count(queue, buffered, *queue.accept(batch, tags))
        self._schedule.answered()
        self.counters(queue).last_error = None
        self._plan_next(queue, now, more=more or queue.bisection is not None)

    def failed(
        self, queue: RunQueue, batch: Batch, tags: dict[str, str], error: Exception, now: float
    ) -> None:
        """Decides what to do with points and tags that the server did not accept."""
        reason = self._server.reason(error)
        fault = error if isinstance(error, Fault) else None
        if isinstance(error, BatchRefused) and queue.refusals_in_a_row < _MOST_REFUSALS_IN_A_ROW:
            self._isolate(queue, batch, tags, reason)
            self._plan_next(queue, now, more=True)
        elif fault is not None and fault.is_about_size and len(batch.points) + len(tags) > 1:
            self._halve(queue, batch, tags)
            self._plan_next(queue, now, more=True)
        elif fault is not None and fault.is_about_size and tags:
            self._refuse_tags(queue, tags, reason)
            self._plan_next(queue, now, more=True)
        elif isinstance(error, BatchRefused) or (fault is not None and fault.refuses_run):
            queue.refuse(reason)
            # Another store at the same address, or a mistake by its owner, must not cost the points on disk.
            if queue.replayed and not (fault is not None and fault.run_is_deleted):
                self._set_aside(queue, reason)
            else:
                self._give_up(queue, reason)
        elif queue.replayed and (queue.last_try or (fault is not None and fault.refuses_credentials)):
            self._set_aside(queue, reason)
        else:
            self._back_off(queue, error, reason, now)
            if not isinstance(error, JournalUnavailable) and (fault is None or fault.may_concern_content):
                self._suspect(queue, batch, tags, reason)

    def enforce_memory_budget(self, now: float) -> None:
        """Removes points while memory holds too many: first those that are also on disk, then the oldest.

        A server that takes points gets time: on a busy machine they may arrive faster than our threads can
        write and send them, and neither the server nor the disk is at fault.
        """
        is_failing = self._schedule.is_failing
        excess = self._memory.excess(failing=is_failing)
        if not excess or (now < self._enforce_at and excess < self._memory.margin):
            return
        self._enforce_at = now + _ENFORCE_SECONDS
        for queue in self._schedule:
            buffered = queue.buffered
            queue.spill()
            self._memory.add(queue.buffered - buffered)
        excess = self._memory.hard_excess(failing=is_failing)
        while excess > 0:
            fullest = max(self._schedule, key=lambda queue: queue.unsaved)
            if not fullest.unsaved:  # the memory is full of other servers' points
                return
            dropped = fullest.drop_oldest(excess)
            excess -= dropped
            if self.own.dropped == 0:
                reason = "has been down for too long" if is_failing else "does not take points fast enough"
                message = f"{self._server} {reason}: dropping the oldest system metrics."
                self._log(fullest, logging.WARNING, message)
            self._memory.add(-dropped)
            self.own.remove(dropped, dropped)

    def _count(self, queue: RunQueue, buffered: int, gone: int, lost: int) -> None:
        """Counts points that left a queue, which had `buffered` points in memory before."""
        self._memory.add(queue.buffered - buffered)
        self.counters(queue).remove(gone, lost)

    def _plan_next(self, queue: RunQueue, now: float, *, more: bool) -> None:
        queue.resume(now, more=more)
        self._schedule.rotate(queue)

    def _halve(self, queue: RunQueue, batch: Batch, tags: dict[str, str]) -> None:
        """Makes the batches smaller."""
        if len(batch.points) > 1:
            self.size.refused(len(batch.points))
        else:
            queue.divide(batch, tags)

    def _isolate(self, queue: RunQueue, batch: Batch, tags: dict[str, str], reason: str) -> None:
        """Searches for what is invalid in a batch; gives up a point or a tag that is refused by itself."""
        if len(batch.points) + len(tags) > 1:
            queue.divide(batch, tags)
        elif tags:
            self._refuse_tags(queue, tags, reason)
        else:
            self._refuse_point(queue, batch, reason)

    def _suspect(self, queue: RunQueue, batch: Batch, tags: dict[str, str], reason: str) -> None:
        """Searches for a point that may be the reason why a batch fails, from the second failure on."""
        bisection = queue.bisection
        if bisection is not None and bisection.control:
            bisection.control_failed(exists=bool(batch.points))
        elif len(batch.points) + len(tags) > 1:
            if queue.failures > 1 or bisection is not None:
                queue.divide(batch, tags)
        elif batch.points:
            queue.divide(batch, tags)
            others = queue.waiting - 1
            if queue.bisection is not None and others > 0:
                queue.bisection.try_control(batch, reason, others)

    def _control_accepted(self, queue: RunQueue, search: Bisection, batch: Batch, now: float) -> None:
        """Gives up a point that failed repeatedly, while another one was accepted each time."""
        if batch.points:
            queue.answered()
            self._schedule.answered()
            if search.control_accepted() and search.suspect is not None:
                self._refuse_point(queue, search.suspect, search.reason)
        else:
            search.control_failed(exists=False)
        self._plan_next(queue, now, more=True)

    def _refuse_point(self, queue: RunQueue, batch: Batch, reason: str) -> None:
        if self.size.most == 1:  # it was the point, not the number of points
            self.size.reset()
        buffered = queue.buffered
        self._count(queue, buffered, *queue.discard(batch, reason))
        if queue.refusals == 1:
            message = (
                f"Run {queue.run_id} does not accept {batch.points[0].key}: {reason}. "
                "Refused points are dropped and counted, all others are delivered."
            )
            self._log(queue, logging.WARNING, message)

    def _refuse_tags(self, queue: RunQueue, tags: dict[str, str], reason: str) -> None:
        queue.discard_tags(tags)
        message = f"Run {queue.run_id} does not accept the tags {sorted(tags)}: {reason}."
        self._log(queue, logging.WARNING, message)

    def _back_off(self, queue: RunQueue, error: Exception, reason: str, now: float) -> None:
        counters = self.counters(queue)
        if counters.last_error is None and not queue.failures and not queue.refusals and not queue.bisection:
            remedy = _remedy(error)
            message = f"{self._server} does not accept system metrics ({reason}); keeping them and retrying"
            if isinstance(error, JournalUnavailable):
                message = f"System metrics of run {queue.run_id} wait on disk, and {reason}; retrying"
            self._log(queue, logging.WARNING, f"{message}{remedy}.")
        counters.last_error = reason
        self._schedule.back_off(queue, now, error)

    def _set_aside(self, queue: RunQueue, reason: str) -> None:
        """Leaves the points of a process that died on disk, for another process to try."""
        queue.put_aside(reason)
        self.replayed.last_error = reason
        self.replayed.pending -= queue.waiting
        self._schedule.remove(queue)
        if not queue.failures:  # otherwise it was logged at the first failure
            message = f"{self._server} does not accept points of run {queue.run_id} ({reason}); keeping them."
            self._log(queue, logging.INFO, message)

    def _give_up(self, queue: RunQueue, reason: str) -> None:
        buffered, lost = queue.buffered, queue.give_up()
        self._memory.add(-buffered)
        self.counters(queue).remove(lost, lost)
        self._schedule.remove(queue)
        message = f"Run {queue.run_id} no longer accepts system metrics: {reason}."
        self._log(queue, logging.WARNING, message)

    def _log(self, queue: RunQueue, level: int, message: str) -> None:
        """Queues a message; points of processes that died do not concern this program: at most INFO."""
        level = min(level, logging.INFO) if queue.replayed else level
        self._messages.append((level, f"mlflow-sysmetrics: {message}"))


def _remedy(error: Exception) -> str:
    if isinstance(error, Fault) and error.refuses_credentials:
        return "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if isinstance(error, Fault) and error.is_about_size:
        return "; if a proxy limits the size of requests, raise its limit (nginx: client_max_body_size)"
    return ""
